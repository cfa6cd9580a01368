"""
A round: the same reviews, each asked for twice at once, under the same faults; through runclaim or as a bare chain.

A round is over when nothing is left to wait for: every run has ended, or no message and no body is left of a chain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Final

from trial.faults import Injector, queued
from trial.plan import Fault, planned

if TYPE_CHECKING:
    from trial.comments import Comments, Tally
    from trial.plan import Kind
    from trial.screen import Screen
    from trial.stage import Stage
    from trial.witness import Verdict, Witness

#: Calls that are made at the same time.
Batch = Sequence[Callable[[], object]]

#: Batches follow each other at this pace.
_GAP_SECONDS: Final = 0.12
#: How long a round may go on after its last fault, and how long nothing may be left before that counts as the end.
_PATIENCE_SECONDS: Final = {"runclaim": 60.0, "chain": 25.0}
_QUIET_SECONDS: Final = 1.5


@dataclass(frozen=True)
class Outcome:
    """
    What a round showed.

    `verdict` and `landed` look when they are first asked for: after the workers have ended, so that whatever a body
    still wrote counts.
    """

    injector: Injector
    witness: Witness
    comments: Comments
    #: The reviews that have to be there, and those that a push overtook.
    keys: list[str]
    overtaken: list[str]
    seconds: float
    #: Messages that the middleman saw, each delivered three times.
    messages: int
    #: What each of the calls that asked for a review gave, or the error it raised.
    asked: list[object]
    #: The reviews that still had a message or a body when the round was cut off.
    waiting: set[str]

    @cached_property
    def verdict(self) -> Verdict:
        """What the rows say."""
        return self.witness.verdict(self.keys, self.overtaken)

    @cached_property
    def tally(self) -> Tally:
        """What the forge has."""
        return self.comments.tally(self.keys)

    @cached_property
    def landed(self) -> list[Fault]:
        """The faults that hit work in flight."""
        return [fault for fault in self.injector.fired if self.injector.landed(fault)]

    def count(self, kind: Kind, among: list[Fault]) -> int:
        """How many faults of a kind are among these."""
        return sum(1 for fault in among if fault.kind is kind)


class Feed(threading.Thread):
    """Makes the calls of each batch at once, as a double click does, one batch after the other."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__(name="feed", daemon=True)
        self._batches = batches
        self.answers: list[object] = []
        self.stopping = False

    def run(self) -> None:
        """Make all calls."""
        with ThreadPoolExecutor(2) as callers:
            for batch in self._batches:
                if self.stopping:
                    break
                self.answers += callers.map(_attempt, batch)
                time.sleep(_GAP_SECONDS)


def _attempt(call: Callable[[], object]) -> object:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - what a sender, or the caller of a bare chain, gets
        return error


class Round:
    """One round on a stage. `is_over` tells when runclaim's runs have ended; a chain's round finds out by itself."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        witness: Witness,
        comments: Comments,
        screen: Screen,
        *,
        seed: int,
        strikes: int,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        self.name, self._stage, self._witness, self._comments = name, stage, witness, comments
        self._screen, self._is_over, self._seed = screen, is_over, seed
        plan = planned(Random(seed), strikes)  # noqa: S311 - a seed is for repeating
        self._began = time.monotonic()
        self._quiet_since: float | None = None
        self._messages_before = stage.middleman.messages
        self.injector = Injector(
            plan,
            Random(seed),  # noqa: S311 - as above
            witness=witness,
            workers=stage.workers,
            broker=stage.broker,
            forge=stage.forge,
            comments=comments,
            slow_down=lambda: stage.spoil_forge(seed, first=["slow"]),
            lease_seconds=stage.lease_seconds,
            say=lambda text: screen.say(f"{self.seconds:6.1f} s  {text}"),
        )

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def play(self, batches: Sequence[Batch], keys: list[str], overtaken: list[str]) -> Outcome:
        """Ask for the reviews while faults are injected; returns when it is over or has taken too long."""
        self._stage.let_linger(self._seed)
        feed = Feed(batches)
        wanted = set(keys)
        try:
            with self._screen.progress(self.name, len(keys)) as show:
                feed.start()
                self.injector.start()
                in_time = self._watch(
                    feed, lambda: show(len(wanted & self._witness.finished()), len(self.injector.fired))
                )
        finally:
            feed.stopping = True
            self.injector.stop()
            feed.join()
        if self.injector.error is not None:
            raise self.injector.error
        return Outcome(
            injector=self.injector,
            witness=self._witness,
            comments=self._comments,
            keys=keys,
            overtaken=overtaken,
            seconds=self.seconds,
            messages=self._stage.middleman.messages - self._messages_before,
            asked=feed.answers,
            waiting=set() if in_time else self._waiting(),
        )

    def _watch(self, feed: Feed, show: Callable[[], None]) -> bool:
        """Wait for the end; returns whether it came in time."""
        calm_since: float | None = None
        while True:
            show()
            if calm_since is None and not self.injector.is_alive():
                self._stage.calm_down()
                calm_since = time.monotonic()
            if not feed.is_alive() and (self._is_over or self._is_quiet)():
                return True
            if calm_since is not None and time.monotonic() > calm_since + _PATIENCE_SECONDS[self.name]:
                return False
            time.sleep(0.1)

    def _is_quiet(self) -> bool:
        """Whether for a while nobody has worked and nothing was queued."""
        if queued(self._stage.broker.url) != (0, set()) or not self._stage.broker.pid or self._witness.in_flight():
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = time.monotonic()
        return self._quiet_since is not None and time.monotonic() > self._quiet_since + _QUIET_SECONDS

    def _waiting(self) -> set[str]:
        working = {start.key for start in self._witness.in_flight()}
        return working | queued(self._stage.broker.url)[1]
