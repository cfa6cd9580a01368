"""Actions from a body's plan to the other side: sent after the completion, and never twice blindly."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import ActionRejected, Backoff, ClaimLost, InputError, Retry
from runclaim.errors import DeclarationError
from runclaim.flows.actions.action import Action, ActionOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Run, Runclaim
    from tests.harness.bench import Bench


class OtherSide:
    """What has arrived, under its keys; `answers` are what it does with each call: an exception after it arrived."""

    def __init__(self, *answers: Exception | None) -> None:
        self.calls: list[tuple[Any, str]] = []
        self.arrived: list[str] = []
        self.asked: list[str] = []
        self._answers = list(answers)

    def post(self, payload: Any, key: str) -> str:
        self.calls.append((payload, key))
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Retry | ActionRejected):
            raise answer
        self.arrived.append(key)
        if answer is not None:
            raise answer
        return str(len(self.arrived))

    def find(self, _payload: Any, key: str) -> str | None:
        self.asked.append(key)
        return str(self.arrived.index(key) + 1) if key in self.arrived else None


def planned(bench: Bench, *payloads: Any, **how: Any) -> Run:
    """A run whose only phase has planned these comments and is complete."""
    flow = bench.flow(**how)

    @flow.phase
    def deliver(ctx):
        for payload in payloads or ("hello",):
            ctx.plan_action("comment", payload)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    return run


def shown(run: Run) -> list[tuple[str, str | None, int]]:
    return [(each.state, each.upstream_id, each.attempts) for each in run.actions]


def test_an_action_is_sent_after_the_completion_under_its_key(bench: Bench):
    there = OtherSide()
    bench.action()(there.post)
    run = planned(bench, {"body": "one"}, {"body": "two"})
    assert ([], 2) == (there.calls, bench.rung.actions)
    assert [("planned", None, 0)] * 2 == shown(run)

    assert 2 == bench.send()

    assert [({"body": "one"}, f"{run.id}:deliver:0"), ({"body": "two"}, f"{run.id}:deliver:1")] == there.calls
    assert [("posted", "1", 1), ("posted", "2", 1)] == shown(run)
    assert 0 == bench.send()
    assert 2 == bench.totals()["actions_posted", "comment"]


@pytest.mark.parametrize(
    "limit, expected",
    [(None, (3, False)), (timedelta(minutes=1), (1, True)), (timedelta(minutes=5), (3, False))],
)
def test_no_action_is_taken_that_a_time_limit_could_end_in_the_middle(
    bench: Bench, limit: timedelta | None, expected: tuple[int, bool]
):
    """
    INVARIANT: Celery ends no send whose end it was sure not to see; such an action would be unknown, and want a person.

    Breaks if a delivery takes what is due without asking how long that may take.
    """
    there = OtherSide()
    bench.action(max_duration=timedelta(minutes=1))(there.post)
    planned(bench, "one", "two", "three")
    sent = bench.sender().send_due(within=timedelta(minutes=10), limit=limit)

    assert sent == expected
    assert len(there.calls) == expected[0]


def test_a_lost_reply_is_looked_up_before_anything_is_sent_again(bench: Bench):
    """
    INVARIANT: what may have arrived is not sent again before the other side was asked.

    Breaks if an exception of the handler counts as "not sent".
    """
    there = OtherSide(ConnectionResetError("no answer"))
    bench.action()(there.post).lookup(there.find)
    run = planned(bench)

    assert 2 == bench.send()

    assert (len(there.calls), there.asked) == (1, there.arrived)
    assert [("posted", "1", 2)] == shown(run)
    assert 1 == bench.totals()["actions_looked_up", "comment"]


def test_an_action_is_declared_as_one_that_may_do_something_twice(make: Callable[..., Runclaim]):
    """
    INVARIANT: only an action that is declared idempotent is sent again without asking the other side.

    Breaks if the declaration's defaults differ from the options': nobody who left them out has said so.
    """
    action = make().action("comment")(OtherSide().post)

    assert (8, Backoff(), timedelta(minutes=1), False) == (
        action.options.max_attempts,
        action.options.backoff,
        action.options.max_duration,
        action.options.idempotent,
    )
    assert ActionOptions() == action.options


def test_what_the_lookup_does_not_find_is_sent_again_under_the_same_key(bench: Bench):
    there = OtherSide(ConnectionResetError("no answer"))
    bench.action()(there.post).lookup(lambda _payload, _key: None)
    run = planned(bench)
    bench.send()

    assert [f"{run.id}:deliver:0"] * 2 == [key for _, key in there.calls]
    assert [("posted", "2", 2)] == shown(run)


def test_what_may_have_arrived_and_cannot_be_asked_for_is_unknown(bench: Bench, caplog):
    """
    INVARIANT: never twice blindly.

    Breaks if an uncertain action without a lookup is planned again.
    """
    there = OtherSide(ConnectionResetError("no answer"))
    bench.action()(there.post)
    run = planned(bench)

    assert 1 == bench.send()

    assert [("unknown", None, 1)] == shown(run)
    assert "ConnectionResetError: no answer" in run.actions[0].error["message"]
    assert "unknown" in caplog.text


def test_where_the_other_side_does_nothing_twice_for_one_key_it_is_sent_again(bench: Bench):
    there = OtherSide(ConnectionResetError("no answer"))
    bench.action(idempotent=True)(there.post)
    run = planned(bench)
    bench.send()

    assert 1 == len({key for _, key in there.calls})
    assert [("posted", "2", 2)] == shown(run)


def test_what_was_surely_not_sent_is_sent_again_and_not_looked_up(bench: Bench):
    there = OtherSide(Retry("busy", after=timedelta(0)), Retry("busy", after=timedelta(0)))
    bench.action()(there.post).lookup(there.find)
    run = planned(bench)
    bench.send()

    assert [] == there.asked
    assert [("posted", "1", 3)] == shown(run)


def test_a_delay_that_the_handler_asks_for_is_kept(bench: Bench):
    there = OtherSide(Retry("busy", after=timedelta(hours=1)))
    bench.action()(there.post)
    run = planned(bench)

    assert 1 == bench.send()
    assert 0 == bench.send()
    assert [("planned", None, 1)] == shown(run)


def test_what_the_other_side_will_never_take_has_failed(bench: Bench):
    there = OtherSide(ActionRejected("422: line is no part of the diff"))
    bench.action()(there.post)
    run = planned(bench)
    bench.send()

    assert [("failed", None, 1)] == shown(run)
    assert {"type": "ActionRejected", "message": "422: line is no part of the diff"} == run.actions[0].error


def test_attempts_are_bounded(bench: Bench):
    there = OtherSide(*[Retry("busy", after=timedelta(0))] * 9)
    bench.action(max_attempts=3)(there.post)
    run = planned(bench)

    assert 3 == bench.send()
    assert [("failed", None, 3)] == shown(run)


def test_a_lookup_that_fails_is_asked_again_and_in_the_end_it_is_unknown(bench: Bench):
    there = OtherSide(ConnectionResetError("no answer"))

    def down(_payload: Any, key: str) -> None:
        there.asked.append(key)
        raise ConnectionRefusedError("down")

    bench.action(max_attempts=2)(there.post).lookup(down)
    run = planned(bench)
    bench.send()

    assert (1, 3) == (len(there.calls), len(there.asked))
    assert [("unknown", None, 4)] == shown(run)
    assert "down" in run.actions[0].error["message"]


def test_what_arrived_at_the_last_attempt_is_still_looked_up(bench: Bench):
    there = OtherSide(Retry("busy", after=timedelta(0)), ConnectionResetError("no answer"))
    bench.action(max_attempts=2)(there.post).lookup(there.find)
    run = planned(bench)
    bench.send()

    assert [("posted", "1", 3)] == shown(run)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_superseded_run_looks_up_what_may_have_arrived_and_sends_nothing(bench: Bench, arrived: bool):
    """
    INVARIANT: a superseded run never sends again.

    Breaks if the sender does not look at `superseded` after the lookup.
    """
    there = OtherSide(ConnectionResetError("no answer"))
    comment = bench.action(backoff=Backoff(first=timedelta(hours=1), jitter=False))(there.post)
    comment.lookup(there.find if arrived else lambda _payload, _key: None)
    flow = bench.flow(subject="{repo}", key="{head}")

    @flow.phase
    def deliver(ctx):
        ctx.plan_action("comment", ctx.input.head)

    @flow.phase
    def compound(ctx):
        pass

    older = flow.enqueue(repo="acme/app", number=7, head="older")
    bench.deliver(flow, inline=lambda before, after: False)
    assert 1 == bench.send()
    flow.enqueue(repo="acme/app", number=7, head="newer")
    bench.execute("UPDATE runclaim_actions SET available_at = planned_at")

    assert 1 == bench.send()

    assert ("superseded", 1) == (older.state, len(there.calls))
    assert [("posted", "1", 2) if arrived else ("failed", None, 2)] == shown(older)


def test_a_finding_that_an_action_points_at_is_recorded_with_it(bench: Bench):
    bench.action()(OtherSide().post)
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        found = ctx.finding(severity="major", title="undefined name 'x'", path="a.py", line=3)
        return ctx.plan_action("comment", {"body": "?"}, name="first", finding=found)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    (finding,), (action,) = run.findings, run.actions
    assert ("major", "undefined name 'x'", "a.py", 3) == (finding.severity, finding.title, finding.path, finding.line)
    assert (action.finding_id, action.name, action.idempotency_key) == (finding.id, "first", run.result)


def test_an_attempt_that_fails_has_found_and_planned_nothing(bench: Bench):
    """
    INVARIANT: findings and actions are written with the completion or not at all.

    Breaks if they are written while the body runs, or kept from one attempt to the next.
    """
    bench.action()(OtherSide().post)
    flow = bench.flow()

    @flow.phase(backoff=Backoff(first=timedelta(0)))
    def deliver(ctx):
        ctx.finding(severity="minor", title=f"attempt {ctx.attempt}")
        ctx.plan_action("comment", ctx.attempt)
        if ctx.attempt == 1:
            raise ValueError("no")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    assert ([], []) == (run.findings, run.actions)
    bench.finish(flow, run)

    assert ["attempt 2"] == [each.title for each in run.findings]
    assert [2] == [each.payload for each in run.actions]


MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an unknown kind": (lambda ctx: ctx.plan_action("mail", {}), "kind"),
    "not JSON": (lambda ctx: ctx.plan_action("comment", {1, 2}), "payload"),
    "NaN": (lambda ctx: ctx.plan_action("comment", float("nan")), "payload"),
    "a NUL": (lambda ctx: ctx.plan_action("comment", {"body": "a\0"}), "payload.body"),
    "too long": (lambda ctx: ctx.plan_action("comment", "x" * 300_000), "payload"),
    "a name twice": (lambda ctx: [ctx.plan_action("comment", 1, name="a") for _ in range(2)], "name"),
    "an empty name": (lambda ctx: ctx.plan_action("comment", 1, name=""), "name"),
    "no title": (lambda ctx: ctx.finding(severity="major", title=""), "title"),
    "a title with a NUL": (lambda ctx: ctx.finding(severity="major", title="a\0b"), "title"),
    "no severity": (lambda ctx: ctx.finding(severity=None, title="a"), "severity"),
    "line zero": (lambda ctx: ctx.finding(severity="major", title="a", line=0), "line"),
    "a long body": (lambda ctx: ctx.finding(severity="major", title="a", body="x" * 70_000), "body"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_recorded_names_its_field_and_fails_the_run(bench: Bench, mistake):
    bench.action()(OtherSide().post)
    do, field = MISTAKES[mistake]
    flow = bench.flow()
    caught: list[InputError] = []

    @flow.phase
    def deliver(ctx):
        try:
            do(ctx)
        except InputError as error:
            caught.append(error)
            raise

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert [field] == [error.field for error in caught]
    assert ("failed", [], []) == (run.state, run.findings, run.actions)


def test_a_finding_of_another_attempt_cannot_be_pointed_at(bench: Bench):
    bench.action()(OtherSide().post)
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        ctx.plan_action("comment", 1, finding=type(ctx.finding(severity="minor", title="a"))("0" * 36))

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert "InputError" == run.view.error["type"]


@pytest.mark.parametrize(
    "declare,said",
    [
        (lambda: ActionOptions(max_attempts=0), "max_attempts"),
        (lambda: ActionOptions(max_duration=timedelta(0)), "max_duration"),
        (lambda: ActionOptions(backoff=3), "backoff"),
        (lambda: Action("a b", lambda p, k: None, ActionOptions()), "action"),
        (lambda: Action("a", lambda p: None, ActionOptions()), "handler"),
        (lambda: Action("a", lambda p, k: None, ActionOptions()).lookup(lambda p: None), "lookup"),
    ],
)
def test_a_mistake_in_a_declaration_is_told_at_import_time(declare, said):
    with pytest.raises(DeclarationError, match=said):
        declare()


def test_a_second_lookup_is_refused():
    made = Action("comment", lambda _payload, _key: None, ActionOptions())
    made.lookup(lambda _payload, _key: None)

    with pytest.raises(DeclarationError, match="already has a lookup"):
        made.lookup(lambda _payload, _key: None)


def test_an_action_can_be_called_in_a_test():
    there = OtherSide()
    made = Action("comment", there.post, ActionOptions())

    assert "1" == made({"body": "a"}, "key")


def test_a_sender_that_took_too_long_settles_nothing(bench: Bench, caplog):
    there = OtherSide()

    def slow(payload: Any, key: str) -> str:
        found = there.post(payload, key)
        if len(there.calls) == 1:
            # Its time is over while it still waits for the answer, and another sender comes.
            bench.execute("UPDATE runclaim_actions SET available_at = planned_at")
            assert 1 == bench.send()
        return found

    bench.action()(slow).lookup(there.find)
    run = planned(bench)
    bench.send()

    assert 1 == len(there.calls)
    assert [("posted", "1", 2)] == shown(run)
    assert "lost its claim" in caplog.text


def test_a_worker_that_stops_takes_no_more(bench: Bench):
    there = OtherSide()
    bench.action()(there.post)
    planned(bench, 1, 2)
    bench.stopping = True

    assert 0 == bench.send()
    assert [] == there.calls


def test_nothing_that_a_lost_claim_wanted_is_planned(bench: Bench):
    bench.action()(OtherSide().post)
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        ctx.plan_action("comment", 1)
        raise ClaimLost(ctx.run_id, ctx.phase, 1)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert [] == run.actions
