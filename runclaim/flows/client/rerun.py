"""A rerun of an existing run: its input as it was recorded, its phases as its flow declares them now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runclaim.errors import InputError
from runclaim.flows.client.options import Enqueuing, Options
from runclaim.ledger.run_keys import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView


def again(
    access: LedgerAccess,
    flow: DeclaredFlow[Any],
    view: RunView,
    fingerprint_of: Callable[[tuple[str, str]], str | None],
) -> NewRun:
    """
    The new run that a rerun of `view` makes; nothing is written.

    Raises: InputError when the recorded input no longer fits the flow, or makes another key now.
    """
    enqueuing = Enqueuing(flow, access, Options(rerun=True, project=view.project, priority=view.priority))
    new = enqueuing.new_run(flow.input_type.load(view.input))
    # The input is the recorded one, whatever defaults its type has been given since.
    fingerprint = fingerprint_of(key_of(new))
    if fingerprint is None or new.key.text != view.key:
        problem = f"of run {view.id} was {view.key!r} and flow {flow.name} now makes {new.key.text!r}; enqueue it again"
        raise InputError("key", problem)
    # As its headers: whoever asks for the rerun, often a person with a command, is not whoever enqueued it.
    return replace(new, input=view.input, fingerprint=fingerprint, headers=view.headers)
