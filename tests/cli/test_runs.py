"""What `runclaim runs …` shows and refuses, the same on the ledger itself and through the API."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runclaim import cli
from tests.harness.command_line import runner

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import Line

NOBODYS = "01a1ff2d-bb47-71c7-ae3a-fff5e236b971"


def ids(told: Result) -> list[str]:
    return [json.loads(line)["id"] for line in told.stdout.splitlines()]


def test_a_shell_without_the_application_enqueues_what_its_workers_have_registered(line: Line):
    made = line("runs", "enqueue", "review", "--input", '{"repo": "a", "number": 7}', "--json")
    again = line("runs", "enqueue", "review", "--input", '{"number": 7, "repo": "a"}', "--json")
    run = line.review.get(json.loads(made.stdout)["id"])
    line.bench.finish(line.review, run)
    shown = line("runs", "status", run.id)

    assert (0, True, "queued") == (made.exit_code, (found := json.loads(made.stdout))["created"], found["state"])
    assert {"repo": "a", "number": 7, "base": "a1", "head": "b2"} == found["input"]
    assert (0, False, run.id) == (again.exit_code, (found := json.loads(again.stdout))["created"], found["id"])
    assert ("as soon as a worker has room" if line.is_remote else "when beat dispatches it, within 5 s") in made.stderr
    assert 'result\t{"delivered": 7}' in shown.stdout.splitlines()
    assert "phases\tplan complete, deliver complete" in shown.stdout.splitlines()
    assert "key\ta:pr-7" in shown.stdout.splitlines()


def test_a_new_run_that_a_worker_has_finished_at_once_is_not_said_to_be_an_old_one(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The application is eager: its run has ended before the command prints a line."""
    (tmp_path / "hasty_orders.py").write_text(
        "from typing import TypedDict\n"
        "from celery import Celery\n"
        "from runclaim import Runclaim\n"
        "Order = TypedDict('Order', {'number': int})\n"
        "app = Celery('orders', broker='redis://127.0.0.1:1/0', set_as_current=False)\n"
        "app.conf.task_always_eager = True\n"
        "flow = Runclaim(app).flow('order', Order, key='{number}')\n"
        "flow.phase(lambda ctx: 'shipped', name='ship')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    environment = {"RUNCLAIM_APP": "hasty_orders", "RUNCLAIM_DATABASE_URL": sqlite_url, "RUNCLAIM_API_URL": None}
    words = ["runs", "enqueue", "order", "--input", '{"number": 7}']
    told = runner().invoke(cli.command, words, env=environment)

    assert 0 == told.exit_code, told.stderr
    assert f"run {told.stdout.strip()} is succeeded\n" in told.stderr


@pytest.mark.parametrize("way", ["--input", "--stdin", "--input-file"])
def test_the_input_comes_from_the_command_from_stdin_or_from_a_file(line: Line, tmp_path: Path, way: str):
    given = '{"repo": "ä", "number": 7}'
    (tmp_path / "input.json").write_text(given)
    rest = {"--input": [given], "--stdin": [], "--input-file": [str(tmp_path / "input.json")]}[way]
    told = line("runs", "enqueue", "review", way, *rest, stdin=given)

    assert 0 == told.exit_code, told.stderr
    assert "ä" == line.review.get(told.stdout.strip()).view.input["repo"]


@pytest.mark.parametrize(
    "given, said",
    [
        ("[1]", "must be a JSON object"),
        ('{"number": NaN}', "JSON has no NaN"),
        ('{"number": 1, "number": 2}', "the field 'number' occurs twice in one object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_an_input_that_is_no_json_object_is_a_usage_error(line: Line, given: str, said: str):
    told = line("runs", "enqueue", "review", "--stdin", stdin=given)

    assert (2, "") == (told.exit_code, told.stdout)
    assert said in told.stderr


def test_the_same_idempotency_key_gets_the_same_run_and_refuses_another(line: Line):
    words = ["runs", "enqueue", "review", "--idempotency-key", "build-1", "--json", "--input"]
    told = [line(*words, '{"repo": "a", "number": 7}') for _ in range(2)]
    other = line(*words, '{"repo": "a", "number": 8}')

    assert [0, 0] == [each.exit_code for each in told]
    assert [True, True] == [json.loads(each.stdout)["created"] for each in told]
    assert 1 == len({json.loads(each.stdout)["id"] for each in told})
    assert 4 == other.exit_code
    assert "; use a new" in other.stderr
    assert 1 == line.bench.count("runclaim_runs")


def test_runs_are_listed_by_flow_state_project_and_time_the_newest_first(line: Line):
    old, young = (line.review.enqueue(repo="a", number=number) for number in (1, 2))
    other = line.review.using(project="other").enqueue(repo="a", number=3)
    old.cancel()

    assert [young.id, old.id] == ids(line("runs", "list", "--json"))
    assert [old.id] == ids(line("runs", "list", "--json", "--state", "canceled", "--state", "failed"))
    assert [other.id] == ids(line("runs", "list", "--json", "--project", "other"))
    assert [young.id] == ids(line("runs", "list", "--json", "--limit", "1"))
    assert [] == ids(line("runs", "list", "--json", "--flow", "other"))
    assert [] == ids(line("runs", "list", "--json", "--until", "1h"))
    assert [young.id, old.id] == ids(line("runs", "list", "--json", "--since", "1h"))
    assert [young.id, old.id] == ids(line("runs", "list", "--json", "--since", "2020-01-01T00:00:00+02:00"))


def test_a_list_says_when_there_is_more_and_when_there_is_nothing(line: Line):
    nothing = line("runs", "list")
    line.review.enqueue_many([{"repo": "a", "number": number} for number in range(120)])
    one, every = line("runs", "list", "--limit", "119"), line("runs", "list", "--limit", "120")

    assert (0, "", "no runs\n") == (nothing.exit_code, nothing.stdout, nothing.stderr)
    assert 119 == len(one.stdout.splitlines())
    assert "there are more than 119" in one.stderr
    assert (120, "") == (len(every.stdout.splitlines()), every.stderr)


def test_a_line_in_a_pipe_has_tabs_between_and_nothing_that_steers_a_terminal(line: Line):
    run = line.review.enqueue(repo="evil", number=1)
    line.bench.finish(line.review, run)
    listed = line("runs", "list").stdout
    status, as_json, tail = (line("runs", *words, run.id) for words in (["status"], ["status", "--json"], ["tail"]))
    said = "red \ufffd[31m tab \ufffd0m line"

    assert [run.id, "failed", "review", "evil:pr-1", "plan"] == listed.rstrip("\n").split("\t")[:5]
    assert f"error\tValueError: {said}" in status.stdout.splitlines()
    assert f"ValueError: {said}" in [each.split("\t")[-1] for each in tail.stdout.splitlines()]
    assert 7 == tail.exit_code
    assert f"failed in plan: ValueError: {said}. After fixing the cause" in tail.stderr
    assert "red \x1b[31m\ttab \x9b0m\nline" == json.loads(as_json.stdout)["error"]["message"]
    assert not set("\x1b\x9b") & set(listed + as_json.stdout + status.stdout + tail.output)


@pytest.mark.parametrize(
    "words, code, said",
    [
        ("runs status 17", 2, "'17' is not an id; list the ids with: runclaim runs list"),
        ("runs cancel ID", 2, "this command asks for confirmation, and there is no terminal to ask on; give --yes"),
        (
            "runs list --since yesterday",
            2,
            "is not a time; write 2h or 7d for that long ago, or 2026-11-21T17:00:00Z",
        ),
        ("runs enqueue review --timeout 2s", 2, "--timeout only works with --wait"),
        ("runs enqueue review --delay soon", 2, "write seconds or a number with ms, s, m, h or d, such as 90s"),
        ("runs enqueue review --stdin --input {}", 2, "give the input exactly once"),
        (f"runs status {NOBODYS}", 3, f"no run {NOBODYS}: it never existed"),
        (f"runs tail {NOBODYS}", 3, f"no run {NOBODYS}"),
        (f"runs cancel {NOBODYS} --yes", 3, f"no run {NOBODYS}"),
        ("runs enqueue order", 3, "flow order is not registered"),
        ("runs retry ID", 4, "cannot retry run ID: it is queued (only a failed run can be)"),
        ("runs resume ID", 4, "cannot resume run ID: it is queued (only a blocked run can be)"),
        ('runs enqueue review --input {"repo":"a","number":"x"}', 4, "'x' is not of type 'integer'"),
        ('runs enqueue review --input {"repo":"a","number":1,"head":"c3"}', 4, "ut what differs into the key"),
        ('runs enqueue review --key k --input {"repo":"b","number":1}', 4, "leave it out"),
    ],
)
def test_a_refusal_has_its_exit_code_and_says_what_to_do(line: Line, words: str, code: int, said: str):
    run = line.review.enqueue(repo="a", number=1)
    told = line(*(word.replace("ID", run.id) for word in words.split()))

    assert (code, "") == (told.exit_code, told.stdout)
    assert said.replace("ID", run.id) in told.stderr
    assert "Traceback" not in told.stderr


def test_a_delayed_run_is_not_due_before_its_time(line: Line):
    told = line(
        "runs", "enqueue", "review", "--input", '{"repo": "a", "number": 7}', "--delay", "2h", "--priority", "3"
    )
    row = line.bench.execute("SELECT available_at, enqueued_at, priority FROM runclaim_runs").one()
    took = row.available_at - row.enqueued_at

    assert 0 == told.exit_code
    assert 3 == row.priority
    assert timedelta(hours=2) == (took if isinstance(took, timedelta) else timedelta(microseconds=took))


def test_a_rerun_is_a_new_run_of_the_key_and_supersedes_the_one_that_still_goes_on(line: Line):
    old = line.review.enqueue(repo="a", number=7)
    told = line("runs", "rerun", old.id)
    new = line.review.get(told.stdout.strip())
    status = line("runs", "status", new.id)
    line.bench.finish(line.review, new)
    again = line("runs", "enqueue", "review", "--input", '{"repo": "a", "number": 7}', "--wait")

    assert 0 == told.exit_code, told.stderr
    assert f"run {new.id}: rerun 1, starts" in told.stderr
    assert "key\ta:pr-7 (rerun 1)" in status.stdout.splitlines()
    assert ("superseded", {"delivered": 7}) == (old.state, new.result)
    assert (0, '{"delivered": 7}\n') == (again.exit_code, again.stdout)
    assert f"run {new.id} already existed" in again.stderr


def test_waiting_for_a_run_that_blocks_or_fails_says_what_mends_it(line: Line):
    run = line.review.enqueue(repo="stuck", number=1)
    line.bench.finish(line.review, run)
    told = line("runs", "enqueue", "review", "--input", '{"repo": "stuck", "number": 1}', "--wait")
    followed = line("runs", "tail", run.id)
    resumed = line("runs", "resume", run.id, "--json")

    assert 7 == followed.exit_code
    assert "run.blocked" == followed.stdout.splitlines()[-1].split("\t")[1]
    assert (7, "") == (told.exit_code, told.stdout)
    assert (
        f"runclaim: run {run.id} is blocked in plan: Blocked: ask somebody."
        f" After fixing the cause: runclaim runs resume {run.id}\n"
    ) in told.stderr
    assert (0, "queued", 0) == (resumed.exit_code, (found := json.loads(resumed.stdout))["state"], found["attempts"])


def test_an_input_that_holds_a_secret_is_refused_and_not_repeated(line: Line):
    secret = f"ghp_{'a1B2' * 9}"
    told = line("runs", "enqueue", "review", "--input", json.dumps({"repo": secret, "number": 1}))

    assert (4, "") == (told.exit_code, told.stdout)
    assert secret not in told.stderr
    assert "repo" in told.stderr
    assert 0 == line.bench.count("runclaim_runs")


def test_the_ended_runs_of_a_subject_are_counted_asked_for_and_erased(line: Line):
    run = line.review.enqueue(repo="a", number=7)
    line.bench.finish(line.review, run)
    asked = line("runs", "erase", "--flow", "review", "--key", run.view.key)
    done = line("runs", "erase", "--flow", "review", "--key", "a:pr-7", "--yes", "--json")
    again = line("runs", "erase", "--flow", "review", "--key", "a:pr-7", "--yes")

    assert (2, True) == (asked.exit_code, "there is no terminal to ask on; give --yes" in asked.stderr)
    assert (0, {"runs": 1}) == (done.exit_code, json.loads(done.stdout))
    assert "erased what 1 run held" in done.stderr
    assert (3, True) == (
        again.exit_code,
        "there is nothing to erase: key a:pr-7 of flow review has no runs" in again.stderr,
    )
    assert run.view.was_erased
    assert run.events[-1].data["by"]


def test_runs_that_have_not_ended_are_not_erased(line: Line):
    run = line.review.enqueue(repo="a", number=7)
    told = line("runs", "erase", "--flow", "review", "--key", "a:pr-7", "--yes")

    assert (4, True) == (told.exit_code, f"runclaim runs cancel {run.id}" in told.stderr)
    assert not run.view.was_erased


def test_the_text_of_a_key_can_go_too(line: Line):
    run = line.review.enqueue(repo="a", number=7)
    run.cancel()
    told = line("runs", "erase", "--flow", "review", "--key", "a:pr-7", "--blank-key", "--yes")

    assert (0, "1") == (told.exit_code, told.stdout.strip())
    assert "(erased)" == run.view.key


@pytest.mark.parametrize("words", [[], ["--key", "a"], ["--key", "a", "--flow", "review", "--subject", "b"]])
def test_erasing_names_a_key_with_its_flow_or_a_subject(line: Line, words: list[str]):
    told = line("runs", "erase", *words, "--yes")

    assert (2, True) == (told.exit_code, "give either --key KEY with --flow NAME, or --subject SUBJECT" in told.stderr)
