"""The runs of a ledger that is at hand; with an application, whose broker hears of what is queued at once."""

from __future__ import annotations

import getpass
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Self

from runclaim.cli.environment import API_URL, LEDGER_URL
from runclaim.cli.exits import NotFound, Refused, Unreachable
from runclaim.cli.local_enqueue import enqueue, rerun
from runclaim.errors import RunNotFound
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.changes import (
    ActionConflict,
    ActionNotFound,
    Cancel,
    ResolveAction,
    Restart,
    RetryAction,
    view_of,
)
from runclaim.flows.messages.no_broker import NoBroker
from runclaim.ledger.actions.settle import ActionState
from runclaim.ledger.doors.run_pages import RunFilter
from runclaim.pause import Pauses
from runclaim.service import actions, erasure, events, listeners, phase_moves, runs
from runclaim.service.errors import ListenerNotFound, UnknownFlow
from runclaim.states import RunState
from runclaim.urls import sqlite_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.app import Runclaim
    from runclaim.cli.backend import Erasing, Filter, Json, Moving
    from runclaim.config import Config
    from runclaim.flows.client.access import Change
    from runclaim.ledger.actions.decide import ActionView
    from runclaim.ledger.history.erase import Whose
    from runclaim.service.run_request import RunRequest


class LocalBackend:
    """A `Backend` on a ledger of this machine's reach. Made by `on`, which closes its connections."""

    def __init__(self, application: Runclaim | None, access: LedgerAccess) -> None:
        self._application, self._access = application, access
        self._by = f"{_person()}, by the command line"

    @classmethod
    @contextmanager
    def on(cls, application: Runclaim | None, config: Config) -> Iterator[Self]:
        """On the ledger of the application, or of `config` without one. Raises: Unreachable."""
        if application is not None:
            access = application.ledger
        else:
            require_file(config)
            nobody = NoBroker()
            access = LedgerAccess(lambda: config, lambda: nobody)
        try:
            # Reached now, so that a ledger that is not there is told before anything is asked of a person.
            access.require_schema()
            yield cls(application, access)
        finally:
            access.close()

    @property
    def starts(self) -> str:
        """When a run that was queued just now starts."""
        if self._rings:
            return "at once"
        config = self._access.config
        # What an application enqueued counts as published: a broker that did not answer is tried again after that.
        wait = config.dispatch_every + (config.dispatch_after if self._application is not None else timedelta(0))
        return f"when beat dispatches it, within {wait.total_seconds():g} s"

    @property
    def sends(self) -> str:
        """When an action that became due just now is sent."""
        seconds = self._access.config.deliver_every.total_seconds()
        return "at once" if self._rings else f"when beat schedules it, within {seconds:g} s"

    @property
    def tells(self) -> str:
        """When listeners are told of what is due."""
        return f"beat checks every {self._access.config.tell_every.total_seconds():g} s"

    @property
    def _rings(self) -> bool:
        """Whether the broker hears of what is due: there is an application, and it answered just now."""
        return not getattr(self._access.publisher, "is_left_alone", True)

    def enqueue(self, request: RunRequest, idempotency_key: str | None) -> tuple[Json, bool]:
        """The run, with its input, and whether this call made it."""
        run_id, is_created = enqueue(self._application, self._access, request, idempotency_key)
        return self.run(run_id), is_created

    def run(self, run_id: str) -> Json:
        """The run with its input, and its result once it has succeeded."""
        return self._access.ask(lambda conn: runs.whole_run_json(conn, view_of(conn, run_id)))

    def runs(self, wanted: Filter) -> Iterator[Json]:
        """Runs, the newest first, as their pages are read."""
        which = RunFilter(
            project=wanted.project or self._access.config.project,
            flow=wanted.flow,
            states=frozenset(RunState(state) for state in wanted.states),
            since=wanted.since,
            until=wanted.until,
        )
        return runs.runs(self._access, which, limit=wanted.limit)

    def change(self, verb: str, run_id: str) -> Json:
        """Do the verb to the run; the run as it is then, for a rerun the new one."""
        if verb == "rerun":
            return self.run(rerun(self._access, run_id, by=self._by))
        if verb == "cancel":
            self._access.do(Cancel([run_id], self._by))
        else:
            self._access.do(Restart("retry" if verb == "retry" else "resume", run_id, self._by))
        return self.run(run_id)

    def erasable(self, whose: Erasing) -> tuple[int, bool]:
        """How many runs would be erased, and whether there are more."""
        found = erasure.erasable(self._access, self._named(whose), keys=whose.blank_key)
        return found.runs, found.more

    def erase(self, whose: Erasing) -> tuple[int, bool]:
        """Erase some of the runs: how many, and whether others are left."""
        done = erasure.erase_all(self._access, self._named(whose), by=self._by, keys=whose.blank_key)
        return done.runs, done.more

    def _named(self, whose: Erasing) -> Whose:
        project = whose.project or self._access.config.project
        return erasure.whose(project, flow=whose.flow, key=whose.key, subject=whose.subject)

    def move_phase(self, moving: Moving, *, dry_run: bool) -> Json:
        """Move the phase of some of the runs, with `dry_run` of none; how the others stand."""
        project = moving.project or self._access.config.project
        move = phase_moves.phase_move(
            project, flow=moving.flow, old=moving.old, new=moving.new, key=moving.key, run_ids=moving.ids
        )
        with _worded():
            return phase_moves.moves_json(self._access, move, by=self._by, dry_run=dry_run)

    def follow(self, run_id: str) -> Iterator[Json]:
        """The events of the run, as they come."""
        last, pauses = 0, Pauses()
        while True:
            new = self._access.ask(partial(events.events_after, run_id=run_id, after=last))
            yield from map(events.event_json, new.events)
            if new.state is None:
                raise RunNotFound(run_id)
            if new.events:
                last = new.events[-1].id
                pauses.restart()
            elif new.state in runs.ENDS:
                return
            else:
                time.sleep(pauses.next() or 0.0)

    def wait(self, run_id: str, seconds: float) -> Json:
        """The run once it has ended, or as it is after `seconds`."""
        pauses = Pauses(seconds)
        while True:
            line = runs.find_run(self._access, run_id)
            if line.state in runs.ENDS or (pause := pauses.next()) is None:
                return runs.run_json(line)
            time.sleep(pause)

    def actions(self, *, project: str | None, run_id: str | None, state: str | None, limit: int) -> Iterator[Json]:
        """Planned actions: those of a run in their order, or the newest first."""
        wanted = None if state is None else ActionState(state)
        yield from actions.actions(self._access, project=project, run_id=run_id, state=wanted, limit=limit)

    def action(self, action_id: str) -> Json:
        """One action."""
        with _worded():
            return actions.action_json(actions.find_action(self._access, action_id))

    def retry_action(self, action_id: str) -> Json:
        """Send an action again that failed or is unknown."""
        return self._decide(RetryAction(action_id))

    def resolve_action(self, action_id: str, upstream_id: str | None) -> Json:
        """Say what became of an unknown action."""
        return self._decide(ResolveAction(action_id, upstream_id, self._by))

    def _decide(self, decision: Change[ActionView]) -> Json:
        with _worded():
            return actions.action_json(self._access.do(decision))

    def listeners(self) -> list[Json]:
        """Who is told of events, by their names."""
        return listeners.listeners(self._access)

    def tell_again(self, name: str) -> int:
        """Have what was given up for a listener told again; how many events. Raises: NotFound."""
        with _worded():
            return listeners.tell_again(self._access, name)


@contextmanager
def _worded() -> Iterator[None]:
    """What is refused, in the words of the command line."""
    try:
        yield
    except ActionNotFound as missing:
        raise NotFound(f"there is no action {missing.action_id}; list them with: runclaim actions list") from missing
    except ListenerNotFound as missing:
        raise NotFound(f"there is no listener {missing.name}; list them with: runclaim listeners list") from missing
    except UnknownFlow as unknown:
        known = f"; known are {', '.join(unknown.known)}" if unknown.known else ""
        raise NotFound(f"flow {unknown.name} is not registered: name its application with -A{known}") from unknown
    except ActionConflict as conflict:
        raise Refused(str(conflict)) from conflict


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "somebody"


def require_file(config: Config) -> None:
    """Raises: Unreachable when the ledger is a SQLite file that is not there: looking at it would make it."""
    file = sqlite_file(config.database_url)
    if file is not None and not file.exists():
        raise Unreachable(
            f"there is no ledger {config.database_url}. To use another one, set {LEDGER_URL} or give --url or -A;"
            f" to use an API, set {API_URL}; to create this one, run: runclaim db upgrade"
        )
