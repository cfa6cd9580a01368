"""
What the demo judges by, outside of runclaim's ledger: rows in tables without any constraint, and files of body starts.

A constraint would hide a doubled row and a rewritten file a repeated start, so there is neither.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Double, Engine, Integer, MetaData, NullPool, Table, Text, create_engine, insert

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

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


@cache
def engine(url: str) -> Engine:
    """Connections for this process that outlive no transaction, so that none is shared across a fork."""
    options = {"timeout": 15} if url.startswith("sqlite") else {}
    return create_engine(url, poolclass=NullPool, connect_args=options)


def add(session: Session, rows: Table, key: str, phase: str) -> None:
    """One row: this process did this phase of this review."""
    session.execute(insert(rows).values(run_key=key, phase=phase, pid=os.getpid(), at=time.time()))


def folder() -> Path:
    """Where body starts are written, and where the demo says that the faults are over."""
    return Path(os.environ.get("REVIEW_FOLDER", "."))


def started(rows: Table, key: str, phase: str) -> None:
    """Append a line, in one write: a body starts. Nothing is ever rewritten."""
    line = f"{time.time():.3f} {os.getpid()} {os.getppid()} {phase} {key}\n"
    file = os.open(folder() / f"{rows.name}.starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
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
