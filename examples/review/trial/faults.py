"""
The injector: breaks what really breaks, at moments when something hangs on it, and notes what it hit.

A fault is armed when it is planned, fired when it was done, and landed when it hit work in flight: the killed body
never committed, the stopped one was overtaken, the emptied broker held messages that somebody waited for.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from redis import Redis, RedisError

from trial.screen import many

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from runclaim.servers import Server
    from trial.processes import Process
    from trial.witness import Start, Witness


class Kind(StrEnum):
    """What is done."""

    CHILD = "kill a pool child (SIGKILL)"
    WORKER = "kill a worker (SIGKILL), start another"
    STALL = "stop a pool child for longer than a lease (SIGSTOP)"
    FLUSH = "empty the broker (FLUSHALL)"
    RESTART = "kill the broker (SIGKILL), start it empty"


#: How long a fault waits for something to hit, and the broker stays down.
_PATIENCE_SECONDS: Final = 3.0
_DOWN_SECONDS: Final = 0.5
#: How much longer a process stays stopped while nobody has taken its phase over.
_LONGER_SECONDS: Final = 5.0
_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}")


@dataclass
class Fault:
    """One fault that was fired: the bodies it hit, or the messages that went and the reviews that waited on them."""

    kind: Kind
    bodies: list[Start] = field(default_factory=list)
    messages: int = 0
    reviews: set[str] = field(default_factory=set)


def planned(rng: Random, strikes: int) -> list[tuple[float, Kind]]:
    """So many strikes at workers, one flush half-way, one restart of the broker at the end; each after a wait."""
    kinds = [Kind.CHILD, Kind.WORKER, Kind.STALL, *[Kind.CHILD] * strikes][:strikes]
    rng.shuffle(kinds)
    kinds.insert((len(kinds) + 1) // 2, Kind.FLUSH)
    return [(rng.uniform(0.9, 1.6), kind) for kind in [*kinds, Kind.RESTART]]


class Injector(threading.Thread):
    """Carries out a plan, one fault after the other, until it is done or `stop` is called."""

    def __init__(
        self,
        plan: Sequence[tuple[float, Kind]],
        rng: Random,
        *,
        witness: Witness,
        workers: Sequence[Process],
        broker: Server,
        lease_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name="injector", daemon=True)
        self.plan, self.fired = plan, list[Fault]()
        self.error: Exception | None = None
        self._rng, self._witness, self._workers, self._broker = rng, witness, workers, broker
        self._lease_seconds, self._say = lease_seconds, say
        self._stopping = threading.Event()
        self._stalls: dict[Start, threading.Thread] = {}
        self._hit: set[int] = set()

    def stop(self) -> None:
        """No further fault; what was stopped goes on. Returns when the current one is done."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Carry out the plan."""
        deeds = {
            Kind.CHILD: self._kill_child,
            Kind.WORKER: self._kill_worker,
            Kind.STALL: self._stall,
            Kind.FLUSH: self._flush,
            Kind.RESTART: self._restart,
        }
        try:
            for wait, kind in self.plan:
                if self._stopping.wait(wait):
                    break
                if (fault := deeds[kind]()) is not None:
                    self.fired.append(fault)
        except Exception as error:  # noqa: BLE001 - told by the round, which fails with it
            self.error = error
        for stall in self._stalls.values():
            stall.join()

    def landed(self, fault: Fault) -> bool:
        """
        Whether the fault hit work in flight, as the witness sees it afterwards.

        A stopped body of a chain, which has no lease to lose, goes on as if nothing had been.
        """
        if fault.kind in {Kind.FLUSH, Kind.RESTART}:
            return bool(fault.reviews)
        if fault.kind is Kind.STALL:
            return not self._witness.once or any(self._witness.never_ended(body) for body in fault.bodies)
        return any(self._witness.never_ended(body) for body in fault.bodies)

    def _kill_child(self) -> Fault | None:
        bodies = self._await_bodies()
        if not bodies:
            return None
        body = self._rng.choice(bodies)
        os.kill(body.pid, signal.SIGKILL)
        self._hit.add(body.pid)
        self._say(f"killed pool child {body.pid} in {_name(body)}")
        return Fault(Kind.CHILD, [body])

    def _kill_worker(self) -> Fault | None:
        bodies = self._await_bodies()
        spared = {body.worker_pid for body, stall in self._stalls.items() if stall.is_alive()}
        busy = {body.worker_pid for body in bodies} - spared
        if not busy:
            return None
        worker = self._rng.choice([each for each in self._workers if each.pid in busy])
        hit = [body for body in self._witness.in_flight() if body.worker_pid == worker.pid]
        worker.kill()
        self._hit |= {body.pid for body in hit}
        worker.start()
        self._say(f"killed worker {worker.name} with {many(len(hit), 'body', 'bodies')} in flight; started another")
        return Fault(Kind.WORKER, hit)

    def _stall(self) -> Fault | None:
        bodies = self._await_bodies()
        if not bodies:
            return None
        body = self._rng.choice(bodies)
        os.kill(body.pid, signal.SIGSTOP)
        if body not in self._witness.in_flight():  # it had just ended: stopping an idle process proves nothing
            os.kill(body.pid, signal.SIGCONT)
            return self._stall()
        self._say(f"stopped pool child {body.pid} in {_name(body)}, for longer than its lease")
        self._stalls[body] = threading.Thread(target=self._go_on, args=[body], daemon=True)
        self._stalls[body].start()
        return Fault(Kind.STALL, [body])

    def _go_on(self, body: Start) -> None:
        """Let the body go on once another process has its phase; a chain's, whose phase nobody takes, after a while."""
        least = time.monotonic() + self._lease_seconds + 1
        while not self._stopping.wait(0.1):
            overtaken = self._witness.was_overtaken(body) or not self._witness.once
            if time.monotonic() > (least if overtaken else least + _LONGER_SECONDS):
                break
        try:
            os.kill(body.pid, signal.SIGCONT)
        except ProcessLookupError:
            return  # its worker was killed meanwhile
        self._say(f"pool child {body.pid} goes on")

    def _flush(self) -> Fault:
        messages, reviews = self._await_messages()
        with Redis.from_url(self._broker.url) as broker:
            broker.flushall()
        self._say(f"FLUSHALL: {many(messages, 'message')} gone; {many(len(reviews), 'review')} waited on them")
        return Fault(Kind.FLUSH, messages=messages, reviews=reviews)

    def _restart(self) -> Fault:
        messages, reviews = self._await_messages()
        self._broker.kill()
        time.sleep(_DOWN_SECONDS)
        self._broker.start()
        gone = f"{many(messages, 'message')} gone; {many(len(reviews), 'review')} waited on them"
        self._say(f"killed the broker and started it empty: {gone}")
        return Fault(Kind.RESTART, messages=messages, reviews=reviews)

    def _await_bodies(self) -> list[Start]:
        """Bodies in flight, for long enough to be in the middle of it; none when there are none for a while."""
        ends = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < ends and not self._stopping.is_set():
            spared = self._hit | {body.pid for body in self._stalls}
            old = time.time() - 0.1
            if found := [body for body in self._witness.in_flight() if body.pid not in spared and body.at < old]:
                return found
            time.sleep(0.05)
        return []

    def _await_messages(self) -> tuple[int, set[str]]:
        """How many task messages are queued, and the reviews that wait for one; patient as `_await_bodies`."""
        ends = time.monotonic() + _PATIENCE_SECONDS
        while True:
            messages, reviews = queued(self._broker.url)
            reviews -= self._witness.beyond_messages()
            if reviews or time.monotonic() > ends or self._stopping.is_set():
                return messages, reviews
            time.sleep(0.05)


def queued(url: str) -> tuple[int, set[str]]:
    """How many task messages the broker holds, and the head commits of the reviews they are about."""
    try:
        with Redis.from_url(url) as broker:
            found = [json.loads(message)["headers"] for message in broker.lrange("celery", 0, -1)]
    except RedisError:
        return 0, set()
    named = [_COMMIT.findall(f"{headers['argsrepr']} {headers['kwargsrepr']}") for headers in found]
    return len(found), {commits[-1] for commits in named if commits}


def _name(body: Start) -> str:
    base, _, head = body.key.partition("..")
    return f"{body.phase} of {base[:7]}..{head[:7]}"
