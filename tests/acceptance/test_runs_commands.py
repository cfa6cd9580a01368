"""`runclaim runs …` as people and scripts run it: processes of their own against a real worker, on both databases."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runclaim.servers.machine import free_port
from runclaim.states import RunState
from tests.harness import Site, until
from tests.harness.shell import PROGRAM, Shell

if TYPE_CHECKING:
    from tests.acceptance.conftest import MakeSite


@pytest.fixture
def site(database_url: str, new_site: MakeSite, valkey_server: Any) -> Site:
    # The database first, so that it goes last: a site reaches for it when it is closed.
    return new_site(broker=valkey_server.url, database_url=database_url)


@pytest.fixture
def shell(site: Site) -> Shell:
    """A shell on the application's side."""
    return Shell(site.folder, {"HARNESS": json.dumps(site.told), "RUNCLAIM_APP": "tests.harness.app"})


@pytest.fixture(params=["local", "remote"])
def outside(request: pytest.FixtureRequest, site: Site) -> Shell:
    """A shell without the application's code: it has the address of the ledger, or of an API and a token."""
    local = Shell(site.folder, {"RUNCLAIM_DATABASE_URL": site.told["database_url"]})
    return local if request.param == "local" else behind_api(site, local)


def behind_api(site: Site, local: Shell, *scopes: str) -> Shell:
    """A shell that has no ledger but an API of it, which serves until the site is closed."""
    port = str(free_port())
    api = site.start("api", [*local.program, "api", "--port", port], env=local.variables)
    api.said("Uvicorn running", within=60)
    wanted = [word for scope in scopes or ("runs:read", "runs:write") for word in ("--scope", scope)]
    token = local("token", "create", "--name", "test", *wanted).out.strip()
    return Shell(site.folder, {"RUNCLAIM_API_URL": f"http://127.0.0.1:{port}", "RUNCLAIM_TOKEN": token})


def doing(name: str, **do: str) -> str:
    return json.dumps({"name": name, "do": do})


def test_a_run_is_enqueued_looked_at_and_followed_to_its_output(site: Site, shell: Shell, outside: Shell):
    made = shell("runs", "enqueue", "steps", "--input", doing("a", second="gate"))
    run_id = made.out.strip()
    site.worker(pool="threads")
    tail = outside.start("runs", "tail", run_id)
    site.started(site.stage.runs.get(run_id), "second")
    running = outside("runs", "status", run_id, "--json")
    site.open("a", "second")
    out, err = tail.communicate(timeout=60)
    done = outside("runs", "status", run_id, "--json")
    again = shell("runs", "enqueue", "steps", "--input", doing("a", second="gate"), "--wait")

    assert (0, f"{run_id}\n") == (made.code, made.out)
    assert f"run {run_id} is queued; starts at once" in made.err
    assert f"runclaim runs tail {run_id}" in made.err
    assert ("running", "second") == (running.json["state"], running.json["phase"])
    assert ["complete", "active", "pending"] == [phase["status"] for phase in running.json["phases"]]
    assert (0, "") == (tail.returncode, err)
    types = [line.split("\t")[1] for line in out.splitlines()[:-1]]
    assert ["run.enqueued", "run.started", "phase.started", "phase.completed"] == types[:4]
    assert "run.succeeded" == types[-1]
    assert "third of a" == out.splitlines()[-1]
    assert ("succeeded", "third of a") == (done.json["state"], done.json["result"])
    assert (0, "third of a\n") == (again.code, again.out)
    assert f"run {run_id} already existed; it is succeeded" in again.err


def test_a_queued_run_is_canceled_at_once_and_a_running_one_by_its_worker(site: Site, shell: Shell, outside: Shell):
    queued = shell("runs", "enqueue", "steps", "--input", doing("queued"), "--delay", "1h").out.strip()
    canceled = outside("runs", "cancel", queued, "--yes")
    running = shell("runs", "enqueue", "steps", "--input", doing("running", first="check")).out.strip()
    site.worker(pool="threads")
    site.started(site.stage.runs.get(running), "first")
    asked = outside("runs", "cancel", running, "--yes", "--json")
    tail = outside("runs", "tail", running, "--json")
    twice = outside("runs", "cancel", queued, running, "--yes")

    assert (0, f"{queued}\tcanceled\n", f"run {queued}: canceled\n") == (canceled.code, canceled.out, canceled.err)
    assert (0, True) == (asked.code, asked.json["cancel_requested"])
    assert 7 == tail.code
    assert "run.canceled" == tail.lines[-2]["type"]
    assert ("canceled", None) == (tail.lines[-1]["state"], tail.lines[-1]["result"])
    by = "token" if "RUNCLAIM_TOKEN" in outside.variables else "by the command line"
    assert by in next(each["data"]["by"] for each in tail.lines if each.get("type") == "run.cancel_requested")
    assert (0, [f"{queued}\tcanceled", f"{running}\tcanceled"]) == (twice.code, twice.out.splitlines())


