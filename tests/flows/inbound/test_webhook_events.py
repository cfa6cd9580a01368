"""Webhooks whose deliveries are events of a run: windows, run and signal are written in one transaction."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from runclaim import Context, InputError, Runclaim, RunState
from runclaim.flows.inbound.route import OutsideEvent
from runclaim.flows.inbound.webhook import Delivery, DeliveryOutcome, Received
from runclaim.ledger import read
from tests.harness.bench import PullRequest
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "a secret of thirty-two characters"
#: Which phase the actions of a pull request call for.
CALLS = {"opened": "plan", "labeled": "deliver", "closed": "deploy"}


class Hooked:
    """An application whose one webhook turns actions into events of the pull request's run."""

    def __init__(self, url: str) -> None:
        self.app = Celery("hooked", broker="memory://", set_as_current=False)
        self.runs = Runclaim(self.app, database_url=url)
        self.review = self.runs.flow("review", PullRequest, key="{repo}:pr-{number}")

        @self.review.phase
        def plan(ctx: Context[PullRequest]) -> None:
            """Nothing to do here."""

        @self.review.phase(on="approved")
        def deliver(ctx: Context[PullRequest]) -> None:
            """Nothing to do here."""

        @self.runs.webhook("github", flow=self.review, secret=SECRET)
        def pull_request(delivery: Delivery) -> OutsideEvent[PullRequest]:
            found = delivery.payload
            return OutsideEvent(
                PullRequest("acme/app", found["number"]), phase=CALLS[found["action"]], payload=found["by"]
            )

        self.hook = pull_request

    def receive(self, action: str, *, of: str, by: str = "ann") -> Received:
        body = json.dumps({"number": 7, "action": action, "by": by}).encode()
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        told = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": of, "X-GitHub-Event": "pull_request"}
        return self.hook.receive(body, told)

    def count(self, table: str) -> int:
        with self.runs.ledger.database.read() as conn:
            return int(conn.exec_driver_sql(f"SELECT count(*) FROM runclaim_{table}").scalar_one())

    def signals(self) -> list[tuple[str, str]]:
        with self.runs.ledger.database.read() as conn:
            return [tuple(row) for row in conn.exec_driver_sql("SELECT name, signal_id FROM runclaim_signals")]

    def wait(self) -> None:
        """Let the run stand where a worker would have left it."""
        with self.runs.ledger.database.begin() as conn:
            conn.exec_driver_sql(
                "UPDATE runclaim_runs SET state = 'waiting', cursor = 1, phase = 'deliver', waits_for = 'approved'"
            )


@pytest.fixture
def hooked(ledger_url: str) -> Iterator[Hooked]:
    made = Hooked(ledger_url)
    yield made
    made.runs.ledger.database.close()
    made.app.close()


def test_a_delivery_starts_the_phase_that_its_event_calls_for(hooked: Hooked):
    first = hooked.receive("opened", of="1")
    hooked.wait()
    second = hooked.receive("labeled", of="2")

    assert first.run is not None
    assert second.run is not None
    assert [DeliveryOutcome.ENQUEUED, DeliveryOutcome.STARTED] == [first.outcome, second.outcome]
    assert (first.run.id, RunState.QUEUED) == (second.run.id, second.run.state)
    assert [("approved", "2")] == hooked.signals()


def test_a_delivery_for_a_phase_that_has_started_finds_its_run(hooked: Hooked):
    hooked.receive("opened", of="1")
    hooked.wait()
    outcomes = [hooked.receive("labeled", of=each, by=each).outcome for each in ("2", "3")]

    assert [DeliveryOutcome.STARTED, DeliveryOutcome.EXISTING] == outcomes
    assert [("approved", "2")] == hooked.signals()


def test_a_delivery_that_comes_before_its_phase_is_kept(hooked: Hooked):
    received = hooked.receive("labeled", of="1", by="bob")
    assert received.run is not None
    with hooked.runs.ledger.database.read() as conn:
        kept = read.signal(conn, received.run.id, "approved")

    assert (DeliveryOutcome.ENQUEUED, ("bob",)) == (received.outcome, kept)


def test_32_simultaneous_identical_deliveries_start_a_waiting_phase_once(hooked: Hooked):
    """
    INVARIANT: the delivery, its windows, the run and the signal are written together.

    Breaks if the signal is sent in another transaction than the one that opens the windows.
    """
    first = hooked.receive("opened", of="1").run
    assert first is not None
    hooked.wait()
    outcomes = [each.outcome for each in together(32, lambda _: hooked.receive("labeled", of="2"))]

    assert [DeliveryOutcome.STARTED] == [outcome for outcome in outcomes if outcome is not DeliveryOutcome.DUPLICATE]
    assert (1, 1, 1) == (hooked.count("runs"), hooked.count("signals"), first.view.fence)


def test_a_dropped_delivery_sends_no_signal(hooked: Hooked):
    """The same payload within the window, for a run that would still take it, is dropped whole."""
    hooked.receive("labeled", of="1")
    with hooked.runs.ledger.database.begin() as conn:
        conn.exec_driver_sql("DELETE FROM runclaim_signals")
        conn.exec_driver_sql("UPDATE runclaim_runs SET signals = ''")
    again = hooked.receive("labeled", of="2")

    assert (DeliveryOutcome.DUPLICATE, []) == (again.outcome, hooked.signals())


def test_an_event_for_an_unknown_phase_is_refused_and_the_sender_may_deliver_again(hooked: Hooked):
    with pytest.raises(InputError, match="phase: 'deploy' is not a phase of review"):
        hooked.receive("closed", of="1")

    tables: dict[str, Any] = {name: hooked.count(name) for name in ("runs", "run_keys", "dedup_keys", "signals")}
    assert dict.fromkeys(tables, 0) == tables
