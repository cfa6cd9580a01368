"""
Random faults on a running site, from one seed: what was armed, what fired, and what landed on work in flight.

A fault that nothing was in the way of proves nothing, so each says itself whether it landed.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

import redis
from sqlalchemy import text

from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.servers import Server
    from tests.faults.cutter import Cutter
    from tests.harness import Process, Site

#: The marks by which the proxy knows whose COMMIT it sees.
MARKS = ("INSERT INTO runclaim_run_keys", "started_at=coalesce", "INSERT INTO runclaim_phase_results")
QUEUES = ("celery", "apart")
#: (pool, concurrency) of each worker.
WORKERS = (("prefork", 2), ("prefork", 2), ("threads", 4))


class Chaos:
    """Owns the workers and beats of a site, and harms them, the broker and the database."""

    def __init__(self, site: Site, *, cache: Server, postgres: Server, cutter: Cutter, seed: int) -> None:
        self.site, self.cache, self.postgres, self.cutter = site, cache, postgres, cutter
        self.random = random.Random(seed)
        self.armed: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.landed: Counter[str] = Counter()
        self._workers = {number: self._worker(number) for number in range(len(WORKERS))}
        self._beats = [site.beat(), site.beat()]
        #: What heals by itself after a while, and when: a stopped process goes on.
        self._later: list[tuple[float, Callable[[], None]]] = []

    @cached_property
    def kinds(self) -> dict[str, Callable[[], bool | None]]:
        """Each fault: whether it landed, or `None` when there was nothing it could be done to."""
        return {
            "kill a pool child": self.kill_child,
            "kill a worker": self.kill_worker,
            "stop a worker beyond its lease": self.stop_worker,
            "deploy a worker": self.deploy_worker,
            "kill a beat": self.kill_beat,
            "flush the broker": self.flush,
            "kill the broker": self.kill_broker,
            "stop the broker": self.stop_broker,
            "repeat all messages": self.repeat_messages,
            "terminate backends": self.terminate_backends,
            "crash the database": self.crash_database,
            "cut a commit": self.cut_commit,
        }

    def strike(self) -> None:
        """One fault, any of them, then let the site go on until bodies have started again."""
        kind = self.random.choice(list(self.kinds))
        self.armed[kind] += 1
        landed = self.kinds[kind]()
        self.fired[kind] += landed is not None
        self.landed[kind] += bool(landed)
        before = len(self.site.starts())
        until(lambda: len(self.site.starts()) >= before + 10 or self._heal(), "work to go on", so_far=self.site.story)

    def end(self) -> None:
        """No more faults: everything that was stopped goes on."""
        for _, heal in self._later:
            heal()
        self._later.clear()

    def _heal(self) -> bool:
        """Let go on what has been stopped for long enough."""
        due = [entry for entry in self._later if entry[0] <= time.monotonic()]
        for entry in due:
            self._later.remove(entry)
            entry[1]()
        return False

    # --- processes ---

    def kill_child(self) -> bool | None:
        _number, worker = self._any_worker(lambda number: WORKERS[number][0] == "prefork")
        children = worker.children()
        busy = [child for child in children if self._held_by(f"%:{child}")]
        if not children:
            return None
        worker.kill_child(self.random.choice(busy or children))
        return bool(busy)

    def kill_worker(self) -> bool:
        number, worker = self._any_worker()
        busy = self._held_by(f"{worker.name}-%")
        worker.kill_all()
        self._workers[number] = self._worker(number)
        return busy

    def stop_worker(self) -> bool | None:
        if self._later:
            return None
        _number, worker = self._any_worker()
        worker.pause()
        busy = self._held_by(f"{worker.name}-%")
        self._later.append((time.monotonic() + 3, lambda: worker.is_up and worker.resume()))
        return busy

    def deploy_worker(self) -> bool:
        number, worker = self._any_worker()
        busy = self._held_by(f"{worker.name}-%")
        worker.resume()
        worker.ask_to_stop()
        self._workers[number] = self._worker(number)
        return busy

    def kill_beat(self) -> bool:
        self._beats.pop(0).kill_all()
        self._beats.append(self.site.beat())
        return True

    def _worker(self, number: int) -> Process:
        pool, concurrency = WORKERS[number]
        return self.site.worker(pool=pool, concurrency=concurrency, queues=",".join(QUEUES), ready=False)

    def _any_worker(self, fits: Callable[[int], bool] = lambda _: True) -> tuple[int, Process]:
        """One that is in the middle of something, if one is."""
        fitting = [number for number in self._workers if fits(number)]
        busy = [number for number in fitting if self._held_by(f"{self._workers[number].name}-%")]
        number = self.random.choice(busy or fitting)
        return number, self._workers[number]

    def _held_by(self, worker: str) -> bool:
        asked = text("SELECT count(*) FROM runclaim_runs WHERE state = 'running' AND worker LIKE :worker")
        return bool(self.site.database.ask(lambda conn: conn.execute(asked, {"worker": worker}).scalar_one()))

    # --- the broker ---

    def flush(self) -> bool | None:
        with redis.Redis.from_url(self.cache.url, socket_timeout=1) as client:
            try:
                *held, _ = client.pipeline().llen("celery").llen("apart").flushall().execute()
            except redis.RedisError:
                return None
        return sum(held) > 0

    def kill_broker(self) -> bool:
        self.cache.restart(immediate=True)
        return True

    def stop_broker(self) -> bool | None:
        if self._later:
            return None
        self.cache.pause()
        self._later.append((time.monotonic() + 3, self.cache.resume))
        return True

    def repeat_messages(self) -> bool | None:
        with redis.Redis.from_url(self.cache.url, socket_timeout=1) as client:
            try:
                found = [(queue, message) for queue in QUEUES for message in client.lrange(queue, 0, -1)]
                self.random.shuffle(found)
                for queue, message in found:
                    client.lpush(queue, message)
            except redis.RedisError:
                return None
        return bool(found)

    # --- the database ---

    def terminate_backends(self) -> bool:
        asked = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name = 'runclaim' AND datname = current_database()"
        )
        return self.site.database.ask(lambda conn: conn.execute(asked).scalar_one()) > 0

    def crash_database(self) -> bool:
        busy = self._held_by("%")
        self.postgres.restart(immediate=True)
        return busy

    def cut_commit(self) -> bool | None:
        before = self.cutter.fired
        self.cutter.arm(self.random.choice(["before", "after"]), self.random.choice(MARKS))
        try:
            until(lambda: self.cutter.fired > before or self._heal(), "a commit to cut", within=10)
        except AssertionError:
            return None
        return True
