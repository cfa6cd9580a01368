"""
The changes of runs and actions: each is a `Change`, the same for Python's handle, the HTTP API and the command line.

A refusal is raised where the change is made, so it is decided by what the same transaction has read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from runclaim.errors import RunclaimError, RunNotFound, StateConflict
from runclaim.flows.messages import message
from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.actions import decide
from runclaim.ledger.cancel import cancel, canceled
from runclaim.ledger.journal import entries_of
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.ledger.signal import Answer
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.client.signal import Signal
    from runclaim.ledger.actions.decide import ActionView
    from runclaim.ledger.read import RunView, Standing
    from runclaim.ledger.signal import Signaled


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel runs, all or none of them; a running one is asked to stop. Asking again changes nothing."""

    run_ids: Collection[str]
    by: str = ""
    call: str = field(default_factory=nonce)

    def work(self, conn: Connection) -> dict[str, RunState]:
        """Run id → `canceled`, or `running` until its worker stops. Raises: StateConflict, RunNotFound."""
        return self._states(conn, cancel(conn, self.run_ids, by=self.by, call=self.call))

    def read_back(self, conn: Connection) -> dict[str, RunState] | None:
        """As `work`, if this very call has changed anything."""
        moved = canceled(conn, self.run_ids, call=self.call)
        return self._states(conn, moved) if moved else None

    def publish(self, access: LedgerAccess, outcome: dict[str, RunState]) -> None:
        """Nothing is due by it."""

    def _states(self, conn: Connection, moved: Mapping[str, RunState]) -> dict[str, RunState]:
        return {run_id: moved.get(run_id) or _canceled_before(conn, run_id) for run_id in self.run_ids}


def _canceled_before(conn: Connection, run_id: str) -> RunState:
    """The state of a run that was canceled, or asked to stop, before. Raises: StateConflict, RunNotFound."""
    standing = _standing(conn, run_id)
    if standing.state is not RunState.CANCELED and not standing.cancel_requested:
        raise StateConflict(run_id, "cancel", standing.state)
    return standing.state


def view_of(conn: Connection, run_id: str) -> RunView:
    """The whole run. Raises: RunNotFound."""
    view = read.run(conn, run_id)
    if view is None:
        raise RunNotFound(run_id)
    return view


def _standing(conn: Connection, run_id: str) -> Standing:
    standing = read.standing(conn, run_id)
    if standing is None:
        raise RunNotFound(run_id)
    return standing


Verb = Literal["retry", "resume"]

#: How each verb moves a run, and the state that it needs.
_MOVES: Final[dict[Verb, tuple[Callable[..., bool], RunState]]] = {
    "retry": (retry, RunState.FAILED),
    "resume": (resume, RunState.BLOCKED),
}


@dataclass(frozen=True, slots=True)
class Restart:
    """Retry a failed run, or resume a blocked one: its phase is queued again, with fresh attempts."""

    verb: Verb
    run_id: str
    by: str = ""
    call: str = field(default_factory=nonce)

    def work(self, conn: Connection) -> RunView:
        """The run as it is queued. Raises: StateConflict, RunNotFound."""
        move, needed = _MOVES[self.verb]
        moved = move(conn, self.run_id, by=self.by, call=self.call)
        view = view_of(conn, self.run_id)
        if not moved:
            newer = f"its {'subject' if view.subject else 'key'} has a newer run"
            why = newer if view.state is needed else f"only a {needed} run can be"
            why = "it was erased" if view.was_erased else why
            raise StateConflict(self.run_id, self.verb, view.state, why)
        return view

    def read_back(self, conn: Connection) -> RunView | None:
        """The current run, if this call has queued it."""
        return view_of(conn, self.run_id) if entries_of(conn, [self.run_id], call=self.call) else None

    def publish(self, access: LedgerAccess, outcome: RunView) -> None:
        """Ring for the run."""
        access.publisher.publish([message.of_view(view=outcome, flow=access.flows.get(outcome.flow))])


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Deliver a signal to a run, once for each id of the signal."""

    run_id: str
    signal: Signal

    def work(self, conn: Connection) -> Signaled:
        """As `ledger.signal`. Raises: StateConflict when the run has ended, RunNotFound."""
        signaled = self.signal.deliver(conn, self.run_id)
        if signaled.answer is Answer.NOT_LIVE:
            raise StateConflict(self.run_id, "signal", _standing(conn, self.run_id).state)
        return signaled

    def read_back(self, conn: Connection) -> Signaled | None:
        """As `work`, if this very call has delivered it."""
        return self.signal.delivered(conn, self.run_id)

    def publish(self, access: LedgerAccess, outcome: Signaled) -> None:
        """Ring for the run, if it waited for the signal."""
        if outcome.due is not None:
            access.publisher.publish(access.with_inputs([outcome.due]))


class ActionNotFound(RunclaimError):
    """There is no such action, or it was purged with its run."""

    def __init__(self, action_id: str) -> None:
        self.action_id = action_id
        super().__init__(f"no action {action_id}: it never existed, or was purged with its run")


class ActionConflict(RunclaimError):
    """The action's state does not allow this. Read `state` and decide again."""

    def __init__(self, action: ActionView, why: str) -> None:
        self.action_id, self.state = action.id, action.state
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class RetryAction:
    """Send an action again that failed or is unknown, under its same idempotency key."""

    action_id: str
    call: str = field(default_factory=nonce)

    def work(self, conn: Connection) -> ActionView:
        """The action, which is due now. Raises: ActionConflict, ActionNotFound."""
        retried = decide.retry_action(conn, self.action_id, decision=self.call)
        action = _action(conn, self.action_id)
        if not retried:
            raise ActionConflict(action, action.not_retried)
        return action

    def read_back(self, conn: Connection) -> ActionView | None:
        """The current action, if this was the last decision about it."""
        return _decided(conn, self.action_id, self.call)

    def publish(self, access: LedgerAccess, outcome: ActionView) -> None:  # noqa: ARG002 - a Change
        """Ring for one action."""
        access.publisher.ring_actions(1)


@dataclass(frozen=True, slots=True)
class ResolveAction:
    """Say what became of an unknown action: it arrived under `upstream_id`, or never, with `None`. Nothing is sent."""

    action_id: str
    upstream_id: str | None
    by: str = ""
    call: str = field(default_factory=nonce)

    def work(self, conn: Connection) -> ActionView:
        """The action as it ended. Raises: ActionConflict, ActionNotFound."""
        resolved = decide.resolve_action(
            conn, self.action_id, upstream_id=self.upstream_id, by=self.by, decision=self.call
        )
        action = _action(conn, self.action_id)
        if not resolved:
            raise ActionConflict(action, action.not_resolved)
        return action

    def read_back(self, conn: Connection) -> ActionView | None:
        """The current action, if this was the last decision about it."""
        return _decided(conn, self.action_id, self.call)

    def publish(self, access: LedgerAccess, outcome: ActionView) -> None:
        """Nothing is due by it."""


def _action(conn: Connection, action_id: str) -> ActionView:
    action = decide.action(conn, action_id)
    if action is None:
        raise ActionNotFound(action_id)
    return action


def _decided(conn: Connection, action_id: str, decision: str) -> ActionView | None:
    return _action(conn, action_id) if decide.decided(conn, action_id, decision=decision) else None
