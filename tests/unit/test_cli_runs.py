"""`runclaim runs …` on a ledger without a worker: what it shows, what it refuses and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from runclaim import cli
from runclaim.flows.describing import describe
from runclaim.ledger import registry

if TYPE_CHECKING:
    from pathlib import Path

    from runclaim.flows.flow import Flow
    from tests.unit.bench import Bench

Invoke = Callable[..., Result]
NOBODYS = "01a1ff2d-bb47-71c7-ae3a-fff5e236b971"


@pytest.fixture
def invoke(bench: Bench) -> Invoke:
    """The command line in this process, on the bench's ledger."""
    url = bench.config.database_url

    def run(*words: str, stdin: str | None = None, **more: str | None) -> Result:
        environment = {"RUNCLAIM_DATABASE_URL": url, "RUNCLAIM_API_URL": None, "RUNCLAIM_APP": None} | more
        return CliRunner().invoke(cli.command, words, input=stdin, env=environment, prog_name="runclaim")

    return run


def plan(ctx) -> str:
    if ctx.input.repo == "evil":
        raise ValueError("red \x1b[31m\ttab \x9b0m\nline")
    return "planned"


@pytest.fixture
def review(bench: Bench) -> Flow:
    flow = bench.flow()
    flow.phase(name="plan", max_attempts=1)(plan)
    flow.phase(name="deliver")(lambda ctx: {"delivered": ctx.input.number})
    with bench.database.begin() as conn:
        registry.register(conn, [describe(flow, bench.config)])
    return flow


def ids(told: Result) -> list[str]:
    return [json.loads(line)["id"] for line in told.stdout.splitlines()]


def test_a_shell_without_the_application_enqueues_what_its_workers_have_registered(
    bench: Bench, invoke: Invoke, review: Flow
):
    made = invoke("runs", "enqueue", "review", "--input", '{"repo": "a", "number": 7}', "--json")
    again = invoke("runs", "enqueue", "review", "--input", '{"number": 7, "repo": "a"}', "--json")
    run = review.get(json.loads(made.stdout)["id"])
    bench.finish(review, run)
    shown = invoke("runs", "status", run.id)

    assert (0, True, "queued") == (made.exit_code, (found := json.loads(made.stdout))["created"], found["state"])
    assert {"repo": "a", "number": 7, "base": "a1", "head": "b2"} == found["input"]
    assert (0, False, run.id) == (again.exit_code, (found := json.loads(again.stdout))["created"], found["id"])
    assert "starts when beat dispatches it, within 5 s" in made.stderr
    assert 'result\t{"delivered": 7}' in shown.stdout.splitlines()
    assert "phases\tplan complete, deliver complete" in shown.stdout.splitlines()
    assert "key\ta:pr-7" in shown.stdout.splitlines()


@pytest.mark.parametrize("way", ["--input", "--stdin", "--input-file"])
def test_the_input_comes_from_the_command_from_stdin_or_from_a_file(
    invoke: Invoke, review: Flow, tmp_path: Path, way: str
):
    given = '{"repo": "ä", "number": 7}'
    (tmp_path / "input.json").write_text(given)
    rest = {"--input": [given], "--stdin": [], "--input-file": [str(tmp_path / "input.json")]}[way]
    told = invoke("runs", "enqueue", "review", way, *rest, stdin=given)

    assert 0 == told.exit_code, told.stderr
    assert "ä" == review.get(told.stdout.strip()).view.input["repo"]


