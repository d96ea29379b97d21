"""Remote functions of the tests, in a module that workers import by name and that imports nothing of pytest."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import abi


@abi.remote
def echo(value: Any = None) -> Any:
    return value


@abi.remote
def add(a: int, b: int = 10, *, c: int = 100) -> int:
    return a + b + c


@abi.remote
def total(*values: int) -> int:
    return sum(values)


@abi.remote
def sleep(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@abi.remote
def await_file(path: str, value: Any = None) -> Any:
    """Ends when the file is there: a test says when."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return value


@abi.remote
def fail(message: str = "no", kind: type[BaseException] = ValueError) -> None:
    raise kind(message)


@abi.remote
def pid() -> int:
    return os.getpid()


@abi.remote
def die(folder: str, survive_at: int = 1 << 30) -> int:
    """Notes its start; its worker dies unless it is the ``survive_at``th."""
    task = abi.current_task()
    assert task is not None
    Path(folder, str(task.attempt)).touch()
    if len(os.listdir(folder)) < survive_at:
        os._exit(9)
    return task.attempt


@abi.remote
def stumble(folder: str, kind: type[Exception], survive_at: int) -> int:
    task = abi.current_task()
    assert task is not None
    Path(folder, str(task.attempt)).touch()
    if len(os.listdir(folder)) < survive_at:
        raise kind("stumbled")
    return task.attempt


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of the kind that everybody writes."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return "logged", function(*args, **kwargs)

    return call


@abi.remote
@logged
def decorated(x: int) -> int:
    return x + 1


class Buffer:
    """Large data as numpy pickles it: out of band, without a copy."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return Buffer, (pickle.PickleBuffer(self.data),)


@abi.remote
def make(size: int, fill: bytes = b"x") -> bytes:
    return fill * size


@abi.remote
def digest(data: Any) -> str:
    return hashlib.sha256(data.data if isinstance(data, Buffer) else data).hexdigest()


class Keyword(Exception):
    """Pickles, and would not load again: its ``__init__`` takes keywords only."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Detailed(Exception):
    def __init__(self, message: str, detail: dict[str, int]) -> None:
        super().__init__(message, detail)
        self.detail = detail
        self.more: Any = None


class Locked(Exception):
    """Does not pickle."""

    def __init__(self, message: str) -> None:
        import threading

        super().__init__(message)
        self.lock = threading.Lock()


class Calculator:
    def __init__(self, base: int) -> None:
        self.base = base

    def plus(self, x: int) -> int:
        return self.base + x

    @staticmethod
    def twice(x: int) -> int:
        return 2 * x

    @classmethod
    def make(cls, base: int) -> Calculator:
        return cls(base)

    def __call__(self, x: int) -> int:
        return self.base * x
