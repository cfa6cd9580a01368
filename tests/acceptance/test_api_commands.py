"""`runclaim api` and `runclaim token` as a person runs them."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest

from runclaim.servers.machine import free_port
from tests.api.served import Client
from tests.harness import Process, nurse
from tests.harness.until import until

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from runclaim.cli import main; main()"]


class Shell:
    def __init__(self, folder, url):
        self.folder, self.env = folder, {"PYTHONPATH": str(ROOT), "RUNCLAIM_DATABASE_URL": url, "PATH": "/usr/bin:/bin"}

    def run(self, *words):
        return nurse.run([*PROGRAM, *words], env=self.env, folder=self.folder)

    def serve(self, port, *words):
        command = [*PROGRAM, "api", "--port", str(port), *words]
        return Process("api", command, log=self.folder / "api.log", env=self.env, folder=self.folder)

    def tokens(self):
        return {each["id"]: each for each in map(json.loads, self.run("token", "list", "--json").stdout.splitlines())}


@pytest.fixture
def shell(tmp_path, database_url):
    made = Shell(tmp_path, database_url)
    made.run("db", "upgrade")
    return made


def created(shell, *words):
    told = shell.run("token", "create", *words)
    assert 0 == told.returncode, told.stderr
    return told.stdout.strip()


def test_a_token_is_made_used_listed_replaced_and_revoked(shell):
    token = created(shell, "--name", "ci", "--scope", "runs:read", "--expires", "90d")
    token_id = token.split("_")[1]
    port = free_port()
    api = shell.serve(port)
    try:
        api.said("Application startup complete", within=60)
        before = Client(port, token).get("/v1/runs").status
        new = created(shell, "--replaces", token_id, "--overlap", "1h")
        both = Client(port, token).get("/v1/runs").status, Client(port, new).get("/v1/runs").status
        revoked = shell.run("token", "revoke", token_id)
        after = Client(port, token).get("/v1/runs").status
        listed = shell.tokens()
        code = api.stop()
        text = api.text
    finally:
        api.kill_all()

    assert (200, (200, 200), 0, 401) == (before, both, revoked.returncode, after)
    assert {token_id, new.split("_")[1]} == set(listed)
    assert ("ci", "runs:read", "default") == tuple(listed[token_id][name] for name in ("name", "scopes", "projects"))
    assert None not in [listed[token_id][name] for name in ("revoked_at", "last_used_at", "expires_at")]
    # Asked to stop, it stops in order; and its log has no token.
    assert 0 == code
    assert f"API on http://127.0.0.1:{port}" in text
    assert token.split("_")[2] not in text
    assert token.split("_")[2] not in str(listed) + revoked.stderr


def test_any_other_address_is_refused_until_there_is_a_token(shell):
    refused = shell.run("api", "--host", "0.0.0.0", "--port", str(free_port()))
    created(shell, "--name", "ci", "--scope", "admin")
    port = free_port()
    api = shell.serve(port, "--host", "0.0.0.0")
    try:
        api.said("Application startup complete", within=60)
        status = until(lambda: answered(port), "an answer")
    finally:
        api.kill_all()

    assert 1 == refused.returncode
    assert "runclaim token create" in refused.stderr
    assert 200 == status


@pytest.mark.parametrize(
    "words,code,said",
    [
        (["token", "create", "--name", "x"], 2, "--scope"),
        (["token", "create", "--name", "x", "--scope", "everything"], 2, "runs:read"),
        (["token", "create", "--name", "x", "--scope", "admin", "--project", "a b"], 1, "use letters"),
        (["token", "revoke", "nobody"], 3, "no usable token nobody"),
        (["token", "create", "--replaces", "nobody"], 3, "no usable token nobody"),
        (["token", "create", "--replaces", "nobody", "--scope", "admin"], 2, "leave out --name, --scope and --project"),
        (["api", "-A", "nothing"], 1, "no module nothing"),
        (["api", "-A", "x", "--url", "sqlite:///y"], 2, "leave out --url"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(shell, words, code, said):
    told = shell.run(*words)

    assert (code, True) == (told.returncode, said in told.stderr), told.stderr
    assert "Traceback" not in told.stderr
    assert "" == told.stdout


def test_a_ledger_that_is_behind_is_refused_at_the_start(tmp_path, postgres_url):
    told = Shell(tmp_path, postgres_url).run("api", "--port", str(free_port()))

    assert (1, True) == (told.returncode, "runclaim db upgrade" in told.stderr)


def answered(port: int) -> int | None:
    """The status of a server that may not listen yet."""
    with contextlib.suppress(ConnectionRefusedError):
        return Client(port).get("/livez").status
    return None