@pytest.mark.parametrize(
    "given, said",
    [
        ("[1]", "is a JSON object"),
        ('{"number": NaN}', "NaN is none of its values"),
        ('{"number": 1, "number": 2}', "'number' is given twice"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_an_input_that_is_no_json_object_is_a_usage_error(invoke: Invoke, review: Flow, given: str, said: str):
    told = invoke("runs", "enqueue", "review", "--stdin", stdin=given)

    assert (2, "") == (told.exit_code, told.stdout)
    assert said in told.stderr


def test_the_same_idempotency_key_gets_the_same_run_and_refuses_another(bench: Bench, invoke: Invoke, review: Flow):
    words = ["runs", "enqueue", "review", "--idempotency-key", "build-1", "--json", "--input"]
    told = [invoke(*words, '{"repo": "a", "number": 7}') for _ in range(2)]
    other = invoke(*words, '{"repo": "a", "number": 8}')

    assert [0, 0] == [each.exit_code for each in told]
    assert [True, True] == [json.loads(each.stdout)["created"] for each in told]
    assert 1 == len({json.loads(each.stdout)["id"] for each in told})
    assert 4 == other.exit_code
    assert "the idempotency key 'build-1' was used for another run; use a new one" in other.stderr
    assert 1 == bench.count("runclaim_runs")


def test_runs_are_listed_by_flow_state_project_and_time_the_newest_first(bench: Bench, invoke: Invoke, review: Flow):
    old, young = (review.enqueue(repo="a", number=number) for number in (1, 2))
    other = review.using(project="other").enqueue(repo="a", number=3)
    old.cancel()

    assert [young.id, old.id] == ids(invoke("runs", "list", "--json"))
    assert [old.id] == ids(invoke("runs", "list", "--json", "--state", "canceled", "--state", "failed"))
    assert [other.id] == ids(invoke("runs", "list", "--json", "--project", "other"))
    assert [young.id] == ids(invoke("runs", "list", "--json", "--limit", "1"))
    assert [] == ids(invoke("runs", "list", "--json", "--flow", "other"))
    assert [] == ids(invoke("runs", "list", "--json", "--until", "1h"))
    assert [young.id, old.id] == ids(invoke("runs", "list", "--json", "--since", "1h"))
    assert [young.id, old.id] == ids(invoke("runs", "list", "--json", "--since", "2020-01-01T00:00:00+02:00"))


def test_a_list_says_when_there_is_more_and_when_there_is_nothing(invoke: Invoke, review: Flow):
    nothing = invoke("runs", "list")
    review.enqueue_many([{"repo": "a", "number": number} for number in range(120)])
    one, every = invoke("runs", "list", "--limit", "119"), invoke("runs", "list", "--limit", "120")

    assert (0, "", "no runs\n") == (nothing.exit_code, nothing.stdout, nothing.stderr)
    assert 119 == len(one.stdout.splitlines())
    assert "there are more than 119" in one.stderr
    assert (120, "") == (len(every.stdout.splitlines()), every.stderr)


def test_a_line_in_a_pipe_has_tabs_between_and_nothing_that_steers_a_terminal(
    bench: Bench, invoke: Invoke, review: Flow
):
    run = review.enqueue(repo="evil", number=1)
    bench.finish(review, run)
    line = invoke("runs", "list").stdout
    status, as_json, tail = (invoke("runs", *words, run.id) for words in (["status"], ["status", "--json"], ["tail"]))
    said = "red \ufffd[31m tab \ufffd0m line"

    assert [run.id, "failed", "review", "evil:pr-1", "plan"] == line.rstrip("\n").split("\t")[:5]
    assert f"error\tValueError: {said}" in status.stdout.splitlines()
    assert f"ValueError: {said}" in [line.split("\t")[-1] for line in tail.stdout.splitlines()]
    assert 7 == tail.exit_code
    assert f"failed in plan: ValueError: {said}. Once its cause is mended" in tail.stderr
    assert "red \x1b[31m\ttab \x9b0m\nline" == json.loads(as_json.stdout)["error"]["message"]
    assert not set("\x1b\x9b") & set(line + as_json.stdout + status.stdout + tail.output)


@pytest.mark.parametrize(
    "words, code, said",
    [
        ("runs status 17", 2, "'17' is no id; `runclaim runs list` shows those of runs"),
        ("runs cancel ID", 2, "this asks first, and nobody is there to answer: give --yes"),
        ("runs list --since yesterday", 2, "write 2h or 7d for so long ago, or 2026-11-21T17:00:00Z"),
        ("runs enqueue review --timeout 2s", 2, "--timeout goes with --wait"),
        ("runs enqueue review --delay soon", 2, "write seconds or a number with ms, s, m, h or d, such as 90s"),
        ("runs enqueue review --stdin --input {}", 2, "give the input once"),
        ("runs list --remote --url sqlite:///x", 2, "--remote asks the API, which knows its ledger: leave out url"),
        (f"runs status {NOBODYS}", 3, f"no run {NOBODYS}: it never existed, or was purged"),
        (f"runs tail {NOBODYS}", 3, f"no run {NOBODYS}"),
        (f"runs cancel {NOBODYS} --yes", 3, f"no run {NOBODYS}"),
        (f"actions list --run {NOBODYS}", 3, f"no run {NOBODYS}"),
        (f"actions retry {NOBODYS}", 3, f"no action {NOBODYS}"),
        ("runs enqueue order", 3, "no application has registered the flow order"),
        ("runs retry ID", 4, "cannot retry run ID: it is queued (only a failed run can be)"),
        ("runs resume ID", 4, "cannot resume run ID: it is queued (only a blocked run can be)"),
        ('runs enqueue review --input {"repo":"a","number":"x"}', 4, "/number 'x' is not of type 'integer'"),
        ('runs enqueue review --input {"repo":"a","number":1,"head":"c3"}', 4, "head was 'b2', is 'c3'"),
        ('runs enqueue review --key k --input {"repo":"b","number":1}', 4, "leave it out"),
        ("runs list --remote", 1, "set RUNCLAIM_API_URL to the API's address"),
        ("runs list --url sqlite:////nowhere/runclaim.db", 6, "there is no ledger sqlite:////nowhere/runclaim.db"),
        ("runs list --url mysql://localhost/x", 1, "is not supported"),
    ],
)
def test_a_refusal_has_its_exit_code_and_says_what_to_do(
    invoke: Invoke, review: Flow, words: str, code: int, said: str
):
    run = review.enqueue(repo="a", number=1)
    told = invoke(*(word.replace("ID", run.id) for word in words.split()))

    assert (code, "") == (told.exit_code, told.stdout)
    assert said.replace("ID", run.id) in told.stderr
    assert "Traceback" not in told.stderr


def test_looking_at_a_ledger_that_is_not_there_makes_no_file(invoke: Invoke, tmp_path: Path):
    missing = tmp_path / "new.db"
    told = invoke("runs", "list", "--url", f"sqlite:///{missing}")

    assert 6 == told.exit_code
    assert "A new one is made by: runclaim db upgrade" in told.stderr
    assert not missing.exists()


def test_a_database_that_does_not_answer_is_unreachable_and_its_password_is_not_told(invoke: Invoke):
    told = invoke(
        "runs", "list", "--url", "postgresql+psycopg://me:hidden@127.0.0.1:1/x", RUNCLAIM_LEDGER_PATIENCE="100ms"
    )

    assert (6, "") == (told.exit_code, told.stdout)
    assert "does not answer" in told.stderr
    assert "hidden" not in told.stderr


def test_a_schema_that_is_behind_is_told_with_the_command_that_mends_it(bench: Bench, invoke: Invoke):
    bench.execute("UPDATE runclaim_schema_version SET version_num = '0000'")
    told = invoke("runs", "list")
    mended = invoke("db", "current", "--json")

    assert 1 == told.exit_code
    assert "runclaim db upgrade" in told.stderr
    assert "0000" == json.loads(mended.stdout)["current"]
    bench.execute("UPDATE runclaim_schema_version SET version_num = :head", head=json.loads(mended.stdout)["wanted"])


def test_an_api_that_is_named_is_asked_when_no_ledger_is(invoke: Invoke):
    told = invoke("runs", "list", RUNCLAIM_DATABASE_URL=None, RUNCLAIM_API_URL="http://127.0.0.1:1")
    local = invoke("runs", "list", RUNCLAIM_API_URL="http://127.0.0.1:1")

    assert (6, "") == (told.exit_code, told.stdout)
    assert "the API http://127.0.0.1:1 does not answer" in told.stderr
    assert 0 == local.exit_code


def test_a_delayed_run_is_not_due_before_its_time(bench: Bench, invoke: Invoke, review: Flow):
    told = invoke(
        "runs", "enqueue", "review", "--input", '{"repo": "a", "number": 7}', "--delay", "2h", "--priority", "3"
    )
    row = bench.execute("SELECT available_at, enqueued_at, priority FROM runclaim_runs").one()
    took = row.available_at - row.enqueued_at

    assert 0 == told.exit_code
    assert 3 == row.priority
    assert timedelta(hours=2) == (took if isinstance(took, timedelta) else timedelta(microseconds=took))
