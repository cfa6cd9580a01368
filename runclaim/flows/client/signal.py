"""
Signals from the application: checked where they are sent, delivered once, for the flow that waits for them.

A run is named by its id, or by its key's text; the text is read backwards through the flow's template.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.declare.secret_fields import refuse_references
from runclaim.keys import check_name, check_text, dump_json, nonce
from runclaim.ledger.signal import Signaled, delivered, signal
from runclaim.secrets import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from runclaim.flows.declare.declared_flow import DeclaredFlow

FlowT = TypeVar("FlowT", bound="DeclaredFlow[Any]")


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal on its way; `payload` is JSON text."""

    name: str
    id: str
    payload: str

    @classmethod
    def checked(
        cls,
        name: str,
        payload: Any,
        id: str | None,  # noqa: A002 - as in events
        *,
        allow_secrets: bool = False,
    ) -> Self:
        """Raises: InputError that names what cannot be recorded, or looks like a secret unless its flow allows them."""
        try:
            check_name("signal", name)
        except (DeclarationError, TypeError) as error:
            raise InputError("signal", f"{name!r:.120} is not a valid name for a signal") from error
        if not isinstance(id, str | None):
            raise InputError("id", f"is {id!r:.40}; pass text")
        text = dump_json("payload", payload)
        refuse_references("payload", payload)
        if not allow_secrets:
            refuse_secrets("payload", payload)
        return cls(name, name if id is None else check_text("id", id), text)

    #: Tells this very call from every other of the same signal.
    call: str = field(default_factory=nonce, compare=False)

    def deliver(self, conn: Connection, run_id: str, *, first_only: bool = False) -> Signaled:
        """As `ledger.signal`. The caller owns the transaction."""
        return signal(
            conn, run_id, self.name, signal_id=self.id, payload=self.payload, first_only=first_only, call=self.call
        )

    def delivered(self, conn: Connection, run_id: str) -> Signaled | None:
        """Read back: the answer of `deliver`, or `None` when it has not committed."""
        return delivered(conn, run_id, self.name, signal_id=self.id, call=self.call)


def flow_for(flows: Mapping[str, FlowT], name: str, asked: FlowT | str | None) -> FlowT:
    """The flow that is asked for, or else the only one with a phase that waits for `name`. Raises: InputError."""
    if asked is not None:
        found = flows.get(asked) if isinstance(asked, str) else asked
        if found is None:
            raise InputError("flow", f"there is no flow {asked}; this application has {', '.join(flows) or 'none'}")
        return found
    waiting = [flow for flow in flows.values() if any(phase.options.on == name for phase in flow.phases.values())]
    if len(waiting) != 1:
        said = f"{' and '.join(flow.name for flow in waiting)} wait" if waiting else "no flow waits"
        raise InputError("flow", f"{said} for the signal {name}; name one with flow=…")
    return waiting[0]
