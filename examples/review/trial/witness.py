"""
The witness: what the bodies wrote outside of the ledger, and the verdict that follows from it.

It reads two things: a table without constraints, and a file that only ever grew by a line for each start of a body.
It asks neither runclaim nor Celery.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sqlalchemy import Engine, Table

PHASES: Final = ("plan", "deliver", "compound")
#: A review's key and one of its phases.
Place = tuple[str, str]


@dataclass(frozen=True)
class Start:
    """A body started: when (seconds since 1970), in which process, under which worker, and for what."""

    at: float
    pid: int
    worker_pid: int
    phase: str
    key: str

    @property
    def place(self) -> Place:
        """The phase of the review that it was for."""
        return self.key, self.phase


@dataclass(frozen=True)
class Row:
    """A body's row: it was there once it committed."""

    key: str
    phase: str
    pid: int
    at: float

    @property
    def place(self) -> Place:
        """The phase of the review that it is of."""
        return self.key, self.phase


@dataclass(frozen=True)
class Verdict:
    """What the rows say about the reviews that were asked for."""

    #: Phases without a row, phases with more than one, and rows that nobody asked for.
    lost: list[Place]
    doubled: list[Place]
    strange: list[Place]
    rows: int
    #: Reviews with a row of their last phase.
    finished: int
    starts: int
    #: Starts of a body beyond the first of its phase.
    repeats: int


class Witness:
    """Reads the rows of one table and the starts beside it. Cheap enough to ask ten times a second."""

    def __init__(
        self, table: Table, *, engine: Engine, folder: Path, once: bool, overtaken: Collection[str] = ()
    ) -> None:
        self._table, self._engine, self._overtaken = table, engine, overtaken
        self._file = folder / f"{table.name}.starts"
        #: Whether a phase is over with its first row; a chain's copies each go on for themselves.
        self.once = once

    def rows(self) -> list[Row]:
        """All rows."""
        with self._engine.connect() as conn:
            return [Row(*row) for row in conn.execute(select(self._table))]

    def starts(self) -> list[Start]:
        """All starts, in their order."""
        if not self._file.exists():
            return []
        found = []
        whole = self._file.read_text().rpartition("\n")[0]  # the last line may be on its way
        for line in whole.splitlines():
            at, pid, worker_pid, phase, key = line.split(maxsplit=4)
            found.append(Start(float(at), int(pid), int(worker_pid), phase, key))
        return found

    def finished(self) -> set[str]:
        """The reviews that have a row of their last phase."""
        return {row.key for row in self.rows() if row.phase == PHASES[-1]}

    def in_flight(self) -> list[Start]:
        """
        The bodies that run now: the last start of each live process, unless its row is there.

        One that was overtaken may have been told to stop, and writes no row then: it is left out.
        """
        # The starts first: a row that comes in between only makes a body look idle.
        starts = self.starts()
        rows = self.rows()
        settled = {row.place for row in rows} if self.once else set()
        newest = {start.place: start for start in starts} if self.once else {}
        return [
            start
            for start in {start.pid: start for start in starts}.values()
            if start.place not in settled
            and start.key not in self._overtaken
            and newest.get(start.place, start) == start
            if not _is_done(start, starts, rows) and lives(start.pid)
        ]

    def beyond_messages(self) -> set[str]:
        """The reviews that wait for no message, because a body has started."""
        return {start.key for start in self.starts()} if self.once else set()

    def was_overtaken(self, start: Start) -> bool:
        """Whether another process has started the same phase since."""
        others = [each for each in self.starts() if each.place == start.place and each.pid != start.pid]
        return any(each.at > start.at for each in others)

    def never_ended(self, start: Start) -> bool:
        """Whether the body has written no row; asked when it cannot any more."""
        return not _is_done(start, self.starts(), self.rows())

    def verdict(self, keys: Collection[str], overtaken: Collection[str]) -> Verdict:
        """Hold the rows against the reviews that were asked for; of one that was overtaken, none has to be there."""
        wanted = [(key, phase) for key in keys for phase in PHASES]
        allowed = {(key, phase) for key in (*keys, *overtaken) for phase in PHASES}
        rows, starts = Counter(row.place for row in self.rows()), self.starts()
        return Verdict(
            lost=[place for place in wanted if not rows[place]],
            doubled=[place for place in rows if rows[place] > 1],
            strange=sorted(set(rows) - allowed),
            rows=rows.total(),
            finished=sum(1 for key in keys if rows[key, PHASES[-1]]),
            starts=len(starts),
            repeats=len(starts) - len({start.place for start in starts}),
        )


def _is_done(start: Start, starts: list[Start], rows: list[Row]) -> bool:
    """A process does one body after the other, so as many rows as starts mean that the last has ended."""
    begun = sum(1 for each in starts if (each.place, each.pid) == (start.place, start.pid))
    return sum(1 for each in rows if (each.place, each.pid) == (start.place, start.pid)) >= begun


def lives(pid: int) -> bool:
    """Whether there is such a process, perhaps stopped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
