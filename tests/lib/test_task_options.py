"""Options are checked where they are written."""

from __future__ import annotations

from typing import Any

import pytest

import abi
from abi import errors
from abi.amounts import units
from abi.task_options import check, encode


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"num_cpu": 1}, ValueError, "did you mean 'num_cpus'"),
        ({"num_cpus": "1"}, TypeError, "num_cpus must be a number"),
        ({"num_cpus": True}, TypeError, "num_cpus must be a number"),
        ({"num_cpus": 0.00005}, ValueError, "in steps of 0.0001"),
        ({"num_cpus": -1}, ValueError, "from 0"),
        ({"max_retries": -2}, ValueError, "at least -1"),
        ({"max_retries": 1.5}, TypeError, "whole number"),
        ({"retry_exceptions": [3]}, TypeError, "exception type"),
        ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
        ({"resources": [1]}, TypeError, "dict"),
        ({"timeout": 0}, ValueError, "more than 0"),
        ({"priority": "urgent"}, ValueError, "low, normal, high, critical"),
        ({"on_full": "wait"}, ValueError, "block, raise"),
        ({"num_returns": "streaming"}, errors.Refused, "not there yet"),
        ({"durable": True}, errors.Refused, "durable=: .* is not there yet"),
        ({"node": "a"}, errors.Refused, "not there yet"),
        ({"runtime_env": {}}, errors.Refused, "not there yet"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check(options)


def test_on_the_wire() -> None:
    wire = encode(
        check(
            {
                "num_cpus": 0.1,
                "num_gpus": 1,
                "resources": {"disk": 2.5},
                "memory": 1e9,
                "timeout": 1.5,
                "priority": "high",
                "retry_exceptions": [ValueError],
                "durable": False,
            }
        ),
        "f",
    )
    assert (wire.name, wire.cpus, wire.gpus, wire.resources) == ("f", 1000, 10_000, {"disk": 25_000})
    assert (wire.memory, wire.timeout_ns, wire.priority, wire.max_calls) == (1_000_000_000, 1_500_000_000, 2, 1)
    assert wire.retry_exceptions
    assert wire.retry_types is not None
    assert sum(units("x", 0.1) for _ in range(10)) == units("x", 1)


def test_what_cannot_be_remote() -> None:
    with pytest.raises(errors.Refused, match="actors are not there yet"):
        abi.remote(type("Counter", (), {}))

    def generator() -> Any:
        yield 1

    with pytest.raises(errors.Refused, match="stream"):
        abi.remote(generator)
    with pytest.raises(TypeError):
        abi.remote(3)  # type: ignore[call-overload]


def test_import_is_light() -> None:
    import subprocess
    import sys

    heavy = "{'msgspec', 'cloudpickle', 'asyncio', 'socket', 'subprocess', 'pickle'}"
    code = f"import sys, abi; abi.remote(lambda: 1); abi.get; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
