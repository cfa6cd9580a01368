"""
The folder `.runclaim`: the ledger of a laptop, and what `runclaim dev` shares with the project's other processes.

While `runclaim dev` runs it holds a lock here, and `dev.json` names the ledger, the broker and the application that it
gave to its own processes; every other process of the project then starts with the same. Without the lock the file is
not read: a killed `runclaim dev` leaves nothing behind that counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runclaim.errors import ConfigError, RunclaimError
from runclaim.urls import settled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

NAME: Final = ".runclaim"
LEDGER: Final = "ledger.db"
#: What `runclaim dev` shares. No other variable is taken from the file, whatever it has.
LEDGER_URL: Final = "RUNCLAIM_DATABASE_URL"
BROKER_URL: Final = "CELERY_BROKER_URL"
#: Of a Celery application's module, as for `celery -A`.
APP: Final = "RUNCLAIM_APP"
_SCHEMA: Final = "RUNCLAIM_SCHEMA"
_LOCK: Final = "dev.lock"
_FILE: Final = "dev.json"
#: Another process that looks whether the lock is held, holds it itself for a moment.
_PATIENCE_SECONDS: Final = 1.0
_OF_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class DevRuns(RunclaimError):
    """Another `runclaim dev` runs in this folder. Stop it, or use it."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What `runclaim dev` has: its working directory, the variables of its processes, its last private broker."""

    directory: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    private_broker: str = ""


def nearest() -> Path:
    """
    The folder `.runclaim` of the working directory, or of the closest directory above it that has one.

    Above it only this user's own count. The search ends below the home directory, the root and any directory that
    everybody may write to, such as `/tmp`: these belong to no project. Raises: OSError in a directory that is gone.
    """
    here = Path.cwd()
    beside = here / NAME
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - a user may have none
    with suppress(PermissionError):  # a service may run where it cannot look around
        if beside.is_dir():
            return beside
        for above in here.parents:
            if above in {home, Path(above.anchor)} or above.stat().st_mode & stat.S_IWOTH:
                break
            if is_private(above / NAME):
                return above / NAME
    return beside


def make(folder: Path) -> Path:
    """The folder, made if it is missing: for this user only, and left out of version control. Raises: OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(folder):
        folder.chmod(0o700)
    with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
        file.write("*\n")
    return folder


def is_private(path: Path) -> bool:
    """Whether it is this user's, and no one else may write there."""
    try:
        there = path.stat()
    except OSError:
        return False
    return there.st_uid == os.geteuid() and not there.st_mode & _OF_OTHERS


@contextmanager
def held(folder: Path) -> Iterator[Shared]:
    """
    Hold the folder's lock, as the one `runclaim dev` in it.

    Returns: what the one before it shared. Raises: DevRuns.
    """
    ends = time.monotonic() + _PATIENCE_SECONDS
    with _opened(folder / _LOCK) as lock:
        while not _took(lock):
            if time.monotonic() > ends:
                raise DevRuns(
                    f"another runclaim dev runs in {folder.parent}: use it from here, every command finds it;"
                    " or stop it first, with Ctrl-C in its terminal"
                )
            time.sleep(0.01)
        yield _read(folder)


def share(folder: Path, shared: Shared) -> None:
    """Tell other processes what they may use; whole or not at all, and readable by this user only."""
    new = folder / f"{_FILE}.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump(asdict(shared), file)
    new.replace(folder / _FILE)


def join(environ: MutableMapping[str, str]) -> None:
    """
    Give this process the variables of the `runclaim dev` that runs in this project; nothing where none runs.

    A variable that is set stays. A process whose environment names another ledger gets nothing at all: it would send
    one ledger's messages to another one's workers.
    """
    with suppress(OSError):  # a directory that is gone has no project
        variables = _of_running(nearest())
        if not variables or _names_another(variables[LEDGER_URL], environ):
            return
        for name, value in variables.items():
            if not environ.get(name):
                environ[name] = value


def _names_another(ledger: str, environ: Mapping[str, str]) -> bool:
    named = environ.get(LEDGER_URL) or ""
    if not named:
        return bool(environ.get(f"{LEDGER_URL}_FILE"))
    with suppress(ConfigError):  # what is wrong with it is said where it is used
        return settled(named, environ.get(_SCHEMA) or "") != ledger
    return True


def _of_running(folder: Path) -> dict[str, str]:
    """The variables that a running `runclaim dev` shares: its ledger, and what else it has."""
    if not (folder / _FILE).is_file() or not is_private(folder):
        return {}
    with suppress(OSError), _opened(folder / _LOCK) as lock:
        if _took(lock):
            return {}
        shared = _read(folder)
        # The application's module lies in the directory that it was started in.
        names = (LEDGER_URL, BROKER_URL) + ((APP,) if shared.directory == str(Path.cwd()) else ())
        found = {name: shared.variables[name] for name in names if name in shared.variables}
        return found if LEDGER_URL in found else {}
    return {}


def _read(folder: Path) -> Shared:
    """What is shared there; nothing for a file that is missing, damaged or not only ours."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        if is_private(folder / _FILE):
            shared = Shared(**json.loads((folder / _FILE).read_text()))
            return replace(shared, variables={str(name): str(value) for name, value in shared.variables.items()})
    return Shared()


@contextmanager
def _opened(lock: Path) -> Iterator[int]:
    number = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield number
    finally:
        os.close(number)


def _took(lock: int) -> bool:
    """Whether this process has the lock now; its end gives it back, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
