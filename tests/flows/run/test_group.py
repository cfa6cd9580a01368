"""Groups: what shares a message and a commit, and that no run of a group pays for another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from runclaim import Blocked, RunState, Skip
from runclaim.flows.messages.message import Message
from runclaim.flows.messages.publisher import MOST_NAMED, together
from runclaim.flows.run import group, pace
from runclaim.flows.run.pace import GROUP_SECONDS, Pace
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.ledger.release import release
from tests.flows.run.test_counted import counted
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runclaim import Run
    from runclaim.flows.flow import Flow
    from runclaim.flows.run.execution import Execution
    from tests.harness.bench import Bench

MANY = 10


def group_of(bench: Bench, flow: Flow, many: int = MANY) -> list[Run]:
    """So many runs, whose phases are known to be short."""
    for phase in flow.phases.values():
        bench.pace.note(phase.task_name, GROUP_SECONDS / 1000)
    return flow.enqueue_many([{"repo": "acme/app", "number": number} for number in range(many)])


def deliver(bench: Bench, flow: Flow, *, phase: str | None = None) -> Execution:
    """One message that names everything that was rung."""
    message = Message.of([[due.run_id, due.fence] for due in bench.rung], 0, None)
    chosen = flow.phases[phase or bench.rung[0].phase]
    bench.rung.clear()
    return bench.runner().deliver(flow, chosen, message, inline=lambda _before, _after: True, watcher=bench.diary)


def states(runs: Sequence[Run]) -> list[RunState]:
    return [run.state for run in runs]


def attempts(runs: Sequence[Run]) -> list[int]:
    return [run.view.attempts for run in runs]


def three_phases(bench: Bench) -> Flow:
    flow = bench.flow()
    first = flow.phase(name="plan")(lambda ctx: ctx.input.number)
    flow.phase(name="deliver")(lambda ctx: 10 * ctx.result(first))
    flow.phase(name="compound")(lambda ctx: ctx.key)
    return flow


def test_a_group_of_short_phases_shares_its_commits(bench: Bench):
    """
    INVARIANT: ten runs of three short phases cost as many commits as one: a claim and three completions.

    Breaks if a body of a group is settled alone, or the next phases are claimed one by one.
    """
    flow = three_phases(bench)
    runs = group_of(bench, flow)
    with counted(bench.database.engine) as cost:
        deliver(bench, flow)

    assert [RunState.SUCCEEDED] * MANY == states(runs)
    assert 4 == cost["commits"]
    assert [] == bench.rung
    assert [run.results for run in runs] == [
        {"plan": number, "deliver": 10 * number, "compound": f"acme/app:pr-{number}"} for number in range(MANY)
    ]


def test_each_run_of_a_group_has_the_journal_of_a_run_alone(bench: Bench):
    flow = three_phases(bench)
    alone = flow.enqueue(repo="acme/app", number=99)
    bench.deliver(flow)
    runs = group_of(bench, flow)
    deliver(bench, flow)

    assert [bench.events(alone)] * MANY == [bench.events(run) for run in runs]


def test_a_body_that_fails_in_a_group_fails_alone(bench: Bench):
    flow = bench.flow()

    @flow.phase(max_attempts=2)
    def plan(ctx):
        if ctx.input.number == 3:
            raise Blocked("a person")
        if ctx.input.number == 4:
            raise ValueError("no")
        if ctx.input.number == 5:
            raise Skip("nothing to do")

    runs = group_of(bench, flow)
    deliver(bench, flow)

    expected = [RunState.SUCCEEDED] * MANY
    expected[3:5] = [RunState.BLOCKED, RunState.QUEUED]
    assert states(runs) == expected
    assert [1] * MANY == attempts(runs)


def test_rows_that_cannot_be_written_fail_their_own_run(bench: Bench):
    """
    INVARIANT: an in_completion function that raises takes nothing of another run with it.

    Breaks if functions of the application run in a commit that several runs share.
    """
    flow = bench.flow()
    bench.execute("CREATE TABLE told (number INTEGER)")

    @flow.phase
    def plan(ctx):
        number = ctx.input.number
        if number % 2:
            ctx.in_completion(lambda session: session.execute(text(f"INSERT INTO told VALUES ({number})")))
        if number == 5:
            ctx.in_completion(lambda session: session.execute(text("INSERT INTO nowhere VALUES (1)")))

    runs = group_of(bench, flow)
    deliver(bench, flow)

    expected = [RunState.SUCCEEDED] * MANY
    expected[5] = RunState.QUEUED
    assert states(runs) == expected
    with bench.database.read() as conn:
        assert [1, 3, 7, 9] == conn.execute(text("SELECT number FROM told ORDER BY 1")).scalars().all()


def test_a_claim_that_is_lost_in_a_group_is_lost_alone(bench: Bench):
    """
    INVARIANT: what a stale claim would write is refused, and the others of its commit are recorded.

    Breaks if a missing row rolls the shared commit back, or is taken for done.
    """
    flow = bench.flow()
    runs: list[Run] = []

    @flow.phase
    def plan(ctx):
        if ctx.input.number == MANY - 1:
            runs[2].cancel()
            lost = [claim for claim in bench.keeper._watched.values() if claim.claim.run_id == runs[4].id]
            bench.database.run(lambda conn: release(conn, [lost[0].claim]))

    runs += group_of(bench, flow)
    deliver(bench, flow)

    assert runs[4].state is RunState.QUEUED
    assert "phase.released" == bench.events(runs[4])[-1]
    assert [RunState.SUCCEEDED] * (MANY - 2) == [run.state for run in runs if run not in (runs[2], runs[4])]
    assert ("plan", 1, "claimlost", None) in bench.diary.lines


def long_body(bench: Bench, flow: Flow, at: int, meanwhile: Callable[[], bool]) -> tuple[Any, threading.Event]:
    """Declare a phase whose body number `at` is unexpectedly long: until `meanwhile` has been seen beside it."""
    seen = threading.Event()

    @flow.phase(name="plan")
    def plan(ctx):
        if ctx.input.number == at:
            until(meanwhile, "what happens beside a long body")
            seen.set()

    return plan, seen


def test_a_long_body_holds_up_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """
    INVARIANT: beside a long body, what ended before it is recorded and what waits behind it goes to others.

    Breaks if only the thread of the body settles. What waited has burned no attempt.
    """
    monkeypatch.setattr(group, "GROUP_SECONDS", 0.3)
    flow = bench.flow()
    runs: list[Run] = []

    def others_go_on() -> bool:
        before, behind = runs[:4], runs[5:]
        return states(before) == [RunState.SUCCEEDED] * 4 and states(behind) == [RunState.QUEUED] * 5

    _, seen = long_body(bench, flow, 4, others_go_on)
    runs += group_of(bench, flow)
    deliver(bench, flow)

    assert seen.is_set()
    assert runs[4].state is RunState.SUCCEEDED
    assert [0] * 5 == attempts(runs[5:])
    # And they are published for whoever is free, at their new fence, and then run.
    assert {due.run_id for due in bench.rung} == {run.id for run in runs[5:]}
    deliver(bench, flow)
    while bench.rung:
        deliver(bench, flow)
    assert [RunState.SUCCEEDED] * MANY == states(runs)


def test_after_a_long_body_the_next_are_not_claimed_behind_one_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "GROUP_SECONDS", GROUP_SECONDS)
    known = Pace()
    known.note("review.plan", GROUP_SECONDS / 1000)
    assert MOST_NAMED == known.size("review.plan")
    known.note("review.plan", 10.0)
    assert 1 == known.size("review.plan")
    assert 1 == known.size("nobody.knows")


def test_what_cannot_be_started_at_once_is_passed_on_before_the_first_begins(bench: Bench):
    """A phase that this process does not know yet starts alone; the others go out in two halves."""
    flow = bench.flow()
    rung: list[int] = []

    @flow.phase
    def plan(ctx):
        rung.append(len(bench.rung))

    runs = flow.enqueue_many([{"repo": "acme/app", "number": number} for number in range(MANY)])
    deliver(bench, flow)

    assert [MANY - 1] == rung
    assert {(due.run_id, due.fence) for due in bench.rung} == {(run.id, 0) for run in runs[1:]}
    assert [RunState.SUCCEEDED, *[RunState.QUEUED] * (MANY - 1)] == states(runs)


@pytest.mark.parametrize("options", [{"max_attempts": 1}, {"max_losses": 1}, {"lease": timedelta(milliseconds=500)}])
def test_a_phase_with_nothing_to_spare_shares_nothing(bench: Bench, options: dict[str, Any]):
    """A crash in somebody else's body would end a run that may lose no worker."""
    flow = bench.flow()
    flow.phase(name="plan", **options)(lambda ctx: None)
    runs = group_of(bench, flow)
    deliver(bench, flow)

    assert [RunState.SUCCEEDED, *[RunState.QUEUED] * (MANY - 1)] == states(runs)


