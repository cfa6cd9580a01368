"""The same load on one ledger, on two databases of one server, and on two servers of one machine."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import psycopg

from benchmarks.growth_timing import quantile
from benchmarks.ledgers import migrate, up
from benchmarks.many_clients import Clients, Done, Load
from benchmarks.pages import table
from benchmarks.waits import Waits, address
from tests import servers
from tests.servers.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS, _CONNECTIONS, _GROUP = 6.0, 16, 20
_SETTINGS: Final = {"max_connections": "100", "shared_buffers": "256MB", "max_wal_size": "4GB"}


def measured(url: str, *, rounds: int, say: Callable[[str], None]) -> tuple[str, str]:
    """The name of the part and its table."""
    found: dict[tuple[str, str], list[tuple[Done, Waits]]] = {}
    with ExitStack() as stack:
        beside = stack.enter_context(servers.database(url))
        elsewhere = stack.enter_context(up(postgres(durable=True, settings=_SETTINGS))).url
        for each in (beside, elsewhere):
            migrate(each)
        ways = {"one ledger": [url], "two databases": [url, beside], "two servers": [url, elsewhere]}
        for turn in range(rounds):
            for flushed in ("on", "off"):
                _flush({url, beside, elsewhere}, flushed)
                for how in ways if turn % 2 == 0 else reversed(ways):
                    done, waits = _loaded(ways[how])
                    found.setdefault((flushed, how), []).append((done, waits))
                    say(f"ledgers: flush {flushed}, {how}: {done.rate:,.0f} runs a second; {waits.told()}")
    rows = []
    for (flushed, how), took in found.items():
        first = found[flushed, "one ledger"]
        ratios = [done.rate / base.rate for (done, _), (base, _) in zip(took, first, strict=True)]
        rows.append(
            [
                "yes" if flushed == "on" else "no",
                how,
                f"{statistics.median(done.rate for done, _ in took):,.0f}",
                f"**{statistics.median(ratios):.2f}**",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{statistics.median(quantile(done.claims, 0.5) for done, _ in took):.1f}",
                f"{statistics.median(quantile(done.claims, 0.99) for done, _ in took):.1f}",
            ]
        )
    return "ledgers", table(["flushed", "", "runs a second", "to one", "spread", "claim, p50 ms", "p99"], rows)


def _flush(urls: set[str], flushed: str) -> None:
    for url in urls:
        with psycopg.connect(address(url), autocommit=True) as conn:
            conn.execute(f"ALTER DATABASE {conn.info.dbname} SET synchronous_commit = {flushed}")  # type: ignore[arg-type]


def _loaded(urls: list[str]) -> tuple[Done, Waits]:
    loads = [Load(url, _CONNECTIONS // len(urls), _SECONDS, _GROUP) for url in urls]
    with Clients(*loads) as clients, Waits(urls[0]) as waits:
        return clients.go(), waits
