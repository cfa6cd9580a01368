"""A broker, a ledger and the Celery processes on them: everything one acceptance or fault test needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import redis
from sqlalchemy import select, text

from runclaim.database import Database
from runclaim.flows.messages.message import of_view
from runclaim.flows.upkeep.rescue import rescue_lapsed
from runclaim.ledger import read
from runclaim.states import TERMINAL, RunState
from tests.harness.app import Stage, build, metadata, rows_table
from tests.harness.bodies import gate
from tests.harness.ledgers import migrate
from tests.harness.processes import Processes
from tests.harness.until import until

if TYPE_CHECKING:
    from pathlib import Path

    from runclaim import Run


class Start(NamedTuple):
    """One line of the effects file: a body has started."""

    run_id: str
    name: str
    phase: str
    attempt: int
    pid: int


class Site(Processes):
    """
    One deployment in a folder of its own. A context manager; leaving it ends every process it started.

    `conf` is Celery's configuration, `settings` are `Runclaim`'s, `phases` maps a phase to its options (durations in
    seconds), `subjects=True` gives the flow a subject. The tests' own side of it is `stage`.
    """

    def __init__(self, folder: Path, *, broker: str, database_url: str, **told: Any) -> None:
        super().__init__(folder, {"broker": broker, "database_url": database_url, "folder": str(folder)} | told)
        self.database = Database(database_url, patience=timedelta(seconds=20))
        migrate(self.database)
        metadata.create_all(self.database.engine)
        (folder / "effects").touch()

    @cached_property
    def stage(self) -> Stage:
        """The application in this process, to enqueue with."""
        return build(self.told)

    def enqueue(self, name: str, *, about: str = "", **do: str) -> Run:
        """A run of the flow whose phases do what they are told: `enqueue("a", second="gate")`."""
        return self.stage.steps.enqueue(name=name, about=about, do=do)

    def publish(self, run: Run, *, times: int = 1, fence: int | None = None, phase: str | None = None) -> None:
        """Send the message of the run as it stands, or as it once stood, once more or many times."""
        view = run.view
        due = of_view(view=view, flow=self.stage.runs.flows[view.flow])
        due = replace(due, fence=due.fence if fence is None else fence, phase=phase or due.phase)
        for _ in range(times):  # each a message of its own
            self.stage.runs.ledger.publisher.publish([due])

    def upkeep(self) -> None:
        """What beat would have done now: rescue, and dispatch of what is due."""
        rescue_lapsed(self.database, flows=self.stage.runs.flows)
        self.stage.runs._runtime.dispatch()

    def open(self, name: str, phase: str) -> None:
        """Let the body go that waits at its gate."""
        gate(self.folder, name, phase).touch()

    def starts(self, run: Run | None = None, phase: str | None = None) -> list[Start]:
        """Every start of a body, in order; those of one run, of one phase."""
        lines = (line.split(" ") for line in (self.folder / "effects").read_text().splitlines())
        found = [Start(run_id, name, its, int(attempt), int(pid)) for run_id, name, its, attempt, pid in lines]
        return [
            each for each in found if (run is None or each.run_id == run.id) and (phase is None or each.phase == phase)
        ]

    def started(self, run: Run, phase: str, *, times: int = 1, within: float = 30.0) -> list[Start]:
        """Wait until the body of the phase has started so many times."""
        seen = lambda: len(self.starts(run, phase)) >= times  # noqa: E731 - said once, read once
        until(seen, f"start {times} of {phase}", within=within, so_far=self.story)
        return self.starts(run, phase)

    def arrived(self) -> list[str]:
        """The keys under which calls to the outside arrived, one for each call, in order."""
        file = self.folder / "arrived"
        return [line.split(" ")[0] for line in file.read_text().splitlines()] if file.exists() else []

    def rows(self, run: Run | None = None) -> list[tuple[str, str]]:
        """(name, phase) of each row that a completion wrote, in order; this is what must have no repeats."""
        asked = select(rows_table).order_by(rows_table.c.number)
        found = self.database.ask(lambda conn: conn.execute(asked).all())
        return [(row.name, row.phase) for row in found if run is None or row.run_id == run.id]

    def doubled(self) -> list[tuple[str, str]]:
        """The (name, phase) that completed more than once."""
        return [each for each, times in Counter(self.rows()).items() if times > 1]

    def ended(
        self,
        *runs: Run,
        state: RunState | None = RunState.SUCCEEDED,
        within: float = 60.0,
        upkeep: bool = False,
    ) -> None:
        """Wait until every run has ended, and hold it against `state`; with `upkeep`, do beat's part meanwhile."""

        def all_ended() -> bool:
            if upkeep:
                self.upkeep()
            return all(run.state in TERMINAL or run.state is RunState.BLOCKED for run in runs)

        until(all_ended, "the end of the runs", within=within, so_far=self.story)
        if state is not None:
            assert [state] * len(runs) == [run.state for run in runs], self.story()

    def counter(self, name: str) -> int:
        """A total of the ledger, over all flows."""
        asked = text("SELECT COALESCE(SUM(value), 0) FROM runclaim_counters WHERE name = :name")
        return int(self.database.ask(lambda conn: conn.execute(asked, {"name": name}).scalar_one()))

    def errors(self, run: Run) -> str:
        """What the run's journal tells of attempts that went wrong, and what the run ended with."""
        with self.database.read() as conn:
            return f"{run.view.error} {[event.data for event in read.journal(conn, run.id)]}"

    def queued(self, queue: str) -> int:
        """How many messages wait in a queue of Redis, after those of this process that wait for company."""
        self.stage.runs.ledger.publisher.flush()
        with redis.Redis.from_url(self.told["broker"]) as client:
            return int(client.llen(queue))

    def dispatches(self, run: Run) -> int:
        """How many dispatches of the run count, where it stands."""
        asked = text("SELECT dispatches FROM runclaim_runs WHERE id = :run")
        return int(self.database.ask(lambda conn: conn.execute(asked, {"run": run.id}).scalar_one()))

    def unacked(self) -> int:
        """How many messages Redis would deliver again if their workers said nothing more."""
        with redis.Redis.from_url(self.told["broker"]) as client:
            return int(client.hlen("unacked"))

    def story(self) -> str:
        """Runs, starts and the ends of the logs: what a failed assertion wants to show."""
        asked = text("SELECT id, key, state, phase, attempts, fence, dispatches, worker, error FROM runclaim_runs")
        told = [str(tuple(row)) for row in self.database.ask(lambda conn: conn.execute(asked).all())]
        told += [str(tuple(start)) for start in self.starts()[-20:]]
        told += [f"--- {process.name} (up: {process.is_up})\n{process.tail}" for process in self.processes]
        return "\n".join(told)

    def close(self) -> None:
        """End every process of the site, and every child of theirs."""
        super().close()
        if "stage" in self.__dict__:
            self.stage.app.close()
            self.stage.runs.ledger.database.close()
        self.database.close()
