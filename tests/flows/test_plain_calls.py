"""Plain calls: claimed work for code that uses no flows, on both databases."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Backoff, Blocked, ClaimLost, Context, InputError, Retry, Runclaim, RunState, Skip
from runclaim.errors import Canceled, DeclarationError
from tests.harness.bench import NO_WAIT, PullRequest
from tests.harness.until import until
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.plain_calls import Claimed

AT_ONCE = Backoff(first=NO_WAIT)
LATER = Backoff(first=timedelta(hours=1), jitter=False)
PAST = {"sqlite": "lease_expires_at - 3600000000", "postgresql": "lease_expires_at - interval '1 hour'"}


@pytest.fixture
def runs(make: Callable[..., Runclaim]) -> Runclaim:
    return make()


def nightly(runs: Runclaim, **how: Any) -> Claimed | None:
    return runs.check_and_claim("nightly-report", key="2026-11-21", **how)


def got(claimed: Claimed | None) -> Claimed:
    assert claimed is not None
    return claimed


def lapse(runs: Runclaim) -> None:
    """As if an hour without a heartbeat had passed."""
    with runs.ledger.database.begin() as conn:
        conn.exec_driver_sql(f"UPDATE runclaim_runs SET lease_expires_at = {PAST[conn.dialect.name]}")


def test_the_work_of_a_key_is_claimed_once_and_recorded_with_its_result(runs: Runclaim):
    with got(nightly(runs)) as claimed:
        meanwhile = nightly(runs)
        runs.complete(claimed, {"rows": 7})
    run = runs.get(claimed.run_id)

    assert meanwhile is None
    assert nightly(runs) is None
    assert (RunState.SUCCEEDED, {"rows": 7}, "2026-11-21") == (run.state, run.result, run.view.key)
    assert ("2026-11-21", 1) == (claimed.key, claimed.attempt)
    assert [
        "run.enqueued", "run.started", "phase.started", "phase.completed", "run.succeeded",
    ] == [event.type for event in run.events]  # fmt: skip


def test_leaving_the_block_completes_the_work(runs: Runclaim):
    with got(nightly(runs)) as claimed:
        claimed.check()

    assert runs.get(claimed.run_id).state is RunState.SUCCEEDED


def test_another_name_or_key_is_other_work(runs: Runclaim):
    first = got(nightly(runs))

    assert got(runs.check_and_claim("nightly-report", key="2026-11-22")).run_id != first.run_id
    assert got(runs.check_and_claim("weekly-report", key="2026-11-21")).run_id != first.run_id


def test_an_exception_ends_the_attempt_and_a_later_call_may_claim_again_until_the_attempts_are_spent(runs: Runclaim):
    attempts = []
    for _ in range(3):
        with pytest.raises(ValueError, match="no"), got(nightly(runs, max_attempts=3, backoff=AT_ONCE)) as claimed:
            raise ValueError("no")
        attempts.append(claimed.attempt)

    assert [1, 2, 3] == attempts
    assert nightly(runs) is None
    assert runs.get(claimed.run_id).state is RunState.FAILED
    runs.get(claimed.run_id).retry()
    assert 1 == got(nightly(runs)).attempt


@pytest.mark.parametrize("error", [ValueError("no"), Retry(after=timedelta(hours=1)), KeyboardInterrupt()], ids=repr)
def test_a_later_call_waits_for_the_backoff(runs: Runclaim, error: BaseException):
    with pytest.raises(type(error)), got(nightly(runs, backoff=LATER)) as claimed:
        raise error

    assert nightly(runs) is None
    assert runs.get(claimed.run_id).state is RunState.QUEUED


def test_blocked_work_waits_for_a_person(runs: Runclaim):
    with pytest.raises(Blocked), got(nightly(runs)) as claimed:
        raise Blocked("look")
    blocked = nightly(runs)
    runs.get(claimed.run_id).resume()

    assert blocked is None
    assert 1 == got(nightly(runs)).attempt


def test_skipped_work_is_complete(runs: Runclaim):
    with got(nightly(runs)) as claimed:
        raise Skip("nothing to report")

    assert "phase.skipped" == runs.get(claimed.run_id).events[-2].type
    assert nightly(runs) is None


def test_a_result_that_is_no_json_fails_the_attempt_and_says_which_part(runs: Runclaim):
    with pytest.raises(InputError, match="result"), got(nightly(runs)) as claimed:
        runs.complete(claimed, {"now": object()})

    assert runs.get(claimed.run_id).state is RunState.FAILED


def test_a_lapsed_claim_of_the_key_is_rescued_by_the_call_itself(make):
    """
    INVARIANT: work whose process died is done by the next call, with no beat and no worker.

    Breaks if the call claims what is queued and leaves lapsed claims to rescue.
    """
    stale_process, fresh_process = make(), make()
    stale = got(nightly(stale_process))
    early = nightly(fresh_process)
    lapse(fresh_process)
    fresh = got(nightly(fresh_process))

    assert early is None
    assert (fresh.run_id, fresh.attempt) == (stale.run_id, 2)
    with pytest.raises(ClaimLost):
        stale_process.complete(stale)
    fresh_process.complete(fresh, "once")
    assert "once" == fresh_process.get(fresh.run_id).result


def test_a_lapsed_claim_of_another_key_is_left_to_its_own_call(runs: Runclaim):
    other = got(runs.check_and_claim("nightly-report", key="2026-11-20"))
    lapse(runs)
    nightly(runs)

    assert runs.get(other.run_id).state is RunState.RUNNING


def test_work_whose_process_dies_each_time_fails_at_its_attempts(runs: Runclaim):
    for _ in range(2):
        claimed = got(nightly(runs, max_attempts=2))
        lapse(runs)

    assert nightly(runs) is None
    assert runs.get(claimed.run_id).state is RunState.FAILED


def test_a_newer_run_of_the_subject_supersedes_and_the_older_ones_check_raises(runs: Runclaim):
    older = got(runs.check_and_claim("sync", key="pr-7:a1", subject="pr-7"))
    newer = got(runs.check_and_claim("sync", key="pr-7:b2", subject="pr-7"))

    def raises() -> bool:
        try:
            older.check()
        except ClaimLost as lost:
            return "superseded" in lost.reason
        return False

    until(raises, "the check to hear of it")
    newer.check()
    assert runs.get(older.run_id).state is RunState.SUPERSEDED


def test_work_that_is_canceled_hears_of_it_and_ends_as_canceled(runs: Runclaim):
    claimed = got(nightly(runs))
    runs.get(claimed.run_id).cancel(by="ann")
    with pytest.raises(Canceled), claimed:
        until(claimed.check, "the cancel")

    assert "ann" == runs.get(claimed.run_id).events[-1].data["by"]


def test_a_long_claim_beats(runs: Runclaim):
    claimed = got(nightly(runs, lease=timedelta(seconds=1)))
    with runs.ledger.database.read() as conn:
        first = conn.exec_driver_sql("SELECT lease_expires_at FROM runclaim_runs").scalar_one()

    def moved() -> bool:
        with runs.ledger.database.read() as conn:
            return conn.exec_driver_sql("SELECT lease_expires_at FROM runclaim_runs").scalar_one() > first

    until(moved, "a heartbeat")
    runs.complete(claimed)


def test_of_16_calls_at_once_one_gets_it(make):
    """
    INVARIANT: one owner.

    Breaks if the run is made in one transaction and claimed in another by whoever comes.
    """
    processes = [make() for _ in range(4)]

    found = together(16, lambda number: nightly(processes[number % 4]))

    assert 1 == sum(each is not None for each in found)


def test_of_many_processes_at_once_one_gets_it(database_url: str, runs: Runclaim):
    code = (
        "import sys; from celery import Celery; from runclaim import Runclaim;"
        "runs = Runclaim(Celery(broker='memory://'), database_url=sys.argv[1]); runs.ledger.database;"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(runs.check_and_claim('nightly-report', key='2026-11-21') is not None, flush=True)"
    )
    command = [sys.executable, "-c", code, database_url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for each in processes:
        assert "ready\n" == each.stdout.readline()
    for each in processes:
        each.stdin.write("go\n")
        each.stdin.flush()
    answers = [each.communicate()[0].strip() for each in processes]

    assert ["False", "False", "True"] == sorted(answers)
    assert nightly(runs) is None


def test_a_key_whose_run_was_purged_is_done(runs: Runclaim):
    with got(nightly(runs)):
        pass
    with runs.ledger.database.begin() as conn:
        conn.exec_driver_sql("DELETE FROM runclaim_runs")

    assert nightly(runs) is None


def test_purge_takes_the_plain_runs_of_this_process_at_the_settings(make):
    runs = make(keep_succeeded=timedelta(microseconds=1))
    with got(nightly(runs)):
        pass

    assert 1 == runs.purge()


def test_a_duplicate_is_counted(runs: Runclaim):
    nightly(runs)
    nightly(runs)
    runs._runtime.keeper.close()

    with runs.ledger.database.read() as conn:
        assert [("duplicates_refused", "nightly-report", 1)] == conn.exec_driver_sql(
            "SELECT name, flow, value FROM runclaim_counters"
        ).all()


def test_a_name_is_a_flows_or_a_plain_one_and_not_both(runs: Runclaim):
    flow = runs.flow("review", PullRequest, key="{repo}")

    @flow.phase
    def plan(ctx: Context[PullRequest]) -> None:
        """Never runs."""

    with pytest.raises(DeclarationError, match="review is a declared flow"):
        runs.check_and_claim("review", key="acme/app")
    nightly(runs)
    with pytest.raises(DeclarationError):
        runs.flow("nightly-report", PullRequest, key="{repo}")


@pytest.mark.parametrize(
    "wrong", [{"key": ""}, {"key": "a\x00"}, {"subject": "\n"}, {"project": "no name"}, {"lease": 5}, {"name": "1"}],
    ids=repr,
)  # fmt: skip
def test_what_cannot_be_recorded_is_refused_and_nothing_is_written(runs: Runclaim, wrong: dict[str, Any]):
    with pytest.raises((InputError, DeclarationError)):
        runs.check_and_claim(**{"name": "nightly-report", "key": "2026-11-21"} | wrong)

    with runs.ledger.database.read() as conn:
        assert 0 == conn.exec_driver_sql("SELECT count(*) FROM runclaim_run_keys").scalar_one()


@pytest.mark.parametrize("field", ["key", "subject"])
def test_a_key_or_a_subject_that_looks_like_a_secret_is_refused_and_nothing_is_written(runs: Runclaim, field: str):
    hidden = "ghp_" + "a1B2" * 9
    with pytest.raises(InputError, match="looks like a GitHub token") as refused:
        runs.check_and_claim(**{"name": "nightly-report", "key": "2026-11-21"} | {field: hidden})

    assert (field, False) == (refused.value.field, hidden in str(refused.value))
    with runs.ledger.database.read() as conn:
        assert 0 == conn.exec_driver_sql("SELECT count(*) FROM runclaim_run_keys").scalar_one()


def test_a_claim_that_nobody_can_end_is_said_and_left_to_its_lease(runs: Runclaim, caplog):
    claimed = got(nightly(runs))
    runs.ledger.database.shut()
    with pytest.raises(ValueError, match="no"), claimed:
        raise ValueError("no")

    assert f"could not end the attempt of {claimed!r}" in caplog.text
