"""What tests of flows that fail open share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runclaim.flows.fail_open import backlog
from tests.flows.fail_open.outage import PATIENCE, Outage
from tests.gate import Gate
from tests.harness.bench import Bench
from tests.harness.ledgers import put_away

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are told when a test says so."""
    monkeypatch.setattr(backlog, "EVERY_SECONDS", 3600.0)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    """A file whose disk is gone, or a server that nobody gets through to."""
    settings = {"ledger_patience": PATIENCE, "fail_open_folder": str(tmp_path / "open")}
    if request.param == "sqlite":
        disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
        disk.mkdir()
        bench = Bench(f"sqlite:///{disk / 'ledger.db'}", **settings)
        yield Outage(bench, lambda: disk.rename(elsewhere), lambda: elsewhere.rename(disk))
        bench.keeper.shut()
        bench.close()
        return
    with Gate(request.getfixturevalue("bench_postgres_url")) as gate:
        bench = Bench(gate.url, **settings)
        yield Outage(bench, gate.shut, gate.open)
        bench.keeper.shut()
        put_away(bench)
