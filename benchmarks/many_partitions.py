"""
Partitioning, tried on plain tables of runs and their events: the claim by id, and the end of a day's runs.

By id: a partition is a range of UUIDv7, which begin with the time, so the id tells the partition. By the time of
enqueuing: an id alone is looked for in each partition.
"""

from __future__ import annotations

import statistics
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks.pages import table
from benchmarks.waits import address, counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DAYS, _A_DAY, _CLAIMS, _BATCH = 30, 4_000, 300, 500
_EVENTS: Final = 9
_WARM: Final = 20
_FIRST: Final = 1_767_225_600_000
_DAY: Final = 86_400_000
_RUNS: Final = "id uuid NOT NULL, state text NOT NULL, fence bigint NOT NULL, rest text, enqueued_at bigint NOT NULL"
#: What the table is partitioned by, and its primary key, which has to hold that.
_KINDS: Final = {
    "one table": ("", "id"),
    "ranges of id": ("RANGE (id)", "id"),
    "ranges of time": ("RANGE (enqueued_at)", "id, enqueued_at"),
    "hash of id": ("HASH (id)", "id"),
}


def measured(url: str, *, rounds: int, say: Callable[[str], None]) -> tuple[str, str]:
    """The name of the part and its table."""
    took: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    rows = []
    with psycopg.connect(address(url), autocommit=True, prepare_threshold=0) as conn:
        conn.execute("SET synchronous_commit = off")
        names = {kind: f"p{number}" for number, kind in enumerate(_KINDS)}
        for kind, name in names.items():
            _make(conn, name, kind)
            say(f"partitions: {kind} made")
        for number in range(_CLAIMS * rounds):
            for kind in names if number % 2 == 0 else reversed(names):
                took[kind].append(_claimed(conn, names[kind], number))
        for kind, name in names.items():
            buffers, planning = _explained(conn, name)
            claim = [f"{statistics.median(took[kind][_WARM:]):.3f}", f"{buffers}", f"{planning:.2f}"]
            rows.append([kind, *claim, *_told(_deleted(conn, name))])
            rows[-1] += _told(_dropped(conn, name)) if kind.startswith("ranges") else ["", ""]
    head = ["partitioned by", "claim by id, ms", "pages it reads", "planning, ms", "a day deleted, ms", "its WAL, MB"]
    return "partitions", table([*head, "a day dropped, ms", "its WAL, MB"], rows)


def _told(ended: tuple[int, float]) -> list[str]:
    return [f"{ended[1]:.0f}", f"{ended[0] / 1e6:.2f}"]


def _run_id(day: int, number: int) -> uuid.UUID:
    """An id as UUIDv7 has them: 48 bits of time, then chance."""
    at = _FIRST + day * _DAY + number * (_DAY // (_A_DAY + 1))
    return uuid.UUID(int=at << 80 | 7 << 76 | 2 << 62 | (number * 2_654_435_761 % (1 << 60)))


def _bounds(kind: str, day: int) -> str:
    if kind == "hash of id":
        return f"WITH (MODULUS {_DAYS}, REMAINDER {day})"
    first, last = (_FIRST + each * _DAY for each in (day, day + 1))
    if kind == "ranges of id":
        return f"FROM ('{uuid.UUID(int=first << 80)}') TO ('{uuid.UUID(int=last << 80)}')"
    return f"FROM ({first}) TO ({last})"


def _do(conn: psycopg.Connection[Any], statement: str) -> None:
    conn.execute(statement.encode(), prepare=False)


def _make(conn: psycopg.Connection[Any], name: str, kind: str) -> None:
    by, key = _KINDS[kind]
    parts = f" PARTITION BY {by}" if by else ""
    _do(conn, f"CREATE TABLE {name} ({_RUNS}, PRIMARY KEY ({key})){parts}")
    # The children go the way of their run: partitioned alike, where there is a key that both have.
    events = "run_id uuid NOT NULL, n int NOT NULL, enqueued_at bigint NOT NULL, rest text"
    theirs = parts.replace("(id)", "(run_id)")
    event_key = "run_id, n, enqueued_at" if "time" in kind else "run_id, n"
    _do(conn, f"CREATE TABLE {name}_events ({events}, PRIMARY KEY ({event_key})){theirs}")
    if by:
        for day in range(_DAYS):
            for table_name in (name, f"{name}_events"):
                _do(conn, f"CREATE TABLE {table_name}_{day} PARTITION OF {table_name} FOR VALUES {_bounds(kind, day)}")
    with conn.cursor().copy(f"COPY {name} FROM STDIN".encode()) as copy:
        for row in _rows():
            copy.write_row(row)
    made = f"SELECT id, n, enqueued_at, repeat('e', 60) FROM {name}, generate_series(1, {_EVENTS}) n"  # noqa: S608
    _do(conn, f"INSERT INTO {name}_events {made}")
    _do(conn, f"VACUUM (ANALYZE) {name}, {name}_events")


def _rows() -> Iterator[tuple[Any, ...]]:
    for day in range(_DAYS):
        for number in range(_A_DAY):
            run_id = _run_id(day, number)
            yield run_id, "queued", 0, "x" * 300, run_id.int >> 80


def _claimed(conn: psycopg.Connection[Any], name: str, number: int) -> float:
    run_id = _run_id(_DAYS - 1, number)
    began = time.perf_counter()
    found = conn.execute(_claim(name), [run_id]).rowcount
    took = 1000 * (time.perf_counter() - began)
    if found != 1:
        raise AssertionError(f"{run_id} was not there")
    return took


def _claim(name: str) -> bytes:
    return f"UPDATE {name} SET state = 'running', fence = fence + 1 WHERE id = %s AND state = 'queued'".encode()  # noqa: S608


def _explained(conn: psycopg.Connection[Any], name: str) -> tuple[int, float]:
    """Pages that a claim finds in memory, and milliseconds of its planning when it is not prepared."""
    asked = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + _claim(name)
    ((told,),) = conn.execute(asked, [_run_id(_DAYS - 2, 1)]).fetchone() or ((None,),)
    plan = told["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], told["Planning Time"]


def _deleted(conn: psycopg.Connection[Any], name: str) -> tuple[int, float]:
    """Bytes of log and milliseconds of the first day's end, in batches, the events first."""
    before, began = counts(conn), time.perf_counter()
    for start in range(0, _A_DAY, _BATCH):
        ids = [_run_id(0, number) for number in range(start, start + _BATCH)]
        with conn.transaction():
            conn.execute(f"DELETE FROM {name}_events WHERE run_id = ANY(%s)".encode(), [ids])  # noqa: S608
            conn.execute(f"DELETE FROM {name} WHERE id = ANY(%s)".encode(), [ids])  # noqa: S608
    took = 1000 * (time.perf_counter() - began)
    return (counts(conn) - before).wal, took


def _dropped(conn: psycopg.Connection[Any], name: str) -> tuple[int, float]:
    """The same of the second day, as partitions that are dropped."""
    before, began = counts(conn), time.perf_counter()
    for part in (f"{name}_events_1", f"{name}_1"):
        _do(conn, f"DROP TABLE {part}")
    took = 1000 * (time.perf_counter() - began)
    return (counts(conn) - before).wal, took
