"""
The witness of the comments: what was planned, by rows without constraints, against what the forge has.

It compares what a reader sees: two comments that read the same, at the same place of one pull request, are one doubled
comment, whatever marker they carry. The forge is asked through its own file, so it may be down.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from forge.faults import Fault
from forge.store import comments, requests
from reviewer.posting import visible
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from forge.store import Request
    from sqlalchemy import Engine, Table


class Said(NamedTuple):
    """A comment as a reader sees it; `path`, `line` and `commit_id` only for one on a line."""

    number: int
    body: str
    path: str | None
    line: int | None
    commit_id: str | None

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.path else "the whole"
        return f"a comment on {place} of pr-{self.number}"


class Send(NamedTuple):
    """A comment is sent: since when (seconds since 1970), by which process, under which worker."""

    at: float
    pid: int
    worker_pid: int


@dataclass(frozen=True)
class Tally:
    """The comments of a round."""

    planned: int
    #: Requests that came to the forge: posts, those of them that took effect without the sender knowing, and lookups.
    posts: int
    unanswered: int
    lookups: int
    present: int
    #: What a reader sees twice or more, what is nowhere though a review had to say it, and what nobody planned.
    doubled: list[Said]
    lost: list[Said]
    strange: list[Said]
    #: What the forge would not have, and what nobody wanted to say any more after a push.
    refused: list[Said]
    dropped: list[Said]


class Comments:
    """Counts the comments of one repository on the forge, and holds them against the rows of one table."""

    def __init__(self, table: Table, *, engine: Engine, folder: Path, file: Path, repo: str) -> None:
        self._table, self._engine, self._file, self._repo = table, engine, file, repo
        self._sends = folder / f"{table.name}.sends"

    def unposted(self) -> set[str]:
        """The reviews with a comment that is planned and not on the forge."""
        there = self._present()
        return {key for key, said in self._planned() if said not in there}

    def sending(self) -> list[Send]:
        """The sends that have begun and not ended; some of their senders may be dead."""
        if not self._sends.exists():
            return []
        begun: dict[int, Send] = {}
        for line in self._sends.read_text().rpartition("\n")[0].splitlines():
            at, pid, worker_pid, word = line.split()
            if word == "begins":
                begun[int(pid)] = Send(float(at), int(pid), int(worker_pid))
            else:
                begun.pop(int(pid), None)
        return list(begun.values())

    def met(self) -> Counter[tuple[Fault, str, bool]]:
        """How many requests met each fault, by their method and whether they were applied."""
        return Counter((each.fault, each.method, each.applied) for each in self._requests())

    def tally(self, keys: Collection[str]) -> Tally:
        """Hold the forge against the rows; what the reviews of `keys` planned must be there."""
        rows, present, asked = self._planned(), self._present(), self._requests()
        planned = {said for _, said in rows}
        refusals = {_said(each.path, each.body) for each in asked if each.fault is Fault.REFUSED and each.body}
        needed = {said for key, said in rows if key in keys}
        missing = planned - set(present)
        posts = [each for each in asked if each.method == "POST"]
        silent = {Fault.LOST_REPLY, Fault.ERROR_AFTER, Fault.SLOW}
        return Tally(
            planned=len(planned),
            posts=len(posts),
            unanswered=sum(each.applied and each.fault in silent for each in posts),
            lookups=len(asked) - len(posts),
            present=present.total(),
            doubled=sorted((said for said, count in present.items() if count > 1), key=str),
            lost=sorted((missing & needed) - refusals, key=str),
            strange=sorted(set(present) - planned, key=str),
            refused=sorted(missing & refusals, key=str),
            dropped=sorted(missing - needed - refusals, key=str),
        )

    def _planned(self) -> list[tuple[str, Said]]:
        found = select(self._table).where(self._table.c.repo == self._repo)
        with self._engine.connect() as conn:
            return [
                (row.run_key, Said(row.number, row.body, row.path, row.line, row.commit_id))
                for row in conn.execute(found)
            ]

    def _present(self) -> Counter[Said]:
        return Counter(
            Said(each.number, visible(each.body), each.path, each.line, each.commit_id)
            for each in comments(self._file)
            if each.repo == self._repo
        )

    def _requests(self) -> list[Request]:
        return [each for each in requests(self._file) if each.path.startswith(f"/repos/{self._repo}/")]


def _said(path: str, body: str) -> Said:
    """What a post wanted to say."""
    wanted: dict[str, Any] = msgspec.json.decode(body)
    number = int(path.split("/")[5])
    return Said(number, visible(wanted["body"]), wanted.get("path"), wanted.get("line"), wanted.get("commit_id"))
