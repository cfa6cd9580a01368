"""Receivers are told after the commit, at least once, in the order of each run, and a crash loses nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event as sql_event

from runclaim import Blocked, Retry
from runclaim.errors import DeclarationError, GiveUp
from runclaim.listeners import tell as telling
from runclaim.listeners.listener import Event, Listener
from tests.harness.bench import NO_WAIT, Bench

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow

AT_ONCE = (NO_WAIT,) * 3


class Heard(list[Event]):
    """A receiver that remembers; `refuses(event)` raises what it is told to raise."""

    def __init__(self, bench: Bench, *types: str, name: str = "mailer", **how: Any) -> None:
        self.refuses: Any = lambda event: None
        self.tried: list[Event] = []
        how = {"flows": None, "schedule": AT_ONCE} | how
        bench.ledger.listeners.add(Listener(name=name, types=types or ("*",), tell=self.receive, **how))
        bench.tell()

    def receive(self, event: Event) -> None:
        self.tried.append(event)
        self.refuses(event)
        self.append(event)

    def types(self, run: Any = None) -> list[str]:
        return [event.type for event in self if run is None or event.run_id == run.id]


@pytest.fixture
def review(bench: Bench) -> Flow[Any]:
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: 1)
    return flow


def refuse(which: Any, error: BaseException) -> Any:
    def refuses(event: Event) -> None:
        if which(event):
            raise error

    return refuses


def test_a_receiver_is_told_what_happened_and_to_which_run(bench: Bench, review: Flow[Any]):
    heard = Heard(bench, "run.*")
    run = review.enqueue(repo="acme/app", number=7)
    bench.finish(review, run)
    bench.tell()

    assert ["run.enqueued", "run.started", "run.succeeded"] == heard.types()
    last = heard[-1]
    assert (run.id, "default", "review", "acme/app:pr-7") == (last.run_id, last.project, last.flow, last.key)
    assert run.view.started_at <= last.at


def test_a_receiver_hears_its_types_and_flows_only(bench: Bench, review: Flow[Any]):
    other = bench.flow("other")
    other.phase(name="plan")(lambda ctx: 1)
    ends, phases = Heard(bench, "run.succeeded", "run.failed"), Heard(bench, "phase.*", name="phases")
    others = Heard(bench, "run.enqueued", name="others", flows=frozenset({"other"}))
    bench.finish(review, review.enqueue(repo="acme/app", number=7))
    other.enqueue(repo="acme/app", number=7)
    bench.tell()

    assert ["run.succeeded"] == ends.types()
    assert ["phase.started", "phase.completed"] == phases.types()
    assert ["other"] == [event.flow for event in others]


def test_the_same_event_is_told_once_however_often_beat_asks(bench: Bench, review: Flow[Any]):
    heard = Heard(bench)
    bench.finish(review, review.enqueue(repo="acme/app", number=7))
    for _ in range(3):
        bench.tell()

    assert len(heard) == len({event.id for event in heard}) == 5


def test_a_new_receiver_hears_what_happens_from_then_on(bench: Bench, review: Flow[Any]):
    bench.finish(review, review.enqueue(repo="acme/app", number=7))
    heard = Heard(bench)
    bench.tell()
    later = review.enqueue(repo="acme/app", number=8)
    bench.tell()

    assert [("run.enqueued", later.id)] == [(event.type, event.run_id) for event in heard]


def test_what_was_rolled_back_is_never_told(bench: Bench, review: Flow[Any]):
    from sqlalchemy.orm import Session

    heard = Heard(bench)
    with Session(bench.database.engine) as session:
        review.enqueue(repo="acme/app", number=7, session=session)
        session.rollback()
    bench.tell()

    assert [] == heard


def test_an_event_that_fails_is_told_again_and_the_later_ones_of_its_run_wait_behind_it(
    bench: Bench, review: Flow[Any]
):
    """
    INVARIANT: the events of a run are told in their order, and one that fails holds up no other run.

    Breaks if a later event of the run is told while an earlier one is set aside.
    """
    heard = Heard(bench, "run.*", schedule=(timedelta(hours=1),))
    bad, good = review.enqueue(repo="acme/app", number=1), review.enqueue(repo="acme/app", number=2)
    for _ in range(2):
        bench.deliver(review)
    first = lambda event: event.run_id == bad.id and event.type == "run.enqueued"  # noqa: E731
    heard.refuses = refuse(first, ConnectionError("away"))
    bench.tell()

    assert ["run.enqueued", "run.started", "run.succeeded"] == heard.types(good)
    assert [] == heard.types(bad)

    heard.refuses = lambda event: None
    bench.tell()
    assert [] == heard.types(bad)

    bench.execute("UPDATE runclaim_untold SET available_at = (SELECT MIN(enqueued_at) FROM runclaim_runs)")
    bench.tell()
    assert ["run.enqueued", "run.started", "run.succeeded"] == heard.types(bad)
    assert 0 == bench.count("runclaim_untold")


def test_what_fails_through_the_whole_schedule_is_given_up_and_kept_for_a_person(bench: Bench, review: Flow[Any]):
    heard = Heard(bench, "run.enqueued")
    review.enqueue(repo="acme/app", number=1)
    heard.refuses = refuse(lambda event: True, ConnectionError("away"))
    for _ in range(9):
        bench.execute("UPDATE runclaim_listeners SET available_at = (SELECT MIN(enqueued_at) FROM runclaim_runs)")
        bench.tell()

    assert 1 + len(AT_ONCE) == len(heard.tried)
    kept = bench.execute("SELECT state, attempts, error FROM runclaim_untold").one()
    assert ("given_up", 4) == (kept.state, kept.attempts)
    assert "away" in str(kept.error)


def test_what_is_kept_of_a_listeners_error_holds_no_secret(bench: Bench, review: Flow[Any]):
    """
    INVARIANT: an error is redacted before it is cut and kept, whoever raised it.

    Breaks if the text is cut first: half a secret looks like none.
    """
    canary = "ghp_" + "Can4ry" * 6
    heard = Heard(bench, "run.enqueued")
    review.enqueue(repo="acme/app", number=1)
    heard.refuses = refuse(
        lambda event: True, type(canary, (ConnectionError,), {})(f"{'x' * 2030}{canary} Bearer {canary}")
    )
    bench.tell()
    kept = bench.execute("SELECT error FROM runclaim_untold").one()

    assert [] == [piece for piece in (canary, canary[:20]) if piece in str(kept.error)]
    assert "[redacted: GitHub token]" in str(kept.error)


def test_a_receiver_that_gives_up_is_not_asked_again_and_holds_up_nothing(bench: Bench, review: Flow[Any]):
    heard = Heard(bench, "run.*")
    run = review.enqueue(repo="acme/app", number=1)
    heard.refuses = refuse(lambda event: event.type == "run.enqueued", GiveUp("never"))
    bench.finish(review, run)
    for _ in range(2):
        bench.tell()

    assert ["run.started", "run.succeeded"] == heard.types()
    assert 3 == len(heard.tried)


def test_a_receiver_that_asks_for_time_gets_it(bench: Bench, review: Flow[Any]):
    heard = Heard(bench, "run.enqueued")
    review.enqueue(repo="acme/app", number=1)
    heard.refuses = refuse(lambda event: True, Retry("busy", after=timedelta(hours=1)))
    for _ in range(3):
        bench.tell()

    assert 1 == len(heard.tried)


def test_a_crash_in_the_middle_tells_again_and_loses_nothing(bench: Bench, review: Flow[Any]):
    """
    INVARIANT: every event is told at least once.

    Breaks if the cursor is moved before the receiver has returned.
    """
    heard = Heard(bench, "run.enqueued")
    runs = [review.enqueue(repo="acme/app", number=number) for number in range(4)]
    heard.refuses = refuse(lambda event: event.run_id == runs[2].id, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.tell()
    heard.refuses = lambda event: None
    # Its hold lapses as a lease does.
    bench.tell()
    assert [runs[0].id, runs[1].id] == [event.run_id for event in heard]

    bench.execute("UPDATE runclaim_listeners SET held_until = (SELECT MIN(enqueued_at) FROM runclaim_runs)")
    bench.tell()
    assert {run.id for run in runs} == {event.run_id for event in heard}


def test_one_process_at_a_time_tells_a_receiver(bench: Bench, review: Flow[Any]):
    """INVARIANT: two processes never tell one receiver at once. Breaks if a turn is taken that another has."""
    heard = Heard(bench, "run.enqueued")
    review.enqueue(repo="acme/app", number=1)
    told: list[int] = []
    heard.refuses = lambda event: told.append(bench.tell())
    bench.tell()

    assert [0] == told
    assert 1 == len(heard.tried)


def test_a_process_that_lost_its_turn_moves_no_cursor(bench: Bench, review: Flow[Any]):
    heard = Heard(bench, "run.enqueued")
    runs = [review.enqueue(repo="acme/app", number=number) for number in range(3)]

    def lose(event: Event) -> None:
        if event.run_id == runs[0].id:
            bench.execute("UPDATE runclaim_listeners SET owner = 'another' WHERE name = 'mailer'")

    heard.refuses = lose
    before = bench.execute("SELECT cursor FROM runclaim_listeners WHERE name = 'mailer'").scalar_one()
    bench.tell()

    assert before == bench.execute("SELECT cursor FROM runclaim_listeners WHERE name = 'mailer'").scalar_one()


def test_a_listener_that_is_away_gets_a_pause_and_keeps_its_place(bench: Bench, review: Flow[Any]):
    """Breaks if an outage sets every event of it aside: then each would burn its own attempts."""
    heard = Heard(bench, "run.enqueued", schedule=(timedelta(hours=1),))
    for number in range(9):
        review.enqueue(repo="acme/app", number=number)
    heard.refuses = refuse(lambda event: True, ConnectionError("away"))
    for _ in range(3):
        bench.tell()

    assert 3 == len(heard.tried)
    assert 3 == bench.count("runclaim_untold")
    heard.refuses = lambda event: None
    bench.execute("UPDATE runclaim_listeners SET available_at = (SELECT MIN(enqueued_at) FROM runclaim_runs)")
    bench.tell()
    assert 6 == len(heard)


def test_a_worker_that_stops_ends_its_turn_between_two_events(bench: Bench, review: Flow[Any]):
    heard = Heard(bench, "run.enqueued")
    for number in range(3):
        review.enqueue(repo="acme/app", number=number)

    def stop(event: Event) -> None:
        bench.stopping = True

    heard.refuses = stop
    bench.tell()
    assert 1 == len(heard)

    bench.stopping = False
    heard.refuses = lambda event: None
    bench.tell()
    assert 3 == len(heard)


def test_a_backlog_longer_than_a_batch_is_told_in_order(
    bench: Bench, review: Flow[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(telling, "_BATCH", 3)
    heard = Heard(bench, "run.enqueued")
    runs = review.enqueue_many([{"repo": "acme/app", "number": number} for number in range(10)])
    bench.tell()

    assert [run.id for run in runs] == [event.run_id for event in heard]


def test_beat_writes_nothing_while_nothing_happens(bench: Bench, review: Flow[Any]):
    Heard(bench)
    bench.finish(review, review.enqueue(repo="acme/app", number=7))
    bench.tell()
    written: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "BEGIN")):
            written.append(statement)

    sql_event.listen(bench.database.engine, "before_cursor_execute", note)
    bench.tell()
    sql_event.remove(bench.database.engine, "before_cursor_execute", note)

    assert [] == written


def test_the_error_of_a_phase_is_told_without_its_traceback(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx: Any) -> None:
        raise Blocked("ask somebody")

    heard = Heard(bench, "phase.failed")
    flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.tell()

    assert {"type": "Blocked", "message": "ask somebody"} == heard[0].data


@pytest.mark.parametrize(
    "types, name",
    [(("run.exploded",), "x"), ((), "x"), (("run.*",), "mailer"), (("run.*",), "runclaim.x")],
    ids=["no such event", "no types", "a name that is taken", "a name of ours"],
)
def test_a_listener_that_cannot_be_is_refused_when_it_is_declared(laptop: Bench, types: tuple[str, ...], name: str):
    Heard(laptop)

    with pytest.raises(DeclarationError):
        laptop.ledger.listeners.add(Listener(name=name, types=types, flows=None, tell=lambda event: None))