def test_a_failed_run_is_retried_and_a_blocked_one_resumed(site: Site, shell: Shell, outside: Shell):
    site.told["phases"] = {"second": {"max_attempts": 1}}
    shell.variables["HARNESS"] = json.dumps(site.told)
    site.worker(pool="threads")
    failed = shell("runs", "enqueue", "steps", "--input", doing("f", second="fail 1"), "--wait")
    blocked = shell("runs", "enqueue", "steps", "--input", doing("b", second="block"), "--wait", "--json")
    ids = {run["key"]: run["id"] for run in outside("runs", "list", "--json").lines}
    site.open("b", "second")
    resumed = shell("runs", "resume", ids["b"])
    refused = outside("runs", "retry", ids["b"], "01a1ff2d-bb47-71c7-ae3a-fff5e236b971")
    after = shell("runs", "enqueue", "steps", "--input", doing("b", second="block"), "--wait")

    assert (7, "") == (failed.code, failed.out)
    assert f"failed in second: ValueError: told to fail. After fixing the cause: runclaim runs retry {ids['f']}" in (
        failed.err
    )
    assert (7, "blocked", True) == (blocked.code, blocked.json["state"], blocked.json["created"])
    assert f"runclaim runs resume {ids['b']}" in blocked.err
    assert (0, ids["b"]) == (resumed.code, resumed.out.partition("\t")[0])
    assert "starts at once" in resumed.err
    assert (0, "third of b\n") == (after.code, after.out)
    # The first that is refused decides the exit code, and keeps no other from its turn.
    assert (4, "") == (refused.code, refused.out)
    assert f"cannot retry run {ids['b']}" in refused.err
    assert "no run 01a1ff2d-bb47-71c7-ae3a-fff5e236b971" in refused.err


def test_what_is_resumed_without_a_broker_is_found_by_beat(site: Site, shell: Shell, outside: Shell):
    run = site.enqueue("a", first="block")
    site.worker(pool="threads")
    site.ended(run, state=RunState.BLOCKED)
    site.open("a", "first")
    resumed = outside("runs", "resume", run.id)
    site.beat()

    assert 0 == resumed.code
    assert "starts " in resumed.err
    until(lambda: run.state is RunState.SUCCEEDED, "the resumed run", so_far=lambda: run.view)


def test_a_shell_without_the_code_enqueues_what_the_workers_have_registered(site: Site, outside: Shell):
    site.worker(pool="threads")
    beat = site.beat()
    wanted = ["runs", "enqueue", "steps", "--input", '{"name": "a"}', "--wait", "--timeout", "60s"]
    told, again = outside(*wanted), outside(*wanted, "--json")
    beat.stop()

    assert (0, "third of a\n") == (told.code, told.out), told.err
    assert (False, "third of a") == (again.json["created"], again.json["result"])


def test_waiting_ends_with_8_when_the_time_is_over_and_the_run_goes_on(shell: Shell):
    told = shell("runs", "enqueue", "steps", "--input", doing("a"), "--wait", "--timeout", "200ms")

    assert (8, "") == (told.code, told.out)
    assert "is still queued after 0.2 s" in told.err


def test_an_interrupted_command_says_nothing_of_its_insides(site: Site, shell: Shell, outside: Shell):
    run = site.enqueue("a")
    tail = outside.start("runs", "tail", run.id)
    assert tail.stdout is not None
    first = tail.stdout.readline()
    tail.send_signal(signal.SIGINT)
    _, err = tail.communicate(timeout=30)

    assert "run.enqueued" in first
    assert (130, "\n") == (tail.returncode, err)


def test_a_reader_that_goes_away_ends_the_command_quietly(site: Site, outside: Shell):
    run = site.enqueue("a")
    tail = outside.start("runs", "tail", run.id)
    assert tail.stdout is not None
    tail.stdout.readline()
    tail.stdout.close()
    site.worker(pool="threads")
    site.ended(run)
    assert tail.stderr is not None

    assert (141, "") == (tail.wait(30), tail.stderr.read())
    tail.stderr.close()


