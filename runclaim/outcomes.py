"""How a body, an action's handler or a receiver ends its attempt on purpose: by raising one of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


class Outcome(Exception):
    """Base of what a phase's body raises to end its attempt on purpose."""


class Blocked(Outcome):
    """The run needs a person: it stops in this phase until someone resumes it."""


class Retry(Outcome):
    """Try this phase again after a while. The attempt counts."""

    def __init__(self, reason: str = "another attempt was requested", *, after: timedelta | None = None) -> None:
        if after is not None and not hasattr(after, "total_seconds"):
            raise TypeError(f"Retry(after=…) takes a timedelta such as timedelta(minutes=5), not {after!r}")
        self.after = after
        super().__init__(reason)


class ActionRejected(Outcome):
    """The other side will never take this action: it ends as failed. Raised by an action's handler."""


class GiveUp(Outcome):
    """The listener will never take this event: it is not told again. Raised by a receiver."""


class Skip(Outcome):
    """The phase has nothing to do: it completes with the result `None` and the run continues."""
