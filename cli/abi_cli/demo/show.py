"""How the demo looks: bars and tables by rich on a terminal, the same as plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from abi_cli.demo.checks import Check

PLAIN_WIDTH = 110
PLAIN_STEPS = 5
INDENT = " " * 10


class Show:
    """Everything that is printed goes through here; names of files are never taken for markup."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(markup=False, highlight=False)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH

    def title(self, text: str) -> None:
        """The first line."""
        self.console.print(text, style="bold")

    def step(self, name: str, text: str) -> None:
        """A new part of the story."""
        self.console.print(f"\n{name:<{len(INDENT)}}{text}", style="bold", soft_wrap=True)

    def say(self, text: str) -> None:
        """A line inside a part."""
        self.console.print(INDENT + text, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Callable[[int], None]]:
        """Yields what is to be told how many are done."""
        if not self.console.is_terminal:
            yield _plain_progress(self.say, total)
            return
        columns = TextColumn(INDENT.removesuffix(" ")), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.update(task, completed=done)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Names to the left, numbers to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for number, name in enumerate(head):
            table.add_column(name, justify="right" if number and _all_numbers(rows, number) else "left")
        for row in rows:
            table.add_row(*row)
        with self.console.capture() as captured:
            self.console.print(table)
        for line in captured.get().splitlines():
            self.console.out(INDENT + line.rstrip(), highlight=False)

    def check(self, check: Check) -> None:
        """One that holds is a line; one that does not cannot be overlooked."""
        mark, style = ("holds", "green") if check.holds else ("FAILS", "bold red")
        self.console.print(f"{INDENT}{mark}  {check.what}: {check.told}", style=style, soft_wrap=True)


def _plain_progress(say: Callable[[str], None], total: int) -> Callable[[int], None]:
    told = 0

    def update(done: int) -> None:
        nonlocal told
        step = done * PLAIN_STEPS // total if total else PLAIN_STEPS
        if step > told:
            told = step
            say(f"{done:,} of {total:,} files")

    return update


def _all_numbers(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column].replace(",", "").replace(".", "").isdigit() for row in rows if row[column])
