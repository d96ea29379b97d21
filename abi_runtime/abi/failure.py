"""How a task's failure travels, and what ``get`` raises for it.

In the worker: ``failure_of`` writes a failure down in words, and adds the exception itself if that demonstrably
loads again. Pickle calls a class with the exception's ``args``, which fails, at load, for an ``__init__`` that takes
others; so where a class leaves pickling to Python, its ``args`` and attributes travel without that call.

In the program: ``error_of`` makes an exception that is both TaskError and the user's type, so either ``except`` clause
catches it.
"""

from __future__ import annotations

import os
import pickle
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

import abi
from abi import errors, ids
from abi.wire.codec import decode_failure, encode_failure
from abi.wire.schema import End, EndKind, Failure

if TYPE_CHECKING:
    import traceback

TEXT_CHARACTERS_MAX: Final = 64 * 1024
"""An exception's text and traceback are cut here each: an error shall not be larger than a result."""
PICKLED_BYTES_MAX: Final = 1024 * 1024
"""A larger exception arrives as text."""
BEGIN_ANEW: Final = "abi.init() begins a new session; unfinished work has to be submitted again"
"""The hint of every SessionLost that tells of a session's end: true whatever ended it."""

_OWN_FOLDERS: Final = (os.path.dirname(abi.__file__) + os.sep, os.sep + "abi_worker" + os.sep)
_LONE: Final[dict[int, tuple[type[errors.TaskError], str]]] = {
    EndKind.CRASHED: (errors.WorkerCrashedError, "its worker died"),
    EndKind.CANCELLED: (errors.TaskCancelledError, "it was cancelled"),
    EndKind.TIMED_OUT: (errors.TaskTimedOut, "it ran longer than its timeout"),
    EndKind.LOST: (errors.TaskLostError, "it had started, was lost, and may not start again (max_retries=0)"),
    EndKind.RELEASED: (errors.TaskError, "nobody held its result any more, so it was dropped"),
}


# --- in the worker ----------------------------------------------------------------------------------------------------


def failure_of(exception: BaseException, host: str = "", task_name: str = "", notes: Iterable[str] = ()) -> Failure:
    """``exception`` in words, and pickled if it loads again. Never raises because of it."""
    original = getattr(exception, "__abi_original__", exception)
    pickled, problem = _proven_pickle(original)
    if problem:
        notes = [*notes, f"{type(original).__name__} itself did not come along: {problem}"]
    return Failure(
        type_name=type_name(type(original)),
        text=_cut(_text_of(original)),
        traceback=_cut(remote_traceback(exception)),
        pickled=pickled,
        host=host,
        task_name=task_name,
        notes=list(notes),
    )


def type_name(kind: type[BaseException]) -> str:
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def remote_traceback(exception: BaseException) -> str:
    """As Python prints it, causes and groups included, without the frames that run tasks."""
    import traceback

    try:
        told = traceback.TracebackException.from_exception(exception, compact=True)
        _strip(told, set())
        return "".join(told.format())
    except Exception as problem:  # a __str__ or source loader of the user's that raises
        return f"{type(exception).__name__} (its traceback cannot be formatted: {type(problem).__name__})\n"


def _strip(told: traceback.TracebackException, seen: set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack[:] = [frame for frame in told.stack if not _is_own(frame.filename)]
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _strip(other, seen)


def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN_FOLDERS[0]) or _OWN_FOLDERS[1] in filename


def _proven_pickle(exception: BaseException) -> tuple[bytes | None, str]:
    """Bytes that load again, or why there are none."""
    from abi.pickling import stream_of

    problem = ""
    for form in (exception, _Parts(exception)):
        try:
            pickled = stream_of(form)
            if len(pickled) > PICKLED_BYTES_MAX:
                return None, f"its pickle has {len(pickled)} bytes, and {PICKLED_BYTES_MAX} may travel"
            if type(pickle.loads(pickled)).__name__ == type(exception).__name__:
                return pickled, ""
            problem = problem or "its pickle loads as something else"
        except Exception as error:
            problem = problem or _cut(f"it does not pickle and load again ({type(error).__name__}: {_text_of(error)})")
        if not _leaves_pickling_to_python(exception):
            break
    return None, problem


def _leaves_pickling_to_python(exception: BaseException) -> bool:
    kind = type(exception)
    return (
        kind.__reduce__ in (BaseException.__reduce__, OSError.__reduce__)
        and kind.__reduce_ex__ is BaseException.__reduce_ex__
    )


class _Parts:
    """An exception by its class, ``args`` and attributes."""

    def __init__(self, exception: BaseException) -> None:
        self._exception = exception

    def __reduce__(self) -> Any:
        args = self._exception.__reduce__()[1]  # OSError's are more than ``args``
        return _of_parts, (type(self._exception), args, dict(vars(self._exception)))


