"""
docs/backup.md, sentence by sentence: a ledger is restored to an earlier point, and its runs go on from there.

PostgreSQL by pg_dump and pg_restore, SQLite by VACUUM INTO. The other side is a list outside of the ledger.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import make_url

from runclaim import cli
from runclaim.errors import RunNotFound
from runclaim.flows.client.handle import Run
from runclaim.flows.messages import message
from runclaim.flows.upkeep.rescue import rescue_lapsed
from runclaim.states import RunState
from tests.harness.bench import Bench
from tests.harness.command_line import runner
from tests.ledger.factories import claim_again
from tests.servers import database
from tests.servers.postgres import find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runclaim.flows.flow import Flow
    from runclaim.ledger.dispatch import Due


class OtherSide:
    """What has arrived there, by idempotency key; it survives every restore."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.mails: list[str] = []
        self.charges: list[str] = []
        self.starts: Counter[int] = Counter()

    def many(self) -> tuple[int, int, int]:
        """How many comments, mails and charges."""
        return len(self.comments), len(self.mails), len(self.charges)


class Process:
    """An application on a ledger: each order is charged, commented (with a lookup) and mailed (without one)."""

    def __init__(self, url: str, there: OtherSide) -> None:
        self.bench, self.there = Bench(url), there
        self.bench.action("comment")(self._comment).lookup(self._find_comment)
        self.bench.action("mail")(lambda _payload, key: there.mails.append(key))
        self.flow: Flow[Any] = self.bench.flow("order")
        self.flow.phase(name="pay")(self._pay)
        self.flow.phase(name="tell")(lambda ctx: ctx.plan_action("mail", {}))

    def _comment(self, _payload: Any, key: str) -> str:
        self.there.comments.append(key)
        return key

    def _find_comment(self, _payload: Any, key: str) -> str | None:
        return key if key in self.there.comments else None

    def _pay(self, ctx: Any) -> Any:
        self.there.starts[ctx.input.number] += 1
        ctx.plan_action("comment", {})
        return ctx.act("charge", self._charge, lookup=lambda key: key if key in self.there.charges else None)

    def _charge(self, key: str) -> str:
        self.there.charges.append(key)
        return key

    def order(self, number: int, **how: Any) -> Run:
        return self.flow.using(**how).enqueue(repo="shop", number=number)

    def work(self, *runs: Run) -> None:
        """Until the runs have ended and all that is due was sent."""
        for run in runs:
            self.bench.finish(self.flow, run)
        self.bench.send()

    def run(self, run: Run) -> Run:
        """The same run in this process."""
        return Run(self.bench.ledger, run.id, self.flow)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The ledger's, and that of an empty place to restore it to."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db", f"sqlite:///{tmp_path}/restored.db"
        return
    server = request.getfixturevalue("postgres_server")
    with database(server) as old, database(server) as new:
        yield old, new


def back_up(url: str, to: Path) -> None:
    if (address := make_url(url)).get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(address.database))) as connection:
            connection.execute("VACUUM INTO ?", [str(to)])
        return
    _program("pg_dump", "--format=custom", f"--file={to}", _plain(url))


def restore(url: str, dump: Path, *noted: str) -> None:
    """As the page says; `noted` is the command after the upgrade."""
    if (address := make_url(url)).get_backend_name() == "sqlite":
        dump.rename(str(address.database))
    else:
        _program("pg_restore", "--exit-on-error", f"--dbname={_plain(url)}", str(dump))
    for word in ("upgrade", *noted):
        told = runner().invoke(cli.command, ["db", word], env={"RUNCLAIM_DATABASE_URL": url})
        assert 0 == told.exit_code, told.output


def _program(name: str, *words: str) -> None:
    programs, _ = find()
    subprocess.run([programs / name, *words], check=True, capture_output=True, text=True)


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass
class Drill:
    """Orders before and after a backup, everything of which was done once in the ledger that is lost."""

    before: Process
    there: OtherSide
    #: At the time of the backup: a phase complete and its comment planned; queued; running.
    planned: Run
    queued: Run
    running: Run
    #: Of the lost ledger alone.
    since: Run
    #: Messages that are still in the broker: of a run that had come further, and of one that is not known.
    late: list[Due]
    dump: Path


