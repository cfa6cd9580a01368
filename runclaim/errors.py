"""
What can be refused; and from here also what a body, a handler or a receiver raises to end its attempt on purpose.

Every error is built from data and says what to do. `None` means "not ours" and is not an error; an
exception means "refused". Nothing here imports anything but those outcomes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runclaim.outcomes import ActionRejected as ActionRejected
from runclaim.outcomes import Blocked as Blocked
from runclaim.outcomes import GiveUp as GiveUp
from runclaim.outcomes import Outcome as Outcome
from runclaim.outcomes import Retry as Retry
from runclaim.outcomes import Skip as Skip

if TYPE_CHECKING:
    from collections.abc import Mapping


class RunclaimError(Exception):
    """Base of everything that runclaim raises on purpose."""


class ConfigError(RunclaimError):
    """A setting cannot be used. Fix it where the message says and start again."""


class DeclarationError(RunclaimError):
    """A flow or phase is declared wrongly. Raised at import time, before anything runs."""


class InputError(RunclaimError):
    """An input, key or result cannot be recorded; nothing was written. `field` names the culprit."""

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field}: {problem}")


class SignatureRefused(RunclaimError):
    """A webhook's signature does not hold; nothing was written. `header` names what is wrong, never the secret."""

    def __init__(self, header: str, problem: str) -> None:
        self.header, self.problem = header, problem
        super().__init__(f"{header}: {problem}")


class SecretUnavailable(RunclaimError):
    """
    A reference such as `secret:env:NAME` leads to no value; as any error of a body it is tried again.

    `reference` is `None` when the given text is not a reference: it may be the secret itself, and is not repeated.
    """

    def __init__(self, reference: str | None, problem: str) -> None:
        self.reference, self.problem = reference, problem
        super().__init__(f"{reference}: {problem}" if reference else problem)


class Redacted(RunclaimError):
    """
    Stands for an error of a body whose text holds a secret, where others log or show it.

    The text and the notes are the error's own, redacted; the error itself does not come along.
    """


class KeyConflict(RunclaimError):
    """
    The run key exists with another input; nothing was written.

    Put what differs into the key if it means another run, or send the first input again.
    `differs` maps each differing field to `(recorded, given)`; it is empty when the first run was purged or erased.
    """

    def __init__(self, flow: str, key: str, run_id: str, differs: Mapping[str, tuple[Any, Any]]) -> None:
        self.flow, self.key, self.run_id, self.differs = flow, key, run_id, dict(differs)
        shown = "; ".join(f"{name} was {old!r:.80}, is {new!r:.80}" for name, (old, new) in self.differs.items())
        super().__init__(
            f"{flow} already has run {run_id} under the key {key!r} with a different input"
            f" ({shown or 'its input was purged or erased'}). Put what differs into the key, or enqueue the same input."
        )


class RunExists(RunclaimError):
    """
    A run was to be inserted under a given id, and the id or the key is taken; nothing was written.

    `found` is the id of the run that is there, `state` its state, `None` when it was purged. Nothing is to be done if
    it is the run that you meant.
    """

    def __init__(self, run_id: str, key: str, found: str | None, state: str | None) -> None:
        self.run_id, self.key, self.found, self.state = run_id, key, found, state
        there = f"it is {state}" if state else "it was purged, or is being enqueued at this moment"
        what = f"run {run_id}" if found == run_id else f"another run, {found}, of the key {key!r}"
        super().__init__(f"run {run_id} was not enqueued: there is already {what} ({there})")


class ClaimLost(RunclaimError):
    """
    Another claim is current for this run; this attempt's writes were refused.

    Expected after a lease lapses, a deadline passes or a run is canceled or superseded. Drop the work.
    """

    def __init__(self, run_id: str, phase: str, fence: int, reason: str = "its claim is no longer current") -> None:
        self.run_id, self.phase, self.fence, self.reason = run_id, phase, fence, reason
        super().__init__(f"claim lost on {run_id}/{phase} at fence {fence}: {reason}")


class Canceled(ClaimLost):
    """Someone asked for this run to be canceled. Stop; the run ends as canceled."""


class Released(ClaimLost):
    """The worker shuts down. Stop; the attempt is given back and another worker starts the phase again."""