def _of_parts(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Made without the ``__init__`` of its class, by that of Python's own class below it."""
    built_in: Any = _built_in(kind)
    exception: BaseException = built_in.__new__(kind, *args)
    built_in.__init__(exception, *args)
    exception.__dict__.update(state)
    return exception


def _built_in(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:
        return f"<{type(exception).__name__} whose text cannot be made>"


def _cut(text: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX:
        half = TEXT_CHARACTERS_MAX // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates do not travel


# --- in the program ---------------------------------------------------------------------------------------------------


def error_of(end: End, prefix: bytes, name: str = "") -> errors.AbiError:
    """The exception for an end other than OK. Loads the task's own exception: its user's code."""
    failure = _failure_in(end)
    task_id = ids.short(ids.task_id(prefix, end.seq))
    name = failure.task_name or name
    said_name = f"task {name}" if name else "task"
    name = name or "task"
    if end.kind == EndKind.REFUSED:
        return _refused(failure, name, task_id)
    said: dict[str, Any] = {
        "task_id": task_id,
        "task_name": name,
        "host": failure.host,
        "attempt": end.attempt,
        "remote_traceback": failure.traceback,
    }
    if end.kind == EndKind.ERROR:
        error = _user_error(failure, said)
    else:
        kind, words = _LONE.get(end.kind, (errors.TaskError, "it has no result"))
        error = kind(f"{name} ({task_id}): {failure.text or words}{_last_words(failure)}", **said)
    where = f" on {failure.host}" if failure.host else ""
    for note in [*failure.notes, f"in {said_name} ({task_id}){where}, attempt {end.attempt}"]:
        BaseException.add_note(error, note)  # the user's class may have an ``add_note`` of its own
    return error


def lost(seq: int, why: str) -> End:
    """The end of a task whose daemon will not come back."""
    return End(seq, EndKind.REFUSED, encode_failure(Failure("SessionLost", why)), 0)


def _failure_in(end: End) -> Failure:
    if not end.payload:
        return Failure("", "")
    try:
        return decode_failure(bytes(end.payload))
    except errors.ProtocolError as problem:
        return Failure("", problem.message)


def _refused(failure: Failure, name: str, task_id: str) -> errors.AbiError:
    text = failure.text or "the daemon refused it"
    if failure.type_name == "SessionLost":
        return errors.SessionLost(text, hint=BEGIN_ANEW)
    if failure.type_name in ("QueueFull", "QueueFullError", "busy"):
        return errors.QueueFullError(f"{name} ({task_id}): {text}", retry_after_ms=failure.retry_after_ms)
    return errors.Refused(f"{name} ({task_id}): {text}")


def _last_words(failure: Failure) -> str:
    if not failure.stderr.strip():
        return ""
    lines = "\n".join("    " + line for line in failure.stderr.rstrip().splitlines())
    return f"\n  last lines of its standard error:\n{lines}"


def _user_error(failure: Failure, said: dict[str, Any]) -> errors.TaskError:
    cause = _load(failure.pickled)
    kind = errors.TaskError if cause is None else combined(type(cause))
    if kind is errors.TaskError:
        return _Plain(f"{failure.type_name}: {failure.text}", cause=cause, **said)
    return _made_like(kind, cause, failure.text, said)


def _load(pickled: bytes | None) -> BaseException | None:
    if pickled is None:
        return None
    try:
        loaded = pickle.loads(pickled)
    except Exception:  # its module is not importable here, say: the text has arrived all the same
        return None
    return loaded if isinstance(loaded, BaseException) else None


class _WithTraceback:
    """What the user's exception says, and under it where it happened."""

    __abi_told__: tuple[str, str, BaseException | None]
    """Message, traceback and cause once more: their own names may stand for something of the user's."""

    def __str__(self) -> str:
        message, remote_traceback, _cause = self.__abi_told__
        if not remote_traceback:
            return message
        return f"{message}\n\nin the worker:\n{remote_traceback.rstrip()}"


class _Plain(_WithTraceback, errors.TaskError):
    """A TaskError whose user's exception could not come along."""

    def __init__(self, message: str, **said: Any) -> None:
        super().__init__(message, **said)
        self.__abi_told__ = (message, self.remote_traceback, None)

    def __reduce__(self) -> Any:
        return _plain_again, (self.message, dict(self.__dict__))


_Plain.__name__ = _Plain.__qualname__ = "TaskError"
_Plain.__module__ = "abi.errors"


def _plain_again(message: str, state: dict[str, Any]) -> errors.TaskError:
    error = _Plain(message)
    error.__dict__.update(state)
    return error


def combined(kind: type[BaseException]) -> type[errors.TaskError]:
    """A class that is both TaskError and ``kind``; TaskError itself where Python or ``kind`` does not allow it.

    An exit or interrupt is not combined: a task's ``sys.exit`` shall not end the program that asks for its result.
    """
    made = _combined.get(kind)
    if made is None:
        made = _combined[kind] = _combine(kind)
    return made


_combined: weakref.WeakKeyDictionary[type[BaseException], type[errors.TaskError]] = weakref.WeakKeyDictionary()


def _combine(kind: type[BaseException]) -> type[errors.TaskError]:
    if not issubclass(kind, Exception):
        return errors.TaskError
    # The user's class comes first: what it defines is what its `except` clauses count on.
    bases: tuple[type, ...] = (kind, errors.TaskError)
    if issubclass(kind, errors.TaskError) or issubclass(errors.TaskError, kind):
        bases = (kind if issubclass(kind, errors.TaskError) else errors.TaskError,)
    members: dict[str, Any] = {"__str__": _WithTraceback.__str__, "__reduce__": _reduce, "__module__": "abi.errors"}
    members["__init__"] = _init_of(kind)
    members["__abi_original__"] = property(lambda error: error.__abi_told__[2])
    try:
        made = cast(
            "type[errors.TaskError]", type(f"TaskError({kind.__qualname__})", (_WithTraceback, *bases), members)
        )
        _bare(made, ExceptionGroup("", [ValueError()]) if issubclass(kind, ExceptionGroup) else None)
    except Exception:  # layouts that do not combine, metaclasses and __init_subclass__ that refuse
        return errors.TaskError
    return made


def _init_of(kind: type[BaseException]) -> Callable[..., None]:
    """In Python, whatever ``kind`` has: OSError takes errno and the like from its ``__init__``, where ``_made_like``
    gives them, only for classes with one that is not its own."""

    def init(self: BaseException, *args: Any, **words: Any) -> None:
        kind.__init__(self, *args, **words)

    return init


def _bare(kind: type[errors.TaskError], cause: BaseException | None) -> errors.TaskError:
    """An instance that nobody's ``__init__`` has seen; a group gets what is in the cause, as it cannot be without."""
    if isinstance(cause, BaseExceptionGroup):
        return BaseExceptionGroup.__new__(kind, cause.message, cause.exceptions)  # type: ignore[type-var]
    try:
        return kind.__new__(kind)
    except TypeError:  # MemoryError's is only for itself
        return BaseException.__new__(kind)


def _made_like(
    kind: type[errors.TaskError], cause: BaseException | None, message: str, said: dict[str, Any]
) -> errors.TaskError:
    """An instance with the cause's own attributes, without calling the user's ``__init__``."""
    assert cause is not None
    error = _bare(kind, cause)
    built_in: Any = _built_in(type(cause))
    try:  # errno, filename and the like live outside of __dict__
        built_in.__init__(error, *cause.__reduce__()[1])
    except Exception:
        built_in.__init__(error)
    for name, value in vars(cause).items():
        if name != "__notes__":
            error.__dict__[name] = value
    for note in getattr(cause, "__notes__", ()):
        BaseException.add_note(error, note)
    BaseException.args.__set__(error, cause.args)  # type: ignore[attr-defined]
    for name, value in {"message": message, "hint": "", "cause": cause, **said}.items():
        if not _is_users(name, cause):
            error.__dict__[name] = value
    error.__dict__["__abi_told__"] = (message, said["remote_traceback"], cause)
    return error


def _is_users(name: str, cause: BaseException) -> bool:
    """Whether the user's exception has an attribute of this name, which is then the one to be seen."""
    for base in type(cause).__mro__:
        if base.__module__ not in ("builtins", "abi.errors") and name in vars(base):
            return True
    return name in vars(cause) and not isinstance(cause, errors.AbiError)


def _reduce(error: errors.TaskError) -> Any:
    state = dict(vars(error))
    message, remote_traceback, cause = state.pop("__abi_told__")
    if state.get("cause") is cause:
        del state["cause"]
    assert cause is not None
    form = _Parts(cause) if _leaves_pickling_to_python(cause) else cause  # it came so, or could have
    return _again, (form, message, remote_traceback, state)


def _again(cause: BaseException, message: str, remote_traceback: str, state: dict[str, Any]) -> errors.TaskError:
    kind = combined(type(cause))
    if kind is errors.TaskError:
        told = {"__abi_told__": (message, remote_traceback, None)}
        return _plain_again(message, {"cause": cause, **state, **told})
    error = _made_like(kind, cause, message, {"remote_traceback": remote_traceback})
    error.__dict__.update(state)
    return error
