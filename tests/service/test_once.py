"""A change under an idempotency key: done once, answered the same, and published once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runclaim.errors import StateConflict
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.changes import Cancel, Restart
from runclaim.flows.client.enqueue import Enqueue
from runclaim.keys import fingerprint
from runclaim.ledger.doors import idempotency_keys
from runclaim.service.errors import KeyReused, RequestInFlight
from runclaim.service.flows import known_flow, requested_run
from runclaim.service.once import Answer, KeyedRequest, Once
from runclaim.service.run_request import RunRequest
from tests.commitcut import commit_cut
from tests.harness.bench import Bench, Rung
from tests.pgcut import When

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runclaim.ledger.enqueue import Enqueued

KEY = KeyedRequest(fingerprint(["the key"]), "what-is-asked", "default")


def enqueue(access: LedgerAccess, request: KeyedRequest = KEY, number: int = 7) -> Once[Any]:
    wanted = RunRequest(flow="review", input={"repo": "acme/app", "number": number})
    return Once(Enqueue([requested_run(known_flow(access, "review"), wanted, trace_context=None)]), answer, request)


def answer(runs: Sequence[Enqueued]) -> Answer:
    return Answer(201 if runs[0].created else 200, runs[0].run_id, {"Location": runs[0].run_id})


@pytest.fixture
def declared(bench: Bench) -> Bench:
    bench.flow().phase(name="plan")(lambda ctx: None)
    return bench


def test_a_change_is_made_once_for_a_key_and_a_replay_publishes_nothing(declared: Bench):
    """
    INVARIANT: what a request has changed is published once, however often it is answered.

    Breaks if an answer that was kept is taken for a change that was made just now.
    """
    first = declared.ledger.do(enqueue(declared.ledger))
    again = declared.ledger.do(enqueue(declared.ledger, number=8))

    assert (first.answer, False, True) == (again.answer, first.is_replayed, again.is_replayed)
    assert ([first.answer.run_id], 1) == ([due.run_id for due in declared.rung], declared.count("runclaim_runs"))


def test_a_key_that_was_used_for_another_request_is_refused_and_nothing_is_changed(declared: Bench):
    declared.ledger.do(enqueue(declared.ledger))
    other = KeyedRequest(KEY.place, "something else", KEY.project)

    with pytest.raises(KeyReused):
        declared.ledger.do(enqueue(declared.ledger, other, number=8))
    assert 1 == declared.count("runclaim_runs")


def test_a_change_that_is_refused_keeps_no_answer(declared: Bench):
    """A later request with the key is a first one: nothing was done under it."""
    run_id = declared.flows["review"].enqueue(repo="acme/app", number=7).id
    retry = Once(Restart("retry", run_id), lambda view: Answer(202, view.id), KEY)
    with pytest.raises(StateConflict, match="only a failed run can be"):
        declared.ledger.do(retry)
    canceled = declared.ledger.do(Once(Cancel([run_id]), lambda _: Answer(202, run_id), KEY))

    assert not canceled.is_replayed


@pytest.mark.postgres
def test_a_key_that_somebody_else_works_on_is_refused_at_once(postgres_bench: Bench):
    postgres_bench.flow().phase(name="plan")(lambda ctx: None)
    place = KeyedRequest("0123456789abcdef", "what", "default")
    with postgres_bench.database.begin() as other:
        assert idempotency_keys.begin(other, place.place)
        with pytest.raises(RequestInFlight):
            postgres_bench.ledger.do(enqueue(postgres_bench.ledger, place))

    assert 201 == postgres_bench.ledger.do(enqueue(postgres_bench.ledger, place)).answer.status


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_change_whose_commit_got_no_answer_is_made_and_published_once(declared: Bench, when: When):
    """
    INVARIANT: an ambiguous commit is read back, and what it changed is still published.

    Breaks if the answer that is found is taken for that of an earlier request: its run would wait for beat.
    """
    rung, config = Rung(), declared.config
    with commit_cut(config.database_url) as cut:
        access = LedgerAccess(lambda: config.__class__(database_url=cut.url), lambda: rung, declared.flows)
        cut.watch(access.database)
        once = enqueue(access)
        cut.order(when)
        answered = access.do(once)
        cut.check()
        access.close()

    assert (201, 1) == (answered.answer.status, declared.count("runclaim_runs"))
    assert [answered.answer.run_id] == [due.run_id for due in rung]
