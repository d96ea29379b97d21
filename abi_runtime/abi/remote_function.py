"""``@abi.remote``: a function whose calls run elsewhere.

``remote`` below is the hot path: of a call without arguments it is all that happens, a microsecond long. Declaring is
light: what calls need is loaded by ``_bind``, at the first of them, while a private daemon starts.

Types: calls are checked against the function's own parameters (ParamSpec: names, defaults, keywords). Where a reference
stands in for a value, overloads by arity take over, up to eight positional parameters, each ``T | Ref[T]``. With
another ``num_returns`` than 1 a call returns a list of references, or nothing, and checkers see ``_Several``; the
overloads with a literal overlap the one with ``int``, which is for numbers that are not known before the program runs.
What Python's type system cannot say is in README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypedDict, TypeVar, overload

from abi.errors import Refused
from abi.task_options import check, encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, Self, Unpack

    from abi.pickling import dumps_arguments
    from abi.ref import PartRef, Ref
    from abi.session import Session
    from abi.wire.schema import Task

P = ParamSpec("P")
F_co = TypeVar("F_co", bound=Callable[..., Any], covariant=True)
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
S = TypeVar("S")

_SUBMIT: Final = 18  # Kind.SUBMIT
_GENERATOR: Final = 0x20 | 0x200  # CO_GENERATOR, CO_ASYNC_GENERATOR
_VARIADIC: Final = 0x04  # CO_VARARGS


class TaskOptions(TypedDict, total=False):
    """What ``@abi.remote(...)`` and ``.options(...)`` take beside ``num_returns``, which a call's type depends on."""

    num_cpus: float
    num_gpus: float
    memory: float | None
    resources: dict[str, float] | None
    max_retries: int
    retry_exceptions: bool | Sequence[type[BaseException]]
    name: str | None
    max_calls: int
    timeout: float | None
    priority: Literal["low", "normal", "high", "critical"]
    on_full: Literal["block", "raise"]


class _NoSession:
    """Stands for the session before the first call, so that the hot path needs one test."""

    live = False


_NO_SESSION: Any = _NoSession()


