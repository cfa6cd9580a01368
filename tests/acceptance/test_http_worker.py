"""The example as its README runs it: a Celery worker, beat, the API and a worker of plain Python, each a process."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from runclaim.servers.machine import free_port
from tests.api.served import Client
from tests.harness import nurse, until
from tests.harness.processes import Processes

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "http_worker"
PROGRAM = [sys.executable, "-c", "from runclaim.cli import main; main()"]


@contextmanager
def shop(folder: Path, broker: str, database_url: str):
    """The processes, the API's client and the variables that everything is told."""
    shutil.copytree(EXAMPLE, folder)
    port = free_port()
    env = {
        "CELERY_BROKER_URL": broker,
        "RUNCLAIM_DATABASE_URL": database_url,
        "RUNCLAIM_API_URL": f"http://127.0.0.1:{port}",
        "RUNCLAIM_DISPATCH_EVERY": "500ms",
        "RUNCLAIM_RESCUE_EVERY": "500ms",
        "RUNCLAIM_LEASE": "3s",
    }
    with Processes(folder, {}) as processes:
        assert 0 == command(processes, ["db", "upgrade"], env).returncode
        made = command(processes, ["token", "create", "--name", "t", "--scope", "admin", "--json"], env)
        env["RUNCLAIM_TOKEN"] = json.loads(made.stdout)["token"]
        api = processes.start("api", [*PROGRAM, "api", "-A", "shop", "--port", str(port)], env=env)
        api.said("Application startup complete", within=60)
        processes.worker(module="shop", env=env, pool="threads")
        processes.beat(module="shop", env=env)
        yield processes, Client(port, env["RUNCLAIM_TOKEN"]), env


def command(processes, words, env):
    told = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **env}
    return run(words, told, processes.folder)


def run(words, env, folder):
    return nurse.run([*PROGRAM, *words], env=env, folder=folder)


def start_worker(processes, env, name="plain"):
    return processes.start(name, [sys.executable, "worker.py"], env=env)


def enqueue(client, number):
    answer = client.post("/v1/runs", {"flow": "order", "input": {"number": number, "pieces": 3}})
    assert 201 == answer.status, answer
    return answer.json["id"]


def ended(client, run_id):
    def over():
        run = client.get(f"/v1/runs/{run_id}", prefer="wait=5").json
        return run if run["state"] in {"succeeded", "failed", "blocked"} else None

    return until(over, f"the end of {run_id}", within=60, so_far=lambda: client.get(f"/v1/runs/{run_id}").body)


def test_a_worker_of_plain_python_and_celery_workers_run_a_flow_together(valkey_server, postgres_url, tmp_path):
    with shop(tmp_path / "shop", valkey_server.url, postgres_url) as (processes, client, env):
        worker = start_worker(processes, env)
        runs = [ended(client, run_id) for run_id in [enqueue(client, number) for number in range(5)]]

        assert {("succeeded", "750 cents for 3")} == {(run["state"], run["result"]) for run in runs}
        # Each phase once, and the one in the middle by the worker outside.
        assert sorted(f"order-{number} price" for number in range(5)) == sorted(
            " ".join(line.split(" ")[:2]) for line in worker.text.splitlines()
        )


def test_a_worker_outside_that_is_killed_loses_nothing(valkey_server, sqlite_url, tmp_path):
    """It claims the run and dies before it says anything; the lease lapses and another worker does the phase."""
    with shop(tmp_path / "shop", valkey_server.url, sqlite_url) as (processes, client, env):
        run_id = enqueue(client, 1)
        asked = {"flow": "order", "phases": ["price"], "worker": "dead"}
        lost = until(
            lambda: (answer := client.post("/v1/runs:claim", asked, prefer="wait=5")).status == 200 and answer.json,
            "a claim", within=60,
        )  # fmt: skip
        start_worker(processes, env)
        run = ended(client, run_id)
        late = client.post(f"/v1/runs/{run_id}:succeed", {"claim": lost["claim"], "result": 1})

        assert ("succeeded", "750 cents for 3") == (run["state"], run["result"])
        assert (409, "claim-lost") == (late.status, late.code)


def test_the_worker_is_forty_lines_of_the_standard_library():
    code = (EXAMPLE / "worker.py").read_text()
    imported = {alias.name.partition(".")[0] for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip

    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("words", [["api", "--help"], ["token", "create", "--help"], ["token", "list", "--help"]])
def test_the_commands_explain_themselves(words, tmp_path):
    told = run(words, {"PYTHONPATH": str(ROOT)}, tmp_path)

    assert (0, True) == (told.returncode, told.stdout.startswith("Usage: "))
