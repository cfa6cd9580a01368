"""
What the forge remembers, in one SQLite file: its comments, and what every request met.

A comment and the line about its request are one commit, so the count of what was applied is true after any kill.
Nothing is de-duplicated: two posts are two comments.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from forge.faults import Fault, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A comment on the whole pull request, or on a line of it.
Kind = Literal["issues", "pulls"]

_TABLES = """
CREATE TABLE IF NOT EXISTS comments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, repo TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, path TEXT, line INTEGER, commit_id TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')));
CREATE INDEX IF NOT EXISTS comments_of_a_pull_request ON comments (repo, number, kind, id);
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT, method TEXT NOT NULL, path TEXT NOT NULL, body TEXT,
    fault TEXT NOT NULL, applied INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS plan (only INTEGER PRIMARY KEY CHECK (only = 1), plan TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Comment:
    """A comment as its row has it; `path`, `line` and `commit_id` only for one on a line."""

    id: int
    repo: str
    number: int
    kind: Kind
    body: str
    path: str | None
    line: int | None
    commit_id: str | None
    created_at: str


@dataclass(frozen=True)
class Request:
    """One request in the log: what it met, and whether it took effect."""

    method: str
    path: str
    body: str | None
    fault: Fault
    applied: bool


class Store:
    """The forge's own hold on the file, for its threads; one request at a time decides and applies."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._conn = sqlite3.connect(file, timeout=15, isolation_level=None, check_same_thread=False)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.executescript(_TABLES)

    def close(self) -> None:
        with self._lock:
            self._conn.close()

    def set_plan(self, found: dict[str, Any]) -> Plan:
        """From the next request on, misbehave as it says. Raises: ValueError, TypeError; the old plan stays then."""
        with self._lock:
            plan = Plan.read(found, since=self._count("POST"))
            self._conn.execute("INSERT OR REPLACE INTO plan VALUES (1, ?)", [plan.write()])
            return plan

    def post(self, path: str, body: str, comment: dict[str, Any]) -> tuple[Fault, Plan, Comment | None]:
        """Decide what the request meets, apply it if it is to take effect, and log it; all in one commit."""
        with self._lock, _immediate(self._conn):
            plan, fault = self._decide("POST")
            made = self._add(comment) if fault.applies else None
            self._log("POST", path, body, fault, applied=fault.applies)
            return fault, plan, made

    def get(self, path: str) -> tuple[Fault, Plan]:
        """Decide what a request meets that only reads, and log it; there is nothing to apply, nor to refuse."""
        with self._lock, _immediate(self._conn):
            plan, fault = self._decide("GET")
            fault = Fault.NONE if fault is Fault.REFUSED else fault
            self._log("GET", path, None, fault, applied=False)
            return fault, plan

    def page(self, repo: str, number: int, kind: Kind, *, size: int, page: int) -> tuple[list[Comment], bool]:
        """One page of a pull request's comments, the oldest first, and whether there is another."""
        with self._lock:
            found = self._conn.execute(
                "SELECT * FROM comments WHERE repo = ? AND number = ? AND kind = ? ORDER BY id LIMIT ? OFFSET ?",
                [repo, number, kind, size + 1, (page - 1) * size],
            ).fetchall()
        return [Comment(*row) for row in found[:size]], len(found) > size

    def _decide(self, method: str) -> tuple[Plan, Fault]:
        row = self._conn.execute("SELECT plan FROM plan").fetchone()
        plan = Plan.read(json.loads(row[0]), since=0) if row else Plan()
        return plan, plan.fault(method, self._count(method) + 1)

    def _count(self, method: str) -> int:
        return int(self._conn.execute("SELECT count(*) FROM requests WHERE method = ?", [method]).fetchone()[0])

    def _add(self, comment: dict[str, Any]) -> Comment:
        row = self._conn.execute(
            "INSERT INTO comments (repo, number, kind, body, path, line, commit_id)"
            " VALUES (:repo, :number, :kind, :body, :path, :line, :commit_id) RETURNING *",
            {"path": None, "line": None, "commit_id": None} | comment,
        ).fetchone()
        return Comment(*row)

    def _log(self, method: str, path: str, body: str | None, fault: Fault, *, applied: bool) -> None:
        self._conn.execute(
            "INSERT INTO requests (method, path, body, fault, applied) VALUES (?, ?, ?, ?, ?)",
            [method, path, body, fault, applied],
        )


def comments(file: Path) -> list[Comment]:
    """Every comment there is, the oldest first; for whoever counts them, also while the forge is down."""
    with closing(sqlite3.connect(file, timeout=15)) as conn:
        return [Comment(*row) for row in conn.execute("SELECT * FROM comments ORDER BY id")]


def requests(file: Path) -> list[Request]:
    """Every request there was, in order."""
    with closing(sqlite3.connect(file, timeout=15)) as conn:
        rows = conn.execute("SELECT method, path, body, fault, applied FROM requests ORDER BY number")
        return [Request(method, path, body, Fault(fault), bool(applied)) for method, path, body, fault, applied in rows]


@contextmanager
def _immediate(conn: sqlite3.Connection) -> Iterator[None]:
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    conn.execute("COMMIT")
