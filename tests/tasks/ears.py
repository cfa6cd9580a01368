"""What an application hears of its tasks by Celery's signals."""

from __future__ import annotations

from dataclasses import dataclass, field

HEARD = ("prerun", "postrun", "success", "failure", "retry")


@dataclass
class Ears:
    """What the application has heard, in order."""

    heard: list[tuple[str, ...]] = field(default_factory=list)

    def of(self, *kinds: str) -> list[tuple[str, ...]]:
        return [each for each in self.heard if each[0] in kinds]
