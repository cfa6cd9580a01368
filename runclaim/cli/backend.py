"""
What the commands ask for, wherever the ledger is: `cli.local` has it at hand, `cli.remote` asks the API.

Runs, events and actions come as the JSON that both doors show, so a command prints the same for either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from runclaim.service.run_request import RunRequest

Json = dict[str, Any]

#: States that a run does not leave by itself, and that no waiting ends otherwise.
ENDS: Final = frozenset({"succeeded", "failed", "canceled", "superseded", "blocked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which runs: the newest first, at most `limit`; no states are all of them."""

    project: str | None = None
    flow: str | None = None
    states: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasing:
    """Whose ended runs to erase: those of a key of a flow, or of a subject."""

    project: str | None
    flow: str | None
    key: str | None
    subject: str | None
    blank_key: bool

    def __str__(self) -> str:
        what = f"key {self.key}" if self.key is not None else f"subject {self.subject}"
        return what if self.flow is None else f"{what} of flow {self.flow}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """Of which live runs which phase gets which name; with `key` or `ids` only of those."""

    project: str | None
    flow: str
    old: str
    new: str
    key: str | None
    ids: tuple[str, ...]


class Backend(Protocol):
    """
    The runs of one ledger.

    Raises, in every method: RunclaimError with an exit code of its own, see `runclaim.cli.exits`.
    """

    @property
    def starts(self) -> str:
        """When a run that was queued just now starts, for people: `at once`, `within 5 s`."""
        ...

    @property
    def sends(self) -> str:
        """When an action that became due just now is sent, for people."""
        ...

    def enqueue(self, request: RunRequest, idempotency_key: str | None) -> tuple[Json, bool]:
        """The run, with its input, and whether it was made for this request, by this call or under its key before."""
        ...

    def run(self, run_id: str) -> Json:
        """The run with its input and its result, which is `None` until it has succeeded."""
        ...

    def runs(self, wanted: Filter) -> Iterator[Json]:
        """Runs without input and result, as their pages come."""
        ...

    def change(self, verb: str, run_id: str) -> Json:
        """`cancel`, `retry` or `resume` the run, or `rerun` it; the run as it is then, for `rerun` the new one."""
        ...

    def erasable(self, whose: Erasing) -> tuple[int, bool]:
        """How many runs `erase` would erase, and whether there are more than that."""
        ...

    def erase(self, whose: Erasing) -> tuple[int, bool]:
        """Erase some of the runs: how many, and whether others are left."""
        ...

    def move_phase(self, moving: Moving, *, dry_run: bool) -> Json:
        """Move the phase of some of the runs, with `dry_run` of none: `runs`, and counts of those that are left."""
        ...

    def follow(self, run_id: str) -> Iterator[Json]:
        """The events of the run from its first, as they come; ends after the last one of a run that has ended."""
        ...

    def wait(self, run_id: str, seconds: float) -> Json:
        """The run once it has ended, or as it is after `seconds`, without input and result."""
        ...

    def actions(self, *, project: str | None, run_id: str | None, state: str | None, limit: int) -> Iterator[Json]:
        """Planned actions: those of a run in their order, or the newest first."""
        ...

    def action(self, action_id: str) -> Json:
        """One action."""
        ...

    def retry_action(self, action_id: str) -> Json:
        """Send an action again that failed or is unknown."""
        ...

    def resolve_action(self, action_id: str, upstream_id: str | None) -> Json:
        """Say what became of an unknown action: posted under that id, or never."""
        ...
