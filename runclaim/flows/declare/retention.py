"""How long the finished runs of a flow are kept: what the flow says, else the application's settings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING

from runclaim.errors import DeclarationError
from runclaim.retries import LONGEST
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runclaim.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """One time for each state in which a run ends; `None` takes the application's setting."""

    keep_succeeded: timedelta | None = None
    keep_failed: timedelta | None = None
    keep_canceled: timedelta | None = None
    keep_superseded: timedelta | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (isinstance(value, timedelta) and timedelta(0) < value <= LONGEST):
                raise DeclarationError(f"{field.name} must be a timedelta greater than zero, not {value!r}")

    def keep(self, config: Config) -> dict[RunState, timedelta]:
        """State → how long."""
        return {
            RunState.SUCCEEDED: self.keep_succeeded or config.keep_succeeded,
            RunState.FAILED: self.keep_failed or config.keep_failed,
            RunState.CANCELED: self.keep_canceled or config.keep_canceled,
            RunState.SUPERSEDED: self.keep_superseded or config.keep_superseded,
        }


def of_strangers(config: Config, known: Iterable[Retention]) -> dict[RunState, timedelta]:
    """
    State → how long the runs of flows are kept that this application does not know.

    A ledger may serve several applications, and what another one keeps is not for this one to delete: the longest
    time that this one knows, whatever the state.
    """
    settings = [Retention(), *known]
    longest = max(kept for each in settings for kept in each.keep(config).values())
    return dict.fromkeys(Retention().keep(config), longest)
