"""
What the message of a fail-open flow carries: enough to run a phase, and to make its run, while the ledger is away.

An input above the cap is not carried; that run waits for the ledger like any other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import InputError
from runclaim.keys import check_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import UnionType

    from runclaim.flows.declare.declared_flow import DeclaredFlow

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
    """What a message carries, as `carried_input` made it. Raises: InputError for anything else."""
    if not isinstance(carried, dict) or carried.keys() | _OPTIONAL != _TYPES.keys():
        raise InputError("carried", f"is {carried!r:.60}; it must have {', '.join(_TYPES)}")
    for name, value in carried.items():
        if not isinstance(value, _TYPES[name]):
            raise InputError(f"carried.{name}", f"is {value!r:.60}")
    for name in ("key", "subject"):
        if carried[name] is not None:
            check_text(f"carried.{name}", carried[name])
    return carried


def carried_input(
    flow: DeclaredFlow[Any] | None,
    *,
    project: str | None,
    key: str,
    subject: str | None,
    priority: int | None,
    value: Any,
    headers: dict[str, Any] | None,
    rerun: int = 0,
) -> dict[str, Any] | None:
    """What the message of a run carries; `None` unless its flow fails open and the input fits."""
    if flow is None or not flow.fail_open:
        return None
    carried = {"project": project, "key": key, "subject": subject, "priority": priority, "input": value}
    carried |= ({} if headers is None else {"headers": headers}) | ({"rerun": rerun} if rerun else {})
    return carried if len(json.dumps(carried)) <= MAX_CARRIED_BYTES else None
