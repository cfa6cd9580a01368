"""
Enqueuing from outside: a run of a flow whose code is not at hand, by what its application has registered.

The input is brought into the form that the application would keep, and held against the registered schema. A flow whose
type has code of its own is refused: that code may make the same input of two spellings.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runclaim import tracing
from runclaim.errors import InputError
from runclaim.flows.declare.input_forms import Form
from runclaim.flows.declare.secret_fields import SecretFields
from runclaim.flows.declare.validator import problems_of
from runclaim.keys import Template, check_text, dump_json, fingerprint, key_id, run_key, uuid7
from runclaim.ledger.new_run import NewRun
from runclaim.ledger.run_keys import key_of
from runclaim.retries import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runclaim.keys import RunKey
    from runclaim.ledger.doors.registered_flows import FlowRecord
    from runclaim.ledger.fence import Claim
    from runclaim.ledger.read import RunView


class InputRefused(InputError):
    """An input does not fit its flow's schema; nothing was written. `problems` pairs JSON pointers with reasons."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__(*problems[0])


def new_run(
    record: FlowRecord,
    given: Mapping[str, Any],
    *,
    project: str,
    key: str | None = None,
    subject: str | None = None,
    delay: timedelta = timedelta(0),
    priority: int | None = None,
) -> NewRun:
    """
    The run that an input stands for; nothing is written.

    `key` and `subject` are for flows that make them by a function, and only for those. Raises: InputError, ConfigError.
    """
    if record.own_code is not None:
        problem = f"cannot be made without the application of flow {record.name}: {record.own_code}; run it with -A"
        raise InputError("input", problem)
    return _made(record, given, project=project, key=key, subject=subject, delay=delay, priority=priority)


def _made(
    record: FlowRecord,
    given: Mapping[str, Any],
    *,
    project: str,
    key: str | None,
    subject: str | None,
    delay: timedelta = timedelta(0),
    priority: int | None = None,
) -> NewRun:
    form = Form(record.input)
    plain = _checked(record, form, dict(given))
    dump_json("input", plain)
    if not timedelta(0) <= delay <= LONGEST:
        raise InputError("delay", f"must be from zero to {LONGEST.days} days")
    named, about = _key(record, plain, key), _subject(record, plain, subject)
    fields = SecretFields(record.allow_secrets, record.secrets)
    fields.check(plain)
    fields.check_made(key=named.text, subject=about)
    first = record.phases[0]
    return NewRun(
        run_id=uuid7(),
        project=project,
        flow=record.name,
        key=named,
        fingerprint=fingerprint(form.compared(plain)),
        subject=about,
        input=plain,
        phases=tuple(each.name for each in record.phases),
        queue=first.queue,
        max_attempts=first.max_attempts,
        max_losses=first.max_losses,
        priority=priority,
        delay=delay,
        dispatch_after=timedelta(seconds=record.dispatch_after),
        keep_key=timedelta(seconds=record.keep_keys),
        waits_for=first.on,
        trace_context=tracing.carrier(),
        comparable=lambda recorded: form.compared(form.kept(recorded)),
    )


def rerun_of(record: FlowRecord, view: RunView, fingerprint_of: Callable[[tuple[str, str]], str | None]) -> NewRun:
    """
    The new run that a rerun of `view` makes, with the input as it was recorded; nothing is written.

    Raises: InputError when the recorded input no longer fits the flow, or makes another key now.
    """
    new = _made(
        record,
        _still_known(record, view.input),
        project=view.project,
        key=view.key if record.key is None else None,
        subject=view.subject if record.has_subject and record.subject is None else None,
        priority=view.priority,
    )
    recorded = fingerprint_of(key_of(new))
    if recorded is None or new.key.text != view.key:
        problem = f"of run {view.id} was {view.key!r} and flow {record.name} now computes another; enqueue it again"
        raise InputError("key", problem)
    return replace(new, input=view.input, fingerprint=recorded, headers=view.headers)


def due_now(new: NewRun) -> NewRun:
    """The same run, left to beat's next dispatch: for a door that cannot ring the broker."""
    return replace(new, dispatch_after=timedelta(0))


def identity_of(record: FlowRecord, taken: Claim) -> str:
    """What the idempotency keys of a run are made of, for a worker outside the application; see `Flow.identity_of`."""
    if not record.fail_open or taken.rerun:
        return taken.run_id
    key = _key(record, taken.input, taken.key if record.key is None else None)
    return key_id(f"{taken.project}/{record.name}", key)


def _key(record: FlowRecord, plain: dict[str, Any], given: str | None) -> RunKey:
    if record.key is None:
        if given is None:
            raise InputError("key", f"is computed by a function of the application of flow {record.name}; pass it")
        return run_key([given])
    if given is not None:
        raise InputError("key", f"is computed from the input ({record.key!r} for flow {record.name}); leave it out")
    return run_key(Template(record.key, plain, what="key").parts(plain))


def _subject(record: FlowRecord, plain: dict[str, Any], given: str | None) -> str | None:
    if record.subject is None and record.has_subject:
        if given is None:
            raise InputError("subject", f"is computed by a function of the application of flow {record.name}; pass it")
        return check_text("subject", given)
    if given is not None:
        made = "made from the input" if record.has_subject else "not used by this flow"
        raise InputError("subject", f"is {made}: leave it out")
    if record.subject is None:
        return None
    return check_text("subject", "".join(Template(record.subject, plain, what="subject").parts(plain)))


def _checked(record: FlowRecord, form: Form, given: dict[str, Any]) -> dict[str, Any]:
    """The input as the application would keep it. Raises: InputRefused."""
    plain: dict[str, Any] = form.kept(given)
    if problems := problems_of(record.input, plain):
        raise InputRefused(problems)
    return plain


def _still_known(record: FlowRecord, recorded: dict[str, Any]) -> dict[str, Any]:
    """A recorded input without the fields that its type has no longer."""
    top = record.input
    while "$ref" in top:
        top = record.input["$defs"][top["$ref"].rpartition("/")[2]]
    if top.get("additionalProperties") is not False:
        return recorded
    return {name: each for name, each in recorded.items() if name in top["properties"]}
