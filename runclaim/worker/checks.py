"""What a worker refuses to start with: settings under which the promise would be empty."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.config import Config

_JSON = frozenset({"json", "application/json"})


def refusals(app: Celery, config: Config) -> list[str]:
    """Each reason not to start, as a sentence that says what to do; empty when there is none."""
    found = []
    for setting in ("accept_content", "result_accept_content"):
        accepted = app.conf.get(setting)
        if accepted and (other := sorted(set(accepted) - _JSON)):
            found.append(
                f"{setting} lets {', '.join(other)} in: whoever can write to the broker could run code here."
                f" Set app.conf.{setting} = ['json']"
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
