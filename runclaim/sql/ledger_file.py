"""
The file of a ledger on SQLite: made in one place, private, and told apart from another of its name.

A connection never makes it: what is enqueued into a new, empty file in the place of a deleted one would be acknowledged
and lost.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from runclaim import local_folder
from runclaim.errors import LedgerRefused

if TYPE_CHECKING:
    from pathlib import Path


class Opened(NamedTuple):
    """What a connection has open."""

    path: Path
    device: int
    number: int

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to it; a deleted or replaced file would otherwise stay in use unnoticed."""
        return opened(self.path) == self


def opened(path: Path) -> Opened | None:
    """The file at a path, or `None` without one. No other gets its number while a connection has it open."""
    try:
        there = path.stat()
    except OSError:
        return None
    return Opened(path, there.st_dev, there.st_ino)


def make(path: Path) -> None:
    """
    Make an empty file that only this user may read, as SQLite then creates those next to it; an existing one stays.

    Of folders only `.runclaim` is made. Raises: LedgerRefused.
    """
    try:
        if path.parent.name == local_folder.NAME:
            local_folder.make(path.parent)
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise LedgerRefused(
            f"the ledger {path} cannot be created: {error.strerror}. To fix it: check that its folder exists and that"
            " this user may write there, or name another file in RUNCLAIM_DATABASE_URL"
        ) from error


def connect(path: Path, **arguments: object) -> tuple[sqlite3.Connection, Opened]:
    """A connection to the file that is there, and what it has open. Raises: sqlite3.OperationalError without one."""
    before = opened(path)
    if before is not None:
        raw = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, **arguments)  # type: ignore[call-overload]
        if before.is_there:
            return raw, before
        raw.close()
    missing = sqlite3.OperationalError(f"the file {path} is not there: it was deleted, moved or never created")
    missing.sqlite_errorcode, missing.sqlite_errorname = sqlite3.SQLITE_CANTOPEN, "SQLITE_CANTOPEN"
    raise missing
