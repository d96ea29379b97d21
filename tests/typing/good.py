"""What mypy --strict and pyright both accept, and the types they both see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, assert_type

import abi
from abi import Ref

T = TypeVar("T")


@abi.remote
def nothing() -> None: ...


@abi.remote
def length(text: str) -> int:
    return len(text)


@abi.remote(num_cpus=2, timeout=60, priority="high")
def join(left: str, right: int, *, separator: str = "-") -> str:
    return f"{left}{separator}{right}"


@abi.remote
async def later(seconds: float) -> bytes:
    return b""


@abi.remote(max_retries=0)
async def later_still(seconds: float) -> bytes:
    return b""


@abi.remote
def many(a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: str) -> float:
    return 0.0


@abi.remote(num_returns=2, num_cpus=1)
def parts(text: str, at: int = 0) -> tuple[str, int]:
    return text[:at], at


@abi.remote(num_returns=2)
async def parts_later(text: str) -> tuple[str, int]:
    return text, 1


@abi.remote(num_returns=0)
def told(text: str) -> None: ...


@abi.remote(num_returns=1)
def one(text: str) -> int:
    return len(text)


def first(items: list[T]) -> T:
    return items[0]


first_int: abi.RemoteFunction[Callable[[list[int]], int]] = abi.remote(first)
"""As README.md says it for mypy, which has no generic instances."""


def plain(number: int) -> str:
    return str(number)


def parameters_and_results() -> None:
    assert_type(nothing.remote(), Ref[None])
    assert_type(length.remote("abc"), Ref[int])
    assert_type(length.remote(text="abc"), Ref[int])
    assert_type(join.remote("a", 1), Ref[str])
    assert_type(join.remote("a", right=1, separator="+"), Ref[str])
    assert_type(join.options(name="join", num_cpus=0.5).remote("a", 1), Ref[str])


def references_as_arguments(text: Ref[str], number: Ref[int]) -> None:
    assert_type(length.remote(text), Ref[int])
    assert_type(join.remote(text, number), Ref[str])
    assert_type(join.remote("a", number), Ref[str])
    assert_type(length.options(num_cpus=1).remote(text), Ref[int])
    assert_type(abi.get(first_int.remote([1])), int)
    assert_type(many.remote(number, 1, 2, 3, 4, 5, number, text), Ref[float])


def several_results(text: Ref[str], number: Ref[int], count: int) -> None:
    left, _right = parts.remote("abc", at=1)
    assert_type(left, Ref[Any])
    assert_type(parts.remote(text, number), list[Ref[Any]])
    assert_type(parts_later.remote("abc"), list[Ref[Any]])
    assert_type(parts.options(timeout=3).remote("abc"), list[Ref[Any]])
    assert_type(parts.options(num_returns=1).remote("abc"), Ref[tuple[str, int]])
    assert_type(length.options(num_returns=2).remote("abc"), list[Ref[Any]])
    assert_type(length.options(num_returns=count).remote(text), list[Ref[Any]])
    told.remote(text)
    one_more: None = length.options(num_returns=0).remote("abc")
    assert_type(one_more, None)
    assert_type(one.remote("abc"), Ref[int])
    assert_type(abi.get(parts.remote("abc")), list[Any])


def getting(number: Ref[int], numbers: list[Ref[int]]) -> None:
    assert_type(abi.get(number), int)
    assert_type(abi.get(numbers, timeout=1.5), list[int])
    assert_type(abi.wait(numbers, num_returns=2), tuple[list[Ref[int]], list[Ref[int]]])
    assert_type(abi.put("text"), Ref[str])
    assert_type(number.future().result(), int)
    assert_type(abi.gather(number, number).get(), list[int])
    abi.cancel(number, force=True)


async def awaiting(number: Ref[int]) -> None:
    assert_type(await number, int)
    assert_type(await abi.gather(number, number), list[int])
    assert_type(await later.remote(0.1), bytes)
    assert_type(await later_still.remote(0.1), bytes)


def mapping() -> None:
    assert_type(abi.map(plain, range(3)), Iterator[str])
    assert_type(abi.map(length, ["a", "b"], timeout=3, chunk=10), Iterator[int])


def knowing() -> None:
    task = abi.current_task()
    if task is not None:
        assert_type(task.attempt, int)
