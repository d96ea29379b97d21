"""What both must refuse: a line that passes makes its own comment an error."""

from __future__ import annotations

import abi
from abi import Ref


@abi.remote
def length(text: str) -> int:
    return len(text)


@abi.remote
def join(left: str, right: int, *, separator: str = "-") -> str:
    return f"{left}{separator}{right}"


def wrong_arguments(number: Ref[int], text: Ref[str]) -> None:
    length.remote(1)  # type: ignore[call-overload]  # pyright: ignore
    length.remote()  # type: ignore[call-overload]  # pyright: ignore
    length.remote("a", "b")  # type: ignore[call-overload]  # pyright: ignore
    length.remote(number)  # type: ignore[arg-type]  # pyright: ignore
    join.remote("a", "b")  # type: ignore[call-overload]  # pyright: ignore
    length.remote(text=text)  # type: ignore[call-overload]  # pyright: ignore  # a limit, told in README.md
    join.remote("a", 1, separatr="+")  # type: ignore[call-overload]  # pyright: ignore


@abi.remote(num_returns=2)
def parts(text: str) -> tuple[str, int]:
    return text, 1


def several_results(number: Ref[int]) -> None:
    parts.remote(1)  # type: ignore[call-overload]  # pyright: ignore
    parts.remote(number)  # type: ignore[arg-type]  # pyright: ignore
    wrong: Ref[int] = parts.remote("abc")  # type: ignore[assignment]  # pyright: ignore
    parts.options(num_returns="2")  # type: ignore[call-overload]  # pyright: ignore
    print(wrong)


def called_directly() -> None:
    length("a")  # type: ignore[operator]  # pyright: ignore


def wrong_options() -> None:
    length.options(num_cpu=2)  # type: ignore[call-overload]  # pyright: ignore
    length.options(priority="urgent")  # type: ignore[call-overload]  # pyright: ignore
    abi.remote(timeout="60")  # type: ignore[call-overload]  # pyright: ignore


def wrong_results(number: Ref[int]) -> None:
    text: str = abi.get(number)  # type: ignore[assignment]  # pyright: ignore
    abi.get(3)  # type: ignore[call-overload]  # pyright: ignore
    abi.wait(number)  # type: ignore[call-overload]  # pyright: ignore
    abi.cancel("id")  # type: ignore[arg-type]  # pyright: ignore
    print(text)
