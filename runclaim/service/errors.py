"""What this room refuses, in addition to the public errors; each door words it for its own users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.errors import RunclaimError

if TYPE_CHECKING:
    from collections.abc import Sequence


class UnknownFlow(RunclaimError):
    """No flow of that name is known here; `known` are those that are."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, known
        super().__init__(f"flow {name} is not registered: start a worker of its application, which registers it")


class ListenerNotFound(RunclaimError):
    """No listener has that name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no listener {name}")


class RequestInFlight(RunclaimError):
    """Another request with the same idempotency key is being answered. Try again: the answer will be the same."""

    def __init__(self) -> None:
        super().__init__("a request with this idempotency key is being answered; try again")


class KeyReused(RunclaimError):
    """The idempotency key was used for another request. Use a new one."""

    def __init__(self) -> None:
        super().__init__("the idempotency key was used for another request; use a new one")
