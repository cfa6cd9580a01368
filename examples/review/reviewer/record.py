"""
What the demo judges by, outside of runclaim's ledger: rows in tables without any constraint, and files of body starts.

A constraint would hide a doubled row and a rewritten file a repeated start, so there is neither.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Double, Engine, Integer, MetaData, NullPool, Table, Text, create_engine, insert

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from reviewer.work import Comment

metadata = MetaData()


def _rows(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("run_key", Text),
        Column("phase", Text),
        Column("pid", Integer),
        Column("at", Double),
    )


#: Written with the completions of runclaim's phases, and by the steps of the bare chain.
review_rows, chain_rows = _rows("review_rows"), _rows("chain_rows")


def _comments(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("run_key", Text),
        Column("repo", Text),
        Column("number", Integer),
        Column("body", Text),
        Column("path", Text),
        Column("line", Integer),
        Column("commit_id", Text),
    )


#: The comments that were planned, written with the completion that planned them.
review_comments, chain_comments = _comments("review_comments"), _comments("chain_comments")


@cache
def engine(url: str) -> Engine:
    """Connections for this process that outlive no transaction, so that none is shared across a fork."""
    options = {"timeout": 15} if url.startswith("sqlite") else {}
    return create_engine(url, poolclass=NullPool, connect_args=options)


def add(session: Session, rows: Table, key: str, phase: str) -> None:
    """One row: this process did this phase of this review."""
    session.execute(insert(rows).values(run_key=key, phase=phase, pid=os.getpid(), at=time.time()))


def planned(session: Session, rows: Table, key: str, comment: Comment) -> None:
    """One row: this review wants to say this."""
    session.execute(insert(rows).values(run_key=key, **asdict(comment)))


def folder() -> Path:
    """Where body starts are written, and where the demo says that the faults are over."""
    return Path(os.environ.get("REVIEW_FOLDER", "."))


def started(rows: Table, key: str, phase: str) -> None:
    """Note that a body starts."""
    _append(f"{rows.name}.starts", f"{time.time():.3f} {os.getpid()} {os.getppid()} {phase} {key}")


@contextmanager
def sending(rows: Table) -> Iterator[None]:
    """Note that a comment is sent, and that its sender has come back from it, whatever came of it."""
    _append(f"{rows.name}.sends", f"{time.time():.3f} {os.getpid()} {os.getppid()} begins")
    try:
        yield
    finally:
        _append(f"{rows.name}.sends", f"{time.time():.3f} {os.getpid()} {os.getppid()} ends")


def _append(name: str, line: str) -> None:
    """Append a line, in one write. Nothing is ever rewritten."""
    file = os.open(folder() / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def linger() -> None:
    """
    Wait as long as the demo asks for while it injects faults, so that there are bodies to hit; else return at once.

    It does not ask whether the claim is still current: what is told too late is for the ledger to refuse.
    """
    ends = time.monotonic() + float(os.environ.get("REVIEW_LINGER", "0"))
    while time.monotonic() < ends and not (folder() / "faults-are-over").exists():
        time.sleep(0.05)
