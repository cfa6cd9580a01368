"""What is unpacked or copied once and kept for the next run; parallel runs wait for each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from runclaim.servers import ServerMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def folder() -> Path:
    """RUNCLAIM_CACHE, or ~/.cache/runclaim; root's is where servers that do not run as root can read it."""
    if chosen := os.environ.get("RUNCLAIM_CACHE"):
        return Path(chosen).absolute()
    return Path("/var/cache/runclaim") if os.geteuid() == 0 else Path.home() / ".cache" / "runclaim"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """
    The folder `name` of the cache, made by `make(unfinished)` where it is missing.

    It appears under its name only when it is complete. Raises: `ServerMissing` if the cache cannot be written.
    """
    place = folder() / name
    if place.exists():
        return place
    try:
        with locked():
            if not place.exists():
                unfinished = folder() / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                unfinished.chmod(0o755)
                make(unfinished)
                unfinished.rename(place)
    except PermissionError as error:
        raise ServerMissing(f"{error}. Fix: set RUNCLAIM_CACHE to a folder that you may write") from error
    return place


@contextlib.contextmanager
def locked() -> Iterator[None]:
    folder().mkdir(mode=0o755, parents=True, exist_ok=True)
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
