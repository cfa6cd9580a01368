"""A handle on a run: its state, its results, and how to stop it or wait for it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runclaim.errors import DeclarationError, NotCommitted, RunFailed, RunNotFound, StateConflict, WaitTimeout
from runclaim.flows.body.in_body import refuse_in_body
from runclaim.flows.client.after_commit import Fate
from runclaim.flows.client.changes import Cancel, Restart, SendSignal, view_of
from runclaim.flows.client.enqueue import Rerun, make_runs
from runclaim.flows.client.erase import Erase
from runclaim.flows.client.run_source import RunSource
from runclaim.flows.client.signal import Signal
from runclaim.ledger import read
from runclaim.ledger.actions.decide import ActionView, actions_of
from runclaim.ledger.body.findings import FindingView, findings_of
from runclaim.ledger.body.sessions import SessionView, sessions_of
from runclaim.pause import Pauses
from runclaim.states import TERMINAL, PhaseStatus, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.client.after_commit import Pending
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.read import EventView, RunView


class Run:
    """
    One run, by its id. Every property reads the ledger again.

    `created` tells whether the call that made this handle made the run, or found it under its key.

    Raises: LedgerClosed.
    """

    def __init__(
        self, access: LedgerAccess, run_id: str, flow: DeclaredFlow[Any] | None = None, *, created: bool = False
    ) -> None:
        access.require_open()
        self.id, self.created = run_id, created
        self._access, self._flow = access, flow
        #: Of the application's transaction that made the run, if one did.
        self.pending: Pending | None = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say why a run that this handle's own transaction made is not there. Raises: NotCommitted, RunNotFound."""
        try:
            yield
        except RunNotFound:
            if self.pending is None or self.pending.fate is Fate.COMMITTED:
                raise
            raise NotCommitted(self.id, self.pending.fate) from None

    @property
    def view(self) -> RunView:
        """The whole run, as it is now. Raises: RunNotFound; NotCommitted before its own transaction has ended."""
        with self._explained():
            return self._access.ask(lambda conn: view_of(conn, self.id))

    @property
    def state(self) -> RunState:
        """The run's state. Raises: RunNotFound."""
        return self.view.state

    @property
    def phases(self) -> dict[str, PhaseStatus]:
        """Each phase in order with its status. Raises: RunNotFound."""
        return self.view.phases

    @property
    def results(self) -> dict[str, Any]:
        """What each complete phase returned."""
        recorded = self._access.ask(lambda conn: read.results(conn, self.id))
        if self._flow is None:
            return recorded
        phases = self._flow.phases
        return {name: phases[name].load_result(it) if name in phases else it for name, it in recorded.items()}

    @property
    def result(self) -> Any:
        """What the last phase returned. Raises: StateConflict unless it succeeded and was not erased, RunNotFound."""
        view = self.view
        if view.state is not RunState.SUCCEEDED:
            raise StateConflict(self.id, "read the result of", view.state)
        return self._result_of(view)

    def _result_of(self, view: RunView) -> Any:
        if view.was_erased:
            raise StateConflict(self.id, "read the result of", view.state, "it was erased")
        return self.results[view.phase]

    @property
    def output_ref(self) -> str | None:
        """Where the output of the last phase that named a place lies. Raises: RunNotFound."""
        return self.view.output_ref

    @property
    def output_refs(self) -> dict[str, str]:
        """The same for each complete phase that named one."""
        return self._access.ask(lambda conn: read.output_refs(conn, self.id))

    @property
    def events(self) -> list[EventView]:
        """The run's journal, oldest first: what happened, when, and who and what ended it. Raises: RunNotFound."""
        with self._explained():
            events = self._access.ask(lambda conn: read.journal(conn, self.id))
            if not events:
                raise RunNotFound(self.id)
            return events

    @property
    def findings(self) -> list[FindingView]:
        """What its complete phases have found, in order."""
        return self._access.ask(lambda conn: findings_of(conn, self.id))

    @property
    def sessions(self) -> list[SessionView]:
        """Its sessions with providers, in the order of their starts, including those of active phases."""
        return self._access.ask(lambda conn: sessions_of(conn, self.id))

    @property
    def actions(self) -> list[ActionView]:
        """What its complete phases have planned, in order, and what became of each."""
        return self._access.ask(lambda conn: actions_of(conn, self.id))

    def wait(self, timeout: timedelta | None = None) -> Any:
        """
        Wait for the end and return the last phase's result. Polls the ledger, at first often.

        Raises: RunFailed when it ends failed, canceled or superseded, or stops blocked; WaitTimeout; WaitInBody in the
        body of a phase, whose slot the run may need; StateConflict when its result was erased.
        """
        refuse_in_body(self.id)
        seconds = None if timeout is None else timeout.total_seconds()
        pauses = Pauses(seconds, first=0.01)
        while True:
            view = self.view
            if view.state is RunState.SUCCEEDED:
                return self._result_of(view)
            if view.state in TERMINAL or view.state is RunState.BLOCKED:
                raise RunFailed(self.id, view.state, view.error)
            if (pause := pauses.next()) is None:
                raise WaitTimeout(self.id, view.state, seconds or 0.0, view.error)
            time.sleep(pause)

    def cancel(self, *, by: str = "") -> RunState:
        """
        Cancel the run, or ask its worker to stop; doing it twice is fine.

        Returns: `canceled`, or `running` while the worker has not yet heard. Raises: StateConflict when the run
        has ended otherwise, RunNotFound.
        """
        with self._explained():
            return self._access.do(Cancel([self.id], by))[self.id]

    def retry(self, *, by: str = "") -> None:
        """Start a failed run's failed phase again, with fresh attempts. Raises: StateConflict, RunNotFound."""
        with self._explained():
            self._access.do(Restart("retry", self.id, by))

    def resume(self, *, by: str = "") -> None:
        """Resume a blocked run at its blocked phase. Raises: StateConflict, RunNotFound."""
        with self._explained():
            self._access.do(Restart("resume", self.id, by))

    def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> Run:  # noqa: A002 - as in events
        """
        Send the run the signal that a phase waits for, even before it waits. Repeating it with the same id is harmless.

        Without an `id` the name is its own: the run hears of it once. `payload` is JSON. Returns: this handle.
        Raises: InputError, StateConflict when the run has ended, RunNotFound.
        """
        allowed = self._flow is not None and self._flow.secret_fields.allowed is True
        with self._explained():
            self._access.do(SendSignal(self.id, Signal.checked(name, payload, id, allow_secrets=allowed)))
        return self

    def erase(self, *, by: str = "", key: bool = False) -> None:
        """
        Blank what the ended run holds, for good: input, results, errors, findings, payloads and the data of its events.

        The run and its key stay, so that its work is not done again; with `key` the texts of key and subject go too.
        Raises: StateConflict while it is live or one of its actions waits, RunNotFound.
        """
        with self._explained():
            if not self._access.do(Erase([self.id], by, key)):
                raise RunNotFound(self.id)

    def rerun(self, *, by: str = "") -> Run:
        """
        Do it all again: a new run of the same key and input, with the phases that its flow declares now.

        It gets the key's next number and supersedes the key's older run if that is still live; from now on the key
        names it. Raises: RunNotFound for a purged run, DeclarationError when this application does not have its
        flow, InputError when the flow no longer takes its input.
        """
        view = self.view
        flow = self._flow or self._access.flows.get(view.flow)
        if flow is None:
            raise DeclarationError(
                f"this application has no flow {view.flow}: rerun run {self.id} where it is declared"
            )
        new = RunSource.declared(flow, self._access).rerun_of(view)
        (rerun,) = make_runs(self._access, Rerun([new], by))
        return Run(self._access, rerun.run_id, flow, created=True)

    def __repr__(self) -> str:
        return f"<run {self.id}{' (created)' if self.created else ''}>"
