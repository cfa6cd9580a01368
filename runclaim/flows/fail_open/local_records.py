"""
Local records: what happened on this machine while the ledger was away, one file per run.

A file is replaced whole or not at all, and flushed before it counts. Only its owner reads the folder: a record holds
inputs and results. What is not a regular file of this user, or is not named after its run, is not a record: a
result in it could have been written by anyone.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runclaim import local_folder, logs
from runclaim.errors import InputError
from runclaim.keys import nonce
from runclaim.sql.rowset import as_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger: Final = logs.logger("runclaim.fail_open")

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an open attempt came to: its result as JSON text, and what its completion will write."""

    result: str
    skipped: str | None
    ran_seconds: float
    findings: list[dict[str, Any]] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)
    output_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRecord:
    """A run that was started without the ledger: its position in its message, and its outcome."""

    #: Which ledger, by a hash of its address: several applications may share the folder.
    ledger: str
    flow: str
    run_id: str
    phase: str
    #: The fence that the message was sent at.
    fence: int
    #: The nonce that the claim has, or will have.
    owner: str
    worker: str
    #: As the message brought it: project, key, subject, priority, input.
    carried: dict[str, Any]
    #: How often a body was started without the ledger.
    opened: int
    outcome: Outcome | None = None


class LocalRecords:
    """The records of one folder, which any number of processes share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, record: LocalRecord) -> None:
        """Keep a record, in place of an older one of its run. Raises: OSError; the older one then remains."""
        self._write(record, replaces=True)

    def add(self, record: LocalRecord) -> bool:
        """Keep the record of a run that has none; returns whether it had none. Raises: OSError."""
        return self._write(record, replaces=False)

    def _write(self, record: LocalRecord, *, replaces: bool) -> bool:
        path = self._path(record.run_id)
        self._make_folder()
        draft = self.folder / f".{record.run_id}.{nonce()}"
        try:
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE_MODE), "w") as file:
                json.dump(asdict(record), file)
                file.flush()
                os.fsync(file.fileno())
            with self._locked():
                if is_new := replaces or not path.exists():
                    draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        self._flush_folder()
        return is_new

    def check(self) -> None:
        """Raises: OSError when no record can be kept here."""
        self._make_folder()
        probe = self.folder / f".{nonce()}"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE_MODE))
        probe.unlink()

    def _make_folder(self) -> None:
        if self.folder.parent.name == local_folder.NAME:
            local_folder.make(self.folder.parent)
        self.folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        self.folder.chmod(_FOLDER_MODE)

    def read(self, run_id: str) -> LocalRecord | None:
        """The record of a run, or `None`. Raises: InputError when the id is not a UUID in canonical form."""
        return self._load(self._path(run_id))

    def all(self) -> Iterator[LocalRecord]:
        """Every record, in the order of their names."""
        for path in sorted(self.folder.glob("*.json")):
            if (record := self._load(path)) is not None:
                yield record

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to reconcile."""
        return next(self.folder.glob("*.json"), None) is None

    def remove(self, record: LocalRecord) -> None:
        """Forget a record, unless it has been replaced since it was read."""
        with self._locked():
            if self._load(self._path(record.run_id)) == record:
                self._path(record.run_id).unlink()

    def set_aside(self, record: LocalRecord) -> Path:
        """Keep a record that the ledger cannot take, for a person; returns where it is."""
        aside = self._path(record.run_id).with_suffix(".refused")
        # Another process may have done it.
        with self._locked(), suppress(FileNotFoundError):
            self._path(record.run_id).replace(aside)
        return aside

    def _path(self, run_id: str) -> Path:
        """Where the record of a run is. Raises: InputError for a text that could name another place."""
        if as_id(run_id) != run_id:
            raise InputError("run_id", f"is {run_id!r:.60}, which is not a UUID in canonical form")
        return self.folder / f"{run_id}.json"

    def _load(self, path: Path) -> LocalRecord | None:
        try:
            fields = json.loads(_text(path))
            outcome = fields.pop("outcome")
            record = LocalRecord(**fields, outcome=None if outcome is None else Outcome(**outcome))
            if record.run_id != path.stem or as_id(path.stem) != path.stem:
                raise ValueError(f"it belongs to run {record.run_id!r:.60}")  # noqa: TRY301 - as any other misfit
            return record  # noqa: TRY300 - one block of what can go wrong
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                logger.debug("%s", error)
            return None
        except (ValueError, TypeError, KeyError) as error:
            logger.error("%s is not a local record; a person has to look at it: %s", path, error)  # noqa: TRY400 - its text is enough
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Neither followed nor emptied, in case there is a link in its place.
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _flush_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _text(path: Path) -> str:
    """
    The text of a regular file of this user.

    Raises: OSError, even for a symbolic link; ValueError for a file of another kind or another user.
    """
    # Without waiting, should it be a pipe.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file) as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ValueError("it is not a regular file of this user")
        return opened.read()
