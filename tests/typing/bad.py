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


def wrong_arguments(number: Ref[int]) -> None:
    length.remote(1)  # type: ignore[call-overload]  # pyright: ignore
    length.remote()  # type: ignore[call-overload]  # pyright: ignore
    length.remote("a", "b")  # type: ignore[call-overload]  # pyright: ignore
    length.remote(number)  # type: ignore[arg-type]  # pyright: ignore
    join.remote("a", "b")  # type: ignore[call-overload]  # pyright: ignore
    join.remote("a", 1, separatr="+")  # type: ignore[call-overload]  # pyright: ignore


def called_directly() -> None:
    length("a")  # type: ignore[operator]  # pyright: ignore


def wrong_options() -> None:
    length.options(num_cpu=2)  # type: ignore[call-arg]  # pyright: ignore
    length.options(priority="urgent")  # type: ignore[arg-type]  # pyright: ignore
    abi.remote(timeout="60")  # type: ignore[call-overload]  # pyright: ignore


def wrong_results(number: Ref[int]) -> None:
    text: str = abi.get(number)  # type: ignore[assignment]  # pyright: ignore
    abi.get(3)  # type: ignore[call-overload]  # pyright: ignore
    abi.wait(number)  # type: ignore[call-overload]  # pyright: ignore
    abi.cancel("id")  # type: ignore[arg-type]  # pyright: ignore
    print(text)
