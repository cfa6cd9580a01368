"""A private RabbitMQ, from the system or unpacked from Debian's packages, and virtual hosts in it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

from runclaim.servers import Server, ServerMissing
from runclaim.servers.machine import answer, free_port, private_folder
from tests.servers.cache import kept

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVER = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
SETTINGS = """
vm_memory_high_watermark.relative = 0.2
disk_free_limit.absolute = 50MB
"""
#: One scheduler that sleeps when idle, as the tests have few cores and the broker little to do.
ERLANG = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"


class RabbitMQ(Server):
    """Keeps durable queues over `restart`. Its node finds itself through an epmd of its own."""

    patience = 90

    def __init__(self, *, erts: Path, port: int, how: str, script: Path, env: Mapping[str, str], folder: Path) -> None:
        epmd, epmd_port, home = erts / "epmd", free_port(), private_folder("epmd")
        env = {**env, "ERL_EPMD_PORT": str(epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        self._evaluate = [str(erts / "erl_call"), "-n", env["RABBITMQ_NODENAME"], "-e"]
        self._epmd = Server(
            "epmd", "", f"epmd of {how}", command=[epmd], folder=home, env=env,
            ready=answer(epmd_port, to=b"\0\1n", starts=epmd_port.to_bytes(4, "big"))
        )  # fmt: skip
        super().__init__(
            "rabbitmq", f"amqp://guest:guest@127.0.0.1:{port}//", how, command=[script], folder=folder, env=env,
            ready=answer(port, to=b"AMQP\0\0\x09\x01", starts=b"\x01\0\0")
        )  # fmt: skip

    def start(self) -> Self:
        self._epmd.start()
        return super().start()

    def remove(self) -> None:
        super().remove()
        self._epmd.remove()

    def add_vhost(self) -> str:
        """The URL of a new virtual host, made in forty milliseconds; `rabbitmqctl` would take seconds."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        everything = '<<".*">>, <<".*">>, <<".*">>'
        self.evaluate(
            f'rabbit_vhost:add(<<"{name}">>, <<"guest">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, <<"{name}">>, {everything}, <<"guest">>).'
        )
        return f"{self.url.removesuffix('//')}/{name}"

    def delete_vhost(self, url: str) -> None:
        """Delete a virtual host with all that is in it, and close its connections."""
        self.evaluate(f'rabbit_vhost:delete(<<"{url.rpartition("/")[2]}">>, <<"guest">>).')

    def evaluate(self, expression: str) -> None:
        """Run an Erlang expression inside the node. Raises: `RuntimeError` with what the node said against it."""
        done = subprocess.run(
            [*self._evaluate, "-h", uuid.uuid4().hex],  # a name of its own, or two calls at once refuse each other
            input=f"{expression}\n", env=self._env, cwd=self.folder, capture_output=True, text=True, check=False
        )  # fmt: skip
        if not done.stdout.startswith("{ok"):
            raise RuntimeError(f"{expression} said {done.stdout}{done.stderr}")


def rabbitmq() -> RabbitMQ:
    """
    A private RabbitMQ, not started yet.

    Raises: `ServerMissing` when it is not installed and cannot be unpacked either.
    """
    root, source = find()
    script = next(root.glob(SERVER))
    erts = next(root.glob("usr/lib/erlang/erts-*/bin"))
    home, port, folder = script.parent.parent, free_port(), private_folder("rabbitmq")
    (folder / "rabbit.conf").write_text(SETTINGS)
    (folder / "plugins").write_text("[].")
    (folder / "environment").touch()
    env = {
        "PATH": f"{erts.parents[1] / 'bin'}:{erts}:/usr/bin:/bin",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "ERL_ROOTDIR": str(erts.parents[1]),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server instead of watching over it
        "RABBITMQ_HOME": str(home),
        "RABBITMQ_NODENAME": f"runclaim{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbit"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PLUGINS_DIR": str(home / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
    }
    how = f"RabbitMQ {home.name.removeprefix('rabbitmq_server-')} from {source}"
    return RabbitMQ(erts=erts, port=port, how=how, script=script, env=env, folder=folder)


def find() -> tuple[Path, str]:
    """The root of the tree that holds RabbitMQ and Erlang, and where it comes from in words."""
    if list(Path("/").glob(SERVER)):
        return Path("/"), "the system"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise ServerMissing(
            "no RabbitMQ found. Fix: set RUNCLAIM_TEST_AMQP_URL, for example to one started by "
            "`docker run --rm -p 5672:5672 rabbitmq:4.2`, or: sudo apt-get install rabbitmq-server"
        )
    return kept("rabbitmq", unpack), "Debian's packages, unpacked and not installed"


def unpack(root: Path) -> None:
    """Debian's RabbitMQ with what it needs and this system lacks: 35 MB over the network, no root wanted."""
    with tempfile.TemporaryDirectory() as temporary:
        state = Path(temporary)
        for part in ("lists/partial", "archives/partial"):
            (state / part).mkdir(parents=True)
        apt = [
            "apt-get", "-q", "-y", "-o", f"Dir::State={state}", "-o", "Dir::State::status=/var/lib/dpkg/status",
            "-o", f"Dir::Cache={state}", "-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1",
        ]  # fmt: skip
        for arguments in (["update"], ["install", "--download-only", "--no-install-recommends", "rabbitmq-server"]):
            run([*apt, *arguments])
        for package in (state / "archives").glob("*.deb"):
            run(["dpkg-deb", "-x", str(package), str(root)])
    for script in [*root.glob("usr/lib/erlang/bin/*"), *root.glob("usr/lib/erlang/erts-*/bin/*")]:
        if script.name in {"erl", "start", "start_erl"} and not script.is_symlink():
            # Debian writes the place where it would install Erlang into these.
            script.write_text(script.read_text().replace("ROOTDIR=/usr/", "ROOTDIR=${ERL_ROOTDIR%/lib/erlang}/"))


def run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise ServerMissing(
            f"RabbitMQ could not be unpacked: {command[0]} says {done.stdout.strip()[-500:]}\nFix: give this machine "
            "access to Debian's packages, or: sudo apt-get install rabbitmq-server, or set RUNCLAIM_TEST_AMQP_URL"
        )
