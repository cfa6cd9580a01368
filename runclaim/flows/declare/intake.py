"""
Taking an input: what is kept of it, what it names, and what it is compared by.

An application takes an input by its type (`DeclaredFlow`), a door without the application by the registered schema
(`RegisteredFlow`). What comes of it is one value, and is the same for both: two doors make no two runs of one thing.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - a field's type
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runclaim.keys import RunKey
    from runclaim.ledger.fence import Claim


def as_it_is(recorded: Any) -> Any:
    """What a recorded input is compared by where nothing is known of its type."""
    return recorded


@dataclass(frozen=True, slots=True)
class Intake:
    """An input that was taken; nothing in it is refused any more."""

    #: The JSON data that is kept.
    plain: Any
    key: RunKey
    subject: str | None
    #: The same for all inputs that are equal.
    compared: Any
    #: What a recorded input is compared by, as the type reads it now. Raises: InputError when it cannot.
    comparable: Callable[[Any], Any] = field(default=as_it_is, repr=False, compare=False)


class TakesInputs(Protocol):
    """Whatever takes the inputs of one flow."""

    def take(self, given: Mapping[str, Any], *, key: str | None = None, subject: str | None = None) -> Intake:
        """
        Take an input; `key` and `subject` are what a door was told beside it.

        Raises: InputError that names the field, `key` or `subject`; its text never holds what looks like a secret.
        """
        ...

    def take_recorded(self, recorded: Any, *, key: str, subject: str | None) -> Intake:
        """
        Take the input of a run once more, as the flow is now; `key` and `subject` are the run's.

        Raises: InputError.
        """
        ...

    def key_of_claim(self, claim: Claim) -> RunKey:
        """The run key that the claim's input has. Raises: InputError."""
        ...
