"""What PostgreSQL says about a load: commits, flushes and bytes of its log, and what its sessions wait for."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import psutil
import psycopg

if TYPE_CHECKING:
    from types import TracebackType

#: Transactions that wrote, bytes of log, and what sessions have told so far; they tell when they end, at the latest.
_COUNTED: Final = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
       pg_current_wal_insert_lsn() - '0/0'::pg_lsn,
       (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal' AND context = 'normal'),
       (SELECT wal_fpi FROM pg_stat_wal)
"""
_ACTIVE: Final = """
SELECT wait_event_type, wait_event FROM pg_stat_activity
WHERE application_name = 'runclaim' AND state IN ('active', 'fastpath function call')
"""
_END: Final = "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = 'runclaim'"


@dataclass(frozen=True, slots=True)
class Counts:
    """What the server has done so far, or between two readings."""

    commits: int
    wal: int
    flushes: int
    pages: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.commits - other.commits,
            self.wal - other.wal,
            self.flushes - other.flushes,
            self.pages - other.pages,
        )


def address(url: str) -> str:
    """The URL as libpq reads it."""
    return url.replace("+psycopg", "", 1)


def counts(conn: psycopg.Connection[Any]) -> Counts:
    """Read all counters. Flushes are exact only after `end_sessions`."""
    row = conn.execute(_COUNTED).fetchone()
    return Counts(*(int(each or 0) for each in row or ()))


def end_sessions(conn: psycopg.Connection[Any]) -> None:
    """End every idle session of runclaim: each tells its last counters, and connects again when it is next used."""
    conn.execute(_END)  # type: ignore[arg-type]


def server_cpu(pid: int) -> float:
    """Seconds of CPU of a server and its processes so far, with those that have ended."""
    ours = psutil.Process(pid)
    found = 0.0
    for process in (ours, *ours.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found += times.user + times.system
        if process is ours:
            found += times.children_user + times.children_system
    return found


@dataclass(slots=True)
class Waits:
    """Samples what active sessions wait for while the block runs, fifty times a second."""

    url: str
    found: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop, name="waits", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        with psycopg.connect(address(self.url), autocommit=True, application_name="waits") as conn:
            while not self._stop.wait(0.02):
                for kind, name in conn.execute(_ACTIVE):
                    # No wait event: on a core, or waiting for one.
                    self.found["CPU" if kind is None else f"{kind}:{name}"] += 1
                    self.sessions += 1

    def share(self, *kinds: str) -> float:
        """The part of all samples whose event begins with one of `kinds`."""
        matching = sum(many for name, many in self.found.items() if name.startswith(kinds))
        return matching / max(1, self.sessions)

    def told(self, most: int = 5) -> str:
        """The most frequent events with their shares."""
        return ", ".join(f"{name} {many / max(1, self.sessions):.0%}" for name, many in self.found.most_common(most))
