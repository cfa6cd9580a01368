"""
Taking an input: what is kept of it, what it names, and what it is compared by.

An application takes an input by its type (`TypedInputs`), a door without the application by the registered schema
(`RegisteredInputs`). What comes of it is one value, and the same for both: two doors make no two runs of one thing.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - a field's type
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from runclaim.errors import InputError

if TYPE_CHECKING:
    from runclaim.flows.declare.declared_flow import DeclaredFlow
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

    def take(self, given: Any, *, key: str | None = None, subject: str | None = None) -> Intake:
        """
        Take an input; `key` and `subject` are what a door was told beside it.

        Raises: InputError that names the field, `key` or `subject`; its text never holds what looks like a secret.
        """
        ...

    def take_recorded(self, recorded: Any, *, key: str, subject: str | None) -> Intake:
        """Take the input of an existing run, which has this key and subject, as the flow is now. Raises: InputError."""
        ...

    def key_of(self, claim: Claim) -> RunKey:
        """The run key that the input of a claim has. Raises: InputError."""
        ...


@dataclass(frozen=True, slots=True)
class TypedInputs:
    """Inputs are taken by their type, and the key and the subject are what the application makes of them."""

    flow: DeclaredFlow[Any]

    def take(self, given: Any, *, key: str | None = None, subject: str | None = None) -> Intake:
        """See `TakesInputs.take`."""
        flow = self.flow
        value, plain = flow.input_type.take(given)
        # Before what is made from it: an error of a key shows the value that the key cannot take.
        flow.secret_fields.check(plain)
        named, about = flow.key_of(value), flow.subject_of(value)
        flow.secret_fields.check_made(key=named.text, subject=about)
        _require_own("key", key, named.text)
        _require_own("subject", subject, about)
        return Intake(plain, named, about, flow.input_type.form.compared(plain), flow.input_type.comparable)

    def take_recorded(self, recorded: Any, *, key: str, subject: str | None) -> Intake:  # noqa: ARG002 - makes its own
        """See `TakesInputs.take_recorded`."""
        return self.take(self.flow.input_type.load(recorded))

    def key_of(self, claim: Claim) -> RunKey:
        """See `TakesInputs.key_of`."""
        return self.flow.key_of(self.flow.input_type.load(claim.input))


def _require_own(name: str, told: str | None, own: str | None) -> None:
    if told is not None and told != own:
        raise InputError(name, f"is computed by the application ({own!r} for this input); leave it out")
