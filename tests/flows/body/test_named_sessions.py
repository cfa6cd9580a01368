"""Sessions and acts: written while the body runs, under its claim, and found again by the attempt that comes next."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Backoff, ClaimLost, InputError, Retry
from runclaim.errors import NamedSessionMoved

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Run
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

AT_ONCE = Backoff(first=timedelta(0), jitter=False)


def run_of(bench: Bench, body: Callable[[Any], Any], *, number: int = 7, flow: Flow[Any] | None = None) -> Run:
    """A run of this body, delivered until nothing is due."""
    if flow is None:
        flow = bench.flow()
        flow.phase(name="deliver", backoff=AT_ONCE)(body)
    run = flow.enqueue(repo="acme/app", number=number)
    bench.finish(flow, run)
    return run


def test_a_session_and_its_findings_are_kept_with_the_run(bench: Bench):
    def body(ctx):
        with ctx.session("security", artifact_path="logs/7.jsonl") as session:
            session.started("prov-1")
            session.finding(severity="major", title="one", blocking=True)
            session.finding(severity="minor", title="two")
            session.outcome = "changes requested"

    run = run_of(bench, body)

    (session,) = run.sessions
    assert ("security", "deliver", "prov-1") == (session.role, session.phase, session.provider_session_id)
    assert ("completed", "changes requested", 1) == (session.status, session.outcome, session.blocking_count)
    assert "logs/7.jsonl" == session.artifact_path
    assert session.completed_at >= session.started_at
    assert [("one", session.id), ("two", session.id)] == [(each.title, each.session_id) for each in run.findings]


def test_an_attempt_goes_on_with_the_session_that_the_last_one_started(bench: Bench):
    """
    INVARIANT: what is paid for is not forgotten by a crash.

    Breaks if a session is written with the completion only, or made anew for each attempt.
    """
    seen: list[tuple[str | None, str]] = []

    def body(ctx):
        session = ctx.session("security")
        seen.append((session.provider_session_id, session.status))
        with session:
            if ctx.attempt == 1:
                session.started("prov-1")
                raise ValueError("no")

    run = run_of(bench, body)

    assert [(None, "started"), ("prov-1", "failed")] == seen
    assert [("prov-1", "completed")] == [(each.provider_session_id, each.status) for each in run.sessions]


def test_a_session_that_fails_says_why(bench: Bench):
    def body(ctx):
        with ctx.session("security"):
            raise TimeoutError

    run = run_of(bench, body)

    assert [("failed", "TimeoutError")] == [(each.status, each.outcome) for each in run.sessions]


def test_a_deleted_session_takes_its_findings_along(bench: Bench):
    def body(ctx):
        with ctx.session("security") as session:
            session.finding(severity="major", title="of the session")
        ctx.finding(severity="minor", title="of the phase")

    run = run_of(bench, body)
    bench.execute("DELETE FROM runclaim_sessions")
    assert ["of the phase"] == [each.title for each in run.findings]

    bench.execute("DELETE FROM runclaim_runs")
    assert 0 == bench.count("runclaim_findings")


WRITES: dict[str, Callable[[Any], Any]] = {
    "a session": lambda ctx: ctx.session("security"),
    "a named session": lambda ctx: ctx.named_session("bot").keep("prov-1"),
    "an act": lambda ctx: ctx.act("check", lambda key: key),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_lost_claim_writes_nothing(bench: Bench, what):
    """
    INVARIANT: a stale worker writes nothing while its body runs either.

    Breaks if `require_held` is not asked in the same transaction.
    """
    caught: list[BaseException] = []

    def body(ctx):
        if ctx.attempt == 1:
            bench.execute("UPDATE runclaim_runs SET fence = fence + 1")
            try:
                WRITES[what](ctx)
            except ClaimLost as error:
                caught.append(error)
                raise

    run_of(bench, body)

    assert 1 == len(caught)
    assert [0, 0, 0] == [bench.count(f"runclaim_{table}") for table in ("sessions", "named_sessions", "acts")]


def test_the_next_run_goes_on_with_a_named_session(bench: Bench):
    seen: list[tuple[str | None, int]] = []
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        named = ctx.named_session("reviewer:acme/app")
        seen.append((named.provider_session_id, named.version))
        named.keep(f"prov-{ctx.input.number}")

    for number in (1, 2, 3):
        run_of(bench, deliver, number=number, flow=flow)

    assert [(None, 0), ("prov-1", 1), ("prov-2", 2)] == seen


@pytest.mark.parametrize("known", [False, True])
def test_of_two_that_keep_a_named_session_at_once_the_second_is_told(bench: Bench, known: bool):
    """
    INVARIANT: nobody overwrites what he has not read.

    Breaks if the update does not compare the version, or the first insert overwrites.
    """
    caught: list[NamedSessionMoved] = []

    def body(ctx):
        if known:
            ctx.named_session("bot").keep("prov-0")
        mine, theirs = ctx.named_session("bot"), ctx.named_session("bot")
        theirs.keep("prov-theirs")
        try:
            mine.keep("prov-mine")
        except NamedSessionMoved as error:
            caught.append(error)
        assert "prov-theirs" == ctx.named_session("bot").provider_session_id

    run = run_of(bench, body)

    assert ("succeeded", ["bot"]) == (run.state, [error.name for error in caught])


def test_names_of_one_project_are_not_those_of_another(bench: Bench):
    seen: list[str | None] = []
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        named = ctx.named_session("bot")
        seen.append(named.provider_session_id)
        named.keep("prov")

    for project in ("one", "two"):
        flow.using(project=project).enqueue(repo="acme/app", number=7)
        bench.deliver(flow)

    assert [None, None] == seen


@pytest.mark.parametrize("bad", ["", "a\0b", "x" * 600])
def test_names_that_a_database_refuses_are_told(bench: Bench, bad: str):
    caught: list[str] = []

    def body(ctx):
        for ask in (ctx.session, ctx.named_session, lambda name: ctx.named_session("a").keep(name)):
            try:
                ask(bad)
            except InputError as error:
                caught.append(error.field)

    run_of(bench, body)

    assert ["role", "name", "provider_session_id"] == caught


def test_an_answer_that_is_known_is_given_again(bench: Bench):
    """
    INVARIANT: a call whose answer is recorded is not made again.

    Breaks if the answer is kept in memory, or written with the completion.
    """
    calls: list[str] = []
    answers: list[Any] = []

    def body(ctx):
        answers.append(ctx.act("create-check", lambda key: calls.append(key) or {"id": 41}))
        if ctx.attempt == 1:
            raise ValueError("no")

    run = run_of(bench, body)

    assert [f"{run.id}:deliver:create-check"] == calls
    assert [{"id": 41}] * 2 == answers


def crashed_in(bench: Bench, call: Callable[[str], Any], **how: Any) -> Run:
    """The run of a body whose first call does not come back."""
    keys: list[str] = []

    def once(key: str) -> Any:
        keys.append(key)
        if len(keys) == 1:
            raise ConnectionResetError("no answer")
        return call(key)

    return run_of(bench, lambda ctx: ctx.act("check", once, **how))


def test_a_call_that_may_have_arrived_is_looked_up(bench: Bench):
    run = crashed_in(bench, lambda _key: pytest.fail("called twice"), lookup=lambda key: {"found": key})

    assert {"found": f"{run.id}:deliver:check"} == run.result


def test_a_call_that_did_not_arrive_is_made_again(bench: Bench):
    run = crashed_in(bench, lambda _key: "second", lookup=lambda _key: None)

    assert "second" == run.result


def test_a_call_that_does_nothing_twice_for_one_key_is_made_again(bench: Bench):
    run = crashed_in(bench, lambda _key: "second", idempotent=True)

    assert "second" == run.result


def test_a_call_that_nobody_can_ask_about_needs_a_person(bench: Bench):
    run = crashed_in(bench, lambda _key: "second")
    assert "blocked" == run.state
    assert f"{run.id}:deliver:check" in run.view.error["message"]

    run.resume()
    bench.finish(bench.flows["review"], run)
    assert "second" == run.result


def test_a_call_that_was_surely_not_made_is_made_by_the_next_attempt(bench: Bench):
    calls: list[str] = []

    def call(key: str) -> str:
        calls.append(key)
        if len(calls) == 1:
            raise Retry("busy", after=timedelta(0))
        return "second"

    run = run_of(bench, lambda ctx: ctx.act("check", call))

    assert ("second", 2) == (run.result, len(calls))


def test_an_answer_that_is_no_json_is_told(bench: Bench):
    run = run_of(bench, lambda ctx: ctx.act("check", lambda _key: {1, 2}))

    assert ("failed", "InputError") == (run.state, run.view.error["type"])


def test_each_needs_an_act_of_its_own_name(bench: Bench):
    run = run_of(bench, lambda ctx: [ctx.act(name, lambda key: key[-1]) for name in ("a", "b", "a")])

    assert ["a", "b", "a"] == run.result
