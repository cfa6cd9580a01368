"""
Room: how much of the ledger the requests of one project may fill.

What is counted grows by one row per request, within its token's quota; so a count may be some seconds old. Each process
counts for itself, and never further than to the limit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from runclaim.api.problems import Problem
from runclaim.ledger.doors.idempotency_keys import count_answers
from runclaim.ledger.doors.run_pages import count_live

if TYPE_CHECKING:
    from runclaim.config import Config
    from runclaim.database import Database

#: How long a count is believed: far below its limit, and from half of it on.
_FAR_SECONDS, _NEAR_SECONDS = 60.0, 5.0
#: A token of every project may name any: beyond this many, all counts are forgotten.
_MOST_PROJECTS: Final = 1000


class Room:
    """What is left to each project, as this process last counted it."""

    def __init__(self, database: Database, config: Config) -> None:
        self._database = database
        self._rules = {
            "live-runs": (count_live, config.api_live_runs, "runs that have not ended"),
            "answers": (count_answers, config.api_answers, "answers under idempotency keys"),
        }
        self._counted: dict[tuple[str, str], tuple[int, float]] = {}

    def require(self, what: str, project: str) -> None:
        """Raises: Problem when the project has as many `live-runs` or `answers` as it may."""
        count, most, words = self._rules[what]
        many, until = self._counted.get((what, project), (0, float("-inf")))
        if time.monotonic() >= until:
            many = self._database.ask(lambda conn: count(conn, project, at_most=most))
            if len(self._counted) >= _MOST_PROJECTS:
                self._counted.clear()
            believed = _NEAR_SECONDS if 2 * many >= most else _FAR_SECONDS
            self._counted[what, project] = many, time.monotonic() + believed
        if many >= most:
            raise Problem(
                "quota-exceeded",
                f"the project already has {most:,} {words}; try again when there are fewer",
                more={"violated-policies": [what]},
                headers={"Retry-After": "60"},
            )
