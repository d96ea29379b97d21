"""Python objects as bytes: arguments, results and functions.

Three ways, the cheapest that will do:

1. exact builtins: plain ``pickle.dumps``, which has no Python in it;
2. ``_Light``: C's pickler; collects references, and buffers over 100 KiB go out of band into shared memory;
3. ``_Cloud``: cloudpickle's, for what lives in ``__main__`` or inside functions (by value; every other module by
   name). Only when the second fails, because importing it costs as much as a thousand calls.

A payload is ``bytes``, a pickle, or a memoryview of a mapped container (``abi.objects.payload``), whose buffers the
loaded objects go on using: the mapping lives as long as they do.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from abi.errors import SerializationError
from abi.wire.schema import INLINE_BYTES_MAX, Dependency

if TYPE_CHECKING:
    from abi.objects.blob import Blob
    from abi.ref import Ref

PROTOCOL: Final = 5
_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
_SEQUENCES: Final = frozenset({tuple, list, set, frozenset})
_DEPTH_MAX: Final = 3
"""Containers deeper than this go the second way rather than being looked through."""
REFERENCES_MAX: Final = 500_000
"""In one call or object: at twenty bytes for each (a position, a task's number, which of its results) they fill ten of
the sixteen MiB that a message may have."""

Dumped = tuple[bytes, int, "Blob | None", list[int] | None]
"""Payload, or ``b""`` with the size of a Blob; and the sequences of the references inside."""


def dumps_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], function: Callable[..., Any] | None = None
) -> tuple[bytes, int, Blob | None, list[Dependency] | None, list[int] | None, list[Ref[Any]] | None]:
    """``(payload, size, blob, dependencies, nested, all references)``. ``function`` names the arguments in errors.

    References at top level become dependencies, None stands in their place. Raises SerializationError.
    """
    if not args and not kwargs:
        return b"", 0, None, None, None, None
    if _is_plain(args) and (not kwargs or _is_plain(tuple(kwargs.values()))):
        payload = pickle.dumps((args, kwargs), PROTOCOL)
        return *(_inline_or_blob(payload, [])), None, None, None
    left, left_named, direct = _take_references(args, kwargs)
    _check_count(len(direct), "the arguments")
    payload, size, blob, inside = _dumps(
        (left, left_named), lambda error: _blame_argument(left, left_named, function, error)
    )
    if inside:
        _check_count(len(direct) + len(inside), "the arguments", blob)
    dependencies = [Dependency(at, ref.seq, ref.index) for at, ref in direct] or None
    keep = [*(ref for _at, ref in direct), *inside] or None
    return payload, size, blob, dependencies, _sequences(inside), keep


def loads_arguments(payload: bytes | memoryview) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not payload:
        return (), {}
    return cast("tuple[tuple[Any, ...], dict[str, Any]]", _loads(payload))


def dumps_value(value: Any, what: str = "the value") -> Dumped:
    """``(payload, size, blob, nested)``; None is ``b""``. ``what`` is its name in errors. Raises SerializationError."""
    if value is None:
        return b"", 0, None, None
    if type(value) in _ATOMS or _is_plain((value,)):
        return *_inline_or_blob(pickle.dumps(value, PROTOCOL), []), None
    payload, size, blob, inside = _dumps(value, lambda error: _explain(what, value, error))
    _check_count(len(inside), what, blob)
    return payload, size, blob, _sequences(inside)


def loads_value(payload: bytes | memoryview) -> Any:
    """The value; raises whatever its unpickling raises."""
    if not payload:
        return None
    return _loads(payload)


def dumps_function(function: Callable[..., Any], nested: list[Ref[Any]] | None = None) -> bytes:
    """A reference to an importable function, the function itself otherwise. Raises SerializationError.

    ``nested`` collects the references in its closure and its defaults.
    """
    try:
        return stream_parts(function, nested)[0]
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise _explain(f"function '{name}'", function, error) from None


def loads_function(payload: bytes | memoryview) -> Callable[..., Any]:
    """What ``dumps_function`` wrote; never a RemoteFunction but what it calls."""
    function = _loads(payload)
    return cast("Callable[..., Any]", getattr(function, "__abi_function__", function))


# --- the three ways ---------------------------------------------------------------------------------------------------


def _is_plain(values: tuple[Any, ...], depth: int = 0) -> bool:
    """Whether these are exact builtins all the way down. The types of a container are collected in C."""
    kinds = set(map(type, values))
    if kinds <= _ATOMS:
        return True
    if depth == _DEPTH_MAX or not all(kind in _ATOMS or kind in _SEQUENCES or kind is dict for kind in kinds):
        return False
    for value in values:
        kind = type(value)
        if kind is dict:
            if not (_is_plain(tuple(value), depth + 1) and _is_plain(tuple(value.values()), depth + 1)):
                return False
        elif kind in _SEQUENCES and not _is_plain(value, depth + 1):
            return False
    return True


def stream_of(value: Any) -> bytes:
    """One pickle with everything in it. Raises whatever pickling raises."""
    return stream_parts(value, None)[0]


def _dumps(
    value: Any, explain: Callable[[Exception], SerializationError]
) -> tuple[bytes, int, Blob | None, list[Ref[Any]]]:
    nested: list[Ref[Any]] = []
    buffers: list[pickle.PickleBuffer] = []
    try:
        stream, _ = stream_parts(value, nested, buffers)
    except Exception as error:
        raise explain(error) from None
    return *_inline_or_blob(stream, buffers), nested


def _check_count(count: int, what: str, blob: Blob | None = None) -> None:
    if count > REFERENCES_MAX:
        if blob is not None:
            blob.close()
        raise SerializationError(
            f"{what}: {count} references are more than the {REFERENCES_MAX} that one message holds",
            hint="put them into several objects with abi.put and pass those: each counts as one",
        )


def _sequences(refs: list[Ref[Any]]) -> list[int] | None:
    return [ref.seq for ref in refs] or None


def stream_parts(
    value: Any, nested: list[Ref[Any]] | None, buffers: list[pickle.PickleBuffer] | None = None
) -> tuple[bytes, list[pickle.PickleBuffer]]:
    buffers = [] if buffers is None else buffers
    nested = [] if nested is None else nested
    out_of_band = _OutOfBand(buffers)
    file = io.BytesIO()
    try:
        _Light(file, out_of_band, nested).dump(value)
        return file.getvalue(), buffers
    except Exception:  # whatever it was, cloudpickle knows more; its error is the one to show
        nested.clear()
        buffers.clear()
    from abi.cloud import cloud_pickler

    file = io.BytesIO()
    cloud_pickler(file, out_of_band, nested).dump(value)
    return file.getvalue(), buffers


class _OutOfBand:
    """A ``buffer_callback``: takes large contiguous buffers (returns False), leaves the others in the stream."""

    __slots__ = ("_buffers",)

    def __init__(self, buffers: list[pickle.PickleBuffer]) -> None:
        self._buffers = buffers

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            if buffer.raw().nbytes <= INLINE_BYTES_MAX:
                return True
        except BufferError:  # not contiguous
            return True
        self._buffers.append(buffer)
        return False


class _ByValue(Exception):
    """Met something that only cloudpickle sends."""


class _Light(pickle.Pickler):
    def __init__(self, file: io.BytesIO, out_of_band: _OutOfBand, nested: list[Ref[Any]]) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=out_of_band)
        self._nested = nested

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType or isinstance(obj, type):
            reduced = by_name(obj)
            if reduced is None and obj.__module__ == "__main__":
                raise _ByValue
            return NotImplemented if reduced is None else reduced
        return reduce_reference(obj, self._nested)


def reduce_reference(obj: Any, nested: list[Any]) -> Any:
    """How a Ref goes into a pickle, noted in ``nested``; NotImplemented for anything else."""
    reduce = getattr(type(obj), "__abi_reduce__", None)
    if reduce is None:
        return NotImplemented
    return reduce(obj, nested)


def by_name(obj: object) -> Any:
    """The reduction of the function under an importable RemoteFunction: its module's name holds that, not the
    function."""
    if not isinstance(obj, FunctionType) or "<locals>" in obj.__qualname__:
        return None
    if not obj.__module__ or obj.__module__ == "__main__":
        return None
    name = (obj.__module__, obj.__qualname__)
    found = find(*name)
    if found is obj or getattr(found, "__abi_function__", None) is not obj:
        return None
    return named_function, name


def find(module: str, qualname: str) -> Any:
    """What a loaded module holds under a dotted name, or None."""
    import sys

    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def named(module: str, qualname: str) -> Any:
    """Loads what was sent by name. Raises ImportError or AttributeError."""
    import importlib

    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def named_function(module: str, qualname: str) -> Any:
    """As ``named``, and what is under the decorator."""
    found = named(module, qualname)
    return getattr(found, "__abi_function__", found)


def _inline_or_blob(stream: bytes, buffers: list[pickle.PickleBuffer]) -> tuple[bytes, int, Blob | None]:
    if not buffers and len(stream) <= INLINE_BYTES_MAX:
        return stream, 0, None
    from abi.objects import payload

    blob = payload.pack(stream, buffers)
    return b"", blob.size, blob


def _loads(payload: bytes | memoryview) -> Any:
    if isinstance(payload, bytes):
        return pickle.loads(payload)
    from abi.objects.payload import unpack

    stream, buffers = unpack(payload)
    return pickle.loads(stream, buffers=buffers)


# --- arguments --------------------------------------------------------------------------------------------------------


def _take_references(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], list[tuple[int, Ref[Any]]]]:
    """The arguments with None for references, and these with their positions."""
    from abi.ref import Ref

    values = (*args, *kwargs.values())
    direct = [(at, value) for at, value in enumerate(values) if isinstance(value, Ref)]
    if not direct:
        return args, kwargs, []
    left = [None if isinstance(value, Ref) else value for value in values]
    return tuple(left[: len(args)]), dict(zip(kwargs, left[len(args) :], strict=True)), direct


def _blame_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], function: Callable[..., Any] | None, error: Exception
) -> SerializationError:
    from abi.explain import argument_names, does_not_pickle

    names = argument_names(function, len(args))
    for name, value in (*zip(names, args, strict=False), *((f"'{key}'", value) for key, value in kwargs.items())):
        if does_not_pickle(value):
            return _explain(f"argument {name}", value, error)
    return _explain("the arguments", (args, kwargs), error)


def _explain(what: str, value: Any, error: Exception) -> SerializationError:
    if isinstance(error, SerializationError):
        return error
    from abi.explain import explain

    return SerializationError(explain(what, value, error))
