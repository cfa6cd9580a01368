"""The same runs a second from few connections and from hundreds that are idle for most of the time."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks.growth_timing import quantile
from benchmarks.many_clients import Clients, Load
from benchmarks.pages import table
from benchmarks.pooler import pooler
from benchmarks.waits import address, server_cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS: Final = 10.0
_CONNECTIONS: Final = (8, 100, 200, 400)
#: Runs a second of all together; each connection is idle for most of the time.
_RATE: Final = 80
_SESSIONS: Final = "SELECT pid FROM pg_stat_activity WHERE application_name = 'runclaim'"


@dataclass(frozen=True, slots=True)
class Took:
    """One load; kilobytes of a session are its share of what it has in memory, shared buffers left out."""

    rate: float
    p50: float
    p99: float
    sessions: int
    kilobytes: float
    cpu: float


def measured(url: str, *, rounds: int, say: Callable[[str], None]) -> tuple[str, str]:
    """The name of the part and its table."""
    with pooler(url) as pooled, psycopg.connect(address(url), autocommit=True) as watch:
        # What waits for the disk waits for the same disk with any number of connections, and hides what differs.
        watch.execute(f"ALTER DATABASE {watch.info.dbname} SET synchronous_commit = off")  # type: ignore[arg-type]
        ways = [("directly", many, url) for many in _CONNECTIONS]
        if pooled is None:
            say("no pgbouncer on PATH: left out")
        else:
            say(pooled.how)
            ways += [("PgBouncer, 8", many, pooled.url) for many in (8, 400)]
        found: dict[tuple[str, int], list[Took]] = {each[:2]: [] for each in ways}
        for turn in range(rounds):
            for how, many, where in ways if turn % 2 == 0 else reversed(ways):
                took = _loaded(watch, where, many)
                found[how, many].append(took)
                say(f"connections: {many} {how}: {took}")
    rows = []
    for (how, many), took_all in found.items():
        middle = {name: statistics.median(getattr(each, name) for each in took_all) for name in Took.__slots__}
        rows.append(
            [
                f"{many}",
                how,
                f"{middle['rate']:.1f}",
                f"{middle['p50']:.1f}",
                f"{middle['p99']:.1f}",
                f"{middle['sessions']:.0f}",
                f"{middle['kilobytes'] / 1000:.1f}",
                f"{middle['cpu']:.2f}",
            ]
        )
    head = ["connections", "to PostgreSQL", "runs a second", "claim, p50 ms", "p99"]
    return "connections", table([*head, "sessions", "MB a session", "PostgreSQL, CPU ms a run"], rows)


def _loaded(watch: psycopg.Connection[Any], url: str, many: int) -> Took:
    postmaster = int(Path(str((watch.execute("SHOW data_directory").fetchone() or ("",))[0]), "postmaster.pid")
                     .read_text().split()[0])  # fmt: skip
    # Behind the pooler nothing is prepared, so there is nothing to warm but the connection.
    warm = 2 if "none" in url else 8
    with Clients(Load(url, many, _SECONDS, every=many / _RATE, warm=warm)) as clients:
        cpu = server_cpu(postmaster)
        done = clients.go()
        cpu = server_cpu(postmaster) - cpu
        sizes = list(_sizes(watch))
    return Took(
        rate=done.rate,
        p50=quantile(done.claims, 0.5),
        p99=quantile(done.claims, 0.99),
        sessions=len(sizes),
        kilobytes=statistics.mean(sizes) if sizes else 0.0,
        cpu=1000 * cpu / done.runs,
    )


def _sizes(watch: psycopg.Connection[Any]) -> Iterator[float]:
    for (pid,) in watch.execute(_SESSIONS).fetchall():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        told = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
        yield told["Pss_Anon"]
