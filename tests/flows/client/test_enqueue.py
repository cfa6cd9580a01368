"""Enqueuing: one run a key, on both databases, and a message only for a run that is new and due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from runclaim import KeyConflict, RunState, migrations
from runclaim.errors import InputError, LedgerUnavailable, SchemaBehind
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from tests.harness.bench import Bench


def plan(ctx):
    return [ctx.input.base]


def test_the_same_key_and_input_is_the_same_run(bench: Bench):
    review = bench.flow()
    review.phase(plan)
    first = review.enqueue(repo="acme/app", number=7)
    again = review.enqueue(PullRequest("acme/app", 7))

    assert (True, False) == (first.created, again.created)
    assert first.id == again.id
    assert [first.id] == [due.run_id for due in bench.rung]
    assert ["run.enqueued"] == bench.events(first)


def test_the_same_key_with_another_input_is_a_conflict_that_shows_what_differs(bench: Bench):
    review = bench.flow()
    review.phase(plan)
    first = review.enqueue(repo="acme/app", number=7)

    with pytest.raises(KeyConflict) as refused:
        review.enqueue(repo="acme/app", number=7, base="a2", head="b3")
    assert {"base": ("a1", "a2"), "head": ("b2", "b3")} == refused.value.differs
    assert (
        f"review already has run {first.id} under the key 'acme/app:pr-7' with a different input"
        " (base was 'a1', is 'a2'; head was 'b2', is 'b3')."
        " Put what differs into the key, or enqueue the same input."
    ) == str(refused.value)
    assert 1 == bench.count("runclaim_runs")


def test_a_batch_with_one_conflict_makes_no_run_at_all(bench: Bench):
    review = bench.flow()
    review.phase(plan)
    review.enqueue(repo="acme/app", number=2)

    with pytest.raises(KeyConflict):
        review.enqueue_many([PullRequest("acme/app", n, head="other") for n in (1, 2, 3)])
    assert 1 == bench.count("runclaim_run_keys")
    assert review.enqueue(repo="acme/app", number=1).created


def test_many_inputs_give_their_runs_in_order(bench: Bench):
    review = bench.flow()
    review.phase(plan)
    known = review.enqueue(repo="acme/app", number=2)
    bench.rung.clear()
    runs = review.enqueue_many(
        [
            PullRequest("acme/app", 3),
            {"repo": "acme/app", "number": 2},
            PullRequest("acme/app", 1),
            PullRequest("acme/app", 3),
        ]
    )

    assert [True, False, True, False] == [run.created for run in runs]
    assert ["acme/app:pr-3", "acme/app:pr-2", "acme/app:pr-1", "acme/app:pr-3"] == [run.view.key for run in runs]
    assert (runs[1].id, runs[3].id) == (known.id, runs[0].id)
    assert {runs[0].id, runs[2].id} == {due.run_id for due in bench.rung}
    assert [] == review.enqueue_many([])


def test_one_key_in_two_flows_or_two_projects_is_two_runs(bench: Bench):
    review, audit = bench.flow(), bench.flow("audit")
    for flow in (review, audit):
        flow.phase(plan)
    runs = [
        review.enqueue(repo="acme/app", number=7),
        audit.enqueue(repo="acme/app", number=7),
        review.using(project="other").enqueue(repo="acme/app", number=7),
    ]

    assert [True, True, True] == [run.created for run in runs]
    assert 3 == len({run.id for run in runs})


def test_a_delayed_run_rings_when_it_is_due_and_not_before(bench: Bench):
    review = bench.flow()
    review.phase(plan)
    run = review.using(delay=timedelta(hours=1)).enqueue(repo="acme/app", number=7)
    assert [] == bench.rung
    bench.finish(review, run)
    assert run.state is RunState.QUEUED
    column = "dispatch_due_at = dispatch_due_at - 3600000000, available_at = available_at - 3600000000"
    if bench.database.url.get_backend_name() == "postgresql":
        column = "dispatch_due_at = dispatch_due_at - interval '1 h', available_at = available_at - interval '1 h'"
    bench.execute(f"UPDATE runclaim_runs SET {column}")
    bench.finish(review, run)
    assert run.state is RunState.SUCCEEDED


def test_a_message_carries_what_the_broker_needs(bench: Bench):
    review = bench.flow()
    review.phase(queue="slow")(plan)
    review.using(priority=3).enqueue(repo="acme/app", number=7)

    (due,) = bench.rung
    assert (
        "review",
        "plan",
        "slow",
        "acme/app:pr-7",
        3,
        0,
    ) == (due.flow, due.phase, due.queue, due.key, due.priority, due.fence)


def test_an_input_given_twice_is_refused(bench: Bench):
    review = bench.flow()
    review.phase(plan)

    with pytest.raises(InputError) as refused:
        review.enqueue(PullRequest("acme/app", 7), head="other")
    assert "input: is given twice, as one value and as head; give one of the two" == str(refused.value)


REFUSED = {
    "NaN": ({"repo": "a", "number": float("nan")}, "number: Expected `int`, got `float`"),
    "NUL in the key": ({"repo": "a\x00", "number": 1}, "input.repo: contains NUL or a lone surrogate"),
    "a lone surrogate": ({"repo": "\ud800", "number": 1}, "input.repo: contains NUL or a lone surrogate"),
    "too much": (
        {"repo": "a", "number": 1, "base": "b" * 300_000},
        "input: has 300,045 bytes of JSON, at most 262,144",
    ),
    "too long a key": ({"repo": "a" * 600, "number": 1}, "key: has 605 bytes, at most 512 fit; hash the long part"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_input_gives_the_same_error_on_both_databases_and_leaves_nothing(bench: Bench, kind: str):
    given, expected = REFUSED[kind]
    review = bench.flow()
    review.phase(plan)

    with pytest.raises(InputError) as refused:
        review.enqueue(**given)
    assert expected == str(refused.value)[: len(expected)]
    assert [0, 0, []] == [bench.count("runclaim_runs"), bench.count("runclaim_run_keys"), bench.rung]


def test_the_largest_input_and_the_longest_key_are_taken(bench: Bench):
    review = bench.flow(key="{repo}")
    review.phase(plan)
    frame = len('{"repo":"","number":7,"base":"","head":"b2"}')
    run = review.enqueue(repo="é" * 256, number=7, base="a" * (262_144 - frame - 512))
    bench.finish(review, run)

    assert run.state is RunState.SUCCEEDED
    assert 262_144 - frame - 512 == len(run.view.input["base"])


def test_a_newer_run_of_a_subject_supersedes_the_one_that_waits(bench: Bench):
    review = bench.flow(key="{repo}:{head}", subject="{repo}")
    review.phase(plan)
    older = review.enqueue(repo="acme/app", number=7, head="h1")
    newer = review.enqueue(repo="acme/app", number=7, head="h2")
    other = review.enqueue(repo="acme/web", number=7, head="h1")

    assert [RunState.SUPERSEDED, RunState.QUEUED, RunState.QUEUED] == [older.state, newer.state, other.state]


def test_a_newer_run_of_a_subject_stops_the_one_that_runs_and_takes_its_rows_back(bench: Bench):
    """
    INVARIANT: a superseded run completes nothing more, although its worker is in the middle of it.

    Breaks if the CAS of the completion compares no fence, or its rows are committed without it.
    """
    review = bench.flow(key="{repo}:{head}", subject="{repo}")

    @review.phase
    def deliver(ctx):
        ctx.in_completion(lambda session: session.execute(text("INSERT INTO told VALUES ('row')")))
        if ctx.input.head == "h1":
            review.enqueue(repo="acme/app", number=7, head="h2")

    bench.execute("CREATE TABLE told (what TEXT)")
    unheard = review.enqueue(repo="acme/app", number=7, head="h1")
    bench.deliver(review)
    bench.rung.clear()

    assert [("deliver", 1, "claimlost", None)] == bench.diary.lines
    assert (RunState.SUPERSEDED, 0) == (unheard.state, bench.count("told"))
    assert ["run.enqueued", "run.started", "phase.started", "run.superseded"] == bench.events(unheard)


def test_a_ledger_whose_file_was_deleted_is_told_and_one_that_took_its_place_is_looked_at_again(laptop: Bench):
    """Breaks if the schema is looked at once a process: the new file may have no tables, or another release's."""
    laptop.config = replace(laptop.config, ledger_patience=timedelta(seconds=1))
    flow = laptop.flow()
    flow.phase(name="plan")(lambda ctx: None)
    first = flow.enqueue(repo="acme/app", number=1)
    file = laptop.database.file
    for each in file.parent.glob("ledger.db*"):
        each.unlink()
    with pytest.raises(LedgerUnavailable, match="is not there: it was deleted, moved or never created"):
        flow.enqueue(repo="acme/app", number=2)
    file.touch()
    with pytest.raises(SchemaBehind, match="has no runclaim tables"):
        flow.enqueue(repo="acme/app", number=2)
    migrations.upgrade(laptop.database)
    second = flow.enqueue(repo="acme/app", number=2)

    assert [first.id, second.id] == [due.run_id for due in laptop.rung]
    assert 1 == laptop.count("runclaim_runs")
