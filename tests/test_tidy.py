"""What review would say of any file, said by a test instead: bounds on size, and no bare `except`."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ["abi_runtime", "daemon", "worker", "cli"]

FUNCTION_LINES_MAX = 70  # a page: what a reader holds at once
FILE_LINES_MAX = 500  # half of it would be better; past it there are two subjects in one file


def untidy(path: str, source: str) -> Iterator[str]:
    lines = len(source.splitlines())
    if lines > FILE_LINES_MAX:
        yield f"{path}: {lines} lines, {FILE_LINES_MAX} at most"
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    yield f"{path}:{node.lineno}: {node.name} has {length} lines, {FUNCTION_LINES_MAX} at most"
            case ast.ExceptHandler(type=None):
                yield f"{path}:{node.lineno}: a bare except also swallows KeyboardInterrupt and SystemExit"


def test_every_file_is_tidy() -> None:
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert files
    said = [line for path in files for line in untidy(str(path.relative_to(ROOT)), path.read_text())]
    assert said == []


def test_untidiness_is_seen() -> None:
    long_function = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX
    assert len(list(untidy("planted", long_function))) == 1
    assert not list(untidy("planted", "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)))
    assert len(list(untidy("planted", "x = 1\n" * (FILE_LINES_MAX + 1)))) == 1
    assert len(list(untidy("planted", "try:\n    x = 1\nexcept:\n    x = 2\n"))) == 1


def test_every_package_says_that_it_is_typed() -> None:
    packages = ["abi_runtime/abi", "daemon/abid", "worker/abi_worker", "cli/abi_cli"]
    assert [name for name in packages if not (ROOT / name / "py.typed").exists()] == []
