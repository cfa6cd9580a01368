"""
Sending: planned actions are claimed one by one, sent, and settled.

What may have arrived is never sent again blindly: it is looked up, or sent again where the other side does nothing
twice for one key, or ends as unknown and waits for a person. No transaction is open while the outside is called.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runclaim import failpoints, logs
from runclaim.errors import ActionRejected, Retry
from runclaim.keys import clip, nonce
from runclaim.ledger.actions.claim import ActionClaim, claim_actions, claimed_actions
from runclaim.ledger.actions.settle import ActionState, Sent
from runclaim.secrets import kind_of, redact
from runclaim.tracebacks import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.flows.actions.action import Action, Lookup
    from runclaim.flows.actions.outcomes import Outcomes

_NOW: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Sends what is due of `actions`. `count(name, kind)` adds to a total."""

    database: Database
    actions: Mapping[str, Action]
    stopping: Callable[[], bool]
    count: Callable[[str, str], None]
    outcomes: Outcomes

    def send_due(self, *, within: timedelta, limit: timedelta | None = None) -> tuple[int, bool]:
        """
        Send one after the other until nothing is due, or `within` has passed, or the worker stops.

        `limit` is when this call will be cut off: after the first, only what is sure to be sent by then is
        taken. Returns: how many were taken, and whether some may be left. Raises: LedgerUnavailable.
        """
        taken, began = 0, time.monotonic()
        while not self.stopping():
            passed = timedelta(seconds=time.monotonic() - began)
            kinds = self._kinds(None if limit is None or not taken else limit - passed)
            if passed >= within or (self.actions and not kinds):
                return taken, True
            if (claim := self._claim(kinds)) is None:
                return taken, len(kinds) < len(self.actions)
            taken += 1
            with logs.about(claim):
                self.outcomes.record(self._outcome(claim, self.actions[claim.kind]))
        return taken, True

    def _kinds(self, room: timedelta | None) -> dict[str, timedelta]:
        """Each kind with how long a send of it may take; those that are sure to fit into `room`."""
        kinds = {kind: action.options.max_duration for kind, action in self.actions.items()}
        return kinds if room is None else {kind: longest for kind, longest in kinds.items() if longest <= room}

    def _claim(self, kinds: dict[str, timedelta]) -> ActionClaim | None:
        if not kinds:
            return None
        owner = nonce()

        def work(conn: Connection) -> list[ActionClaim]:
            return claim_actions(conn, kinds, owner=owner)

        found = self.database.run(work, read_back=lambda conn: claimed_actions(conn, owner=owner) or None)
        if not found:
            return None
        failpoints.hit("action.after_claim")
        return found[0]

    def _outcome(self, claim: ActionClaim, action: Action) -> Sent:
        if not claim.uncertain:
            return self._send(claim, action)
        if action.looks_up is not None:
            return self._look_up(claim, action, action.looks_up)
        if claim.released and not claim.superseded:
            return self._send(claim, action)
        if action.options.idempotent and not claim.superseded and claim.attempt <= action.options.max_attempts:
            return self._send(claim, action, in_doubt=True)
        return _unknown(claim, "it may have arrived, and its kind has no lookup; resolve it or retry it")

    def _look_up(self, claim: ActionClaim, action: Action, lookup: Lookup) -> Sent:
        self.count("actions_looked_up", claim.kind)
        try:
            found = lookup(claim.payload, claim.idempotency_key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side could not be asked
            if claim.attempt >= 2 * action.options.max_attempts:
                return _unknown(claim, f"it may have arrived, and the lookup failed: {_message_of(error)}")
            return self._again(claim, action, error, uncertain=True)
        if found is not None:
            return Sent(claim, ActionState.POSTED, _NOW, upstream_id=_upstream(found))
        # It is not there, so this attempt may send it, unless it is no longer wanted.
        return self._send(claim, action)

    def _send(self, claim: ActionClaim, action: Action, *, in_doubt: bool = False) -> Sent:
        """Call the handler; `in_doubt` says that an earlier call may have arrived whatever becomes of this one."""
        if claim.superseded:
            return _failed(claim, "Superseded", "its run was superseded before it was sent")
        if claim.attempt > action.options.max_attempts:
            return _failed(claim, "AttemptsSpent", f"not sent within {action.options.max_attempts} attempts")
        try:
            failpoints.hit("action.before_send")
            found = action(claim.payload, claim.idempotency_key)
            failpoints.hit("action.after_send")
        except Retry as asked:
            return self._again(claim, action, asked, uncertain=in_doubt)
        except ActionRejected as refused:
            return _failed(claim, kind_of(refused), _message_of(refused))
        except Exception as error:  # noqa: BLE001 - whatever it is, the call may have arrived
            return self._again(claim, action, error, uncertain=True)
        return Sent(claim, ActionState.POSTED, _NOW, upstream_id=_upstream(found))

    def _again(self, claim: ActionClaim, action: Action, error: Exception, *, uncertain: bool) -> Sent:
        """Plan it again; the next claim decides what may still be done."""
        wanted = error.after if isinstance(error, Retry) else None
        delay = action.options.backoff.delay_after(claim.attempt, wanted=wanted)
        is_spent = claim.attempt >= action.options.max_attempts
        if uncertain and action.looks_up is None and (is_spent or not action.options.idempotent):
            return _unknown(
                claim, f"it may have arrived, and the handler cannot tell: {kind_of(error)}: {_message_of(error)}"
            )
        if not uncertain and is_spent:
            return _failed(claim, kind_of(error), _message_of(error))
        return Sent(claim, ActionState.PLANNED, delay, uncertain=uncertain, error=_error(kind_of(error), error))


def _upstream(found: str | int | None) -> str | None:
    return None if found is None else clip(str(found), 512)


def _message_of(error: Exception) -> str:
    return message_of(error, redact) or kind_of(error)


def _error(kind: str, error: Exception | str) -> dict[str, Any]:
    return {"type": kind, "message": clip(error, 2048) if isinstance(error, str) else message_of(error, redact)}


def _failed(claim: ActionClaim, kind: str, message: str) -> Sent:
    return Sent(claim, ActionState.FAILED, _NOW, error=_error(kind, message))


def _unknown(claim: ActionClaim, message: str) -> Sent:
    return Sent(claim, ActionState.UNKNOWN, _NOW, uncertain=True, error=_error("Unknown", message))
