"""
A person's verb, a route or a webhook whose COMMIT got no answer: it is done once, and what it answers is true.

Where a run stands says nothing of who moved it there: it may have gone on since. So each is read back by what it wrote.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from runclaim import Backoff, Blocked
from runclaim.cli.exits import Refused
from runclaim.cli.local import LocalBackend
from runclaim.errors import StateConflict
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.changes import Cancel
from runclaim.flows.client.handle import Run
from runclaim.flows.inbound.route import OutsideEvent
from runclaim.flows.inbound.webhook import DeliveryOutcome, Webhook
from runclaim.flows.run.claimed_writes import ClaimedWrites
from runclaim.keys import nonce
from runclaim.ledger.claim import ClaimRequest, claim
from tests.commitcut import commit_cut, gone
from tests.harness.bench import Bench, PullRequest, Rung
from tests.pgcut import When

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim.flows.flow import Flow
    from tests.commitcut import CommitCut

SECRET = "a secret of thirty-two characters"
CUTS = [When.BEFORE, When.AFTER]
HOUR = timedelta(hours=1)


class Person:
    """Somebody whose connections to the bench's ledger can be cut, and who has a broker of his own."""

    def __init__(self, bench: Bench, cut: CommitCut) -> None:
        self.bench, self.cut, self.rung = bench, cut, Rung()
        config = bench.config.__class__(database_url=cut.url)
        self.ledger = LedgerAccess(lambda: config, lambda: self.rung, bench.flows)
        self.backend = LocalBackend(None, self.ledger)
        cut.watch(self.ledger.database)

    def run(self, run: Run) -> Run:
        return Run(self.ledger, run.id, self.bench.flows[run.view.flow])

    def work(self) -> None:
        """A quick worker: whatever is due, until nothing is."""
        self.bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at WHERE state = 'queued'")
        for flow in self.bench.flows.values():
            for due in [each for each in self.rung if each.flow == flow.name]:
                self.rung.remove(due)
                self.bench.rung.append(due)
            self.bench.finish(flow, next(iter(self._runs(flow))))

    def _runs(self, flow: Flow[Any]) -> Iterator[Run]:
        with self.bench.database.read() as conn:
            ids = conn.execute(text("SELECT id FROM runclaim_runs WHERE flow = :flow"), {"flow": flow.name}).scalars()
            yield from (Run(self.bench.ledger, str(each), flow) for each in ids)


@pytest.fixture
def person(bench: Bench) -> Iterator[Person]:
    with commit_cut(bench.config.database_url) as cut:
        made = Person(bench, cut)
        yield made
        made.ledger.database.close()


def failing(bench: Bench, *, succeeds_at: int = 1_000, error: type[Exception] = ValueError) -> tuple[Run, list[int]]:
    """A run that has failed, or is blocked, after its budget of two bodies; and a list with an item a body."""
    bodies: list[int] = []
    flow = bench.flow()

    @flow.phase(max_attempts=2, backoff=Backoff(first=timedelta(0)))
    def plan(ctx: Any) -> None:
        bodies.append(ctx.attempt)
        if len(bodies) < succeeds_at:
            raise error("no")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)
    return run, bodies


@pytest.mark.parametrize("when", CUTS)
def test_a_retry_gives_one_budget_though_its_run_has_failed_again_since(person: Person, when: When):
    """
    INVARIANT: one retry is one budget.

    Breaks if it is read back by where the run stands: a run that has failed again would be retried again.
    """
    run, bodies = failing(person.bench)
    person.cut.order(when, person.work)
    person.run(run).retry()
    person.cut.check()
    person.work()

    assert ("failed", [1, 2] * 2) == (run.state, bodies)
    assert 1 == person.bench.events(run).count("run.retried")


@pytest.mark.parametrize("verb, error", [("retry", ValueError), ("resume", Blocked)])
def test_what_a_person_started_is_no_conflict_though_it_has_ended_before_the_ledger_is_asked(
    person: Person, verb: str, error: type[Exception]
):
    run, _ = failing(person.bench, succeeds_at=3 if verb == "retry" else 2, error=error)
    person.cut.order(When.AFTER, person.work)
    getattr(person.run(run), verb)()
    person.cut.check()

    assert "succeeded" == run.state
    assert 1 == [each.type for each in run.events].count("run.retried" if verb == "retry" else "run.resumed")


@pytest.mark.parametrize("when", CUTS)
def test_a_run_that_goes_on_by_a_person_is_rung_for(person: Person, when: When):
    run, _ = failing(person.bench)
    person.cut.order(when)
    person.run(run).retry()
    person.cut.check()

    assert [(run.id, run.view.fence)] == [(due.run_id, due.fence) for due in person.rung]


