"""The runs of a ledger that is at hand; with an application, whose broker hears of what is queued at once."""

from __future__ import annotations

import getpass
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from runclaim.cli.environment import API_URL, LEDGER_URL
from runclaim.cli.exits import NotFound, Refused, Unreachable
from runclaim.cli.local_enqueue import make, make_again
from runclaim.cli.service import ENDS, Asked, Filter, Json
from runclaim.errors import RunNotFound
from runclaim.flows.client.access import Ledger
from runclaim.flows.messages.no_broker import NoBroker
from runclaim.keys import nonce
from runclaim.ledger.actions import decide as decisions
from runclaim.ledger.actions.settle import ActionState
from runclaim.ledger.doors import run_pages as listing
from runclaim.ledger.doors.follow import event_json, journal_after
from runclaim.ledger.listeners import untold
from runclaim.states import RunState
from runclaim.urls import sqlite_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.app import Runclaim
    from runclaim.config import Config
    from runclaim.ledger.actions.decide import ActionView
    from runclaim.ledger.doors.run_pages import RunLine
    from runclaim.ledger.read import EventView

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5


class LocalService:
    """A `Service` on a ledger of this machine's reach. Made by `on`, which closes its connections."""

    def __init__(self, runs: Runclaim | None, ledger: Ledger) -> None:
        self._runs, self._ledger = runs, ledger
        self._by = f"{_person()}, by the command line"

    @classmethod
    @contextmanager
    def on(cls, runs: Runclaim | None, config: Config) -> Iterator[Self]:
        """On the ledger of the application, or of `config` without one. Raises: Unreachable."""
        if runs is not None:
            ledger = runs.ledger
        else:
            _require_file(config)
            nobody = NoBroker()
            ledger = Ledger(lambda: config, lambda: nobody)
        try:
            # Reached now, so that a ledger that is not there is told before anything is asked of a person.
            ledger.require_schema()
            yield cls(runs, ledger)
        finally:
            ledger.close()

    @property
    def starts(self) -> str:
        """When a run that was queued just now starts."""
        if self._rings:
            return "at once"
        config = self._ledger.config
        # What an application enqueued counts as published: a broker that did not answer is tried again after that.
        wait = config.dispatch_every + (config.dispatch_after if self._runs is not None else timedelta(0))
        return f"when beat dispatches it, within {wait.total_seconds():g} s"

    @property
    def sends(self) -> str:
        """When an action that became due just now is sent."""
        seconds = self._ledger.config.deliver_every.total_seconds()
        return "at once" if self._rings else f"when beat schedules it, within {seconds:g} s"

    @property
    def tells(self) -> str:
        """When listeners are told of what is due."""
        return f"beat checks every {self._ledger.config.tell_every.total_seconds():g} s"

    @property
    def _rings(self) -> bool:
        """Whether the broker hears of what is due: there is an application, and it answered just now."""
        return not getattr(self._ledger.publisher, "is_left_alone", True)

    def enqueue(self, asked: Asked) -> tuple[Json, bool]:
        """The run, with its input, and whether this call made it."""
        made = make(self._runs, self._ledger, asked)
        return self.run(made.run_id), made.created

    def run(self, run_id: str) -> Json:
        """The run with its input, and its result once it has succeeded."""
        line = self._line(run_id)
        view, results = self._ledger.view(run_id), self._ledger.results(run_id)
        result = results[line.phase] if line.state is RunState.SUCCEEDED else None
        return line.as_json() | {"input": view.input, "result": result}

    def runs(self, wanted: Filter) -> Iterator[Json]:
        """Runs, the newest first, as their pages are read."""
        asked = listing.RunFilter(
            project=wanted.project or self._ledger.config.project,
            flow=wanted.flow,
            states=frozenset(RunState(state) for state in wanted.states),
            since=wanted.since,
            until=wanted.until,
        )
        left, after = wanted.limit, None
        while left > 0:
            page = self._page(asked, after, left)
            yield from (line.as_json() for line in page.runs)
            left -= len(page.runs)
            if (after := page.next_after) is None:
                return

    def _page(self, asked: listing.RunFilter, after: str | None, limit: int) -> listing.Page:
        return self._ledger.ask(lambda conn: listing.list_runs(conn, asked, after=after, limit=limit))

    def change(self, verb: str, run_id: str) -> Json:
        """Do the verb to the run; the run as it is then, for a rerun the new one."""
        line = self._line(run_id)
        if verb == "rerun":
            return self.run(make_again(self._runs, self._ledger, line, by=self._by))
        handle = self._ledger.handle(line.id)
        moves = {"cancel": handle.cancel, "retry": handle.retry, "resume": handle.resume}
        moves[verb](by=self._by)
        return self.run(run_id)

    def follow(self, run_id: str) -> Iterator[Json]:
        """The events of the run, as they come."""
        last, pause = 0, _FIRST_PAUSE
        while True:
            # The state first: whatever made it is in the journal by then.
            over = str(self._line(run_id).state) in ENDS
            while fresh := self._after(run_id, last):
                yield from map(event_json, fresh)
                last, pause = fresh[-1].id, _FIRST_PAUSE
            if over:
                return
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _after(self, run_id: str, last: int) -> list[EventView]:
        return self._ledger.ask(lambda conn: journal_after(conn, run_id, after=last))

    def wait(self, run_id: str, seconds: float) -> Json:
        """The run once it has ended, or as it is after so many seconds."""
        ends, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            line = self._line(run_id)
            left = ends - time.monotonic()
            if str(line.state) in ENDS or left <= 0:
                return line.as_json()
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def actions(self, *, project: str | None, run_id: str | None, state: str | None, limit: int) -> Iterator[Json]:
        """Planned actions: those of a run in their order, or the newest first."""
        wanted = None if state is None else ActionState(state)
        if run_id is None:
            found = self._ledger.ask(
                lambda conn: decisions.list_actions(conn, project=project, state=wanted, limit=limit)
            )
        else:
            is_asked = project in {None, self._line(run_id).project}
            every = self._ledger.ask(lambda conn: decisions.actions_of(conn, run_id)) if is_asked else []
            found = [each for each in every if wanted is None or each.state == wanted][:limit]
        yield from (each.as_json() for each in found)

    def action(self, action_id: str) -> Json:
        """One action."""
        return self._action(action_id).as_json()

    def _action(self, action_id: str) -> ActionView:
        found = self._ledger.ask(lambda conn: decisions.action(conn, action_id))
        if found is None:
            raise NotFound(f"there is no action {action_id}; list them with: runclaim actions list")
        return found

    def retry_action(self, action_id: str) -> Json:
        """Send an action again that failed or is unknown."""
        decision = nonce()
        retried = self._ledger.database.run(
            lambda conn: decisions.retry_action(conn, action_id, decision=decision),
            read_back=lambda conn: decisions.decided(conn, action_id, decision=decision),
        )
        if not retried:
            raise Refused(self._action(action_id).not_retried)
        self._ledger.publisher.ring_actions(1)
        return self.action(action_id)

    def resolve_action(self, action_id: str, upstream_id: str | None) -> Json:
        """Say what became of an unknown action."""
        decision = nonce()
        resolved = self._ledger.database.run(
            lambda conn: decisions.resolve_action(
                conn, action_id, upstream_id=upstream_id, by=self._by, decision=decision
            ),
            read_back=lambda conn: decisions.decided(conn, action_id, decision=decision),
        )
        if not resolved:
            raise Refused(self._action(action_id).not_resolved)
        return self.action(action_id)

    def _line(self, run_id: str) -> RunLine:
        found = self._ledger.ask(lambda conn: listing.run_line(conn, run_id))
        if found is None:
            raise RunNotFound(run_id)
        return found

    def listeners(self) -> list[Json]:
        """Who is told of events, by their names."""
        return [asdict(each) for each in self._ledger.ask(untold.listener_views)]

    def tell_again(self, name: str) -> int:
        """Have what was given up for a listener told again; how many events. Raises: NotFound."""
        if all(each["name"] != name for each in self.listeners()):
            raise NotFound(f"there is no listener {name}; list them with: runclaim listeners list")
        return self._ledger.database.run(lambda conn: untold.tell_again(conn, name))


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "somebody"


def _require_file(config: Config) -> None:
    """Raises: Unreachable when the ledger is a SQLite file that is not there: looking at it would make it."""
    file = sqlite_file(config.database_url)
    if file is not None and not file.exists():
        raise Unreachable(
            f"there is no ledger {config.database_url}. Name yours: set {LEDGER_URL}, or give --url or -A;"
            f" an API: set {API_URL}. A new one is made by: runclaim db upgrade"
        )
