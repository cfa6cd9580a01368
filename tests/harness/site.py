"""A broker, a ledger and the Celery processes on them: everything one acceptance or fault test needs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import redis
from sqlalchemy import select, text

from runclaim import migrations
from runclaim.database import Database
from runclaim.ledger import read
from runclaim.ledger.dispatch import Due
from runclaim.states import TERMINAL, RunState
from tests.harness.app import Stage, build, metadata, rows_table
from tests.harness.bodies import gate
from tests.harness.process import Process
from tests.harness.until import until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runclaim import Run

_ROOT = Path(__file__).parents[2]
#: Ends what a killed test run leaves behind: it reads until the other end of its pipe is gone.
_GUARD = 'while read -r group; do groups="$groups -$group"; done; kill -9 $groups'
_names = itertools.count(1)


class Start(NamedTuple):
    """One line of the effects file: a body has started."""

    run_id: str
    name: str
    phase: str
    attempt: int
    pid: int


class Site:
    """
    One deployment in a folder of its own. A context manager; leaving it ends every process it started.

    `conf` is Celery's configuration, `settings` are `Runclaim`'s, `phases` maps a phase to its options (durations in
    seconds), `subjects=True` gives the flow a subject. The tests' own side of it is `stage`.
    """

    def __init__(self, folder: Path, *, broker: str, database_url: str, **told: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.told = {"broker": broker, "database_url": database_url, "folder": str(folder)} | told
        self.processes: list[Process] = []
        self.database = Database(database_url, patience=timedelta(seconds=20))
        migrations.upgrade(self.database)
        metadata.create_all(self.database.engine)
        (folder / "effects").touch()
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD], start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip

    @cached_property
    def stage(self) -> Stage:
        """The application in this process, to enqueue with."""
        return build(self.told)

    def enqueue(self, name: str, *, about: str = "", **do: str) -> Run:
        """A run of the flow whose phases do what they are told: `enqueue("a", second="gate")`."""
        return self.stage.steps.enqueue(name=name, about=about, do=do)

    def publish(self, run: Run, *, times: int = 1) -> None:
        """Send the message of the run as it stands, once more or many times."""
        view = run.view
        due = Due(run.id, view.fence, view.flow, view.phase, view.queue, view.key, 0)
        self.stage.runs.ledger.publisher.publish([due] * times)

    def upkeep(self) -> None:
        """What beat would have done now: rescue, and dispatch of what is due."""
        self.stage.runs._runtime.rescue()
        self.stage.runs._runtime.dispatch()

    # --- processes ---

    def worker(
        self,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: str | None = None,
        events: bool = False,
        env: dict[str, str] | None = None,
        options: Iterable[str] = (),
        module: str = "tests.harness.app",
        quiet: bool = True,
        ready: bool = True,
    ) -> Process:
        """A worker that is ready. `quiet` leaves out gossip, mingle and heartbeat, which cost a second each start."""
        words = ["worker", "-l", "INFO", "-P", pool, "-c", str(concurrency)]
        words += ["-Q", queues] if queues else []
        words += ["-E"] if events else []
        words += ["--without-gossip", "--without-mingle", "--without-heartbeat"] if quiet else []
        name = f"worker{next(_names)}"
        process = self.celery(name, [*words, "-n", f"{name}-{os.getpid()}@%h", *options], module=module, env=env)
        if ready:
            process.said(" ready.", within=60)
        return process

    def beat(self, *, module: str = "tests.harness.app", env: dict[str, str] | None = None) -> Process:
        """A beat that has started, with a schedule file of its own."""
        name = f"beat{next(_names)}"
        words = ["beat", "-l", "INFO", "-s", str(self.folder / f"{name}.schedule"), "--pidfile", ""]
        process = self.celery(name, words, module=module, env=env)
        process.said("beat: Starting", within=60)
        return process

    def celery(
        self, name: str, words: Iterable[str], *, module: str = "tests.harness.app", env: dict[str, str] | None = None
    ) -> Process:
        """`celery -A module …` as a process of this site; returns at once."""
        return self.start(name, [sys.executable, "-m", "celery", "-A", module, *words], env=env)

    def start(self, name: str, command: list[str], *, env: dict[str, str] | None = None) -> Process:
        """Any command, in this site's environment and folder."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("RUNCLAIM_", "CELERY_"))}
        paths = os.pathsep.join((str(_ROOT), str(self.folder)))
        variables |= {"HARNESS": json.dumps(self.told), "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"} | (env or {})
        process = Process(name, command, log=self.folder / f"{name}.log", env=variables, folder=self.folder)
        self.processes.append(process)
        if self._guard.stdin:
            self._guard.stdin.write(f"{process.pid}\n".encode())
            self._guard.stdin.flush()
        return process

    # --- what happened ---

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

    def rows(self, run: Run | None = None) -> list[tuple[str, str]]:
        """(name, phase) of each row that a completion wrote, in order; this is what must have no repeats."""
        asked = select(rows_table.c.run_id, rows_table.c.name, rows_table.c.phase)
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
        """How many messages wait in a queue of Redis."""
        with redis.Redis.from_url(self.told["broker"]) as client:
            return int(client.llen(queue))

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

    # --- the end ---

    def close(self) -> None:
        """End every process of the site, and every child of theirs."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            process.kill_all()
        self._guard.kill()
        self._guard.communicate()
        if "stage" in self.__dict__:
            self.stage.app.close()
            self.stage.runs.ledger.database.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