class RemoteFunction(Generic[F_co]):
    """Call ``.remote(...)``: it returns a Ref at once. ``.options(...)`` returns a copy that is treated otherwise."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.__abi_function__: Callable[..., Any] = function
        self.settings = options
        self._returns: int = options.get("num_returns", 1)
        self._on_full: str = options.get("on_full", "block")
        self._required, self._most = _arity(function)
        self._pickled: bytes | None = None
        self._refs: list[Ref[Any]] = []
        self._session: Session = _NO_SESSION
        self._function_index = self._options_index = 0
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(self, name, getattr(function, name, ""))
        self.__wrapped__ = function

    if TYPE_CHECKING:

        @overload
        def remote(self: RemoteFunction[Callable[P, R]], /, *args: P.args, **kwargs: P.kwargs) -> Ref[R]: ...
        @overload
        def remote(self: RemoteFunction[Callable[[A], R]], a: A | Ref[A], /) -> Ref[R]: ...
        @overload
        def remote(self: RemoteFunction[Callable[[A, B], R]], a: A | Ref[A], b: B | Ref[B], /) -> Ref[R]: ...
        @overload
        def remote(
            self: RemoteFunction[Callable[[A, B, C], R]], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], /
        ) -> Ref[R]: ...
        @overload
        def remote(
            self: RemoteFunction[Callable[[A, B, C, D], R]],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            /,
        ) -> Ref[R]: ...
        @overload
        def remote(
            self: RemoteFunction[Callable[[A, B, C, D, E], R]],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            /,
        ) -> Ref[R]: ...
        @overload
        def remote(
            self: RemoteFunction[Callable[[A, B, C, D, E, F], R]],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            f: F | Ref[F],
            /,
        ) -> Ref[R]: ...
        @overload
        def remote(
            self: RemoteFunction[Callable[[A, B, C, D, E, F, G], R]],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            f: F | Ref[F],
            g: G | Ref[G],
            /,
        ) -> Ref[R]: ...
        @overload
        def remote(
            self: RemoteFunction[Callable[[A, B, C, D, E, F, G, H], R]],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            f: F | Ref[F],
            g: G | Ref[G],
            h: H | Ref[H],
            /,
        ) -> Ref[R]: ...
        def remote(self, /, *args: Any, **kwargs: Any) -> Any: ...

    else:

        def remote(self, /, *args, **kwargs):
            session = self._session
            if not session.live:
                session = self._bind()
            if args or kwargs or self._required or self._returns != 1:
                return self._remote(session, args, kwargs)
            pending = session.pending
            waiting = len(pending)
            if waiting >= session.tasks_max:
                session.admit(0, self._on_full)
            seq = session.next_seq()
            task = Task(seq, self._function_index, self._options_index)
            if session.parent:
                task.parent = session.parent
            ref = pending[seq] = Ref(seq, session.home, task)
            outbox = session.outbox
            outbox.append((_SUBMIT, task))
            if waiting == 0 or len(outbox) & 255 == 1:
                # The first goes at once; and one in 256 looks whether to send or to have it sent soon.
                session.posted()
            return ref

    def _remote(self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Everything but a plain call without arguments. Raises TypeError as calling the function itself would."""
        if len(args) > self._most or (not kwargs and len(args) < self._required):
            _complain(self.__abi_function__, args, kwargs)
        payload, size, blob, dependencies, nested, keep = dumps_arguments(args, kwargs, self.__abi_function__)
        if keep is not None:
            session.supply_all(keep)
        whole = session.submit(
            self._function_index,
            self._options_index,
            payload,
            size,
            blob,
            dependencies,
            nested,
            keep=keep,
            on_full=self._on_full,
        )
        if self._returns == 1:
            return whole
        if self._returns == 0:
            return None
        return [PartRef(whole.seq, whole.home, None, at, whole) for at in range(self._returns)]

    @overload
    def options(self, **options: Unpack[TaskOptions]) -> Self: ...
    @overload
    def options(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, *, num_returns: Literal[1], **options: Unpack[TaskOptions]
    ) -> RemoteFunction[F_co]: ...
    @overload
    def options(  # type: ignore[overload-overlap]
        self, *, num_returns: Literal[0], **options: Unpack[TaskOptions]
    ) -> _Several[F_co, None]: ...
    @overload
    def options(self, *, num_returns: int, **options: Unpack[TaskOptions]) -> _Several[F_co, list[Ref[Any]]]: ...
    def options(self, **options: Any) -> Any:
        """A copy with other options; what is not named stays. Raises ValueError, TypeError or Refused."""
        copy: RemoteFunction[F_co] = RemoteFunction(self.__abi_function__, self.settings | check(options))
        copy._pickled, copy._refs = self._pickled, self._refs
        return copy

    def _bind(self) -> Session:
        """Make function and options known to the session of this process. Raises SerializationError."""
        from abi.program import begin

        begin()  # first, so that it starts while we load
        _load()
        from hashlib import blake2b

        from abi.pickling import dumps_function
        from abi.session import current

        session = current()
        if self._pickled is None:
            refs: list[Ref[Any]] = []
            self._pickled, self._refs = dumps_function(self.__abi_function__, refs), refs
        name = _name_of(self.__abi_function__)
        digest = blake2b(self._pickled, digest_size=16).digest()
        self._function_index = session.intern_function(digest, name, self._pickled, self._refs)
        options = encode(self.settings, getattr(self.__abi_function__, "__name__", name))
        self._options_index = session.intern_options(options)
        self._session = session
        return session

    if not TYPE_CHECKING:  # so that type checkers refuse a direct call too

        def __call__(self, *_args, **_kwargs):
            name = getattr(self.__abi_function__, "__name__", "it")
            raise TypeError(f"a remote function is not called: use {name}.remote(...) and abi.get(...)")

    def __reduce__(self) -> Any:
        # Importable: by name, whatever it does. Else the function and its options, which are all there is to it.
        module, qualname = self.__module__, str(getattr(self, "__qualname__", "<locals>"))
        if module != "__main__" and "<locals>" not in qualname:
            from abi.pickling import find, named

            if find(module, qualname) is self:
                return named, (module, qualname)
        return RemoteFunction, (self.__abi_function__, self.settings)

    def __repr__(self) -> str:
        return f"<remote function {_name_of(self.__abi_function__)}>"