def test_celery_itself_has_the_same_commands(site: Site, shell: Shell, outside: Shell):
    run = site.enqueue("a")
    celery = Shell(
        site.folder, shell.variables, (sys.executable, "-m", "celery", "-A", "tests.harness.app", "runclaim")
    )
    listed = celery("runs", "list", "--json")
    missing = celery("runs", "status", "01a1ff2d-bb47-71c7-ae3a-fff5e236b971")
    made = celery("token", "create", "--name", "ci", "--scope", "runs:read")
    unheard = celery("listeners", "retry", "pager")

    assert (0, True) == (made.code, made.out.startswith("rc_"))
    assert (0, [run.id]) == (listed.code, [each["id"] for each in listed.lines])
    assert outside("runs", "list", "--json").out == listed.out
    assert (3, 3) == (missing.code, unheard.code)
    assert "runclaim: no run 01a1ff2d" in missing.err
    assert "runclaim: there is no listener pager" in unheard.err
    assert "Traceback" not in missing.err + unheard.err


def test_worker_and_beat_are_celerys_own_with_the_options_that_follow(site: Site, shell: Shell):
    shell.variables["RUNCLAIM_APP"] = ""
    words = [
        "-A",
        "tests.harness.app",
        "-P",
        "solo",
        "-l",
        "info",
        "-n",
        "own@%h",
        "--without-mingle",
        "--without-gossip",
    ]
    worker = site.start("worker", [*shell.program, "worker", *words])
    schedule = str(site.folder / "schedule")
    beat = site.start(
        "beat", [*shell.program, "beat", "-A", "tests.harness.app", "-s", schedule, "--pidfile=", "-l", "info"]
    )
    worker.said("own@")
    worker.said(" ready.", within=60)
    beat.said("beat: Starting", within=60)
    run = site.enqueue("a")

    site.ended(run)
    assert 0 == worker.stop()


def test_flower_listens_on_this_machine_only_and_shows_run_keys(redis_site: Site):
    port = free_port()
    told = {"RUNCLAIM_APP": "tests.harness.app"}
    flower = redis_site.start("flower", [*PROGRAM, "flower", f"--port={port}", "--logging=info"], env=told)
    flower.said(f"Visit me at http://127.0.0.1:{port}", within=60)
    process = psutil.Process(flower.pid)

    assert {"127.0.0.1"} == {each.laddr.ip for each in process.net_connections() if each.status == "LISTEN"}
    assert "--tasks_columns=name,args,state,result,received,runtime,worker" in process.cmdline()


def test_a_token_that_may_not_is_told_apart_from_none_at_all(site: Site, shell: Shell):
    local = Shell(site.folder, {"RUNCLAIM_DATABASE_URL": site.told["database_url"]})
    reader = behind_api(site, local, "runs:read")
    run = site.enqueue("a")
    seen = reader("runs", "status", run.id, "--json")
    refused = reader("runs", "cancel", run.id, "--yes")
    unknown = reader("runs", "list", RUNCLAIM_TOKEN="rct_nothing")
    none = reader("runs", "list", RUNCLAIM_TOKEN="")
    revoked = local("token", "revoke", local("token", "list", "--json").json["id"], "--json")
    after = reader("runs", "status", run.id)

    assert (0, run.id) == (seen.code, seen.json["id"])
    assert (5, "") == (refused.code, refused.out)
    assert "the token needs the scope runs:write" in refused.err
    assert [5, 5, 5] == [unknown.code, none.code, after.code]
    assert "set RUNCLAIM_TOKEN to a valid token" in none.err
    assert (0, True) == (revoked.code, revoked.json["revoked"])
    assert run.state is RunState.QUEUED


def test_following_a_run_outlives_the_api_it_is_followed_through(site: Site, shell: Shell):
    """The stream goes on after the last event that was seen: none is missed and none comes twice."""
    local = Shell(site.folder, {"RUNCLAIM_DATABASE_URL": site.told["database_url"]})
    remote = behind_api(site, local)
    run = site.enqueue("a", second="gate")
    tail = remote.start("runs", "tail", run.id, "--json")
    site.worker(pool="threads")
    site.started(run, "second")
    port = remote.variables["RUNCLAIM_API_URL"].rpartition(":")[2]
    site.processes[0].kill_all()
    api = site.start("api2", [*local.program, "api", "--port", port], env=local.variables)
    site.open("a", "second")
    site.ended(run)
    api.said("Uvicorn running", within=60)
    out, err = tail.communicate(timeout=60)
    found = [json.loads(line) for line in out.splitlines()]

    assert (0, "") == (tail.returncode, err)
    assert "third of a" == found.pop()["result"]
    assert [event["id"] for event in local("runs", "tail", run.id, "--json").lines[:-1]] == [
        each["id"] for each in found
    ]
