"""A rerun of an existing run: its input as it was recorded, its phases as its flow declares them now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runclaim import tracing
from runclaim.errors import InputError
from runclaim.flows.client.new_run import Options, new_run
from runclaim.ledger.run_keys import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.declare.description import FlowDescription
    from runclaim.flows.declare.intake import TakesInputs
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView


def rerun_of(
    description: FlowDescription,
    flow: TakesInputs,
    view: RunView,
    fingerprint_of: Callable[[tuple[str, str]], str | None],
) -> NewRun:
    """
    The new run that a rerun of `view` makes; nothing is written. `fingerprint_of` reads what a key stands for.

    Raises: InputError when the recorded input no longer fits the flow, or makes another key now.
    """
    intake = flow.take_recorded(view.input, key=view.key, subject=view.subject)
    options = Options(priority=view.priority, rerun=True)
    new = new_run(description, intake, options, project=view.project, trace_context=tracing.carrier())
    # The input is the recorded one, whatever defaults its type has been given since.
    fingerprint = fingerprint_of(key_of(new))
    if fingerprint is None or new.key.text != view.key:
        problem = (
            f"of run {view.id} was {view.key!r} and flow {description.name} now computes another; enqueue it again"
        )
        raise InputError("key", problem)
    # As its headers: the rerun often comes from a person with a command, not from the enqueuer.
    return replace(new, input=view.input, fingerprint=fingerprint, headers=view.headers)
