"""The options of a task: their names, what they may be, and how they go onto the wire.

Checked where they are written, at the decorator or ``.options()``: a misspelled option must not wait for its first
call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from abi.amounts import units
from abi.errors import Refused

if TYPE_CHECKING:
    from abi.wire.schema import Options

PRIORITIES: Final = ("low", "normal", "high", "critical")
NOT_YET: Final = {
    "durable": "a task that outlives its program",
    "node": "choosing the host",
    "label_selector": "choosing hosts by label",
    "scheduling_strategy": "choosing hosts by strategy",
    "runtime_env": "an environment of its own",
    "vram": "GPU memory as a resource",
}
"""Options that have their name and place, and are refused until they do what they say."""


def check(options: Mapping[str, Any]) -> dict[str, Any]:
    """A checked copy. Raises ValueError (unknown name, impossible value), TypeError (wrong type) or Refused (not
    yet)."""
    for name, value in options.items():
        rule = _RULES.get(name)
        if rule is not None:
            rule(name, value)
        elif name in NOT_YET:
            if value is not None and value is not False:
                raise Refused(f"{name}=: {NOT_YET[name]} is not there yet")
        else:
            raise ValueError(f"there is no option {name!r}{_nearest(name)}")
    return {name: value for name, value in options.items() if name not in NOT_YET}


def encode(options: Mapping[str, Any], default_name: str) -> Options:
    """What ``check`` let pass, in the units of the wire."""
    from abi.wire.schema import Options

    retry = options.get("retry_exceptions", False)
    types = tuple(retry) if isinstance(retry, (list, tuple)) else None
    gpus = units("num_gpus", options.get("num_gpus", 0))
    timeout = options.get("timeout")
    # A GPU's memory is free for certain only once its process is gone, so such a worker leaves after its call.
    max_calls = options.get("max_calls")
    return Options(
        index=0,
        name=options.get("name") or default_name,
        cpus=units("num_cpus", options.get("num_cpus", 1)),
        memory=-int(-(options.get("memory") or 0) // 1),
        gpus=gpus,
        resources={name: units(name, amount) for name, amount in (options.get("resources") or {}).items()},
        max_retries=options.get("max_retries", 3),
        retry_exceptions=bool(retry),
        retry_types=_pickled(types) if types else None,
        timeout_ns=round(timeout * 1e9) if timeout is not None else 0,
        priority=PRIORITIES.index(options.get("priority", "normal")),
        returns=options.get("num_returns", 1),
        max_calls=(1 if gpus else 0) if max_calls is None else max_calls,
    )


def _pickled(types: tuple[type[BaseException], ...]) -> bytes:
    from abi.pickling import stream_of

    return stream_of(types)


def _nearest(name: str) -> str:
    import difflib

    known = [*_RULES, *NOT_YET]
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(_RULES))}"


# --- one rule per option ----------------------------------------------------------------------------------------------


def _expected(name: str, value: Any, what: str) -> TypeError:
    return TypeError(f"{name} must be {what}, not {type(value).__name__} ({value!r:.60})")


def _amount(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _expected(name, value, "a number")
    units(name, value)


def _whole(least: int) -> Callable[[str, Any], None]:
    def rule(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _expected(name, value, "a whole number")
        if not least <= value < 1 << 62:
            raise ValueError(f"{name} must be at least {least}, and is {value}")

    return rule


def _memory(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _expected(name, value, "a number of bytes")
    if not 0 <= value < 1 << 62:
        raise ValueError(f"{name} must be a number of bytes, and is {value}")


def _resources(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise _expected(name, value, "a dict of names and amounts")
    for key, amount in value.items():
        if not isinstance(key, str):
            raise _expected(f"a name in {name}", key, "a str")
        if key.upper() in ("CPU", "GPU"):
            raise ValueError(f"{name} has {key!r}: use num_{key.lower()}s")
        _amount(f"{name}[{key!r}]", amount)


def _retry_exceptions(name: str, value: Any) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, (list, tuple)):
        raise _expected(name, value, "True, False or a list of exception types")
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise _expected(f"each of {name}", kind, "an exception type")


def _returns(name: str, value: Any) -> None:
    if value in ("streaming", "dynamic"):
        raise Refused(f"num_returns={value!r}: results that stream are not there yet")
    _whole(0)(name, value)


def _seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _expected(name, value, "a number of seconds or None")
    if not 0 < value < 1e9:
        raise ValueError(f"{name} must be more than 0 seconds, and is {value}")


def _text(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise _expected(name, value, "a str")


def _choice(*choices: str) -> Callable[[str, Any], None]:
    def rule(name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise _expected(name, value, "a str")
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, and is {value!r}")

    return rule


_RULES: Final[dict[str, Callable[[str, Any], None]]] = {
    "num_cpus": _amount,
    "num_gpus": _amount,
    "memory": _memory,
    "resources": _resources,
    "max_retries": _whole(-1),
    "retry_exceptions": _retry_exceptions,
    "num_returns": _returns,
    "name": _text,
    "max_calls": _whole(0),
    "timeout": _seconds,
    "priority": _choice(*PRIORITIES),
    "on_full": _choice("block", "raise"),
}
