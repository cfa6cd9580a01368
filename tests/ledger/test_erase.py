"""erase: what an ended run holds is blanked, and its key still stands for it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import BigInteger, Boolean, Integer, SmallInteger, insert, select, update

from runclaim.errors import InputError, KeyConflict
from runclaim.keys import nonce, uuid7
from runclaim.ledger import read
from runclaim.ledger.actions.decide import actions_of, retry_action
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.history.erase import BLANK_KEY, Whose, ended_runs, erase, erased, unended_runs
from runclaim.ledger.history.erased import ERASED
from runclaim.ledger.history.unused_subjects import Subject, end_subjects
from runclaim.ledger.retry import retry
from runclaim.models import metadata
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json
from runclaim.states import RunState
from tests.ledger.factories import (
    blocked_run,
    canceled_run,
    claimed_run,
    failed_run,
    new_run,
    queued_run,
    succeeded_run,
    superseded_run,
    waiting_run,
)
from tests.ledger.interleaving import interleavings
from tests.ledger.played import script
from tests.ledger.sql import count

#: Tables without a run's data, and what they have instead.
OF_NO_RUN = {
    "answers": "a status and hashes",
    "bulk": "what a person asked to be done",
    "counters": "counts",
    "dedup_keys": "hashes",
    "duties": "upkeep",
    "flows": "declarations of the code",
    "limits": "names from the code, and counts",
    "listeners": "names from the code",
    "pauses": "names, and who paused",
    "releases": "declarations of the code",
    "run_keys": "hashes: the tombstone",
    "schedules": "declarations of the code",
    "schema": "revisions",
    "signing_keys": "random bits",
    "subjects": "the subject, which stays unless its text is blanked with the key's",
    "tokens": "names of tokens",
}
#: What stays of a run: it names something, or is a word of runclaim.
STAYS = {
    "runs": {
        "project",
        "flow",
        "key",
        "subject",
        "phases",
        "phase",
        "queue",
        "waits_for",
        "signals",
        "worker",
        "wait_else",
        "parent_phase",
        "limit_key",
        "second_limit_key",
        "release",
        "delivery_id",
        "delivery_action",
    },
    "joins": {"phase"},
    "phase_results": {"phase", "owner", "worker"},
    "events": {"type", "phase"},
    "actions": {"phase", "name", "kind", "idempotency_key", "decision", "upstream_id"},
    "signals": {"name", "signal_id"},
    "untold": {"listener"},
}
#: Columns whose values a CHECK decides, and those that go with them.
WORDS = {
    "acts": {"state": "posted"},
    "actions": {"state": "failed", "owner": None, "finding_id": None},
    "findings": {"session_id": None},
    "sessions": {"status": "completed"},
    "untold": {"state": "waiting"},
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = {name.removeprefix("runclaim_"): table for name, table in metadata.tables.items()}
OF_A_RUN = sorted(TABLES.keys() - OF_NO_RUN.keys())


def canary(table, column):
    return f"canary {table}.{column}"


def planted(table, column, run_id):
    """A value for a column: a canary for whatever takes a text."""
    if column.name in WORDS.get(table, {}):
        return WORDS[table][column.name]
    kind = column.type
    if isinstance(kind, Json):
        return [canary(table, column.name)]
    if isinstance(kind, Id):
        return run_id if column.name == "run_id" else uuid7()
    if isinstance(kind, Instant):
        return NOW
    if isinstance(kind, Boolean):
        return False
    return 1 if isinstance(kind, BigInteger | Integer | SmallInteger) else canary(table, column.name)


def plant(conn, run_id):
    """Write canaries to every text of the run, whatever it is."""
    table = TABLES["runs"]
    texts = [each for each in table.columns if not isinstance(each.type, Id | Instant | Boolean | BigInteger | Integer)]
    mine = {each.name: planted("runs", each, run_id) for each in texts if each.name not in {"state", "owner"}}
    conn.execute(update(table).where(table.c.id == run_id).values(mine))
    conn.execute(update(TABLES["phase_results"]).values(result=[canary("phase_results", "result")], phase="gone"))
    for name in OF_A_RUN:
        if name != "runs":
            columns = [each for each in TABLES[name].columns if (name, each.name) != ("events", "id")]
            conn.execute(insert(TABLES[name]).values({each.name: planted(name, each, run_id) for each in columns}))


def surviving(conn):
    """Table → the columns that still have their canary."""
    found = {}
    for name, table in TABLES.items():
        for row in conn.execute(select(table)).mappings():
            there = {column for column, value in row.items() if canary(name, column) in str(value)}
            found.setdefault(name, set()).update(there)
    return {name: columns for name, columns in found.items() if columns}


def test_every_text_of_a_run_is_erased_or_stays_for_a_reason(conn):
    """
    INVARIANT: nothing that an application has put into a run outlives its erasure unnoticed.

    Breaks if a column for texts or JSON is added to a table of runs, and neither `erase` blanks it nor `STAYS` has it.
    """
    run_id = succeeded_run(conn)
    plant(conn, run_id)
    before = surviving(conn)
    erase(conn, [run_id])

    assert set(OF_A_RUN) == before.keys()
    assert STAYS == surviving(conn)


def test_another_runs_texts_stay(conn):
    other, mine = succeeded_run(conn), succeeded_run(conn)
    plant(conn, other)
    before = surviving(conn)
    erase(conn, [mine])

    assert before == surviving(conn)


def test_an_erased_run_is_found_under_its_key_and_nothing_starts_again(conn):
    """
    INVARIANT: the tombstone stays: erasing does no work twice.

    Breaks if the key, or the fingerprint of the input, goes with the input.
    """
    run_id = succeeded_run(conn, "pr-7")
    erase(conn, [run_id])
    (found,) = enqueue(conn, [new_run("pr-7")])

    assert (run_id, False) == (found.run_id, found.created)
    assert (RunState.SUCCEEDED, ERASED, True) == ((view := read.run(conn, run_id)).state, view.input, view.was_erased)


def test_a_conflict_with_an_erased_run_shows_nothing_of_its_mark(conn):
    erase(conn, [succeeded_run(conn, "pr-7")])

    with pytest.raises(KeyConflict, match="purged or erased") as refused:
        enqueue(conn, [new_run("pr-7", input={"key": "another"})])

    assert {} == refused.value.differs


@pytest.mark.parametrize("made", [queued_run, claimed_run, waiting_run, blocked_run])
def test_a_live_run_is_not_erased(conn, made):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id

    assert set() == erase(conn, [run_id])
    assert read.run(conn, run_id).input != ERASED


@pytest.mark.parametrize("made", [succeeded_run, failed_run, canceled_run, superseded_run])
def test_a_run_that_has_ended_is_erased_whatever_its_state(conn, made):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id

    assert {run_id} == erase(conn, [run_id])
    assert ERASED == read.run(conn, run_id).input


def test_a_run_whose_action_waits_is_not_erased(conn):
    """
    INVARIANT: what still has to reach the outside world keeps its payload.

    Breaks if erase stops looking at the pending actions.
    """
    run_id = succeeded_run(conn, "pr-7")
    conn.exec_driver_sql("UPDATE runclaim_runs SET pending_actions = 1")

    assert set() == erase(conn, [run_id])
    assert [run_id] == unended_runs(conn, Whose(project="default", flow="review", key="pr-7"), limit=9)


def test_an_erased_run_is_not_retried_and_its_failed_action_is_not_sent_again(conn):
    """
    INVARIANT: what was erased never runs and is never sent: its input and payload are gone.

    Breaks if erase leaves the run's generation, or the action, as they were.
    """
    run_id = failed_run(conn).run_id
    plant(conn, run_id)
    erase(conn, [run_id])
    (action,) = actions_of(conn, run_id)

    assert not retry(conn, run_id)
    assert not retry_action(conn, action.id)
    assert "superseded or erased" in action.not_retried


def test_the_journal_says_who_erased_a_run_and_keeps_its_other_events_without_their_data(conn):
    run_id, call = failed_run(conn).run_id, nonce()
    kinds = [each.type for each in read.journal(conn, run_id)]
    erase(conn, [run_id], by="ann", call=call)
    after = read.journal(conn, run_id)

    assert [*kinds, "run.erased"] == [each.type for each in after]
    assert [None] * len(kinds) + [{"by": "ann"}] == [each.data for each in after]
    assert {run_id} == erased(conn, [run_id], call=call)
    assert set() == erased(conn, [run_id], call=nonce())


def test_who_erases_gives_no_secret_as_a_name(conn):
    run_id = succeeded_run(conn)

    with pytest.raises(InputError):
        erase(conn, [run_id], by="ghp_" + "Can4ry" * 6)

    assert not read.run(conn, run_id).was_erased


def test_blanked_keys_leave_hashes_and_their_subjects_end(conn):
    run_id = succeeded_run(conn, "ann@example.com", subject="ann")
    about = Whose(project="default", subject="ann")
    (subject,) = ended_runs(conn, about, limit=9).values()
    erase(conn, [run_id], keys=True)
    end_subjects(conn, [subject])
    view = read.run(conn, run_id)

    assert Subject("default", "review", "ann") == subject
    assert (BLANK_KEY, None, 0) == (view.key, view.subject, count(conn, "subjects"))
    assert run_id == enqueue(conn, [new_run("ann@example.com")])[0].run_id


def test_runs_are_found_by_key_or_subject_of_their_project_and_not_again_once_they_are_erased(conn):
    mine = [succeeded_run(conn, f"pr-{number}", subject="acme") for number in range(2)]
    succeeded_run(conn, "pr-0", subject="acme", project="theirs")
    elsewhere = canceled_run(conn, "pr-0", subject="acme", flow="other")
    of_key = Whose(project="default", flow="review", key="pr-0")
    of_subject = Whose(project="default", subject="acme")
    of_flow = Whose(project="default", flow="review", subject="acme")
    first = [set(ended_runs(conn, each, limit=9)) for each in (of_key, of_subject, of_flow)]
    erase(conn, mine)
    left = [set(ended_runs(conn, each, limit=9)) for each in (of_key, of_subject, of_flow)]

    assert [{mine[0]}, {*mine, elsewhere}, set(mine)] == first
    assert [set(), {elsewhere}, set()] == left
    assert mine[:1] == list(ended_runs(conn, of_key, keys=True, limit=9))
    assert 1 == len(ended_runs(conn, of_subject, keys=True, limit=1))


def test_a_run_is_retried_or_erased_and_never_both(db, level):
    """
    INVARIANT: a run that is queued again has its input.

    Breaks if erase is decided by what was read, or retry does not look at the run's generation.
    """

    def scripts():
        scripts.run_id = db.run(failed_run).run_id
        return [script(db, erase, [scripts.run_id]), script(db, retry, scripts.run_id)]

    for each in interleavings(db, scripts, at_most=40):
        was_erased, was_retried = bool(each.answers[0]), bool(each.answers[1])
        view = db.ask(lambda conn: read.run(conn, scripts.run_id))

        assert was_erased is not was_retried
        assert (was_erased, RunState.QUEUED if was_retried else RunState.FAILED) == (view.was_erased, view.state)
