"""
How the forge misbehaves: a plan, and one fault for each request, by its method and number alone.

Numbers are kept with the comments, so a plan goes on where it was when the forge was killed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fault(StrEnum):
    """What happens to a request."""

    NONE = "none"
    LOST_REPLY = "lost reply"  #: applied, then the connection is closed without an answer
    ERROR_AFTER = "500 after applying"
    SLOW = "slow"  #: applied at once, answered late
    ERROR_BEFORE = "502 before applying"
    REFUSED = "422"  #: refused for good

    @property
    def applies(self) -> bool:
        """Whether a request that meets it takes effect all the same."""
        return self in {Fault.NONE, Fault.LOST_REPLY, Fault.ERROR_AFTER, Fault.SLOW}


@dataclass(frozen=True)
class Plan:
    """
    Which request meets which fault.

    The plan's first posts meet the faults in `first`, one each; every other request meets one by chance, each at its
    rate. What is applied only after its sender has given up and asked is not among them: no sender could tell.
    """

    seed: int = 0
    rates: Mapping[Fault, float] = field(default_factory=dict)
    first: tuple[Fault, ...] = ()
    slow_seconds: float = 1.0
    #: The number of the post before the plan's first.
    since: int = 0

    def fault(self, method: str, number: int) -> Fault:
        """What the request of this number among those of its method meets."""
        place = number - self.since - 1
        if method == "POST" and place < len(self.first):
            return self.first[place]
        chance = Random(f"{self.seed}:{method}:{number}").random()  # noqa: S311 - a seed is for repeating
        for fault, rate in self.rates.items():
            if (chance := chance - rate) < 0:
                return fault
        return Fault.NONE

    @classmethod
    def read(cls, found: Mapping[str, Any], *, since: int) -> Self:
        """
        A plan as JSON says it: `{"seed": 4, "rates": {"lost reply": 0.2}, "first": ["422"], "slow_seconds": 1}`.

        Raises: ValueError for a fault that is none, TypeError for a value of another kind.
        """
        return cls(
            seed=int(found.get("seed", 0)),
            rates={Fault(name): float(rate) for name, rate in found.get("rates", {}).items()},
            first=tuple(Fault(name) for name in found.get("first", ())),
            slow_seconds=float(found.get("slow_seconds", 1.0)),
            since=int(found.get("since", since)),
        )

    def write(self) -> str:
        """The plan as JSON, which `read` reads."""
        return json.dumps(
            {
                "seed": self.seed,
                "rates": dict(self.rates),
                "first": self.first,
                "slow_seconds": self.slow_seconds,
                "since": self.since,
            }
        )
