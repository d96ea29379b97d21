"""Why something does not pickle: which part of it, told as a path. Slow and careful; runs only after a failure.

The pickler's own error names a type and nothing else. So the object is taken apart, and the first part that does not
pickle by itself is followed, until none of the parts of a part is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from types import FunctionType, MethodType
from typing import Any, Final

TRIALS_MAX: Final = 400
"""Pickled parts in all: a million-item list with a lock at its end is told as `somewhere in it`, not searched for
ever."""
DEPTH_MAX: Final = 20


def argument_names(function: Callable[..., Any] | None, count: int) -> list[str]:
    """Names for the first ``count`` positional arguments: `'cfg'` where the signature has one, else their number."""
    code = getattr(function, "__code__", None)
    known: tuple[str, ...] = code.co_varnames[: code.co_argcount] if code is not None else ()
    return [f"'{known[at]}'" if at < len(known) else str(at + 1) for at in range(count)]


def does_not_pickle(value: Any) -> Exception | None:
    """The error, or None if it pickles."""
    from abi.pickling import stream_of

    try:
        stream_of(value)
    except RecursionError:
        return RecursionError("it is nested too deeply")
    except Exception as error:
        return error
    return None


def explain(what: str, value: Any, error: Exception) -> str:
    """One sentence: `argument 'cfg' → ['model'] → .lock: cannot pickle '_thread.lock' object`."""
    path = [what]
    trials = TRIALS_MAX
    seen: set[int] = set()
    while len(path) < DEPTH_MAX and id(value) not in seen:
        seen.add(id(value))
        for step, part in islice(_parts(value), trials):
            trials -= 1
            if id(part) in seen:
                continue
            problem = does_not_pickle(part)
            if problem is not None:
                path.append(step)
                value, error = part, problem
                break
        else:
            break
    return f"{' → '.join(path)}: {_reason(error)}"


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, (TypeError, RecursionError)) else f"{type(error).__name__}: {text}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"key {key!r:.60}", key
            yield f"[{key!r:.60}]", part
    elif isinstance(value, (list, tuple)):
        for at, part in enumerate(value):
            yield f"[{at}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield f"element {part!r:.60}", part
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, type):
        for name, part in vars(value).items():
            if not name.startswith("__") or isinstance(part, FunctionType):
                yield f".{name}", part
    inner = getattr(value, "__abi_function__", None)
    if inner is not None and not isinstance(value, type):
        yield "its function", inner
    elif not isinstance(value, (type, FunctionType)):
        yield from _attributes(value)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"its variable '{name}'", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield f"the global '{name}'", function.__globals__[name]
    for at, part in enumerate(function.__defaults__ or ()):
        yield f"default {at + 1}", part
    for name, part in (function.__kwdefaults__ or {}).items():
        yield f"default of '{name}'", part


def _global_names(code: Any) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            yield from _global_names(constant)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    for name, part in getattr(value, "__dict__", {}).items():
        yield f".{name}", part
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield f".{name}", getattr(value, name)
