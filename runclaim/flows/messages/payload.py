"""
What the message of a fail-open flow carries: enough to run a phase, and to make its run, while the ledger is away.

An input above the cap is not carried; that run waits for the ledger like any other.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import InputError, LedgerUnavailable
from runclaim.keys import check_text
from runclaim.ledger import read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import UnionType

    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.fence import Claim

#: In bytes of JSON. Brokers keep messages in memory.
MAX_CARRIED_BYTES: Final = 64 * 1024


_TYPES: Final[Mapping[str, type | UnionType]] = {
    "project": str | None,
    "key": str,
    "subject": str | None,
    "priority": int | None,
    "input": object,
    # Only where the application puts something there.
    "headers": dict,
    # Only of reruns.
    "rerun": int,
}
_OPTIONAL: Final = {"headers", "rerun"}


def check_carried(carried: object) -> dict[str, Any]:
    """What a message carries, as `load` made it. Raises: InputError for what somebody else made."""
    if not isinstance(carried, dict) or carried.keys() | _OPTIONAL != _TYPES.keys():
        raise InputError("carried", f"is {carried!r:.60}; it has {', '.join(_TYPES)}")
    for name, value in carried.items():
        if not isinstance(value, _TYPES[name]):
            raise InputError(f"carried.{name}", f"is {value!r:.60}")
    for name in ("key", "subject"):
        if carried[name] is not None:
            check_text(f"carried.{name}", carried[name])
    return carried


def load(
    due: Due,
    flow: DeclaredFlow[Any] | None,
    *,
    project: str | None,
    subject: str | None,
    value: Any,
    headers: dict[str, Any] | None,
    rerun: int = 0,
) -> Due:
    """The message with its run's input, if its flow fails open and the input fits."""
    if flow is None or not flow.fail_open:
        return due
    carried = {"project": project, "key": due.key, "subject": subject, "priority": due.priority, "input": value}
    carried |= ({} if headers is None else {"headers": headers}) | ({"rerun": rerun} if rerun else {})
    return replace(due, carried=carried) if len(json.dumps(carried)) <= MAX_CARRIED_BYTES else due


def load_of(due: Due, flow: DeclaredFlow[Any], taken: Claim) -> Due:
    """As `load`, for the phase after the one of a claim."""
    return load(
        due,
        flow,
        project=taken.project,
        subject=taken.subject,
        value=taken.input,
        headers=taken.headers,
        rerun=taken.rerun,
    )


def load_all(database: Database, flows: Mapping[str, DeclaredFlow[Any]], due: Sequence[Due]) -> Sequence[Due]:
    """As `load`, with what the ledger knows of each run; without it, should the ledger go away at this moment."""
    ids = [each.run_id for each in due if (flow := flows.get(each.flow)) is not None and flow.fail_open]
    if not ids:
        return due
    try:
        known = database.ask(lambda conn: read.inputs(conn, ids), patience=0)
    except LedgerUnavailable:
        return due
    return [load(each, flows[each.flow], **found) if (found := known.get(each.run_id)) else each for each in due]
