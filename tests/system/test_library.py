"""What can be a remote function, where it may be defined, and what of it travels. Programs are scripts, as people's."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import abi
from abi import errors
from tests.system import work
from tests.system.harness import Daemon
from tests.system.scripts import output_of, write_script
from tests.system.work import Calculator, echo, sleep

pytestmark = pytest.mark.usefixtures("program")

MIB = 1 << 20
untyped: Any = abi


def plain(x: int, y: int = 1) -> int:
    return x + y


# --- what can be remote -----------------------------------------------------------------------------------------------


def test_lambdas_partials_methods_and_callable_objects() -> None:
    calculator = Calculator(10)
    made = {
        "lambda": (untyped.remote(lambda x: x * 3), 15),
        "partial": (untyped.remote(functools.partial(plain, y=4)), 9),
        "partial of a lambda": (untyped.remote(functools.partial(lambda a, b: a - b, 100)), 95),
        "bound method": (untyped.remote(calculator.plus), 15),
        "static method": (untyped.remote(Calculator.twice), 10),
        "callable object": (untyped.remote(calculator), 50),
        "builtin": (untyped.remote(hex), "0x5"),
        "plain": (untyped.remote(plain), 6),
    }
    for what, (function, expected) in made.items():
        assert abi.get(function.remote(5)) == expected, what
    assert abi.get(untyped.remote(Calculator.make).remote(3)).base == 3


def test_a_decorator_under_remote_is_kept() -> None:
    assert abi.get(work.decorated.remote(1)) == ("logged", 2)

    @abi.remote
    @work.logged
    def local(x: int) -> int:
        return x + 10

    assert abi.get(local.remote(1)) == ("logged", 11)


def test_remote_functions_call_one_another_and_themselves() -> None:
    @abi.remote
    def is_even(n: int) -> bool:
        return True if n == 0 else bool(abi.get(is_odd.remote(n - 1)))

    @abi.remote
    def is_odd(n: int) -> bool:
        return False if n == 0 else bool(abi.get(is_even.remote(n - 1)))

    @abi.remote
    def fibonacci(n: int) -> int:
        return n if n < 2 else sum(abi.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))

    assert abi.get(is_even.remote(7)) is False
    assert abi.get(fibonacci.remote(7)) == 13


def test_a_closure_over_large_data() -> None:
    table = os.urandom(8 * MIB)

    @abi.remote
    def length(at: int) -> tuple[int, int]:
        return len(table), table[at]

    assert abi.get([length.remote(n) for n in (0, 5, -1)]) == [(8 * MIB, table[n]) for n in (0, 5, -1)]


def test_defaults_are_of_the_moment_of_definition() -> None:
    limit = 3

    @abi.remote
    def above(x: int, limit: int = limit, *, step: int = limit * 2) -> int:
        return x + limit + step

    limit = 100
    assert abi.get([above.remote(1), above.remote(1, 10), above.remote(1, step=0)]) == [10, 17, 4]


def test_refs_as_keywords_and_defaults() -> None:
    ref = echo.remote(4)

    @abi.remote
    def add(a: int, b: int = 1, *, c: int = 2) -> int:
        return a + b + c

    made: Any = add
    assert abi.get([made.remote(a=ref), made.remote(1, c=ref), made.remote(ref, b=ref, c=ref)]) == [7, 6, 12]


def test_variadic_functions() -> None:
    @abi.remote
    def told(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert abi.get(told.remote()) == ((), {})
    assert abi.get(told.remote(1, None, x=2)) == ((1, None), {"x": 2})
    names: dict[str, Any] = {"self": 1, "function": 2, "args": 3, "kwargs": 4, "session": 5}
    assert abi.get(told.remote(**names)) == ((), names), "no name of ours is in the way"


def test_two_functions_of_one_name_are_two() -> None:
    def make(n: int) -> Any:
        @abi.remote
        def same() -> int:
            return n

        return same

    assert abi.get([make(n).remote() for n in range(5)]) == list(range(5))


def test_a_remote_function_is_an_argument_and_a_result() -> None:
    @abi.remote
    def twice(function: Any, x: int) -> Any:
        return function, abi.get(function.remote(abi.get(function.remote(x))))

    @abi.remote
    def half(x: int) -> int:
        return x // 2

    again, value = abi.get(twice.remote(half, 20))
    assert value == 5
    assert abi.get(again.remote(8)) == 4
    same, _ = abi.get(twice.remote(echo, 1))
    assert same is echo, "by name, what is importable"


def test_classes_and_enums_of_the_program_travel_as_they_are() -> None:
    import dataclasses
    import enum

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int
        colour: Colour

    @abi.remote
    def move(point: Point) -> Point:
        return dataclasses.replace(point, x=point.x + 1)

    moved = abi.get(move.remote(Point(1, Colour.RED)))
    assert moved == Point(2, Colour.RED)
    assert type(moved) is Point
    assert moved.colour is Colour.RED


# --- refs in functions ------------------------------------------------------------------------------------------------


def test_a_ref_in_a_closure() -> None:
    ref, large = abi.put([1, 2]), abi.put(bytes(MIB))

    @abi.remote
    def closed() -> int:
        return sum(abi.get(ref)) + len(abi.get(large))

    first = closed.remote()
    assert abi.get(first) == 3 + MIB
    assert abi.get(closed.remote()) == 3 + MIB


def test_a_ref_in_a_closure_outlives_the_function_here() -> None:
    def make(value: str) -> Any:
        ref = echo.remote(value)
        hold = sleep.remote(0.05)

        @abi.remote
        def closed(_after: Any) -> Any:
            return abi.get(ref)

        return closed.remote(hold)

    results = [make(f"closed over {n}") for n in range(3)]
    gc.collect()
    assert abi.get(results) == [f"closed over {n}" for n in range(3)]


def test_a_ref_in_a_default_argument_and_in_a_put() -> None:
    ref = echo.remote("default")

    @abi.remote
    def with_default(wrapped: Any = (ref,)) -> Any:
        return abi.get(wrapped[0])

    assert abi.get(with_default.remote()) == "default"
    outer = abi.put({"inner": ref})
    del ref
    gc.collect()
    assert abi.get(abi.get(outer)["inner"]) == "default"
    assert abi.get(abi.get(echo.remote(outer))["inner"]) == "default"


# --- what does not pickle ---------------------------------------------------------------------------------------------


class Deep:
    def __init__(self, inside: Any) -> None:
        self.inside = {"model": [1, inside]}


def test_an_argument_that_does_not_pickle_is_named_with_the_place_in_it() -> None:
    import threading

    @abi.remote
    def train(data: Any, config: Any = None) -> str:
        return "trained"

    lock = threading.Lock()
    with pytest.raises(errors.SerializationError) as caught:
        train.remote([1, 2], config={"deep": Deep(lock)})
    for words in ("'config'", "'deep'", ".inside", "'model'", "[1]", "lock"):
        assert words in caught.value.message
    assert isinstance(caught.value, TypeError)
    with pytest.raises(errors.SerializationError, match=r"'data'.*lock"):
        train.remote(lock)
    with pytest.raises(errors.SerializationError, match=r"the object.*lock"):
        abi.put([lock])
    assert abi.get(train.remote(1)) == "trained", "nothing else is disturbed"


def test_a_function_that_does_not_pickle_is_named_with_the_place_in_it() -> None:
    import threading

    held = {"lock": threading.Lock()}

    @abi.remote
    def locked() -> bool:
        return held["lock"].locked()

    for _ in range(2):
        with pytest.raises(errors.SerializationError, match=r"locked.*'held'.*'lock'.*lock"):
            locked.remote()
    assert abi.get(echo.remote(1)) == 1


def test_a_result_that_does_not_pickle_is_named_with_the_place_in_it() -> None:
    @abi.remote
    def opens() -> Any:
        import threading

        return {"ok": 1, "handles": [threading.Lock()]}

    @abi.remote(num_returns=2)
    def opens_two() -> Any:
        import threading

        return [1, {"handle": threading.Lock()}]

    neighbours = [echo.remote(n) for n in range(20)]
    with pytest.raises(errors.SerializationError, match=r"the result of .*opens.*'handles'.*\[0\].*lock") as caught:
        abi.get(opens.remote())
    assert isinstance(caught.value, errors.TaskError)
    refs: Any = opens_two.remote()
    for ref in refs:
        with pytest.raises(errors.SerializationError, match=r"result 1 of .*opens_two.*'handle'.*lock"):
            abi.get(ref)
    assert abi.get(neighbours) == list(range(20))


class Unloadable:
    """Pickles; what it says of how to load it again is no truth."""

    def __reduce__(self) -> Any:
        return _complain, ("when loaded",)


def _complain(words: str) -> None:
    raise RuntimeError(words)


def test_what_pickles_and_does_not_load_is_named_at_either_end() -> None:
    with pytest.raises(errors.TaskError, match=r"arguments of .*echo.* RuntimeError: when loaded"):
        abi.get(echo.remote(Unloadable()))

    @abi.remote
    def unloadable() -> Any:
        return Unloadable()

    ref = unloadable.remote()
    for _ in range(2):
        with pytest.raises(errors.SerializationError, match=f"the result of {ref.short}.*RuntimeError: when loaded"):
            abi.get(ref)
    with pytest.raises(errors.TaskError, match=r"argument.*echo.*when loaded"):
        abi.get(echo.remote(ref))
    assert abi.get([echo.remote(n) for n in range(5)]) == list(range(5))


def test_data_nested_too_deeply_to_pickle_is_an_error_and_no_crash() -> None:
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(errors.SerializationError):
        echo.remote(deep)

    @abi.remote
    def nested() -> Any:
        deep: Any = None
        for _ in range(100_000):
            deep = [deep]
        return deep

    with pytest.raises(errors.TaskError, match=r"(?i)recursion|nested"):
        abi.get(nested.remote())
    while deep:  # so that it is freed without recursion, too
        deep = deep[0]


# --- where it is defined ----------------------------------------------------------------------------------------------


def test_functions_of_main_and_of_a_module_beside_the_script(program: Daemon, tmp_path: Path) -> None:
    write_script(
        tmp_path,
        """
        import abi

        FACTOR = 7

        @abi.remote
        def scaled(x):
            return x * FACTOR

        def helper(x):
            return x + FACTOR

        class Shape:
            def __init__(self, n): self.n = n
            def area(self): return self.n * FACTOR
        """,
        "beside.py",
    )
    (tmp_path / "package").mkdir()
    write_script(tmp_path / "package", "def deep(x): return ('deep', x)\n", "__init__.py")
    script = write_script(
        tmp_path,
        """
        import abi, os, sys
        import beside
        from package import deep

        OFFSET = 1000

        class Own:
            def __init__(self, n): self.n = n
            def __eq__(self, other): return type(other) is Own and other.n == self.n

        def plain(x):
            return x + OFFSET

        @abi.remote
        def main_function(x):
            return plain(beside.helper(x)), deep(x), Own(x), beside.Shape(x).area()

        @abi.remote
        def where():
            return os.getcwd(), sys.argv[0], __name__, __file__, os.environ["MARK"]

        if __name__ == "__main__":
            os.environ["MARK"] = "set before the first call"
            print(abi.get(beside.scaled.remote(6)))
            value, pair, own, area = abi.get(main_function.remote(1))
            print(value, pair, own == Own(1), area)
            print(abi.get(abi.remote(plain).remote(1)))
            print(abi.get(where.remote()))
            OFFSET = 2000
            print(abi.get(abi.remote(plain).options(name="again").remote(1)))
        """,
    )
    lines = output_of(program, script, cwd="/").splitlines()
    assert lines[:3] == ["42", "1008 ('deep', 1) True 7", "1001"]
    assert eval(lines[3]) == ("/", str(script), "__main__", str(script), "set before the first call")
    assert lines[4] == "2001", "a global is taken as it is when the function is declared remote and called"


def test_an_edited_module_is_imported_anew_by_the_next_run(program: Daemon, tmp_path: Path) -> None:
    script = write_script(tmp_path, "import abi, edited\nprint(abi.get(edited.answer.remote()))\n")
    said = []
    for n in range(3):
        write_script(tmp_path, f"import abi\n@abi.remote\ndef answer():\n    return {'x' * n!r}, {n}\n", "edited.py")
        said.append(output_of(program, script, env={"PYTHONDONTWRITEBYTECODE": "1"}).strip())
    assert said == ["('', 0)", "('x', 1)", "('xx', 2)"]


def test_a_program_from_standard_input_and_with_dash_c(program: Daemon) -> None:
    import subprocess

    text = "import abi\n@abi.remote\ndef f(x): return x + 1\nprint(abi.get(f.remote(1)))\n"
    for arguments, given in ((["-c", text], ""), (["-"], text)):
        done = subprocess.run(
            [sys.executable, *arguments],
            input=given,
            capture_output=True,
            text=True,
            env=program.environment,
            timeout=30,
        )
        assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_program_run_as_a_module(program: Daemon, tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "tool").mkdir()
    write_script(tmp_path / "tool", "", "__init__.py")
    write_script(tmp_path / "tool", "def inner(x): return x * 5\n", "parts.py")
    write_script(
        tmp_path / "tool",
        """
        import abi
        from .parts import inner
        from . import parts

        @abi.remote
        def run(x):
            return inner(x), parts.inner(x)

        print(abi.get(run.remote(2)))
        """,
        "__main__.py",
    )
    done = subprocess.run(
        [sys.executable, "-m", "tool"],
        capture_output=True,
        text=True,
        env=program.environment,
        cwd=tmp_path,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert (done.stdout, done.stderr) == ("(10, 10)\n", "")


def test_a_module_that_workers_cannot_import_says_where_they_looked(program: Daemon, tmp_path: Path) -> None:
    script = """
        import sys, types, abi

        ghost = types.ModuleType("ghost")
        exec("def haunt(x): return x", ghost.__dict__)
        sys.modules["ghost"] = ghost
        try:
            abi.get(abi.remote(ghost.haunt).remote(1))
        except abi.errors.TaskError as error:
            print(str(error).splitlines()[0])
        """
    said = output_of(program, script)
    assert "ghost" in said
    assert "sys.path" in said


# --- event loops ------------------------------------------------------------------------------------------------------


def test_async_methods_and_partials_of_coroutine_functions() -> None:
    async def wait(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    class Client:
        async def fetch(self, x: int) -> int:
            await asyncio.sleep(0)
            return x

        async def __call__(self, x: int) -> int:
            return -x

    assert abi.get(untyped.remote(functools.partial(wait, 1)).remote(2)) == 3
    assert abi.get(untyped.remote(Client().fetch).remote(4)) == 4
    assert abi.get(untyped.remote(Client()).remote(4)) == -4
