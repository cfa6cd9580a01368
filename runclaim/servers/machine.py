"""What this machine has to offer a private server: programs, ports, folders and a user to run it as."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runclaim.errors import RunclaimError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Whom a server runs as when we are root: PostgreSQL refuses uid 0, and the others have no business with it.
NOBODY = 65534


class ServerMissing(RunclaimError):
    """A server's program is nowhere to be found; the message names the command that gets it."""


def answer(port: int, *, to: bytes, starts: bytes) -> Callable[[], bool]:
    """The question whether what listens on `port` answers `to` with something that starts so; `OSError` means no."""

    def is_answered() -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(to)
            return connection.recv(64).startswith(starts)

    return is_answered


def free_port() -> int:
    """A free port, below those the kernel gives to clients: it is still free when a server restarts."""
    while True:
        port = random.randint(15000, 32000)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def is_free(port: int) -> bool:
    """Whether a server of this machine may listen there now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def private_folder(kind: str) -> Path:
    """A new folder that only its server and we may enter, at a place that its server can reach."""
    base = Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix=f"runclaim-{kind}-", dir=base if entered_by_all(base) else "/tmp"))  # noqa: S108
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    return folder


def entered_by_all(path: Path) -> bool:
    """Whether every user may execute this file, or enter this folder, and reach it; a home is often closed."""
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def unprivileged() -> dict[str, Any]:
    """What `subprocess` has to be told so that root's servers do not run as root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def in_wheel(package: str, pattern: str) -> Path | None:
    """A file of an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () for path in Path(folder).glob(pattern)), None)
