"""
What a flow is: the one description that its application hands out, its workers register and every door goes by.

A declared flow describes itself; a door without the application reads the same from the ledger. What decides about a
run by its flow (where it continues, which hooks are called, when it is tried again) is decided here, for every worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

from runclaim.flows.actions.hooks import plan_completed, plan_stopped
from runclaim.flows.declare.input_forms import object_of
from runclaim.flows.declare.secret_fields import SecretFields
from runclaim.keys import key_id
from runclaim.ledger.completion import NextPhase
from runclaim.retries import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runclaim.keys import RunKey
    from runclaim.ledger.actions.plan import NewAction, Stopped
    from runclaim.ledger.fence import Claim

_AT_ONCE: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDescription:
    """A phase: its name, and the bounds that are in force for it."""

    name: str
    queue: str | None = None
    #: The signal that it waits for.
    on: str | None = None
    max_attempts: int
    max_losses: int
    lease: timedelta
    max_duration: timedelta
    backoff: Backoff

    def as_json(self) -> dict[str, Any]:
        """As the ledger keeps it; durations are in seconds."""
        return {
            "name": self.name,
            "queue": self.queue,
            "on": self.on,
            "max_attempts": self.max_attempts,
            "max_losses": self.max_losses,
            "lease": self.lease.total_seconds(),
            "max_duration": self.max_duration.total_seconds(),
            "backoff": {
                "first": self.backoff.first.total_seconds(),
                "factor": self.backoff.factor,
                "ceiling": self.backoff.ceiling.total_seconds(),
                "jitter": self.backoff.jitter,
            },
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `as_json` gave; fields that a later release has added are left out."""
        backoff = stored["backoff"]
        return cls(
            name=stored["name"],
            queue=stored["queue"],
            on=stored["on"],
            max_attempts=stored["max_attempts"],
            max_losses=stored["max_losses"],
            lease=timedelta(seconds=stored["lease"]),
            max_duration=timedelta(seconds=stored["max_duration"]),
            backoff=Backoff(
                first=timedelta(seconds=backoff["first"]),
                factor=backoff["factor"],
                ceiling=timedelta(seconds=backoff["ceiling"]),
                jitter=backoff["jitter"],
            ),
        )


@dataclass(frozen=True, kw_only=True)
class FlowDescription:
    """A flow as it is declared. A template is `None` where the application has a function instead, or nothing."""

    name: str
    phases: tuple[PhaseDescription, ...]
    #: JSON Schema of the input (draft 2020-12).
    input: dict[str, Any]
    #: What of the input's type only the application can do: no door without it makes a run of this flow.
    own_code: str | None = None
    key: str | None
    subject: str | None
    has_subject: bool
    secrets: SecretFields = field(default_factory=SecretFields)
    #: How long a run key is remembered, and after which time a queued run is published again.
    keep_keys: timedelta
    dispatch_after: timedelta
    #: `on_complete`, `on_blocked` and `on_failed`, each with the kinds of its actions.
    hooks: Mapping[str, list[str]] = field(default_factory=dict)
    fail_open: bool = False

    def as_json(self) -> dict[str, Any]:
        """As the ledger keeps it; durations are in seconds."""
        return {
            "name": self.name,
            "phases": [each.as_json() for each in self.phases],
            "input": self.input,
            "own_code": self.own_code,
            "key": self.key,
            "subject": self.subject,
            "has_subject": self.has_subject,
            "allow_secrets": self.secrets.allowed,
            "secrets": dict(self.secrets.references),
            "keep_keys": self.keep_keys.total_seconds(),
            "dispatch_after": self.dispatch_after.total_seconds(),
            "hooks": dict(self.hooks),
            "fail_open": self.fail_open,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """
        What `as_json` gave, in this release or another.

        Fields that a later release has added are left out; what an earlier one did not have is as if not declared.
        """
        allowed = stored.get("allow_secrets", False)
        return cls(
            name=stored["name"],
            phases=tuple(PhaseDescription.from_json(each) for each in stored["phases"]),
            input=stored["input"],
            own_code=stored.get("own_code"),
            key=stored["key"],
            subject=stored["subject"],
            has_subject=stored["has_subject"],
            secrets=SecretFields(
                allowed if isinstance(allowed, bool) else tuple(allowed),
                {name: tuple(patterns) for name, patterns in stored.get("secrets", {}).items()},
            ),
            keep_keys=timedelta(seconds=stored["keep_keys"]),
            dispatch_after=timedelta(seconds=stored["dispatch_after"]),
            hooks=stored.get("hooks", {}),
            fail_open=stored.get("fail_open", False),
        )

    @cached_property
    def fields(self) -> frozenset[str]:
        """The names of the fields of its input."""
        return frozenset(object_of(self.input).get("properties", ()))

    @cached_property
    def phase_names(self) -> tuple[str, ...]:
        """The names of its phases, in order."""
        return tuple(each.name for each in self.phases)

    def phase(self, name: str) -> PhaseDescription | None:
        """The phase of that name; `None` for one of another release."""
        return next((each for each in self.phases if each.name == name), None)

    def next_phase(self, claim: Claim, *, owner: str | None = None) -> NextPhase | None:
        """The phase after a claim's, `None` for the last; with `owner` the completion claims it at once."""
        if claim.is_last:
            return None
        name = claim.phases[claim.cursor + 1]
        if (phase := self.phase(name)) is None:
            # Enqueued by another release: a worker that knows the phase takes it, and its claim fixes the budgets.
            return NextPhase(name, None, 1, 1, _AT_ONCE, _AT_ONCE, None, _AT_ONCE)
        return NextPhase(
            phase=name,
            queue=phase.queue,
            max_attempts=phase.max_attempts,
            max_losses=phase.max_losses,
            lease=phase.lease,
            max_duration=phase.max_duration,
            owner=owner,
            dispatch_after=self.dispatch_after,
            waits_for=phase.on,
        )

    def delay_after(self, claim: Claim, *, wanted: timedelta | None = None) -> timedelta:
        """How long the attempt after a claim's waits: what its body or worker wants, else the phase's back-off."""
        phase = self.phase(claim.phase)
        backoff = Backoff() if phase is None else phase.backoff
        return backoff.delay_after(claim.attempt, wanted=wanted)

    def hooks_of_completion(self, claim: Claim) -> Iterable[NewAction]:
        """What the completion of a claim's phase plans."""
        return plan_completed(self.hooks, claim)

    def hooks_of_stop(self, stopped: Stopped) -> Iterable[NewAction]:
        """What a run of this flow plans that is blocked or has failed."""
        return plan_stopped(self.hooks, stopped)


def identity_of(claim: Claim, *, fail_open: bool, key: Callable[[], RunKey]) -> str:
    """
    What the idempotency keys of a run are made of: its id.

    Where its flow fails open, the id of its key, which is the same whether the run was made with the ledger or
    without. A rerun is meant to be done again. `key` makes the run's key of its input.
    """
    if not fail_open or claim.rerun:
        return claim.run_id
    return key_id(f"{claim.project}/{claim.flow}", key())