def test_groups_can_be_turned_off(bench: Bench):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    runs = group_of(bench, flow)
    bench.config = type(bench.config)(database_url=bench.config.database_url, grouped=False)
    deliver(bench, flow)

    assert [RunState.SUCCEEDED, *[RunState.QUEUED] * (MANY - 1)] == states(runs)


def test_what_was_lost_or_has_failed_shares_no_message(bench: Bench):
    """
    INVARIANT: a run whose body may kill its process is never again claimed together with others.

    Breaks if dispatch names it beside others: each crash would spend their budgets too.
    """
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    runs = group_of(bench, flow)
    bench.execute("UPDATE runclaim_runs SET losses = 1, attempts = 1 WHERE id = :id", id=_id(bench, runs[3]))
    bench.execute("UPDATE runclaim_runs SET attempts = 1 WHERE id = :id", id=_id(bench, runs[6]))
    bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at")
    bench.rung.clear()
    dispatch_due(bench.database, bench.rung, flows={flow.name: flow}, spacing=timedelta(seconds=30))
    messages = together(bench.rung, may_share=lambda due: not due.alone)

    assert [1, 1, MANY - 2] == sorted(map(len, messages))
    assert {runs[3].id, runs[6].id} == {message[0].run_id for message in messages if len(message) == 1}


