"""What the demo's tasks do: parse one file, and count what is in it.

Workers import this module by its name, as they would any module of a program.
"""

from __future__ import annotations

import ast
import os
import time
import warnings
from typing import NamedTuple

_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")


class Measure(NamedTuple):
    """One file. `lines` are its line breaks, as `wc -l` counts; `problem` says why it could not be parsed, else ""."""

    path: str
    lines: int
    functions: int = 0
    classes: int = 0
    longest: str = ""  # the longest function
    longest_lines: int = 0
    problem: str = ""


class Report(NamedTuple):
    """A measure, and where and how it was made: in which process, at which start of the task, with how much CPU."""

    measure: Measure
    pid: int
    attempt: int
    cpu_s: float


def measure_file(path: str) -> Report:
    """The task."""
    import abi

    begin = time.process_time()
    measure = measure_source(path)
    task = abi.current_task()
    return Report(measure, os.getpid(), task.attempt if task is not None else 0, time.process_time() - begin)


def measure_source(path: str) -> Measure:
    """Parse and count. Raises OSError if the file cannot be read; one that is no Python is a measure too."""
    with open(path, "rb") as file:
        source = file.read()
    lines = source.count(b"\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of string escapes that will be errors one day
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Measure(path, lines, problem=type(error).__name__)
    return _count(path, lines, tree)


def _count(path: str, lines: int, tree: ast.Module) -> Measure:
    """Definitions are statements, so expressions, most of a tree, need not be looked at."""
    functions = classes = longest_lines = 0
    longest = ""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        for name in _BODIES:
            below = getattr(node, name, None)
            if type(below) is list:  # a lambda has a body that is one expression
                todo += below
        if isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if (length, node.name) > (longest_lines, longest):
                longest, longest_lines = node.name, length
    return Measure(path, lines, functions, classes, longest, longest_lines)
