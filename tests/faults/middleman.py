"""
Somebody between publisher and workers who holds messages back, repeats each of them and deals them out in any order.

Callers and workers publish to one set of Redis queues, workers consume another; the middleman moves the raw messages.
Half of the copies keep their delivery tag, as a redelivery of Redis does, half get a new one, as a repeated publish.
"""

from __future__ import annotations

import json
import random
import threading
import uuid
from typing import Self

import redis


class Middleman:
    """Moves what arrives in the queues `sources` to `target`, `copies` times and shuffled; a context manager."""

    def __init__(self, url: str, *, sources: list[str], target: str, copies: int, seed: int) -> None:
        self.seed = seed
        self.taken, self.delivered = 0, 0
        self._sources, self._target, self._copies = sources, target, copies
        self._random = random.Random(seed)
        self._redis = redis.Redis.from_url(url)
        self._held: list[bytes] = []
        self._late: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def deliver_late(self) -> int:
        """Deal out the copies that were kept to the end; says how many."""
        for message in self._late:
            self._redis.lpush(self._target, message)
        self.delivered += len(self._late)
        return len(self._late)

    def _work(self) -> None:
        while not self._stop.is_set():
            found = self._redis.brpop(self._sources, timeout=0.05)
            if found:
                self._take(found[1])
            # Idle or overfull: deal some out, whichever they are.
            if self._held and (not found or len(self._held) > 40):
                self._random.shuffle(self._held)
                some, self._held = self._held[:8], self._held[8:]
                self._redis.lpush(self._target, *some)
                self.delivered += len(some)

    def _take(self, message: bytes) -> None:
        if json.loads(message)["headers"]["task"].startswith("runclaim."):
            self._held.append(message)
            return
        self.taken += 1
        copies = [message if number % 2 else renamed(message) for number in range(self._copies)]
        self._late.append(copies.pop())
        self._held.extend(copies)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._redis.close()


def renamed(message: bytes) -> bytes:
    """The same message under another delivery tag."""
    found = json.loads(message)
    found["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(found).encode()
