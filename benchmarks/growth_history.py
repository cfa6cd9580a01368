"""
A ledger with N finished runs and all that hangs on them, spread over thirty days, and a small live population.

Each finished run has its key, three results and nine events; every fifth has a subject's generation of its own, every
tenth a session, a finding and a posted action. The rows are made by the database itself, in bulk.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from runclaim.keys import RunKey, run_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from runclaim.database import Database

DAYS: Final = 30
#: What the runs of a ledger are of; the first of each is what the live runs are of.
PROJECTS: Final = ("default", "web", "data", "infra")
FLOWS: Final = ("review", "index", "billing", "report")
TABLES: Final = ("runs", "run_keys", "phase_results", "events", "subjects", "sessions", "findings", "actions")
_DAY_US: Final = 86_400_000_000
_CHUNK: Final = 250_000
_INTO: Final = {
    "runs": """INSERT INTO runclaim_runs (id, project, flow, key, subject, generation, phases, input, cursor, phase,
        state, fence, attempts, max_attempts, max_losses, rerun, priority, losses, dispatches, pending_actions,
        available_at, dispatch_due_at, enqueued_at, started_at, finished_at)
    SELECT {id}, {project}, {flow}, 'old-' || n, 'pr-' || (n / 5), n % 5, '["plan", "deliver", "compound"]',
        {input}, 3, 'compound', {state}, 4, 1, 3, 3, 0, 0, 0, 0, 0, {begun}, {begun}, {at}, {begun}, {ended}""",
    "run_keys": """INSERT INTO runclaim_run_keys (namespace, key_hash, run_id, fingerprint, expires_at)
    SELECT {project} || '/' || {flow}, {hash}, {id}, {hash}, {expires}""",
    "phase_results": """INSERT INTO runclaim_phase_results
        (run_id, phase, position, result, fence, owner, worker, attempts, started_at, finished_at)
    SELECT {id}, phase, position, '["src/app.py", "src/views.py"]', position + 1, 'fedcba9876543210',
        'worker@node:4711', 1, {begun}, {ended}""",
    "events": """INSERT INTO runclaim_events (run_id, type, phase, attempt, fence, at)
    SELECT {id}, CASE WHEN ends THEN 'run.' || {state} ELSE type END, phase, attempt, fence, {ended}""",
    "subjects": """INSERT INTO runclaim_subjects (project, flow, subject, generation)
    SELECT {project}, {flow}, 'pr-' || (n / 5), 4""",
    "sessions": """INSERT INTO runclaim_sessions
        (id, run_id, phase, role, status, blocking_count, started_at, completed_at)
    SELECT {id}, {id}, 'deliver', 'security', 'completed', 0, {begun}, {ended}""",
    "findings": """INSERT INTO runclaim_findings (id, run_id, phase, session_id, severity, title, path, line, found_at)
    SELECT {id}, {id}, 'deliver', {id}, 'major', 'an unchecked return value', 'src/app.py', 7, {ended}""",
    "actions": """INSERT INTO runclaim_actions (id, run_id, phase, name, kind, payload, finding_id, idempotency_key,
        state, attempts, uncertain, superseded, fence, available_at, planned_at, ended_at)
    SELECT {id}, {id}, 'deliver', '0', 'comment', '{{"body": "a comment"}}', {id}, 'key-' || n, 'posted', 1, false,
        false, 2, {ended}, {ended}, {ended}""",
}
_RESULTS: Final = (("plan", 0), ("deliver", 1), ("compound", 2))
_EVENTS: Final = (
    ("run.enqueued", None, None, 0, False),
    ("run.started", None, None, 1, False),
    *(
        (f"phase.{what}", phase, 1, number + 1 + (what == "completed"), False)
        for phase, number in _RESULTS
        for what in ("started", "completed")
    ),
    ("", None, None, 4, True),
)
_BESIDE: Final = {
    "phase_results": ("phase, position", _RESULTS),
    "events": ("type, phase, attempt, fence, ends", _EVENTS),
}
_INPUT: Final = """'{"repo": "acme/app", "number": ' || n || ', "base": "a1b2c3d4e5f6", "head": "f6e5d4c3b2a1"}'"""
_NULLS: Final = {"phase": "CAST(NULL AS TEXT)", "attempt": "CAST(NULL AS INTEGER)"}
_EVERY: Final = {"subjects": 5, "sessions": 10, "findings": 10, "actions": 10}
_POSTGRESQL: Final = {
    "id": "CAST(lpad(to_hex({ms}), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' ||"
    " lpad(to_hex(n), 15, '0') AS uuid)",
    "hash": "encode(sha256(int4send(length('old-' || n)) || convert_to('old-' || n, 'UTF8')), 'hex')",
    "input": f"CAST({_INPUT} AS jsonb)",
    "instant": "to_timestamp(({us}) / 1e6)",
    "series": "generate_series({first}, {last}) AS series(n)",
}
_SQLITE: Final = {
    "id": "printf('%08x-%04x-7%03x-8000-%012x', ({ms}) >> 16, ({ms}) & 65535, n % 4096, n)",
    "hash": "key_hash('old-' || n)",
    "input": _INPUT,
    "instant": "({us})",
    "series": "(WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {last})"
    " SELECT n FROM series) AS series",
}


@dataclass(frozen=True, slots=True)
class History:
    """N finished runs, numbered from 1, the oldest: what is known of each without asking the ledger."""

    many: int
    #: Microseconds since 1970.
    ends_at: int

    @property
    def step(self) -> int:
        """Microseconds between two runs."""
        return DAYS * _DAY_US // self.many

    def at(self, number: int) -> int:
        """When the run of that number was enqueued, in microseconds since 1970."""
        return self.ends_at - DAYS * _DAY_US + number * self.step

    def id_of(self, number: int) -> str:
        """The id of the run of that number."""
        ms = f"{self.at(number) // 1000:012x}"
        return f"{ms[:8]}-{ms[8:]}-7{number % 4096:03x}-8000-{number:012x}"

    def key_of(self, number: int) -> RunKey:
        """Its key."""
        return run_key([f"old-{number}"])

    def place(self, share: float) -> str:
        """Where a page of the list begins that comes after this share of the runs, the oldest first."""
        from datetime import UTC, datetime

        number = max(1, int(self.many * share))
        at = datetime.fromtimestamp(self.at(number) / 1e6, UTC)
        return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z/{self.id_of(number)}"


def load(database: Database, history: History, *, say: Callable[[str], None]) -> None:
    """Fill an empty ledger with `history`; foreign keys are not checked meanwhile, as every row has its run."""
    with _in_bulk(database) as conn:
        for table in TABLES:
            most = 10 * _CHUNK if table in _EVERY else _CHUNK
            for first in range(1, history.many + 1, most):
                last = min(first + most - 1, history.many)
                conn.exec_driver_sql(_statement(table, history, first, last, dialect=database.url.get_backend_name()))
                say(f"{history.many:,} runs: {table}, {last / history.many:.0%}")


def _statement(table: str, history: History, first: int, last: int, *, dialect: str) -> str:
    own = _POSTGRESQL if dialect == "postgresql" else _SQLITE
    at = f"{history.at(0)} + CAST(n AS BIGINT) * {history.step}"

    def instant(after: int) -> str:
        return own["instant"].format(us=f"{at} + {after}")

    said = {
        "id": own["id"].format(ms=f"({at}) / 1000"),
        "hash": own["hash"],
        "input": own["input"],
        "project": _one_of(PROJECTS, "n / 7 % 10", (7, 8, 9)),
        "flow": _one_of(FLOWS, "n % 10", (6, 8, 9)),
        "state": _one_of(("succeeded", "failed", "superseded", "canceled"), "n / 3 % 20", (16, 18, 19)),
        "at": instant(0),
        "begun": instant(1_000_000),
        "ended": instant(9_000_000),
        "expires": instant(90 * _DAY_US),
    }
    rows = own["series"].format(first=first, last=last)
    if table in _BESIDE:
        columns, values = _BESIDE[table]
        rows += f" CROSS JOIN ({_values(columns.split(', '), values)}) AS beside"
    which = f" WHERE n % {_EVERY[table]} = 0" if table in _EVERY else ""
    return _INTO[table].format(**said) + f" FROM {rows}{which}"


def _one_of(names: tuple[str, ...], number: str, bounds: tuple[int, ...]) -> str:
    cases = (f"WHEN {number} < {bound} THEN '{name}'" for name, bound in zip(names, bounds, strict=False))
    return f"CASE {' '.join(cases)} ELSE '{names[-1]}' END"


def _values(columns: list[str], rows: tuple[tuple[Any, ...], ...]) -> str:
    def sql(name: str, value: object) -> str:
        if value is None:
            return _NULLS[name]
        return f"'{value}'" if isinstance(value, str) else str(value)

    selects = (
        ", ".join(f"{sql(name, value)} AS {name}" for name, value in zip(columns, row, strict=True)) for row in rows
    )
    return " UNION ALL ".join(f"SELECT {each}" for each in selects)


@contextmanager
def _in_bulk(database: Database) -> Iterator[Connection]:
    """A connection that loads as fast as its database can; what it does is committed at the end."""
    with database.engine.connect() as conn:
        raw: Any = conn.connection.dbapi_connection
        if database.url.get_backend_name() == "postgresql":
            conn.exec_driver_sql("SET LOCAL session_replication_role = replica")
            # What fills a table that was emptied in the same transaction is not written ahead.
            conn.exec_driver_sql(f"TRUNCATE {', '.join(f'runclaim_{table}' for table in TABLES)} CASCADE")
            yield conn
            conn.commit()
            return
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("PRAGMA synchronous = OFF")
        raw.create_function("key_hash", 1, _hash, deterministic=True)
        yield conn
        conn.commit()
        conn.invalidate()


def _hash(text: str) -> str:
    return sha256(len(text).to_bytes(4, "big") + text.encode()).hexdigest()
