"""The ledger's metrics in Flower's /metrics, which shows what is in prometheus_client's own registry."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from celery import signals

from runclaim.database import Database

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.tasks.runtime import Runtime


def attach(app: Celery, runtime: Runtime) -> None:
    """Register a collector when Flower loads the application; no other process gets one."""

    def loaded(sender: Any = None, **_kwargs: Any) -> None:
        context = click.get_current_context(silent=True)
        if sender is app and context is not None and context.info_name == "flower":
            register(runtime)

    signals.import_modules.connect(loaded, weak=False)


def register(runtime: Runtime) -> None:
    """Register it now, for a Flower that is started without its command."""
    from prometheus_client import REGISTRY

    from runclaim.metrics import LedgerCollector

    # Of its own and without patience: the scraped process, such as Flower, does nothing else meanwhile.
    database = Database(runtime.ledger.config.database_url, pool_size=1, patience=timedelta(0))
    REGISTRY.register(LedgerCollector(lambda: database))