def test_what_somebody_else_did_meanwhile_is_not_taken_for_ones_own(person: Person):
    """
    INVARIANT: StateConflict says that this very call did nothing.

    Breaks if the journal is asked for the kind of event alone.
    """
    run, _ = failing(person.bench)
    person.cut.order(When.BEFORE, run.retry)
    with pytest.raises(StateConflict, match="cannot retry"):
        person.run(run).retry()
    person.cut.check()

    assert 1 == person.bench.events(run).count("run.retried")
    assert [] == person.rung


@pytest.mark.parametrize("when", CUTS)
def test_a_cancel_says_which_runs_it_has_canceled(person: Person, when: When):
    flow = person.bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    waits, works = (flow.enqueue(repo="acme/app", number=number) for number in (7, 8))
    person.bench.database.run(lambda conn: _claimed(conn, works.id))
    person.cut.order(when)
    told = person.ledger.do(Cancel([waits.id, works.id], "somebody"))
    person.cut.check()

    assert {waits.id: "canceled", works.id: "running"} == told


def _claimed(conn: Any, run_id: str) -> Any:
    how: dict[str, Any] = {"flow": "review", "phase": "plan", "worker": "w", "lease": HOUR, "max_duration": HOUR}
    return claim(conn, [ClaimRequest(run_id, 0, nonce())], **how)


class Triage:
    """A flow whose second phase waits for an event."""

    def __init__(self, person: Person) -> None:
        flow = person.bench.flow("triage")
        flow.phase(name="read")(lambda ctx: None)
        flow.phase(name="fix", on="labeled")(lambda ctx: ctx.signal)
        self.run = flow.enqueue(repo="acme/app", number=7)
        person.bench.finish(flow, self.run)
        self.flow = person.bench.flow("triage")
        self.flow._access = person.ledger
        self.flow.phase(name="read")(lambda ctx: None)
        self.flow.phase(name="fix", on="labeled")(lambda ctx: ctx.signal)
        self.event = OutsideEvent(PullRequest("acme/app", 7), phase="fix", id="label-1", payload="bug")


@pytest.mark.parametrize("meanwhile", ["the phase runs", "nothing"])
@pytest.mark.parametrize("when", CUTS)
def test_a_route_says_that_it_started_a_phase_though_that_has_ended_since(person: Person, when: When, meanwhile: str):
    triage = Triage(person)
    person.cut.order(when, person.work if meanwhile == "the phase runs" else None)
    routed = triage.flow.route(triage.event)
    person.cut.check()
    rung = [due.phase for due in person.rung]
    person.work()

    assert (routed.run.id, routed.run.created, routed.started) == (triage.run.id, False, True)
    assert rung == (["fix"] if when is When.BEFORE or meanwhile == "nothing" else [])
    assert "bug" == triage.run.result


def test_a_signal_that_somebody_else_has_sent_is_not_ones_own(person: Person):
    triage = Triage(person)
    theirs = Run(person.bench.ledger, triage.run.id, triage.flow)
    person.cut.order(When.BEFORE, lambda: theirs.signal("labeled", "bug", id="label-1"))
    routed = triage.flow.route(triage.event)
    person.cut.check()

    assert (routed.run.id, routed.started) == (triage.run.id, False)


def hook(person: Person, flow: Flow[Any], to_input: Callable[[Any], Any]) -> Webhook[Any]:
    return Webhook(
        "github",
        flow=flow,
        secrets=lambda: [SECRET],
        scheme="github",
        to_input=to_input,
        access=person.ledger,
        max_body_bytes=10_000,
    )


