"""What a worker refuses to start with: settings under which the promise would be empty."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.config import Config

_PICKLE = frozenset({"pickle", "application/x-python-serialize"})


def refusals(app: Celery, config: Config) -> list[str]:
    """Each reason not to start, as a sentence that says what to do; empty when there is none."""
    found = []
    for setting in ("accept_content", "result_accept_content"):
        accepted = set(app.conf.get(setting) or ())
        if accepted & _PICKLE:
            rest = sorted(accepted - _PICKLE) or ["json"]
            found.append(
                f"{setting} lets pickle in: whoever can write to the broker could run code here."
                f" Set app.conf.{setting} = {rest}"
            )
    if config.database_url.startswith("sqlite") and _is_gevent():
        found.append(
            "the pool is gevent and the ledger is SQLite, which blocks every greenlet while it waits."
            " Use PostgreSQL, or the prefork or threads pool"
        )
    return found


def _is_gevent() -> bool:
    patched = sys.modules.get("gevent.monkey")
    return patched is not None and bool(patched.is_module_patched("socket"))