@pytest.fixture
def drill(urls: tuple[str, str], tmp_path: Path) -> Iterator[Drill]:
    there = OtherSide()
    before = Process(urls[0], there)
    planned, queued, running = (before.order(number) for number in (1, 2, 3))
    before.bench.deliver(before.flow, message_of(before, planned), inline=lambda *_: False)
    before.bench.database.run(lambda conn: claim_again(conn, running.id, flow="order"))
    back_up(urls[0], tmp_path / "dump")
    since = before.order(4)
    late = [replace(message_of(before, queued), fence=1), message_of(before, since)]
    lapse(before)
    before.work(planned, queued, running, since)
    assert [(4, 4, 4), (1, 1, 1, 1)] == [there.many(), tuple(there.starts.values())]
    yield Drill(before, there, planned, queued, running, since, late, tmp_path / "dump")
    before.bench.close()


@pytest.fixture
def after(urls: tuple[str, str], drill: Drill) -> Iterator[Process]:
    restore(urls[1], drill.dump, "restored")
    made = Process(urls[1], drill.there)
    yield made
    made.bench.close()


def message_of(process: Process, run: Run) -> Due:
    return message.of_view(view=process.run(run).view, flow=process.flow)


def lapse(process: Process) -> None:
    """The leases of dead workers lapse, and are rescued."""
    process.bench.execute("UPDATE runclaim_runs SET lease_expires_at = enqueued_at WHERE state = 'running'")
    rescue_lapsed(process.bench.database, flows=process.bench.flows)


def states_of(run: Run) -> dict[str, str]:
    return {action.kind: action.state for action in run.actions}


def test_what_was_sent_since_the_backup_is_found_and_not_sent_again(drill, after):
    """
    INVARIANT: after a restore, no call of a run that the backup has is made again before it was looked up.

    Breaks if a call is in doubt only once this ledger has tried it.
    """
    lapse(after)
    runs = [after.run(run) for run in (drill.planned, drill.queued, drill.running)]
    after.work(*runs)

    assert [RunState.SUCCEEDED] * 3 == [run.state for run in runs]
    assert (4, 4, 4) == drill.there.many()
    assert [{"comment": "posted", "mail": "unknown"}] * 3 == [states_of(run) for run in runs]
    # What had completed before the backup did not run again.
    assert {1: 1, 2: 2, 3: 2, 4: 1} == drill.there.starts


def test_without_the_note_of_the_restore_it_is_sent_again(urls, drill):
    restore(urls[1], drill.dump)
    after = Process(urls[1], drill.there)
    after.bench.send()
    after.bench.close()

    assert [2] == [many for key, many in Counter(drill.there.comments).items() if key.startswith(drill.planned.id)]


def test_what_never_arrived_is_sent_after_it_was_looked_up(drill, after):
    drill.there.comments.clear()
    after.bench.send()

    assert [f"{drill.planned.id}:pay:0"] == drill.there.comments


def test_late_messages_of_the_lost_ledger_start_nothing(drill, after):
    for late in drill.late:
        assert after.bench.deliver(after.flow, late).claim is None

    assert RunState.QUEUED is after.run(drill.queued).state
    with pytest.raises(RunNotFound):
        _ = after.run(drill.since).state


def test_what_was_enqueued_since_is_enqueued_again_and_what_was_before_is_found(drill, after):
    found, (first, second) = after.order(1), (after.order(4) for _ in range(2))
    after.work(first)

    assert (drill.planned.id, False) == (found.id, found.created)
    assert (True, False, True) == (first.created, second.created, first.id == second.id)
    assert first.id != drill.since.id
    assert 2 == drill.there.starts[4]


def test_a_run_that_is_enqueued_again_under_its_id_calls_under_its_old_keys(drill, after):
    after.work(after.order(4, run_id=drill.since.id))

    assert 2 == drill.there.mails.count(f"{drill.since.id}:tell:0")


def test_a_run_that_was_enqueued_after_the_restore_is_not_in_doubt(drill, after):
    new = after.order(5)
    after.work(new)

    assert {"comment": "posted", "mail": "posted"} == states_of(new)


def test_what_was_erased_since_is_back(drill, after):
    drill.before.bench.execute("UPDATE runclaim_actions SET state = 'failed' WHERE state = 'unknown'")
    drill.planned.erase()

    assert drill.planned.view.was_erased
    assert not after.run(drill.planned).view.was_erased