class RunNotFound(RunclaimError):
    """There is no such run, or it was purged after its retention."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"no run {run_id}: it never existed, or was purged after its retention")


class NotCommitted(RunNotFound):
    """The transaction that made the run has not committed. Commit it first; after a rollback there is no run."""

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id = run_id
        RunclaimError.__init__(self, f"run {run_id} {why}")


class KeyNotFound(RunNotFound):
    """No run has this key, or it was purged after its retention. Enqueue one, or look at the key's spelling."""

    def __init__(self, flow: str, key: str) -> None:
        self.flow, self.key, self.run_id = flow, key, ""
        RunclaimError.__init__(self, f"{flow} has no run {key!r}: it never existed, or was purged after its retention")


class StateConflict(RunclaimError):
    """The run's state does not allow this. Read `state` and decide again."""

    def __init__(self, run_id: str, verb: str, state: str, why: str = "") -> None:
        self.run_id, self.verb, self.state = run_id, verb, state
        super().__init__(f"cannot {verb} run {run_id}: it is {state}{f' ({why})' if why else ''}")


class NamedSessionMoved(RunclaimError):
    """Another attempt has kept a session under this name since it was read. Read it again."""

    def __init__(self, name: str, version: int) -> None:
        self.name, self.version = name, version
        super().__init__(f"the session named {name!r} is no longer at version {version}; read it again and decide")


class SchemaBehind(RunclaimError):
    """The ledger's tables are missing or older than this release. Run `runclaim db upgrade`."""

    def __init__(self, found: str | None, wanted: str, url: str) -> None:
        self.found, self.wanted = found, wanted
        super().__init__(
            f"the ledger {url} {f'is at revision {found}' if found else 'has no runclaim tables'}, but this release"
            f" needs {wanted}. With RUNCLAIM_DATABASE_URL set to it, run: runclaim db upgrade"
        )


class SchemaAhead(RunclaimError):
    """The ledger's tables are too new for this release: those from revision `needed` on work on them. Upgrade it."""

    def __init__(self, found: str, wanted: str, needed: str | None, url: str) -> None:
        self.found, self.wanted, self.needed = found, wanted, needed
        super().__init__(
            f"the ledger {url} is at revision {found}, newer than this program's {wanted}: it needs {needed or found}."
            " Nothing was changed. Upgrade this program: install the release that upgraded the ledger, or a later one"
        )


class LedgerUnavailable(RunclaimError):
    """The database did not answer in time. Nothing is known to be lost; try again."""


class LedgerRefused(RunclaimError):
    """
    The database turned us away: the role, its rights, the database or its file are not as they have to be.

    Waiting does not help. The message says what to fix; nothing was written.
    """


class LedgerNeeded(LedgerUnavailable):
    """
    A body of a fail-open flow asked for what only the ledger has, while the ledger cannot be reached.

    The attempt ends, nothing of it is kept, and the run waits for the ledger.
    """

    def __init__(self, run_id: str, phase: str, what: str) -> None:
        self.run_id, self.phase, self.what = run_id, phase, what
        super().__init__(f"{what} needs the ledger, which cannot be reached; {run_id}/{phase} waits for it")


class LedgerClosed(RunclaimError):
    """`Runclaim.close()` was called in this process: nothing is read or written any more."""

    def __init__(self) -> None:
        super().__init__("this Runclaim was closed in this process; call close() only when nothing uses it any more")


class RunFailed(RunclaimError):
    """A waited-for run ended without success; `state` and `error` say how."""

    def __init__(self, run_id: str, state: str, error: Mapping[str, Any] | None) -> None:
        self.run_id, self.state, self.error = run_id, state, error
        why = f": {error.get('type')}: {error.get('message')}" if error else ""
        super().__init__(f"run {run_id} ended {state}{why}")


class WaitTimeout(RunclaimError):
    """
    The run has not ended yet; nothing was changed. Wait again or look at its state.

    `error` is what its last attempt ended with, if that went wrong.
    """

    def __init__(self, run_id: str, state: str, seconds: float, error: Mapping[str, Any] | None = None) -> None:
        self.run_id, self.state, self.error = run_id, state, error
        last = f"; its last attempt: {error.get('type')}: {error.get('message')}" if error else ""
        super().__init__(f"run {run_id} is still {state} after {seconds:g} s{last}")


class WaitInBody(RunclaimError, RuntimeError):
    """
    A body waits for a run, which may need the slot that the body holds; Celery refuses `get()` in a task as well.

    Let the other run proceed on its own, and have a separate phase wait for a signal.
    """

    def __init__(self, run_id: str, body: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"the body of {body} waits for run {run_id}, which may need the slot that this body holds."
            " Have a phase of its own wait for a signal instead: @flow.phase(on=…)"
        )
