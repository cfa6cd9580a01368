"""Doubt: what may have arrived is asked for before it is sent again, whoever let it go on; never twice blindly."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Backoff, Blocked, Retry
from runclaim.keys import nonce
from runclaim.ledger.actions.claim import claim_actions
from runclaim.ledger.actions.decide import retry_action
from runclaim.retries import LONGEST
from tests.flows.actions.test_actions import OtherSide, planned, shown

if TYPE_CHECKING:
    from runclaim import Run
    from tests.harness.bench import Bench

LOST = ConnectionResetError("no answer")
AT_ONCE = Backoff(first=timedelta(0))


def retried(bench: Bench, run: Run) -> None:
    assert bench.database.run(lambda conn: retry_action(conn, run.actions[0].id))


def abandoned(bench: Bench) -> None:
    """A sender claims what is due and dies; its claim has lapsed."""
    kinds = {"comment": timedelta(seconds=60)}
    assert bench.database.run(lambda conn: claim_actions(conn, kinds, owner=nonce()))
    bench.execute("UPDATE runclaim_actions SET available_at = planned_at")


def superseding(bench: Bench) -> tuple[Run, Any]:
    """A run that goes on after the phase that planned an action, and how to enqueue a newer one of its subject."""
    flow = bench.flow(subject="{repo}", key="{head}")
    flow.phase(name="deliver")(lambda ctx: ctx.plan_action("comment", 1))
    flow.phase(name="compound")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7, head="older")
    bench.deliver(flow, inline=lambda before, after: False)
    return run, lambda: flow.enqueue(repo="acme/app", number=7, head="newer")


def test_an_unknown_action_that_a_person_retries_is_looked_up_first(bench: Bench):
    """
    INVARIANT: where the other side can be asked, it is looked up before it is sent again, whoever asks for that.

    Breaks if a person's retry takes the doubt away.
    """
    there, is_down = OtherSide(LOST), [True]

    def find(payload: Any, key: str) -> str | None:
        if is_down:
            raise ConnectionRefusedError("down")
        return there.find(payload, key)

    bench.action(max_attempts=1)(there.post).lookup(find)
    run = planned(bench)
    bench.send()
    assert "unknown" == shown(run)[0][0]
    is_down.clear()
    retried(bench, run)
    bench.send()

    assert (len(there.calls), there.asked, shown(run)) == (1, there.arrived, [("posted", "1", 1)])


def test_an_unknown_action_that_nobody_can_look_up_is_sent_once_by_a_persons_word(bench: Bench):
    there = OtherSide(LOST, LOST)
    bench.action()(there.post)
    run = planned(bench)
    bench.send()
    retried(bench, run)
    bench.send()

    assert (2, [("unknown", None, 1)]) == (len(there.calls), shown(run))


def test_a_persons_word_counts_for_one_send_also_when_its_sender_dies(bench: Bench):
    """
    INVARIANT: a person who has looked before one send says nothing of the next.

    Breaks if the word is not used up by the claim.
    """
    there = OtherSide(LOST)
    bench.action()(there.post)
    run = planned(bench)
    bench.send()
    retried(bench, run)
    abandoned(bench)
    bench.send()

    assert (1, [("unknown", None, 2)]) == (len(there.calls), shown(run))


def test_a_person_may_have_sent_again_what_was_surely_not_sent(bench: Bench):
    there = OtherSide(LOST, Retry("busy", after=timedelta(0)))
    bench.action()(there.post)
    run = planned(bench)
    bench.send()
    retried(bench, run)
    bench.send()

    assert (3, [("posted", "2", 2)]) == (len(there.calls), shown(run))


def test_a_retried_action_of_a_run_that_is_superseded_since_is_unknown_and_not_failed(bench: Bench):
    there = OtherSide(LOST)
    bench.action()(there.post)
    run, supersede = superseding(bench)
    bench.send()
    retried(bench, run)
    supersede()
    bench.send()

    assert ("superseded", 1, [("unknown", None, 1)]) == (run.state, len(there.calls), shown(run))


@pytest.mark.parametrize("superseded", [True, False], ids=["superseded", "attempts spent"])
def test_an_idempotent_action_whose_sender_died_last_is_unknown_and_not_failed(bench: Bench, superseded: bool):
    """
    INVARIANT: `failed` says that it did not arrive.

    Breaks if what may have arrived goes to the sender although it is not to be sent any more.
    """
    there = OtherSide()
    bench.action(idempotent=True, max_attempts=5 if superseded else 1)(there.post)
    run, supersede = superseding(bench)
    abandoned(bench)
    if superseded:
        supersede()
    bench.send()

    assert ([], [("unknown", None, 2)]) == (there.calls, shown(run))


def test_what_was_surely_not_sent_again_may_still_have_arrived_before(bench: Bench):
    there = OtherSide(LOST, Retry("busy", after=timedelta(0)))
    bench.action(idempotent=True, max_attempts=2)(there.post)
    run = planned(bench)
    bench.send()

    assert (1, [("unknown", None, 2)]) == (len(there.arrived), shown(run))


@pytest.mark.parametrize("after", [timedelta.max, timedelta.min])
def test_a_delay_beyond_every_calendar_is_cut(bench: Bench, after: timedelta):
    """
    INVARIANT: what was surely not sent stays so, whatever delay its handler asks for.

    Breaks if the database is given a date that it does not have: the claim lapses, and doubt begins.
    """
    there = OtherSide(Retry("busy", after=after))
    bench.action()(there.post)
    run = planned(bench)
    sent = bench.send()

    assert (sent, run.actions[0].uncertain) == ((1, False) if after > LONGEST else (2, False))
    assert shown(run)[0][0] == ("planned" if after > LONGEST else "posted")


@pytest.mark.parametrize("after", [timedelta.max, timedelta.min])
def test_a_phase_may_ask_for_such_a_delay_too(bench: Bench, after: timedelta):
    flow = bench.flow()

    @flow.phase
    def plan(ctx: Any) -> int:
        if ctx.attempt == 1:
            raise Retry("busy", after=after)
        return ctx.attempt

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.finish(flow, run)

    assert run.state == ("queued" if after > LONGEST else "succeeded")


class Calls:
    """A body that makes one call, whose replies are lost `times` over; `how` is told to `ctx.act`."""

    def __init__(
        self, bench: Bench, *, times: int = 1, attempts: int = 1, error: type[Exception] = LOST.__class__, **how: Any
    ) -> None:
        self.bench, self.arrived, self.asked = bench, [], []
        self._times, self._error = times, error
        if "lookup" in how:
            how["lookup"] = self._find
        self.flow = bench.flow()
        self.flow.phase(name="deliver", max_attempts=attempts, backoff=AT_ONCE)(
            lambda ctx: ctx.act("check", self._call, **how)
        )
        self.run = self.flow.enqueue(repo="acme/app", number=7)
        self.finish()

    def _call(self, key: str) -> str:
        self.arrived.append(key)
        if len(self.arrived) <= self._times:
            raise self._error("no answer")
        return f"call {len(self.arrived)}"

    def _find(self, key: str) -> str | None:
        self.asked.append(key)
        return "found" if key in self.arrived else None

    def finish(self) -> None:
        self.bench.finish(self.flow, self.run)


@pytest.mark.parametrize("verb, error", [("retry", ConnectionResetError), ("resume", Blocked)])
@pytest.mark.parametrize("how", [{}, {"idempotent": True}], ids=["", "idempotent"])
def test_a_call_that_a_person_lets_go_on_is_looked_up_first(
    bench: Bench, verb: str, error: type[Exception], how: dict[str, Any]
):
    """
    INVARIANT: where the other side can be asked, no person's word makes a call twice.

    Breaks if a retry or a resume forgets that the call was begun.
    """
    calls = Calls(bench, error=error, lookup=True, **how)
    getattr(calls.run, verb)()
    calls.finish()

    assert (len(calls.arrived), calls.asked) == (1, calls.arrived)
    assert "found" == calls.run.result


def test_a_call_that_nobody_can_ask_about_is_made_once_by_a_persons_word(bench: Bench):
    """
    INVARIANT: without a lookup a person decides, each time.

    Breaks if the word outlives the call that it was given for.
    """
    calls = Calls(bench, times=2)
    calls.run.retry()
    calls.finish()
    assert ("failed", 2) == (calls.run.state, len(calls.arrived))
    calls.run.retry()
    calls.finish()

    assert ("call 3", 3) == (calls.run.result, len(calls.arrived))


def test_a_call_whose_attempt_is_lost_after_a_persons_word_needs_another(bench: Bench):
    """Breaks if the word is not used up by the call that it was given for: the next attempt would call again."""
    calls = Calls(bench, times=2, attempts=2)
    assert ("blocked", 1) == (calls.run.state, len(calls.arrived))
    calls.run.resume()
    calls.finish()

    assert ("blocked", 2) == (calls.run.state, len(calls.arrived))
