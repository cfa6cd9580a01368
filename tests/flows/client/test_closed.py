"""After `Runclaim.close()` every call raises LedgerClosed, reads too."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from sqlalchemy.orm import Session

from runclaim import Context, LedgerClosed, Runclaim
from runclaim.database import Database
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.changes import Cancel, ResolveAction, Restart, RetryAction, SendSignal
from runclaim.flows.client.enqueue import Enqueue, Recover, Rerun, make_runs
from runclaim.flows.client.enqueuer import Enqueuer
from runclaim.flows.client.handle import Run
from runclaim.flows.client.signal import Signal
from runclaim.flows.flow import Flow
from runclaim.flows.inbound.route import OutsideEvent
from runclaim.flows.inbound.webhook import Webhook
from runclaim.flows.messages.message import Message
from runclaim.flows.plain_calls import Claimed
from runclaim.ledger.enqueue import Enqueued
from runclaim.tasks.runtime import Runtime
from tests.harness.bench import NO_WAIT
from tests.harness.ledgers import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID = "0195c0de-0000-7000-8000-000000000007"
SECRET = "a secret of thirty-two characters"


@dataclass(frozen=True)
class PullRequest:
    repo: str
    number: int


INPUT = PullRequest("acme/app", 7)


@pytest.fixture
def site(database_url: str) -> Iterator[SimpleNamespace]:
    """An application that has enqueued a run, and everything that its code may hold on to."""
    yield from site_on(database_url)


@pytest.fixture
def laptop_site(sqlite_url: str) -> Iterator[SimpleNamespace]:
    """The same, for what is refused before any database is asked."""
    yield from site_on(sqlite_url)


def site_on(database_url: str) -> Iterator[SimpleNamespace]:
    database = Database(database_url, patience=NO_WAIT)
    migrate(database)
    app = Celery("closed", broker="memory://", set_as_current=False)
    runs = Runclaim(app, database_url=database_url)
    review = runs.flow("review", PullRequest, key="{repo}:pr-{number}")

    @review.phase
    def plan(ctx: Context[PullRequest]) -> str:
        return ctx.key

    @runs.webhook("github", flow=review, secret=SECRET)
    def hook(delivery: Any) -> None:
        """Concerns no run."""

    yield SimpleNamespace(
        runs=runs, flow=review, enqueuing=review.using(), hook=hook, run=review.enqueue(INPUT), runtime=runs._runtime,
        database=database,
    )  # fmt: skip
    runs.close()
    database.close()
    app.close()


#: The classes that an application, a worker or beat calls, and where the site has one of each.
HOLDERS = {
    Runclaim: "runs",
    Flow: "flow",
    Enqueuer: "enqueuing",
    Webhook: "hook",
    Run: "run",
    LedgerAccess: "runs.ledger",
    Runtime: "runtime",
}
#: What is called with arguments.
CALLS: dict[str, Callable[[Any], Any]] = {
    "Runclaim.check_and_claim": lambda runs: runs.check_and_claim("nightly-report", key="2026-11-21"),
    "Runclaim.complete": lambda runs: runs.complete(Claimed(None, None, NO_WAIT, runs._plain)),
    "Runclaim.get": lambda runs: runs.get(ID),
    "Flow.enqueue": lambda flow: flow.enqueue(INPUT),
    "Flow.enqueue_many": lambda flow: flow.enqueue_many([]),
    "Flow.aenqueue": lambda flow: asyncio.run(flow.aenqueue(INPUT)),
    "Flow.get": lambda flow: flow.get(ID),
    "Enqueuer.enqueue": lambda enqueuing: enqueuing.enqueue(INPUT),
    "Enqueuer.enqueue_many": lambda enqueuing: enqueuing.enqueue_many([INPUT]),
    "Enqueuer.aenqueue": lambda enqueuing: asyncio.run(enqueuing.aenqueue(INPUT)),
    "Webhook.receive": lambda hook: hook.receive(b"{}", {}),
    "Runclaim.signal": lambda runs: runs.signal("acme/app:pr-7", "approved", flow="review"),
    "Flow.find": lambda flow: flow.find("acme/app:pr-7"),
    "Flow.route": lambda flow: flow.route(OutsideEvent(INPUT)),
    "Run.signal": lambda run: run.signal("approved"),
    "LedgerAccess.ask": lambda access: access.ask(lambda conn: None),
    "LedgerAccess.do": lambda access: access.do(Cancel([ID])),
    "Runtime.count": lambda runtime: runtime.count("duplicates_refused", "review"),
    "Runtime.runner": lambda runtime: runtime.runner("node"),
    "Runtime.deliverer": lambda runtime: runtime.deliverer(runtime.flows["review"], "node"),
}
#: What declares, computes or tells settings, and reaches neither the database nor the broker.
REACHES_NOTHING = {
    "Runclaim.action",
    "Runclaim.config",
    "Runclaim.flow",
    "Runclaim.on",
    "Runclaim.send_events",
    "Runclaim.secret",
    "Runclaim.secret_resolver",
    "Runclaim.sources",
    "Runclaim.webhook",
    "Flow.described",
    "Flow.key_of",
    "Flow.on_blocked",
    "Flow.on_complete",
    "Flow.on_failed",
    "Flow.phase",
    "Flow.require_phases",
    "Flow.subject_of",
    "Flow.using",
    "Enqueuer.new_run",
    "LedgerAccess.config",
    "LedgerAccess.is_closed",
    "LedgerAccess.publisher",
    "LedgerAccess.with_inputs",  # of messages to be sent, whose runs are in the ledger already
    "Runtime.allow_fail_open",
    "Runtime.ring_listeners",  # a bell at most, and beat tells what it did not
    "Runtime.give_back",  # in a thread, from the death of a pool child
    *(f"{kind.__name__}.close" for kind in HOLDERS),
}


def public(kind: type) -> Iterator[tuple[str, str]]:
    for name in dir(kind):
        if not name.startswith("_") and f"{kind.__name__}.{name}" not in REACHES_NOTHING:
            yield f"{kind.__name__}.{name}", name


PUBLIC = [(kind, full, name) for kind in HOLDERS for full, name in public(kind)]


@pytest.mark.parametrize("kind, full, name", PUBLIC, ids=[full for _, full, _ in PUBLIC])
def test_every_public_method_of_a_closed_runclaim_raises_ledger_closed(laptop_site, kind, full, name):
    """
    INVARIANT: what was closed answers nothing, so nobody believes what it says.

    Breaks if a call reaches the ledger by a way of its own. A new method is found by itself; say in CALLS how it is
    called, or in REACHES_NOTHING that it needs no ledger.
    """
    holder: Any = laptop_site
    for part in HOLDERS[kind].split("."):
        holder = getattr(holder, part)
    laptop_site.runs.close()

    with pytest.raises(LedgerClosed):
        call(holder, full, name)


@pytest.mark.parametrize(
    "change",
    [
        Cancel([ID]),
        Restart("retry", ID),
        Restart("resume", ID),
        SendSignal(ID, Signal.checked("approved", None, None)),
        RetryAction(ID),
        ResolveAction(ID, None),
        Enqueue([]),
        Rerun([]),
        Recover([]),
    ],
    ids=lambda change: f"{type(change).__name__} {getattr(change, 'verb', '')}".strip(),
)
def test_a_closed_runclaim_makes_no_change(laptop_site, change):
    laptop_site.runs.close()

    with pytest.raises(LedgerClosed):
        laptop_site.runs.ledger.do(change)


@pytest.mark.parametrize("kind", [Enqueue, Rerun, Recover])
def test_a_closed_runclaim_makes_no_run(laptop_site, kind):
    laptop_site.runs.close()

    with pytest.raises(LedgerClosed):
        make_runs(laptop_site.runs.ledger, kind([]))


def test_what_was_made_before_the_closing_is_rung_for_by_nobody(laptop_site):
    new = laptop_site.enqueuing.new_run(INPUT)
    laptop_site.runs.close()

    assert all(
        change.publish(laptop_site.runs.ledger, [Enqueued(new.run_id, created=True)]) is None
        for change in (Enqueue([new]), Rerun([new]), Recover([new]))
    )


def call(holder: Any, full: str, name: str) -> None:
    if full in CALLS:
        CALLS[full](holder)
    elif callable(found := getattr(holder, name)):
        found()


def test_closing_twice_is_fine_and_closes_connections_and_threads(site):
    others = set(threading.enumerate())
    site.runtime.keeper.count("duplicates_refused", "review")
    keeper = site.runtime.keeper
    site.runs.close()
    site.runs.close()

    assert [] == [thread for thread in set(threading.enumerate()) - others if thread.name == "runclaim-keeper"]
    keeper.count("duplicates_refused", "review")
    assert keeper._thread is None
    with pytest.raises(LedgerClosed):
        keeper.watch(None, lease=NO_WAIT, max_duration=NO_WAIT)


def test_what_was_counted_is_written_by_closing(site):
    site.runtime.keeper.count("duplicates_refused", "review")
    site.runs.close()

    with site.database.read() as conn:
        assert [("duplicates_refused", "review", 1)] == conn.exec_driver_sql("SELECT * FROM runclaim_counters").all()


def test_an_unused_runclaim_can_be_closed():
    app = Celery("unused", broker="memory://", set_as_current=False)
    runs = Runclaim(app, database_url="sqlite:///nowhere/there.db")
    runs.close()

    with pytest.raises(LedgerClosed):
        runs.get(ID)
    app.close()


def test_a_run_whose_transaction_commits_after_the_closing_is_in_the_ledger(site):
    with Session(site.database.engine) as session:
        run = site.flow.enqueue(repo="acme/app", number=8, session=session)
        site.runs.close()
        session.commit()

    with site.database.read() as conn:
        assert 2 == conn.exec_driver_sql("SELECT count(*) FROM runclaim_runs").scalar_one()
    with pytest.raises(LedgerClosed):
        _ = run.state


def test_a_claim_is_not_completed_by_a_process_that_has_closed(site):
    """A body that still runs then loses its claim in time; nothing of it is written half."""
    runner = site.runtime.runner("node")
    site.runs.close()

    with pytest.raises(LedgerClosed):
        runner.deliver(
            site.flow,
            site.flow.phases["plan"],
            Message(site.run.id, 0),
            inline=lambda *_: True,
            watcher=SimpleNamespace(),
        )
