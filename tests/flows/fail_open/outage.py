"""A bench whose database can go away and come back, and what tests of such flows share."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runclaim.flows.fail_open.local_records import LocalRecords
from runclaim.flows.fail_open.reconcile import Reconciler

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.flow import Flow
    from runclaim.ledger.dispatch import Due
    from tests.harness.bench import Bench


PATIENCE = timedelta(seconds=0.2)


MINUTE = timedelta(minutes=1)


class Earlier:
    """Stands for a phase before."""

    name = "earlier"


class Outage:
    """A bench whose database can go away and come back; meanwhile nobody reaches it."""

    def __init__(self, bench: Bench, take_away: Callable[[], object], bring_back: Callable[[], object]) -> None:
        self.bench, self._take_away, self._bring_back = bench, take_away, bring_back
        self.records = LocalRecords(Path(bench.config.fail_open_folder))
        self.bodies: list[str] = []
        _ = bench.ledger.database

    def begin(self) -> None:
        for database in (self.bench.database, self.bench.ledger.database, self.bench.keeper._database):
            database.close()
        self._take_away()

    def end(self) -> None:
        self._bring_back()

    def flow(self, *bodies: Any, fail_open: bool = True, **how: Any) -> Flow:
        """A flow of phases that note their starts and then do what they are told."""
        made = self.bench.flow(fail_open=fail_open, **how)
        for number, does in enumerate(bodies or (None,)):
            made.phase(name=f"phase{number}", idempotent=True)(self._noting(does))
        return made

    def _noting(self, does: Any) -> Any:
        def body(ctx):
            self.bodies.append(f"{ctx.key} {ctx.phase}")
            return ctx.input.head if does is None else does(ctx)

        return body

    def reconcile(self) -> int:
        return Reconciler(self.bench.ledger, self.records).reconcile_all()


def message(outage: Outage) -> Due:
    return outage.bench.rung.pop(0)