if TYPE_CHECKING:

    class _Several(RemoteFunction[F_co], Generic[F_co, S]):
        """What checkers see of a RemoteFunction whose ``num_returns`` is not 1: its ``remote`` returns ``S``."""

        @overload  # type: ignore[override]
        def remote(self: _Several[Callable[P, Any], S], /, *args: P.args, **kwargs: P.kwargs) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A], Any], S],
            a: A | Ref[A],
            /,
        ) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A, B], Any], S],
            a: A | Ref[A],
            b: B | Ref[B],
            /,
        ) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A, B, C], Any], S],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            /,
        ) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A, B, C, D], Any], S],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            /,
        ) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A, B, C, D, E], Any], S],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            /,
        ) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A, B, C, D, E, F], Any], S],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            f: F | Ref[F],
            /,
        ) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A, B, C, D, E, F, G], Any], S],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            f: F | Ref[F],
            g: G | Ref[G],
            /,
        ) -> S: ...
        @overload
        def remote(
            self: _Several[Callable[[A, B, C, D, E, F, G, H], Any], S],
            a: A | Ref[A],
            b: B | Ref[B],
            c: C | Ref[C],
            d: D | Ref[D],
            e: E | Ref[E],
            f: F | Ref[F],
            g: G | Ref[G],
            h: H | Ref[H],
            /,
        ) -> S: ...
        def remote(self, /, *args: Any, **kwargs: Any) -> Any: ...  # pyright: ignore[reportIncompatibleMethodOverride]


def _load() -> None:
    """Fill in the globals of the hot path."""
    global PartRef, Ref, Task, dumps_arguments
    from abi.pickling import dumps_arguments
    from abi.ref import PartRef, Ref
    from abi.wire.schema import Task


@overload
def remote(function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[Callable[P, R]]: ...
@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[Callable[P, R]]: ...
@overload
def remote(**options: Unpack[TaskOptions]) -> _Decorator: ...
@overload
def remote(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    *, num_returns: Literal[1], **options: Unpack[TaskOptions]
) -> _Decorator: ...
@overload
def remote(  # type: ignore[overload-overlap]
    *, num_returns: Literal[0], **options: Unpack[TaskOptions]
) -> _DecoratorOfSeveral[None]: ...
@overload
def remote(*, num_returns: int, **options: Unpack[TaskOptions]) -> _DecoratorOfSeveral[list[Ref[Any]]]: ...
def remote(function: Any = None, /, **options: Any) -> Any:
    """Makes a function remote: ``@abi.remote``, or with options ``@abi.remote(num_cpus=2, timeout=60)``.

    Raises ValueError for an unknown option, TypeError for one of the wrong type or for what is no function, Refused for
    what is not there yet.
    """
    checked = check(options)
    if function is None:
        return _Decorator(checked)
    if options:
        raise TypeError("@abi.remote takes a function or options, not both: write @abi.remote(...) above the function")
    return _Decorator(checked)(function)


class _Decorator:
    def __init__(self, options: dict[str, Any]) -> None:
        self.settings = options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[Callable[P, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> RemoteFunction[Callable[P, R]]: ...
    def __call__(self, function: Any, /) -> Any:
        if isinstance(function, type):
            raise Refused(f"{function.__name__} is a class: actors are not there yet")
        if isinstance(function, RemoteFunction):
            raise TypeError(f"{function} is remote already")
        if not callable(function):
            raise TypeError(f"@abi.remote takes a function, not {type(function).__name__}; options go by keyword")
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & _GENERATOR:
            raise Refused(f"{function.__qualname__} is a generator function: results that stream are not there yet")
        return RemoteFunction(function, self.settings)


if TYPE_CHECKING:

    class _DecoratorOfSeveral(Generic[S]):
        @overload
        def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> _Several[Callable[P, R], S]: ...
        @overload
        def __call__(self, function: Callable[P, R], /) -> _Several[Callable[P, R], S]: ...
        def __call__(self, function: Any, /) -> Any: ...


def _name_of(function: Any) -> str:
    qualname = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", "")
    qualname = qualname.replace("<locals>.", "")
    return qualname if module in ("__main__", "", None) else f"{module}.{qualname}"


def _arity(function: Any) -> tuple[int, int]:
    """The least number of arguments, and the most that may be positional; read from the code, without ``inspect``."""
    code = getattr(function, "__code__", None)
    if code is None or hasattr(function, "__wrapped__") or hasattr(function, "__self__"):
        return 0, 1 << 30
    required = code.co_argcount - len(function.__defaults__ or ())
    required += code.co_kwonlyargcount - len(function.__kwdefaults__ or {})
    return required, 1 << 30 if code.co_flags & _VARIADIC else code.co_argcount


def _complain(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    import inspect

    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{_name_of(function)}() {error}") from None
