"""
Flows on a real database without Celery: messages go to a list, and the test delivers them to a real runner.

`Bench` is a worker's process in small; two of them on one database are two workers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import text

from runclaim import Blocked, InputError
from runclaim.config import Config
from runclaim.database import Database
from runclaim.flows.actions.action import Action, ActionOptions
from runclaim.flows.actions.outcomes import Outcomes
from runclaim.flows.actions.sender import Sender
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.run_source import RunSource
from runclaim.flows.declare.declared_flow import FlowOptions
from runclaim.flows.declare.description import FlowDescription
from runclaim.flows.declare.registered_inputs import RegisteredInputs
from runclaim.flows.declare.registry import register_flows
from runclaim.flows.fail_open.open_flows import OpenFlows
from runclaim.flows.flow import Flow
from runclaim.flows.messages.message import Message
from runclaim.flows.run.group_minder import Minder
from runclaim.flows.run.lease_keeper import Keeper
from runclaim.flows.run.pace import Pace
from runclaim.flows.run.process import Process
from runclaim.flows.run.runner import Runner
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.ledger import counters, read
from runclaim.listeners.tell import tell
from runclaim.retries import Backoff
from tests.harness.ledgers import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runclaim import Run
    from runclaim.flows.actions.action import Handler
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.fail_open.deliverer import Deliverer
    from runclaim.flows.run.body import Body
    from runclaim.flows.run.ending import Ended
    from runclaim.flows.run.execution import Execution
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.fence import Claim
    from runclaim.states import RunState

NO_WAIT = timedelta(0)


@dataclass(frozen=True)
class PullRequest:
    repo: str
    number: int
    base: str = "a1"
    head: str = "b2"


class Rung(list["Due"]):
    """A publisher that keeps what it is given; `silent` makes it a broker that does not answer."""

    silent = False
    #: How many actions it was rung for.
    actions = 0

    def publish(self, due: Collection[Due]) -> int:
        if self.silent:
            return 0
        self.extend(due)
        return len(due)

    def publish_soon(self, due: Collection[Due]) -> None:
        self.publish(due)

    def ring_actions(self, many: int) -> None:
        self.actions += many


class Diary:
    """A watcher that remembers: (phase, attempt, ending, the run's state then)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, str, str | None]] = []

    def started(self, claim: Claim) -> None:
        """Nothing to remember."""

    def perform(self, body: Body) -> None:
        body.record(body.run())

    def ended(self, claim: Claim, ended: Ended, state: RunState | None) -> None:
        self.lines.append((claim.phase, claim.attempt, str(ended.ending), None if state is None else str(state)))


def ends_as_its_head_says(ctx: Any) -> None:
    """A body that fails or blocks for the commits of these names."""
    if ctx.input.head == "failing":
        # No other attempt helps.
        raise InputError("head", "is failing")
    if ctx.input.head == "blocked":
        raise Blocked("a person")


class Bench:
    """One process: a ledger, a keeper and a runner. `stopping` is what the worker's main process would say."""

    def __init__(self, url: str, **settings: Any) -> None:
        # Made by who writes there; the default lies below the working directory, which is the checkout.
        self.folder = Path(tempfile.gettempdir(), f"runclaim-{uuid4()}")
        self.config = Config(database_url=url, **{"fail_open_folder": str(self.folder)} | settings)
        self.rung = Rung()
        self.flows: dict[str, Flow[Any]] = {}
        self.ledger = LedgerAccess(lambda: self.config, lambda: self.rung, self.flows)
        self.open_flows = OpenFlows(self.ledger)
        self.database = Database(url, patience=self.config.ledger_patience)
        migrate(self.database)
        self.keeper = Keeper(Database(url, pool_size=1, patience=self.config.ledger_patience))
        self.outcomes = Outcomes(lambda: self.database, self.keeper.count)
        self.pace, self.minder = Pace(), Minder()
        self.stopping = False
        self.diary = Diary()

    def flow(self, name: str = "review", input_type: type[Any] = PullRequest, **how: Any) -> Flow[Any]:
        options = FlowOptions(**{"key": "{repo}:pr-{number}"} | how)
        made = Flow(name, input_type, options, access=self.ledger, on_phase=lambda flow, phase: None)
        self.flows[name] = made
        return made

    def register(self, flow: Flow[Any]) -> None:
        """As a worker of the application does when it starts."""
        register_flows(self.database, [flow], self.config)

    def outside(self, flow: Flow[Any]) -> RunSource:
        """The flow as a door without the application knows it: by what its workers would have registered."""
        stored = json.loads(json.dumps(flow.described(self.config).as_json()))
        description = FlowDescription.from_json(stored)
        return RunSource(self.ledger, description, RegisteredInputs(description))

    def action(self, kind: str = "comment", **options: Any) -> Callable[[Handler], Action]:
        """As `runs.action`; a send that fails is due again at once."""
        chosen = ActionOptions(**{"backoff": Backoff(first=NO_WAIT)} | options)

        def declare(handler: Handler) -> Action:
            made = self.ledger.actions[kind] = Action(kind, handler, chosen)
            return made

        return declare

    def sender(self) -> Sender:
        return Sender(
            database=self.database,
            actions=self.ledger.actions,
            stopping=lambda: self.stopping,
            count=self.keeper.count,
            outcomes=self.outcomes,
        )

    def send(self) -> int:
        """Send what is due; returns how many claims that took."""
        return self.sender().send_due(within=timedelta(seconds=60))[0]

    def runner(self, worker: str = "node:1") -> Runner:
        return Runner(self.process(worker))

    def process(self, worker: str = "node:1") -> Process:
        return Process(
            database=self.database,
            keeper=self.keeper,
            publisher=self.rung,
            config=self.config,
            pace=self.pace,
            minder=self.minder,
            worker=worker,
            stopping=lambda: self.stopping,
        )

    def deliverer(self, flow: Flow[Any]) -> Runner | Deliverer:
        """As a worker's process chooses it."""
        if not flow.fail_open:
            return self.runner()
        return self.open_flows.deliverer(self.runner, worker="node:1", stopping=lambda: self.stopping)

    def deliver(
        self, flow: Flow[Any], message: Due | None = None, *, inline: Callable[..., bool] = lambda before, after: True
    ) -> Execution:
        """Give a message, by default the oldest that was rung, to the runner."""
        due = self.rung.pop(0) if message is None else message
        phase: Phase[Any, Any] = flow.phases[due.phase]
        message = Message.of(due.run_id, due.fence, due.carried)
        return self.deliverer(flow).deliver(flow, phase, message, inline=inline, watcher=self.diary)

    def finish(self, flow: Flow[Any], run: Run, *, deliveries: int = 20) -> None:
        """Dispatch and deliver until nothing is due; backoffs are for the tests that move the clock."""
        for _ in range(deliveries):
            if not self.rung:
                dispatch_due(self.database, self.rung, flows={flow.name: flow}, spacing=timedelta(seconds=30))
            if not self.rung:
                return
            self.deliver(flow)
        raise AssertionError(f"still due after {deliveries} deliveries: {run.view}")

    def events(self, run: Run) -> list[str]:
        """The run's journal, its types alone."""
        with self.database.read() as conn:
            return [event.type for event in read.journal(conn, run.id)]

    def totals(self) -> dict[tuple[str, str], int]:
        """The counters, after the keeper has written what it counted."""
        self.keeper.close()
        with self.database.read() as conn:
            return counters.totals(conn)

    def tell(self) -> int:
        """What beat would have done: count, and tell the listeners; returns how many events got through."""
        return tell(self.database, self.ledger.listeners, stopping=lambda: self.stopping)

    def count(self, table: str) -> int:
        """How many rows a table has."""
        with self.database.read() as conn:
            return int(conn.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())

    def execute(self, statement: str, **values: Any) -> Any:
        """Do a statement of the test's own and commit it."""
        with self.database.begin() as conn:
            return conn.execute(text(statement), values)

    def close(self) -> None:
        # Their threads might connect again while the test's database goes away.
        self.outcomes.close()
        self.keeper.close()
        self.keeper._database.close()
        self.database.close()
        self.ledger.close()
        # What is being reconciled would be in the next test's ledger.
        with self.open_flows.backlog._reconciling:
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