def deliver(webhook: Webhook[Any], of: str = "delivery-1") -> Any:
    body = json.dumps({"number": 7}).encode()
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return webhook.receive(
        body, {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": of, "X-GitHub-Event": "labeled"}
    )


@pytest.mark.parametrize("when", CUTS)
@pytest.mark.parametrize("what", ["ENQUEUED", "STARTED", "EXISTING"])
def test_a_delivery_is_no_duplicate_of_itself(person: Person, when: When, what: str):
    """
    INVARIANT: a delivery is told what became of it, and what it started is rung for.

    Breaks if the windows that it opened itself are taken for those of an earlier one.
    """
    triage = Triage(person)
    inputs = {
        "ENQUEUED": PullRequest("acme/app", 8),
        "STARTED": triage.event,
        "EXISTING": PullRequest("acme/app", 7),
    }
    webhook = hook(person, triage.flow, lambda _: inputs[what])
    person.cut.order(when)
    received = deliver(webhook)
    person.cut.check()

    assert received.outcome is DeliveryOutcome[what]
    assert (received.run.id == triage.run.id, received.run.created) == (what != "ENQUEUED", what == "ENQUEUED")
    assert [due.phase for due in person.rung] == {"ENQUEUED": ["read"], "STARTED": ["fix"], "EXISTING": []}[what]
    assert deliver(webhook).outcome is DeliveryOutcome.DUPLICATE


def test_a_duplicate_whose_first_run_cannot_be_read_at_once_is_answered_all_the_same(person: Person):
    """
    INVARIANT: `receive` raises no error of the database's own while it is away.

    Breaks if whose duplicate it is is asked without patience.
    """
    webhook = hook(person, Triage(person).flow, lambda _: PullRequest("acme/app", 7))
    first = deliver(webhook).run
    engine, begun = person.ledger.database.engine, []

    def lose(conn: Any) -> None:
        begun.append(conn)
        if len(begun) == 2:
            _lose(person.bench, conn)

    event.listen(engine, "engine_connect", lose)
    second = deliver(webhook)

    assert (second.outcome, second.run.id) == (DeliveryOutcome.DUPLICATE, first.id)
    assert 3 == len(begun)


def _lose(bench: Bench, conn: Any) -> None:
    """Take away the connection that is about to be used."""
    if conn.dialect.name == "postgresql":
        bench.execute("SELECT pg_terminate_backend(:pid)", pid=conn.connection.driver_connection.info.backend_pid)
        return
    raise gone("BEGIN")


def unknown(bench: Bench) -> tuple[Run, list[str]]:
    """A run whose one action is unknown: its handler loses every reply; and the keys that arrived."""
    arrived: list[str] = []

    @bench.action()
    def send(_payload: Any, key: str) -> str:
        arrived.append(key)
        raise ConnectionResetError("no answer")

    flow = bench.flow()
    flow.phase(name="deliver")(lambda ctx: ctx.plan_action("comment", 1))
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.send()
    return run, arrived


@pytest.mark.parametrize("when", CUTS)
def test_an_action_is_retried_once_though_it_is_unknown_again_before_the_ledger_is_asked(person: Person, when: When):
    run, arrived = unknown(person.bench)
    person.cut.order(when, person.bench.send)
    person.backend.retry_action(run.actions[0].id)
    person.cut.check()
    person.bench.send()

    assert 2 == len(arrived)


@pytest.mark.parametrize("when", CUTS)
def test_an_action_that_one_has_resolved_is_no_conflict(person: Person, when: When):
    run, _ = unknown(person.bench)
    person.cut.order(when)
    told = person.backend.resolve_action(run.actions[0].id, "comment-1")
    person.cut.check()

    assert ("posted", "comment-1") == (told["state"], told["upstream_id"])


def test_an_action_that_somebody_else_has_resolved_is_a_conflict(person: Person):
    run, _ = unknown(person.bench)
    theirs = LocalBackend(None, person.bench.ledger)
    person.cut.order(When.BEFORE, lambda: theirs.resolve_action(run.actions[0].id, "comment-1"))
    with pytest.raises(Refused):
        person.backend.resolve_action(run.actions[0].id, "comment-1")
    person.cut.check()


def noting(person: Person) -> ClaimedWrites:
    """What a body may write under its claim, over connections that can be cut."""
    flow = person.bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    (taken,) = person.bench.database.run(lambda conn: _claimed(conn, run.id))
    return ClaimedWrites(person.ledger.database, taken)


@pytest.mark.parametrize("seen", [0, 1])
@pytest.mark.parametrize("when", CUTS)
def test_a_named_session_that_one_has_kept_has_not_moved(person: Person, when: When, seen: int):
    """
    INVARIANT: NamedSessionMoved says that somebody else was first.

    Breaks if the repetition does not recognise the version that its first try has written.
    """
    notes = noting(person)
    if seen:
        notes.keep_named("bot", "prov-0", 0)
    person.cut.order(when)
    kept = notes.keep_named("bot", "prov-1", seen)
    person.cut.check()

    assert (kept, notes.read_named("bot")) == (seen + 1, ("prov-1", seen + 1))


@pytest.mark.parametrize("when", CUTS)
def test_a_call_that_was_never_made_is_the_first(person: Person, when: When):
    """
    INVARIANT: a call that was not made is neither looked up nor blocked.

    Breaks if the repetition takes the note of its own first try for that of an earlier attempt.
    """
    notes = noting(person)
    person.cut.order(when)
    begun = notes.begin_act("check")
    person.cut.check()

    assert ((True, "sending", None), (False, "sending", None)) == (begun, notes.begin_act("check"))


@pytest.mark.parametrize("when", CUTS)
def test_a_persons_word_for_a_call_is_heard_once_though_the_answer_is_lost(person: Person, when: When):
    notes = noting(person)
    notes.begin_act("check")
    person.bench.execute("UPDATE runclaim_acts SET released = (1 = 1)")
    person.cut.order(when)
    begun = notes.begin_act("check")
    person.cut.check()

    assert ((False, "released", None), (False, "sending", None)) == (begun, notes.begin_act("check"))
