"""A private PgBouncer in transaction mode, if there is one on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url

from runclaim.servers import Server
from runclaim.servers.machine import NOBODY, answer, free_port, private_folder
from tests.servers.postgres import HELLO

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As a plain set-up has it: no prepared statements of the protocol, which need PgBouncer 1.21.
_SETTINGS: Final = """
[databases]
{name} = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 8
max_client_conn = 2000
"""


@contextmanager
def pooler(url: str) -> Iterator[Server | None]:
    """PgBouncer before the server of `url`, with eight connections to it; `None` where there is no pgbouncer."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        yield None
        return
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    inner, port, folder = make_url(url), free_port(), private_folder("pgbouncer")
    settings = folder / "pgbouncer.ini"
    settings.write_text(_SETTINGS.format(name=inner.database, server=inner.port, port=port))
    if os.geteuid() == 0:
        os.chown(settings, NOBODY, NOBODY)
    outer = inner.set(port=port).update_query_dict({"prepare_threshold": "none"}).render_as_string(hide_password=False)
    hello = HELLO.replace(b"database\0postgres\0", b"database\0" + str(inner.database).encode() + b"\0")
    hello = (len(hello)).to_bytes(4, "big") + hello[4:]
    server = Server(
        "pgbouncer",
        outer,
        f"{told} in transaction mode, 8 connections",
        command=[program, settings],
        folder=folder,
        ready=answer(port, to=hello, starts=b"R"),
        env=dict(os.environ),
    )
    try:
        yield server.start()
    finally:
        server.remove()
