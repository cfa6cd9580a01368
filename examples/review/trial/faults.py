"""
The injector: breaks what really breaks, at moments when something hangs on it, and notes what it hit.

A fault has landed when the killed body never committed, the stopped one was overtaken, the emptied broker held messages
that somebody waited for, the killed forge was owed comments.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from redis import Redis, RedisError

from trial.plan import Fault, Kind
from trial.pulls import KEY, short
from trial.screen import many
from trial.witness import lives

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from runclaim.servers import Server
    from trial.comments import Comments, Send
    from trial.processes import Process
    from trial.witness import Start, Witness

T = TypeVar("T")


#: How long a fault waits for something to hit, and broker or forge stay down.
_PATIENCE_SECONDS: Final = 3.0
_DOWN_SECONDS: Final = 0.5
#: How much longer a process stays stopped while nobody has taken its phase over.
_LONGER_SECONDS: Final = 5.0


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
        forge: Process,
        comments: Comments,
        slow_down: Callable[[], None],
        lease_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name="injector", daemon=True)
        self.plan, self.fired = plan, list[Fault]()
        self.error: Exception | None = None
        self._rng, self._witness, self._workers, self._broker = rng, witness, workers, broker
        self._forge, self._comments, self._slow_down = forge, comments, slow_down
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
            Kind.SENDER: self._kill_sender,
            Kind.FORGE: self._kill_forge,
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
        if fault.kind in {Kind.FLUSH, Kind.FORGE, Kind.RESTART}:
            return bool(fault.reviews)
        if fault.kind is Kind.SENDER:
            return set(fault.sends) <= set(self._comments.sending())
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

    def _kill_sender(self) -> Fault | None:
        """Kill who waits for an answer of the forge, which has the comment by then: nobody is left who could know."""
        self._slow_down()

        def look() -> list[Send]:
            old = time.time() - 0.1
            return [send for send in self._comments.sending() if send.at < old and lives(send.pid)]

        # The doorbell of an action stands in one queue with the messages of phases, so a send may be long in coming.
        patience = 2 * _PATIENCE_SECONDS if self._witness.once else _PATIENCE_SECONDS
        if not (sends := self._await(look, bool, patience)):
            return None
        os.kill(sends[0].pid, signal.SIGKILL)
        self._say(f"killed pool child {sends[0].pid}, which waited for the forge's answer to a comment")
        return Fault(Kind.SENDER, sends=sends[:1])

    def _kill_forge(self) -> Fault | None:
        reviews = self._await(self._comments.unposted, bool)
        if not reviews:
            return None
        self._forge.kill()
        time.sleep(_DOWN_SECONDS)
        self._forge.start()
        self._say(f"killed the forge and started it again; {many(len(reviews), 'review')} had comments on their way")
        return Fault(Kind.FORGE, reviews=reviews)

    def _await_bodies(self) -> list[Start]:
        """Bodies in flight, for long enough to be in the middle of it; none when there are none for a while."""

        def look() -> list[Start]:
            spared = self._hit | {body.pid for body in self._stalls}
            old = time.time() - 0.1
            return [body for body in self._witness.in_flight() if body.pid not in spared and body.at < old]

        return [] if self._stopping.is_set() else self._await(look, bool)

    def _await_messages(self) -> tuple[int, set[str]]:
        """How many task messages are queued, and the reviews that wait for one; patient as `_await_bodies`."""

        def look() -> tuple[int, set[str]]:
            messages, reviews = queued(self._broker.url)
            return messages, reviews - self._witness.beyond_messages()

        return self._await(look, lambda found: bool(found[1]))

    def _await(self, look: Callable[[], T], enough: Callable[[T], bool], patience: float = _PATIENCE_SECONDS) -> T:
        """What `look` sees once that is enough; after so many seconds, whatever it sees."""
        ends = time.monotonic() + patience
        while not enough(found := look()) and time.monotonic() < ends and not self._stopping.is_set():
            time.sleep(0.05)
        return found


def queued(url: str) -> tuple[int, set[str]]:
    """How many task messages the broker holds, and the reviews that they are about."""
    try:
        with Redis.from_url(url) as broker:
            found = [json.loads(message)["headers"] for message in broker.lrange("celery", 0, -1)]
    except RedisError:
        return 0, set()
    named = [KEY.search(f"{headers['argsrepr']} {headers['kwargsrepr']}") for headers in found]
    return len(found), {key[0] for key in named if key}


def _name(body: Start) -> str:
    return f"{body.phase} of {short(body.key)}"
