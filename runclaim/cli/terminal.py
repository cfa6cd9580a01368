"""
What people see: talk on stderr, data on stdout, and what only a terminal gets.

Off a terminal a table is lines of tab-separated values without a head, nothing is cut, coloured or overwritten.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The colour of a state or a status: what is in progress, what ended well, what needs a person, what ended otherwise.
_COLOURS: Final = {
    "running": "cyan",
    "active": "cyan",
    "sending": "cyan",
    "succeeded": "green",
    "complete": "green",
    "posted": "green",
    "blocked": "yellow",
    "unknown": "yellow",
    "failed": "red",
}
#: Control characters, and separators of lines and paragraphs; what writes from right to left until it is ended.
_BREAKS: Final = frozenset({"Cc", "Zl", "Zp"})
_TURNS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
#: The same where JSON leaves them as they are.
_STEERS: Final = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_NARROWEST: Final = 8
_GAP: Final = 2


def say(text: str) -> None:
    """One line of talk, on stderr."""
    click.echo(printable(text), err=True)


def give(text: str) -> None:
    """A line of data, on stdout."""
    click.echo(printable(text))


def give_styled(text: str) -> None:
    """A line of data with its styles, on stdout; its parts were made printable before they were styled."""
    click.echo(text)


def give_json(value: Any) -> None:
    """One line of JSON, on stdout."""
    click.echo(_STEERS.sub(_escaped, json.dumps(value, ensure_ascii=False)))


def give_output(value: Any) -> None:
    """What a run gave, on stdout: text as it is, anything else as JSON."""
    if isinstance(value, str):
        click.echo(printable(value) if is_terminal() else value)
    else:
        give_json(value)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def talks_live() -> bool:
    """Whether a line on stderr can be overwritten."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def live(text: str) -> None:
    """Show `text` in place of the last line of talk; call with nothing to end it. Only where `talks_live`."""
    room = shutil.get_terminal_size().columns - 1
    click.echo(f"\r\x1b[2K{one_line(text)[:room]}", nl=False, err=True)


def coloured(state: str) -> str:
    """A state or a status, printable, in its colour; click leaves colours out where they would not be shown."""
    return click.style(one_line(state), fg=_COLOURS.get(state), dim=state not in _COLOURS and state != "queued")


def one_line(text: str) -> str:
    """`text` as one printable line that a tab may follow."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def confirmed(question: str) -> bool:
    """Whether the person at the terminal says yes. Raises: click.UsageError without a terminal."""
    if not sys.stdin.isatty():
        raise click.UsageError("this command asks for confirmation, and there is no terminal to ask on; give --yes")
    # Not click's: its prompt leaves a space on stdout, among the data.
    click.echo(f"{printable(question)} [y/N] ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def printable(text: str) -> str:
    """`text` without what would steer a terminal: keys and errors may come from anyone."""
    return "".join("\ufffd" if _steers(each) else each for each in text)


def _steers(each: str) -> bool:
    """Whether a character moves, recolours, breaks or turns round what comes after it."""
    return each not in "\n\t" and (unicodedata.category(each) in _BREAKS or each in _TURNS)


class Table:
    """
    Rows of text as they come. `flexible` names the column that is cut where the terminal is too narrow.

    On a terminal the rows given so far are laid out together; elsewhere each is written at once.
    """

    def __init__(self, *columns: str, flexible: str, state: str) -> None:
        self._columns, self._flexible, self._state = columns, columns.index(flexible), columns.index(state)

    def show(self, rows: Iterable[Sequence[str]]) -> int:
        """Write every row; returns how many there were."""
        clean = ([one_line(cell) for cell in row] for row in rows)
        return self._lay_out(list(clean)) if is_terminal() else self._write(clean)

    def _write(self, rows: Iterable[Sequence[str]]) -> int:
        count = 0
        for count, row in enumerate(rows, start=1):  # noqa: B007 - the count outlives the loop
            give("\t".join(row))
        return count

    def _lay_out(self, rows: Sequence[list[str]]) -> int:
        if not rows:
            return 0
        widths = [max(len(cell) for cell in column) for column in zip(self._columns, *rows, strict=True)]
        over = sum(widths) + _GAP * (len(widths) - 1) - shutil.get_terminal_size().columns
        widths[self._flexible] = max(_NARROWEST, widths[self._flexible] - max(0, over))
        give_styled(click.style(self._line([name.upper() for name in self._columns], widths), dim=True))
        for row in rows:
            give_styled(self._line(row, widths, state=self._state))
        return len(rows)

    def _line(self, row: Sequence[str], widths: Sequence[int], state: int | None = None) -> str:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cut = cell if len(cell) <= width else f"{cell[: width - 1]}…"
            padding = "" if index == len(widths) - 1 else " " * (width - len(cut) + _GAP)
            cells.append((coloured(cut) if index == state else cut) + padding)
        return "".join(cells)