def _id(bench: Bench, run: Run) -> str:
    return run.id


def test_messages_are_bounded_and_keep_phases_and_queues_apart(bench: Bench):
    flow, other = bench.flow(), bench.flow("other")
    flow.phase(name="plan")(lambda ctx: None)
    other.phase(name="plan", queue="apart")(lambda ctx: None)
    for each in (flow, other):
        each.enqueue_many([{"repo": "acme/app", "number": number} for number in range(MOST_NAMED + 1)])
    messages = together(bench.rung, may_share=lambda _due: True)

    assert [1, 1, MOST_NAMED, MOST_NAMED] == sorted(map(len, messages))
    assert all(len({(due.flow, due.queue) for due in message}) == 1 for message in messages)


def test_a_worker_that_stops_gives_back_what_has_not_begun(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        bench.stopping = ctx.input.number == 4

    runs = group_of(bench, flow)
    deliver(bench, flow)

    assert [*[RunState.SUCCEEDED] * 5, *[RunState.QUEUED] * 5] == states(runs)
    assert [0] * 5 == attempts(runs[5:])
    assert {due.run_id for due in bench.rung} == {run.id for run in runs[5:]}


def test_a_process_that_ends_in_a_body_settles_what_ended_and_gives_back_what_waits(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        if ctx.input.number == 4:
            raise SystemExit

    runs = group_of(bench, flow)
    with pytest.raises(SystemExit):
        deliver(bench, flow)

    assert [*[RunState.SUCCEEDED] * 4, *[RunState.QUEUED] * 6] == states(runs)
    assert [1, *[0] * 5] == attempts(runs[4:])
    assert {} == bench.keeper._watched


def test_findings_and_actions_of_a_group_are_each_its_own_runs(bench: Bench):
    bench.action("comment")(lambda payload, key: "posted")
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        for number in range(ctx.input.number):
            found = ctx.finding(severity="major", title=f"{number}")
            ctx.plan_action("comment", number, finding=found)

    runs = group_of(bench, flow, 4)
    with counted(bench.database.engine) as cost:
        deliver(bench, flow)

    assert 2 == cost["commits"]
    assert [0, 1, 2, 3] == [len(run.findings) for run in runs]
    assert [0, 1, 2, 3] == [len(run.actions) for run in runs]
    with bench.database.read() as conn:
        pending = conn.execute(text("SELECT pending_actions FROM runclaim_runs ORDER BY id")).scalars().all()
    assert [0, 1, 2, 3] == pending
    assert 6 == bench.rung.actions


def test_a_shared_commit_that_fails_is_settled_one_by_one(bench: Bench):
    """One run's result is refused by the ledger itself: as its row in phase_results is there already."""
    flow = bench.flow()
    runs: list[Run] = []

    @flow.phase
    def plan(ctx):
        if ctx.input.number == 3:
            fence = (
                "INSERT INTO runclaim_phase_results (run_id, phase, position, result, fence, owner, worker, attempts,"
            )
            bench.execute(
                f"{fence} started_at, finished_at) SELECT id, 'plan', 0, '1', 99, 'x', 'y', 1, enqueued_at, enqueued_at"
                " FROM runclaim_runs WHERE id = :id",
                id=ctx.run_id,
            )

    runs += group_of(bench, flow)
    deliver(bench, flow)

    expected = [RunState.SUCCEEDED] * MANY
    # Its body ended well: no attempt has failed, its lease lapses, and nobody here renews it.
    expected[3] = RunState.RUNNING
    assert states(runs) == expected
    assert "phase.failed" not in bench.events(runs[3])
    assert {} == bench.keeper._watched


@contextmanager
def held(bench: Bench, run: Run) -> Iterator[None]:
    """Somebody's transaction has the run's row, as one that enqueued a newer run of its subject."""
    with bench.ledger.database.begin() as conn:
        conn.execute(text("SELECT 1 FROM runclaim_runs WHERE id = :id FOR UPDATE"), {"id": run.id})
        yield


@pytest.mark.postgres
def test_a_run_whose_row_somebody_holds_keeps_no_other_from_its_commit(postgres_bench: Bench):
    """
    INVARIANT: one locked row costs a group at most its own run.

    Breaks if the common commit waits for it, or takes what it left out for lost.
    """
    bench = postgres_bench
    flow = bench.flow()
    holding = ExitStack()

    @flow.phase(name="plan")
    def plan(ctx):
        if ctx.input.number == 1:
            holding.enter_context(held(bench, runs[1]))
        return ctx.input.number

    runs = group_of(bench, flow, many=3)
    with ThreadPoolExecutor(1) as threads:
        delivery = threads.submit(deliver, bench, flow)
        try:
            until(lambda: states([runs[0], runs[2]]) == [RunState.SUCCEEDED] * 2, "the others' commit")
            during = (runs[1].state, delivery.done())
        finally:
            # From the thread of the body, which has the connection.
            holding.close()
        delivery.result(30)

    assert (RunState.RUNNING, False) == during
    assert [(run.state, run.result, run.view.attempts) for run in runs] == [
        (RunState.SUCCEEDED, number, 1) for number in range(3)
    ]


@pytest.mark.postgres
def test_a_body_whose_rows_wait_for_a_lock_keeps_no_other_of_its_group_waiting(
    postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """
    INVARIANT: what waits behind a body that cannot be settled is given back, and no attempt is burned.

    Breaks if the group's lock is held while a body is settled alone.
    """
    monkeypatch.setattr(group, "_SETTLE_SECONDS", 0.05)
    bench = postgres_bench
    flow = bench.flow()
    holding = ExitStack()

    @flow.phase(name="plan")
    def plan(ctx):
        if ctx.input.number == 0:
            holding.enter_context(held(bench, runs[0]))
            ctx.in_completion(lambda session: None)

    runs = group_of(bench, flow, many=3)
    with ThreadPoolExecutor(1) as threads:
        delivery = threads.submit(deliver, bench, flow)
        try:
            until(lambda: len(bench.rung) == 2, "the messages of the others")
            during = (states(runs), attempts(runs)[1:], delivery.done())
        finally:
            holding.close()
        delivery.result(30)

    assert ([RunState.RUNNING, RunState.QUEUED, RunState.QUEUED], [0, 0], False) == during
    assert runs[0].state is RunState.SUCCEEDED
