"""
Runclaim as the peers' bench sees it: a subclass of its `Peer`, started by its `main`. Settings are the defaults.

    default   one worker, prefork with two processes, over Redis without persistence; PostgreSQL flushes every commit
    prefork8  the same with eight processes
    rabbit    the default over RabbitMQ
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from celery import Celery
from common import REDIS_PORT, Peer, dsn, effect, fresh_db, main, redis_cmd  # the peers' bench

import runclaim
from runclaim import Context, Runclaim, migrations
from runclaim.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterable

_DATABASE = "b_runclaim"
_VARIANTS = ("default", "prefork8", "rabbit")
#: The bench sets it for workers; its producer has the variant among its arguments.
_VARIANT = next((each for each in _VARIANTS if each in (os.environ.get("BENCH_VARIANT"), *sys.argv)), _VARIANTS[0])
_REDIS = f"redis://127.0.0.1:{REDIS_PORT}/5"
_RABBIT = f"amqp://guest:guest@127.0.0.1:{os.environ.get('BENCH_AMQP_PORT', '56729')}//"


@dataclass(frozen=True, slots=True)
class Work:
    """The input of a run."""

    number: int


app = Celery("peer_runclaim", broker=_RABBIT if _VARIANT == "rabbit" else _REDIS)
app.conf.update(task_default_queue="peer_runclaim", worker_hijack_root_logger=False)
runs = Runclaim(app, database_url=dsn(_DATABASE, "postgresql+psycopg"))
one = runs.flow("one", Work, key="{number}")
three = runs.flow("three", Work, key="{number}")


@one.phase
def only(ctx: Context[Work]) -> dict[str, Any]:
    """The only phase."""
    return effect(ctx.input.number, 0)


@three.phase
def first(ctx: Context[Work]) -> dict[str, Any]:
    """Begin from the input."""
    return effect(ctx.input.number, 0)


@three.phase
def second(ctx: Context[Work]) -> dict[str, Any]:
    """Go on from the first result."""
    return effect(ctx.result(first)["i"], 1)


@three.phase
def third(ctx: Context[Work]) -> dict[str, Any]:
    """Go on from the second result."""
    return effect(ctx.result(second)["i"], 2)


class RunclaimPeer(Peer):
    """One Celery worker; the ledger in a database of its own."""

    name = "runclaim"
    db = _DATABASE
    variants = _VARIANTS
    workers = 1
    bulk = True

    def setup(self) -> None:
        """Empty the broker, make the schema."""
        fresh_db(_DATABASE)
        if self.variant == "rabbit":
            with app.connection() as connection:
                connection.default_channel.queue_delete("peer_runclaim")
        else:
            redis_cmd(REDIS_PORT, "FLUSHALL")
        database = Database(dsn(_DATABASE, "postgresql+psycopg"), patience=timedelta(seconds=10))
        migrations.upgrade(database)
        database.close()

    def worker_cmd(self, number: int, _work: str) -> list[str]:
        """An ordinary Celery worker."""
        pool = ["-P", "prefork", "-c", "8" if self.variant == "prefork8" else "2"]
        name = ["-n", f"w{number}@bench", "-Q", "peer_runclaim"]
        return [sys.executable, "-m", "celery", "-A", "peer_runclaim", "worker", "-l", "WARNING", *name, *pool]

    def enqueue(self, phases: int, number: int) -> None:
        """One run, in a transaction of its own."""
        (one if phases == 1 else three).enqueue(number=number)

    def enqueue_many(self, phases: int, numbers: Iterable[int]) -> None:
        """Five hundred runs a call, as the other peers do it."""
        flow, left = one if phases == 1 else three, iter(numbers)
        while chunk := list(islice(left, 500)):
            flow.enqueue_many([{"number": number} for number in chunk])

    def done(self, _phases: int) -> int:
        """Runs that the ledger calls succeeded."""
        found: int = self.scalar("SELECT count(*) FROM runclaim_runs WHERE state = 'succeeded'")
        return found

    def queued(self) -> int:
        """Runs that wait."""
        found: int = self.scalar("SELECT count(*) FROM runclaim_runs WHERE state = 'queued'")
        return found

    def info(self) -> dict[str, str]:
        """What stands in the report beside the figures."""
        return {"version": runclaim.__version__}


if __name__ == "__main__":
    main(RunclaimPeer)
