"""
The plan of a round's faults, and what is noted of each.

A fault is armed when it is planned, fired when it was done, and landed when it hit work in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from trial.comments import Send
    from trial.witness import Start


class Kind(StrEnum):
    """What is done."""

    CHILD = "kill a pool child (SIGKILL)"
    WORKER = "kill a worker (SIGKILL), start another"
    STALL = "stop a pool child for longer than a lease (SIGSTOP)"
    FLUSH = "empty the broker (FLUSHALL)"
    SENDER = "kill a pool child that posts a comment (SIGKILL)"
    FORGE = "kill the forge (SIGKILL), start it again"
    RESTART = "kill the broker (SIGKILL), start it empty"


@dataclass
class Fault:
    """One fault that was fired: the bodies or sends it hit, or the messages that went and the reviews that waited."""

    kind: Kind
    bodies: list[Start] = field(default_factory=list)
    messages: int = 0
    reviews: set[str] = field(default_factory=set)
    sends: list[Send] = field(default_factory=list)


def planned(rng: Random, strikes: int) -> list[tuple[float, Kind]]:
    """So many strikes at workers, one flush half-way, a kill of a sender, at the end of the forge and of the broker."""
    kinds = [Kind.CHILD, Kind.WORKER, Kind.STALL, *[Kind.CHILD] * strikes][:strikes]
    rng.shuffle(kinds)
    kinds.insert((len(kinds) + 1) // 2, Kind.FLUSH)
    kinds.insert(rng.randrange(len(kinds) // 2, len(kinds) + 1), Kind.SENDER)
    return [(rng.uniform(0.7, 1.3), kind) for kind in [*kinds, Kind.FORGE, Kind.RESTART]]
