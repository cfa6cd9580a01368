"""
Durable runs for Celery: every phase is claimed in a SQL ledger before it runs and committed there once.

Names are imported when they are first used, so that `import runclaim` stays cheap for a command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runclaim.app import Runclaim
    from runclaim.errors import (
        ActionRejected,
        Blocked,
        ClaimLost,
        InputError,
        KeyConflict,
        LedgerClosed,
        Retry,
        RunclaimError,
        RunExists,
        SchemaAhead,
        SchemaBehind,
        Skip,
    )
    from runclaim.flows.body.context import Context
    from runclaim.flows.client.handle import Run
    from runclaim.retries import Backoff
    from runclaim.states import RunState

__version__ = "0.1.0"
__all__ = [
    "ActionRejected",
    "Backoff",
    "Blocked",
    "ClaimLost",
    "Context",
    "InputError",
    "KeyConflict",
    "LedgerClosed",
    "Retry",
    "Run",
    "RunExists",
    "RunState",
    "Runclaim",
    "RunclaimError",
    "SchemaAhead",
    "SchemaBehind",
    "Skip",
]

_HOMES = {
    "Backoff": "runclaim.retries",
    "Context": "runclaim.flows.body.context",
    "Run": "runclaim.flows.client.handle",
    "RunState": "runclaim.states",
    "Runclaim": "runclaim.app",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'runclaim' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "runclaim.errors")), name)
