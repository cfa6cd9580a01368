"""
Actions: how a planned call to the outside world is made, and how one that may have arrived is looked up.

A handler that returns has posted. `Retry` says that nothing was sent, `ActionRejected` that the other side will never
take it; any other exception leaves it open whether the call arrived.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import DeclarationError
from runclaim.keys import check_name
from runclaim.retries import LONGEST, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    #: `handler(payload, idempotency_key)` returns the upstream id.
    Handler = Callable[[Any, str], str | int | None]
    #: `lookup(payload, idempotency_key)` returns the upstream id of what arrived, or `None`.
    Lookup = Callable[[Any, str], str | int | None]

_MOST_ATTEMPTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOptions:
    """How an action is sent."""

    #: Sends, whatever ended them. What may have arrived is still looked up afterwards, as often again.
    max_attempts: int = 8
    backoff: Backoff = field(default_factory=Backoff)
    #: How long a send may take; after it the sender is given up and the call may have arrived.
    max_duration: timedelta = timedelta(minutes=1)
    #: The other side does nothing twice for one idempotency key: what may have arrived is simply sent again.
    idempotent: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.max_attempts, int) and 1 <= self.max_attempts <= _MOST_ATTEMPTS):
            raise DeclarationError(
                f"max_attempts must be a number from 1 to {_MOST_ATTEMPTS}, not {self.max_attempts!r}"
            )
        if not isinstance(self.backoff, Backoff):
            raise DeclarationError(f"backoff must be a Backoff(first=…, factor=…, ceiling=…), not {self.backoff!r}")
        if not (isinstance(self.max_duration, timedelta) and timedelta(0) < self.max_duration <= LONGEST):
            raise DeclarationError(f"max_duration must be a timedelta greater than zero, not {self.max_duration!r}")


class Action:
    """A declared kind of action. Calling it calls the handler, with nothing recorded."""

    def __init__(self, kind: str, handler: Handler, options: ActionOptions) -> None:
        self.kind, self.options, self.handler = check_name("action", kind), options, handler
        _check("handler", kind, handler)
        self.looks_up: Lookup | None = None
        self.__doc__ = handler.__doc__

    def lookup(self, ask: Lookup) -> Lookup:
        """
        Declare how to ask the other side whether a call under an idempotency key has arrived.

        It is asked before anything is sent again. Raises: DeclarationError for a second one.
        """
        if self.looks_up is not None:
            raise DeclarationError(f"action {self.kind} already has a lookup")
        _check("lookup", self.kind, ask)
        self.looks_up = ask
        return ask

    def __call__(self, payload: Any, idempotency_key: str) -> str | int | None:
        """Make the call once."""
        return self.handler(payload, idempotency_key)

    def __repr__(self) -> str:
        return f"<action {self.kind}>"


def _check(what: str, kind: str, given: Any) -> None:
    if not callable(given) or inspect.iscoroutinefunction(given):
        raise DeclarationError(f"the {what} of action {kind} must be a plain function, not {given!r}")
    try:
        inspect.signature(given).bind(None, "")
    except TypeError:
        raise DeclarationError(
            f"the {what} of action {kind} must take the payload and the idempotency key: def {what}(payload, key)"
        ) from None
    except ValueError:
        pass  # a callable without a signature
