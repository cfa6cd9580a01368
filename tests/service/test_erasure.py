"""Erasing all runs of a key or a subject, as every door does it, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from runclaim import ActionRejected, InputError
from runclaim.errors import RunNotFound, StateConflict
from runclaim.flows.client.changes import RetryAction
from runclaim.flows.client.erase import NotEnded
from runclaim.flows.client.handle import Run
from runclaim.keys import uuid7
from runclaim.ledger.cancel import cancel
from runclaim.ledger.enqueue import enqueue
from runclaim.models import metadata
from runclaim.service.erasure import BATCH, MOST, erasable, erase_all, whose
from tests.ledger.factories import new_run
from tests.ledger.sql import count

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

SUBJECT = "acme"
CANARY = "ann@example.com"


@pytest.fixture
def flow(bench: Bench) -> Flow[Any]:
    """Its runs hold a text wherever a body can leave one."""

    @bench.action("mail", max_attempts=1)
    def mail(payload: Any, idempotency_key: str) -> str:
        raise ActionRejected(payload)

    made = bench.flow(subject="{repo}")

    @made.phase(name="plan", max_attempts=1)
    def plan(ctx: Any) -> str:
        ctx.finding(severity="major", title=CANARY, body=CANARY, path=CANARY)
        ctx.act("ask", lambda _key: CANARY)
        ctx.plan_action("mail", CANARY)
        return CANARY

    @made.phase(name="deliver", max_attempts=1)
    def deliver(ctx: Any) -> str:
        raise ValueError(CANARY)

    bench.register(made)
    return made


def ended(bench: Bench, flow: Flow[Any]) -> Run:
    """A run that has failed, with a failed action."""
    run = flow.enqueue(repo=SUBJECT, number=7, head=CANARY).signal("seen", CANARY)
    bench.finish(flow, run)
    bench.send()
    return run


def rows(bench: Bench, table: str) -> list[Any]:
    with bench.database.read() as conn:
        return list(conn.execute(select(metadata.tables[f"runclaim_{table}"])).mappings())


def tables_with(bench: Bench, text: str) -> set[str]:
    names = {name.removeprefix("runclaim_") for name in metadata.tables}
    return {name for name in names if text in str(rows(bench, name))}


def of_subject(subject: str = SUBJECT):
    return whose("default", flow=None, key=None, subject=subject)


def test_nothing_is_left_of_what_a_run_held_and_it_is_not_done_again(bench, flow):
    run = ended(bench, flow)
    before = tables_with(bench, CANARY)
    done = erase_all(bench.ledger, of_subject(), by="ann")
    again = flow.enqueue(repo=SUBJECT, number=7, head=CANARY)

    assert {"runs", "phase_results", "actions", "events", "acts", "findings", "signals"} == before
    assert (1, False) == (done.runs, done.more)
    assert set() == tables_with(bench, CANARY)
    assert (run.id, False) == (again.id, again.created)
    assert ("run.erased", {"by": "ann"}) == (run.events[-1].type, run.events[-1].data)


def test_an_erased_run_is_neither_retried_nor_rerun_nor_read_nor_is_its_action_sent_again(bench, flow):
    run = ended(bench, flow)
    run.erase()
    (action,) = run.actions

    with pytest.raises(StateConflict, match="it was erased"):
        run.retry()
    with pytest.raises(InputError, match="was erased; enqueue a new run"):
        run.rerun()
    with pytest.raises(Exception, match="superseded or erased"):
        bench.ledger.do(RetryAction(action.id))


def test_the_result_of_an_erased_run_is_refused_and_not_none(bench):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: 7)
    run = flow.enqueue(repo="a", number=7)
    bench.finish(flow, run)
    run.erase()

    with pytest.raises(StateConflict, match="it was erased"):
        _ = run.result
    with pytest.raises(StateConflict, match="it was erased"):
        run.wait()


def test_a_live_run_of_the_subject_is_refused_before_anything_is_erased(bench, flow):
    run = ended(bench, flow)
    live = flow.enqueue(repo=SUBJECT, number=8)

    with pytest.raises(NotEnded, match=f"runclaim runs cancel {live.id}"):
        erase_all(bench.ledger, of_subject(), by="ann")
    with pytest.raises(NotEnded):
        live.erase()

    assert not run.view.was_erased


def test_a_run_that_does_not_exist_is_not_erased(bench):
    with pytest.raises(RunNotFound):
        Run(bench.ledger, uuid7()).erase()


def test_a_subject_of_many_runs_is_erased_in_transactions_of_a_bounded_size(bench):
    """
    INVARIANT: however many runs a subject has, no transaction and no request erases all of them.

    Breaks if the runs of a subject are erased by one statement, or a request goes on until none is left.
    """

    def many(conn: Any) -> None:
        fresh = [new_run(project="default") for _ in range(MOST + 50)]
        cancel(conn, [each.run_id for each in enqueue(conn, fresh)])
        conn.exec_driver_sql(f"UPDATE runclaim_runs SET subject = '{SUBJECT}'")

    bench.database.run(many)
    asked = erasable(bench.ledger, of_subject())
    first, second = (erase_all(bench.ledger, of_subject(), by="ann") for _ in range(2))
    calls = [row["data"]["call"] for row in rows(bench, "events") if row["type"] == "run.erased"]

    assert [(MOST, True), (MOST, True), (50, False)] == [(each.runs, each.more) for each in (asked, first, second)]
    assert BATCH == max(map(calls.count, set(calls)))


def test_blanked_keys_and_subjects_leave_no_text_of_a_person(bench, flow):
    flow.enqueue(repo=CANARY, number=7).cancel()
    erase_all(bench.ledger, of_subject(CANARY), by="ann", keys=True)

    assert set() == tables_with(bench, CANARY)
    assert not flow.enqueue(repo=CANARY, number=7).created
    with bench.database.read() as conn:
        assert 0 == count(conn, "subjects")


@pytest.mark.parametrize(
    "named", [{}, {"key": "a", "subject": "b", "flow": "c"}, {"key": "a"}], ids=["nothing", "both", "no flow"]
)
def test_a_key_needs_its_flow_and_a_subject_stands_alone(named):
    with pytest.raises(InputError):
        whose("default", **{"flow": None, "key": None, "subject": None} | named)
