"""
What a person sees: a moving bar and drawn tables on a terminal, sparse plain lines everywhere else.

The words are the same in both. NO_COLOR and TERM=dumb are respected.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

#: Off a terminal, progress is a line this often.
_PLAIN_SECONDS: Final = 5.0

#: `show(ended, faults)` moves the bar.
Show = Callable[[int, int], None]


@dataclass(frozen=True)
class Table:
    """Words in columns; a heading that starts with a space stands over numbers, which are set to the right."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return self.headings[column].startswith(" ")


class Screen(Protocol):
    """Where the demo speaks."""

    #: How many lines of a table fit.
    height: int

    def say(self, text: str = "") -> None:
        """One line."""
        ...

    def head(self, text: str) -> None:
        """A heading, with a line of space above it."""
        ...

    def table(self, table: Table) -> None:
        """A table, with a line of space above it."""
        ...

    def progress(self, name: str, total: int) -> AbstractContextManager[Show]:
        """A bar for as long as the context lasts."""
        ...


class Plain:
    """Lines of text, for files, pipes and logs."""

    height = 24

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, text: str = "") -> None:
        with self._lock:
            print(text, flush=True)

    def head(self, text: str) -> None:
        self.say(f"\n{text}")

    def table(self, table: Table) -> None:
        lines = [[heading.strip() for heading in table.headings], *[[str(cell) for cell in row] for row in table.rows]]
        widths = [max(len(line[column]) for line in lines) for column in range(len(table.headings))]
        self.head(table.title)
        for line in lines:
            cells = [
                cell.rjust(width) if table.is_number(column) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            self.say(f"  {'  '.join(cells)}".rstrip())

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Show]:
        began = told = time.monotonic()

        def show(ended: int, faults: int) -> None:
            nonlocal told
            if time.monotonic() >= told + _PLAIN_SECONDS:
                told = time.monotonic()
                self.say(f"{told - began:6.1f} s  {name}: {ended} of {total} ended, {faults} faults so far")

        yield show


class Terminal:
    """A bar that moves, with what happens above it."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self.height = self._console.height

    def say(self, text: str = "") -> None:
        self._console.print(Text(text))

    def head(self, text: str) -> None:
        self._console.print(Text(f"\n{text}", style="bold"))

    def table(self, table: Table) -> None:
        self.head(table.title)
        drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for column, heading in enumerate(table.headings):
            side: Literal["left", "right"] = "right" if table.is_number(column) else "left"
            # Only the last column gives way on a narrow terminal.
            cells = [heading.strip(), *[str(row[column]) for row in table.rows]]
            least = 0 if heading is table.headings[-1] else max(map(len, cells))
            drawn.add_column(heading.strip(), justify=side, no_wrap=True, overflow="ellipsis", min_width=least)
        for row in table.rows:
            drawn.add_row(*[Text(str(cell)) for cell in row])
        self._console.print(drawn)

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Show]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ended, {task.fields[faults]} faults so far"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(name, total=total, faults=0)
            yield lambda ended, faults: bar.update(task, completed=ended, faults=faults)


def many(count: int, one: str, more: str = "") -> str:
    """A number with its noun: `1 review`, `3 reviews`, `2 bodies`."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"


def screen() -> Screen:
    """The screen that fits where the output goes."""
    return Terminal() if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" else Plain()
