"""What a new release could not do of what the ledger still has, on both databases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import insert
from sqlalchemy.engine import make_url

from runclaim.database import Database
from runclaim.flows.declare.declared_flow import DeclaredFlow, FlowOptions
from runclaim.models import schedules
from runclaim.service.misfits import check_release
from runclaim.service.release import Kind, Misfit, Release, Report
from runclaim.sql.clock import now
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

CANARY = "ann@example.com"


def declared(*phases: str, name: str = "review", takes: type[Any] = PullRequest) -> DeclaredFlow[Any]:
    """A flow as the new release has it."""
    flow = DeclaredFlow(name, takes, FlowOptions(key="{repo}"), actions={}, on_phase=lambda _flow, _phase: None)
    for phase in phases:
        flow.phase(name=phase)(lambda ctx: None)
    return flow


def release(*flows: DeclaredFlow[Any], others: str = "", project: str = "default") -> Release:
    return Release(
        flows={each.name: each for each in flows}, actions=set(), project=project, others=frozenset(others.split())
    )


def check(bench: Bench, *flows: DeclaredFlow[Any], at_most: int = 100_000, **how: Any) -> Report:
    return check_release(bench.database, release(*flows, **how), at_most=at_most)


def misfits(bench: Bench, *flows: DeclaredFlow[Any], **how: Any) -> list[Misfit]:
    return check(bench, *flows, **how).misfits


def briefly(found: list[Misfit]) -> list[tuple[str, str, str | None, int]]:
    return [(each.kind, each.flow, each.name, each.many) for each in found]


@pytest.fixture
def review(bench: Bench) -> Flow[Any]:
    """The release that is running."""
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    flow.phase(name="deliver", on="approved")(lambda ctx: None)
    flow.phase(name="compound")(lambda ctx: None)
    bench.register(flow)
    return flow


def test_runs_that_will_come_to_a_phase_that_is_gone_are_counted_with_those_that_are_due_soon(bench, review):
    for number in range(3):
        review.enqueue(repo="a", number=number)
    review.using(delay=timedelta(hours=5)).enqueue(repo="a", number=7)
    (found,) = misfits(bench, declared("plan", "publish", "compound"))

    assert ("phase", "review", "deliver", 4, 3) == (found.kind, found.flow, found.name, found.many, found.soon)
    assert (
        "flow review: this release does not declare phase deliver; 4 live runs, 3 of them due within an hour,"
        " pinned to it"
    ) == found.problem
    assert [
        'to keep the old name: @review.phase(name="deliver")',
        "or: runclaim runs move-phase --flow review --from deliver --to publish",
    ] == found.remedies
    assert found.earliest is not None


def test_a_phase_that_a_run_has_completed_may_go(bench, review):
    """
    INVARIANT: only what is still to be done counts.

    Breaks if the whole pinned list is compared and not the part from the cursor.
    """
    run = review.enqueue(repo="a", number=7)
    bench.finish(review, run)
    ended = review.enqueue(repo="a", number=8)
    ended.cancel()

    assert "waiting" == run.state
    assert [] == misfits(bench, declared("deliver", "compound"))
    assert [("phase", "review", "compound", 1)] == briefly(misfits(bench, declared("plan", "deliver")))


def test_a_run_that_waits_for_a_person_or_a_signal_is_due_at_no_time(bench, review):
    bench.finish(review, review.enqueue(repo="a", number=7))
    (found,) = misfits(bench, declared("plan", "compound"))

    assert (1, 0, None) == (found.many, found.soon, found.earliest)
    assert "or keep the phase until these runs have ended" == found.remedies[-1]


def test_of_several_new_phases_none_is_chosen_for_the_reader(bench, review):
    review.enqueue(repo="a", number=7)
    (found,) = misfits(bench, declared("plan", "check", "publish", "compound"))

    assert "--from deliver --to NEW, where NEW is one of check, publish" in found.remedies[-1]


def test_phases_that_were_added_or_stand_in_another_order_fit(bench, review):
    review.enqueue(repo="a", number=7)

    assert [] == misfits(bench, declared("compound", "deliver", "fresh", "plan"))


def test_flows_of_other_applications_are_left_out_by_name(bench, review):
    review.enqueue(repo="a", number=7)

    assert [("flow", "review", None, 1)] == briefly(misfits(bench))
    assert [("flow", "review", None, 1)] == briefly(misfits(bench, declared())), "a flow without phases runs nothing"
    assert [] == misfits(bench, others="review")
    assert [] == misfits(bench, project="theirs")


def test_what_a_plain_call_does_itself_is_no_misfit(bench, review):
    """A flow whose one phase is called as theirs is: it is registered, so it is told of."""
    own = bench.flow("tidy")
    own.phase(name="work")(lambda ctx: None)
    own.enqueue(repo="a", number=7)
    assert [] == misfits(bench)
    bench.register(own)

    assert [("flow", "tidy", None, 1)] == briefly(misfits(bench))


@dataclass(frozen=True)
class Stricter:
    """`base` takes numbers now, and `title` is new."""

    repo: str
    number: int
    base: int
    title: str


@dataclass(frozen=True)
class Titled:
    repo: str
    number: int
    title: str


def test_an_input_that_no_longer_fits_is_told_by_its_field_and_never_by_its_value(bench, review):
    runs = [review.enqueue(repo="a", number=number, base=CANARY) for number in range(5)]
    (base,) = misfits(bench, declared("plan", "deliver", "compound", takes=Stricter))
    (title,) = misfits(bench, declared("plan", "deliver", "compound", takes=Titled))

    assert [("input", "review", "base", 5), ("input", "review", "title", 5)] == briefly([base, title])
    assert [run.id for run in runs[:3]] == base.run_ids
    assert CANARY not in str(base.as_json())


def test_a_type_whose_own_code_raises_is_told_as_an_input_that_does_not_fit(bench, review):
    @dataclass(frozen=True)
    class Own:
        repo: str

        def __post_init__(self) -> None:
            raise KeyError(CANARY)

    review.enqueue(repo="a", number=7)
    (found,) = misfits(bench, declared("plan", "deliver", "compound", takes=Own))

    assert ("input", "input") == (found.kind, found.name)
    assert CANARY not in str(found.as_json())


def test_inputs_are_checked_up_to_a_bound_and_every_page_is_told(bench, review, monkeypatch):
    """
    INVARIANT: each run is looked at once, whatever page it is on, and no more than were asked for.

    Breaks if a page begins at a number, or at a time alone: runs of one statement have the same.
    """
    monkeypatch.setattr("runclaim.service.misfits._PAGE", 2)
    review.enqueue_many([{"repo": "a", "number": number, "base": CANARY} for number in range(7)])
    told: list[tuple[int, int]] = []
    stricter = declared("plan", "deliver", "compound", takes=Stricter)
    some = check_release(bench.database, release(stricter), at_most=5, progress=lambda *seen: told.append(seen))
    whole = check(bench, stricter)

    assert [(2, 7), (4, 7), (5, 7)] == told
    assert (5, 7, 5) == (some.inputs_checked, some.inputs, some.misfits[0].many)
    assert (7, 7, 7) == (whole.inputs_checked, whole.inputs, whole.misfits[0].many)
    assert (0, 7) == ((none := check(bench, stricter, at_most=0)).inputs_checked, none.inputs)


def test_actions_that_wait_for_a_handler_that_is_gone_are_told_also_of_ended_runs(bench, review):
    @bench.action("mail")
    def mail(payload: Any, idempotency_key: str) -> str:
        return "sent"

    notify = bench.flow("notify")
    notify.phase(name="plan")(lambda ctx: ctx.plan_action("mail", CANARY))
    run = notify.enqueue(repo="a", number=7)
    bench.finish(notify, run)

    assert "succeeded" == run.state
    assert [("action", "notify", "mail", 1)] == briefly(misfits(bench, declared("plan", name="notify")))
    assert [] == misfits(bench, others="notify")
    bench.send()
    assert [] == misfits(bench, declared("plan", name="notify"))


def schedule(bench: Bench, name: str, flow: str, project: str = "default") -> None:
    row = {"project": project, "name": name, "flow": flow, "definition": {}, "fingerprint": "f", "updated_at": now()}
    bench.database.run(lambda conn: conn.execute(insert(schedules).values(row)))


def test_a_schedule_whose_flow_is_gone_is_told(bench, review):
    schedule(bench, "nightly", "tidy")
    schedule(bench, "theirs", "tidy", project="theirs")
    schedule(bench, "hourly", "review")

    assert [("schedule", "tidy", "nightly", 1)] == briefly(misfits(bench, declared("plan")))
    assert [] == misfits(bench, declared("plan"), others="tidy")


def test_the_worst_comes_first(bench, review):
    review.enqueue(repo="a", number=7, base=CANARY)
    other = bench.flow("other")
    other.phase(name="plan")(lambda ctx: None)
    other.enqueue(repo="a", number=7)
    schedule(bench, "nightly", "tidy")
    found = misfits(bench, declared("plan", takes=Stricter))

    assert [Kind.PHASE, Kind.PHASE, Kind.FLOW, Kind.INPUT, Kind.SCHEDULE] == [each.kind for each in found]


def test_a_role_that_may_only_read_can_ask(postgres_bench):
    """
    INVARIANT: the check writes nothing and locks no row.

    Breaks with any write, or a SELECT … FOR UPDATE, in one of its questions.
    """
    flow = postgres_bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    flow.enqueue(repo="a", number=7, base=CANARY)
    role = f"reads_{uuid4().hex[:8]}"
    postgres_bench.execute(f"CREATE ROLE {role} LOGIN")
    postgres_bench.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    postgres_bench.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    url = make_url(postgres_bench.config.database_url).set(username=role)
    seen = Database(url.render_as_string(hide_password=False), patience=timedelta(seconds=5))
    found = check_release(seen, release(declared("start", takes=Stricter)), at_most=10)
    seen.close()
    postgres_bench.execute(f"DROP OWNED BY {role}")
    postgres_bench.execute(f"DROP ROLE {role}")

    assert [("phase", "plan"), ("input", "base")] == [(each.kind, each.name) for each in found.misfits]
