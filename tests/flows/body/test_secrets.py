"""Secrets on a real ledger: refused in inputs, and nowhere in the database or the log, however an attempt ends."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from runclaim import Backoff, Blocked, InputError, KeyConflict, Retry, RunState, Skip
from runclaim.flows.inbound.route import OutsideEvent
from runclaim.tracebacks import error_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Context
    from tests.harness.bench import Bench

AT_ONCE = Backoff(first=timedelta(0), jitter=False)
#: One that looks like a secret, and one that only `ctx.secret` knows to be one.
CANARY = "ghp_" + "Can4ry" * 6
PLAIN = 'sw0rd"fish & ünlike\nany other line'
REFERENCE = "secret:env:CANARY"


class Kind(Enum):
    ONE = "one"


@dataclass(frozen=True)
class Job:
    name: str
    more: dict[str, Any] | None = None


def job_flow(bench: Bench, **how: Any) -> Any:
    return bench.flow("job", Job, **{"key": "{name}", "secrets": {"more.token": REFERENCE}} | how)


def dump(bench: Bench) -> str:
    """Every value of every row of every table, as text."""
    with bench.database.read() as conn:
        tables = inspect(conn).get_table_names()
        return "\n".join(repr(tuple(row)) for name in tables for row in conn.execute(text(f"SELECT * FROM {name}")))


def leaks(found: str, *secrets: str) -> list[str]:
    """The secrets that stand in a text, however they are written, and every line of theirs."""
    forms = [(each, *each.splitlines(), repr(each)[1:-1], json.dumps(each)[1:-1], quote(each)) for each in secrets]
    return [form for every in forms for form in every if form in found]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", PLAIN)
    monkeypatch.setenv("EMPTY", "")


def enqueue_in_transaction(flow: Any, bench: Bench) -> None:
    with Session(bench.database.engine) as session:
        flow.enqueue(name="a", more={"list": [CANARY]}, session=session)
        session.commit()


ENQUEUE: dict[str, Callable[[Any, Any], Any]] = {
    "fields": lambda flow, bench: flow.enqueue(name="a", more={"list": [CANARY]}),
    "a value": lambda flow, bench: flow.enqueue(Job("a", {"list": [CANARY]})),
    "many": lambda flow, bench: flow.enqueue_many([Job("b"), {"name": "a", "more": {"list": [CANARY]}}]),
    "async": lambda flow, bench: asyncio.run(flow.aenqueue(name="a", more={"list": [CANARY]})),
    "in a transaction": enqueue_in_transaction,
}


@pytest.mark.parametrize("way", ENQUEUE)
def test_an_input_with_a_secret_is_refused_by_its_field_and_nothing_is_written(bench: Bench, caplog, way: str):
    """
    INVARIANT: a secret is stored nowhere, by whatever way a run is enqueued.

    Breaks if `new_run` does not look, or looks after something was written.
    """
    flow = job_flow(bench)
    flow.phase(name="plan")(lambda ctx: None)
    with pytest.raises(InputError) as refused, caplog.at_level(logging.DEBUG):
        ENQUEUE[way](flow, bench)

    assert "more.list[0]" == refused.value.field
    assert "looks like a GitHub token; pass a reference such as secret:env:NAME" in str(refused.value)
    assert 'allow_secrets=("more.list",)' in str(refused.value)
    assert [] == leaks(str(refused.value) + caplog.text + dump(bench), CANARY)
    assert [0, 0, 0] == [bench.count(f"runclaim_{table}") for table in ("runs", "run_keys", "events")]
    assert [] == bench.rung


@pytest.mark.parametrize("made", ["key", "subject"])
def test_a_key_or_subject_with_a_secret_is_refused_too(laptop: Bench, made: str):
    flow = job_flow(laptop, **{made: lambda job: f"{job.name}:{CANARY}"})
    flow.phase(name="plan")(lambda ctx: None)
    with pytest.raises(InputError) as refused:
        flow.enqueue(name="a")

    assert made == refused.value.field
    assert 0 == laptop.count("runclaim_runs")


def test_a_refusal_for_another_reason_does_not_tell_the_secret(laptop: Bench):
    @dataclass(frozen=True)
    class Narrow:
        name: str
        how: str = "x"
        number: int = 0
        kind: Kind | None = None

    flow = laptop.flow("job", Narrow, key="{name}")
    flow.phase(name="plan")(lambda ctx: None)
    for fields in ({CANARY: 1, "name": "a"}, {"name": "a", "number": CANARY}, {"name": "a", "kind": CANARY}):
        with pytest.raises(InputError) as refused:
            flow.enqueue(**fields)
        assert [] == leaks(str(error_data(refused.value, str)), CANARY)


def test_a_flow_that_allows_secrets_takes_them_and_its_conflicts_do_not_tell_them(bench: Bench):
    flow = job_flow(bench, allow_secrets=True)
    flow.phase(name="plan")(lambda ctx: ctx.input.more["token"])
    run = flow.enqueue(name="a", more={"token": CANARY})
    with pytest.raises(KeyConflict) as conflict:
        flow.enqueue(name="a", more={"token": CANARY[:-1]})
    bench.finish(flow, run)

    assert CANARY == run.result
    assert [] == leaks(f"{conflict.value} {conflict.value.differs}", CANARY)


ENDS: dict[str, Callable[[Any, str], Any]] = {
    "message": lambda ctx, value: raises(ValueError(f"401 for {CANARY} and {value}")),
    "arguments": lambda ctx, value: raises(ValueError({"token": CANARY, "other": [value]})),
    "locals": lambda ctx, value: raises(RuntimeError(repr(locals() | {"token": CANARY}))),
    "JSON": lambda ctx, value: raises(RuntimeError(json.dumps({"token": CANARY, "other": value}))),
    "URL": lambda ctx, value: raises(OSError(f"https://me:{CANARY}@host/?q={quote(value, safe='')}")),
    "cause": lambda ctx, value: chained(value),
    "note": lambda ctx, value: noted(value),
    "group": lambda ctx, value: raises(ExceptionGroup("two", [ValueError(CANARY), ValueError(value)])),
    "long": lambda ctx, value: raises(ValueError(f"{'x' * 1010}{CANARY}{value}{'y' * 100_000}{CANARY}{value}")),
    "retry": lambda ctx, value: raises(Retry(f"{CANARY} {value}")),
    "blocked": lambda ctx, value: raises(Blocked(f"{CANARY} {value}")),
    "skip": lambda ctx, value: raises(Skip(f"{CANARY} {value}")),
    "exit": lambda ctx, value: sys.exit(f"{CANARY} {value}"),
    "completion": lambda ctx, value: ctx.in_completion(lambda session: raises(ValueError(f"{CANARY} {value}"))),
    "SQL": lambda ctx, value: ctx.in_completion(
        lambda session: session.execute(text("SELECT :one + nothing"), {"one": f"{CANARY} {value}"})
    ),
    "nothing": lambda ctx, value: None,
}


def raises(error: BaseException) -> None:
    raise error


def chained(value: str) -> None:
    try:
        raises(ValueError(value))
    except ValueError as error:
        raise RuntimeError(CANARY) from error


def noted(value: str) -> None:
    error = ValueError("no words")
    error.add_note(f"{CANARY} {value}")
    raise error


@pytest.mark.parametrize("way", ENDS)
def test_no_secret_of_a_body_is_in_the_database_or_the_log_however_it_ends(bench: Bench, caplog, way: str):
    """
    INVARIANT: neither what looks like a secret nor a value that `ctx.secret` gave is left by an attempt.

    Breaks if a text is cut before it is redacted, or if one of the ways to end forgets what the attempt was given.
    """
    flow = job_flow(bench)

    @flow.phase(max_attempts=2, backoff=AT_ONCE)
    def plan(ctx: Context[Job]) -> None:
        ENDS[way](ctx, ctx.secret(REFERENCE))

    run, printed = flow.enqueue(name="a", more={"token": REFERENCE}), ""
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            try:
                bench.finish(flow, run)
            except SystemExit as gone:
                printed += str(gone)  # by the interpreter, at its end

    assert run.state in {RunState.FAILED, RunState.BLOCKED, RunState.SUCCEEDED}
    assert [] == leaks(dump(bench) + caplog.text + printed, CANARY, PLAIN)
    # Of a statement's values an error shows none.
    if run.state is RunState.FAILED and way != "SQL":
        assert f"[redacted: {REFERENCE}]" in str(run.view.error)


def test_the_error_says_what_it_said_but_for_the_secrets(laptop: Bench):
    flow = job_flow(laptop)

    @flow.phase(max_attempts=1)
    def plan(ctx: Context[Job]) -> None:
        raise ValueError(f"401 for {CANARY} and {ctx.secret(REFERENCE)!r} of {ctx.input.name}")

    run = flow.enqueue(name="ann")
    laptop.deliver(flow)

    assert "401 for [redacted: GitHub token] and '[redacted: secret:env:CANARY]' of ann" == run.view.error["message"]
    assert 'raise ValueError(f"401 for {CANARY}' in run.view.error["traceback"]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_signal_carries_no_secret_unless_its_flow_allows_it(bench: Bench, allowed: bool):
    flow = job_flow(bench, allow_secrets=allowed)
    flow.phase(name="wait", on="approved")(lambda ctx: None)
    run = flow.enqueue(name="a")
    if allowed:
        run.signal("approved", {"token": CANARY})
    else:
        with pytest.raises(InputError, match="token") as refused:
            run.signal("approved", {"token": CANARY})
        assert CANARY not in str(refused.value)
    with pytest.raises(InputError, match="token") if not allowed else nullcontext():
        flow.route(OutsideEvent({"name": "b"}, payload={"token": CANARY}))

    assert bool(leaks(dump(bench), CANARY)) is allowed
