"""How long the bodies of each phase took lately, in this process: it decides how many are claimed at once."""

from __future__ import annotations

from typing import Final

from runclaim.flows.messages.publisher import MOST_NAMED

#: How long the bodies of a group take together, roughly; the first that ended waits no longer for its commit.
GROUP_SECONDS: Final = 0.020


class Pace:
    """Rises with the first slow body and falls with many fast ones. A phase that is not known yet starts alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, phase: str, seconds: float) -> None:
        """A body of `phase` took this long."""
        before = self._seconds.get(phase, seconds)
        self._seconds[phase] = before + (seconds - before) * (0.5 if seconds > before else 0.2)

    def seconds(self, phase: str) -> float:
        """How long the next body of `phase` will probably take; nothing is known of a new one."""
        return self._seconds.get(phase, GROUP_SECONDS)

    def size(self, phase: str) -> int:
        """How many runs of `phase` can be started at once, one after the other."""
        return max(1, min(MOST_NAMED, int(GROUP_SECONDS / max(self.seconds(phase), 1e-6))))
