"""The runner on a real ledger: bodies that end their process, workers that shut down, releases that differ."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from runclaim import Backoff, RunState
from runclaim.errors import LedgerUnavailable
from runclaim.flows.messages.message import Message
from runclaim.flows.run.runner import Runner
from runclaim.ledger.dispatch import Due

if TYPE_CHECKING:
    from sqlalchemy import URL

    from runclaim.database import Database
    from tests.harness.bench import Bench

AT_ONCE = Backoff(first=timedelta(0), jitter=False)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_printed_ends_its_attempt_like_any_other(bench: Bench):
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def plan(ctx):
        raise Unprintable

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert (RunState.FAILED, "Unprintable") == (run.state, run.view.error["type"])


def test_a_body_that_ends_its_process_spends_its_attempts(bench: Bench):
    """
    INVARIANT: every run ends, also one whose body calls `sys.exit`.

    Breaks if what ends a process gives the attempt back: the run would start for ever.
    """
    flow = bench.flow()

    @flow.phase(max_attempts=2, backoff=AT_ONCE)
    def plan(ctx):
        sys.exit(3)

    run = flow.enqueue(repo="acme/app", number=7)
    for _ in range(2):
        with pytest.raises(SystemExit):
            bench.finish(flow, run)

    assert run.state is RunState.FAILED
    assert "SystemExit" == run.view.error["type"]


@pytest.mark.parametrize("hears", ["ctx.check", "the end of its process"])
def test_a_worker_that_shuts_down_gives_the_attempt_back(bench: Bench, hears: str):
    """
    INVARIANT: a deploy burns no attempt.

    Breaks if a release counts, or if a process that ends with its worker is taken for one that its body ended.
    """
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def plan(ctx):
        if not bench.rung:
            ctx.check() if hears == "ctx.check" else sys.exit(1)
        return "done"

    run = flow.enqueue(repo="acme/app", number=7)
    bench.stopping = True
    with contextlib.suppress(SystemExit):
        bench.deliver(flow)
    assert (RunState.QUEUED, 0) == (run.state, run.view.attempts)

    bench.stopping = False
    bench.rung.extend([Due(run.id, run.view.fence, "review", "plan", None, "k", 0)] * 2)
    bench.deliver(flow)
    assert (RunState.SUCCEEDED, 1) == (run.state, run.view.attempts)
    assert 1 == bench.events(run).count("phase.released")


def test_a_process_that_is_ended_before_it_hears_of_the_shutdown_waits_to_hear(laptop: Bench):
    """As when a signal reaches a whole process group: the pool child may be first."""
    flow = laptop.flow()
    flow.phase(name="plan", max_attempts=1)(lambda ctx: sys.exit(1))
    run = flow.enqueue(repo="acme/app", number=7)
    answers = iter([False, False, False])
    runner = Runner(replace(laptop.process(), stopping=lambda: next(answers, True)))
    with pytest.raises(SystemExit):
        runner.deliver(flow, flow.phases["plan"], Message(run.id, 0), inline=lambda *_: True, watcher=laptop.diary)

    assert (RunState.QUEUED, 0) == (run.state, run.view.attempts)


def test_a_worker_that_shuts_down_starts_no_further_phase(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        bench.stopping = True

    flow.phase(name="deliver")(lambda ctx: "delivered")
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert [("plan", 1, "success", "queued")] == bench.diary.lines
    assert [(run.id, "deliver")] == [(due.run_id, due.phase) for due in bench.rung]


def test_a_ledger_that_goes_away_during_a_body_is_no_error_of_the_attempt(laptop: Bench):
    """
    INVARIANT: an end that could not be told is not told as something else.

    Breaks if an unreachable ledger is taken for a failure of the body, which would then be settled as one.
    """
    flow = laptop.flow()
    there = laptop.database.url

    @flow.phase(max_attempts=1, lease=timedelta(milliseconds=200))
    def plan(ctx):
        move(laptop.database, make_url("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))

    run = flow.enqueue(repo="acme/app", number=7)
    with pytest.raises(LedgerUnavailable):
        laptop.deliver(flow)
    move(laptop.database, there)

    assert (RunState.RUNNING, 1, None) == (run.state, run.view.attempts, run.view.error)
    assert [] == laptop.diary.lines
    assert {} == laptop.keeper._watched, "and nobody beats for it: it lapses and is rescued"


def move(database: Database, url: URL) -> None:
    database.close()
    database.url, database._engine = url, None


def test_a_phase_that_this_release_does_not_know_is_left_alone(bench: Bench):
    newer, older = bench.flow(), bench.flow()
    for flow in (newer, older):
        flow.phase(name="plan")(lambda ctx: "planned")
    newer.phase(name="deliver")(lambda ctx: "delivered")
    run = newer.enqueue(repo="acme/app", number=7)
    bench.deliver(older)

    assert (RunState.QUEUED, 0, "pending") == (run.state, run.view.attempts, run.phases["deliver"])
    bench.finish(newer, run)
    assert run.state is RunState.SUCCEEDED
