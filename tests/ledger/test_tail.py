"""The journal is read in its order while many write it, and no event is skipped."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import event, text

from runclaim import migrations
from runclaim.database import Database
from runclaim.ledger.cancel import cancel
from runclaim.ledger.listeners import tail
from runclaim.ledger.listeners.totals import fold
from runclaim.ledger.listeners.turns import add_listener, keep_turn, leave_turn, places, take_turn
from runclaim.ledger.purge import purge
from runclaim.listeners.horizon import settled
from runclaim.states import TERMINAL
from tests.ledger.concurrency import Actor, together
from tests.ledger.factories import queued_run, succeeded_run

NOW = timedelta(0)
SOON = timedelta(seconds=10)


def journal(database, cursor=0, upto=2**60):
    """Ids of what is committed, as a reader sees it that takes no care."""
    return [line.id for line in database.ask(lambda conn: tail.after(conn, cursor, upto, limit=10_000))]


def test_an_event_whose_transaction_commits_late_is_waited_for(postgres):
    """
    INVARIANT: no event appears at or below a settled id.

    Breaks if a reader trusts the order of ids: the late transaction has the lower ones, which appear after higher ones
    were read.
    """
    with Actor(postgres) as late, Actor(postgres) as early:
        late.do(queued_run)
        early.do(queued_run)
        early.commit()
        careless = journal(postgres)

        assert settled(postgres, within=NOW) is None
        late.commit()

    upto = settled(postgres, within=NOW)
    assert journal(postgres)[0] < careless[0]
    assert journal(postgres)[-1] == upto


def test_a_transaction_that_is_rolled_back_leaves_a_gap_that_nobody_waits_for(postgres):
    with Actor(postgres) as gone:
        gone.do(queued_run)
        last = postgres.run(queued_run)
        gone.roll_back()

    assert last is not None
    assert journal(postgres)[-1] == settled(postgres, within=NOW)


def test_writers_that_come_later_hold_nobody_up(postgres):
    """INVARIANT: a ledger that is never quiet is read too. Breaks if writers that come later are waited for."""
    looked = threading.Event()

    def note(_conn, _cursor, statement, *_):
        if "pg_locks" in statement:
            looked.set()

    event.listen(postgres.engine, "after_cursor_execute", note)
    postgres.run(queued_run)
    with Actor(postgres) as before, Actor(postgres) as later:
        before.do(queued_run)
        postgres.run(queued_run)
        found = []
        reader = threading.Thread(target=lambda: found.append(settled(postgres, within=SOON)))
        reader.start()
        assert looked.wait(10)
        later.do(queued_run)
        before.commit()
        reader.join(SOON.total_seconds())
        upto = found[0]
        later.commit()

    event.remove(postgres.engine, "after_cursor_execute", note)
    assert journal(postgres)[-2] == upto


def test_a_long_transaction_that_writes_no_event_holds_nobody_up(postgres):
    """Breaks if the oldest transaction of the whole server is waited for: a report, or another application's batch."""
    postgres.run(queued_run)
    with Actor(postgres) as other:
        other.do(lambda conn: conn.execute(text("INSERT INTO runclaim_counters VALUES ('other', 'x', 1)")))

        assert journal(postgres)[-1] == settled(postgres, within=NOW)
        other.roll_back()


def test_a_reader_beside_eight_writers_reads_every_event_once_and_in_order(database):
    """
    INVARIANT: a cursor that moves to settled ids only skips nothing and reads nothing twice.

    Breaks if the reader goes as far as the newest event: one with a lower id may commit later.
    """
    done = threading.Event()
    read: list[int] = []

    def follow() -> None:
        last = False
        while True:
            upto = settled(database, within=SOON)
            assert upto is not None
            read.extend(journal(database, read[-1] if read else 0, upto))
            if last:
                return
            last = done.is_set()

    def work(_number: int) -> None:
        for _ in range(12):
            run_id = database.run(queued_run)
            database.run(lambda conn, run_id=run_id: cancel(conn, [run_id]))

    reader = threading.Thread(target=follow)
    reader.start()
    together(8, work)
    done.set()
    reader.join(30)

    assert 8 * 12 * 2 == len(read)
    assert journal(database) == read


def test_eight_processes_that_fold_at_once_count_each_event_once(database):
    """INVARIANT: the totals and their place in the journal move together. Breaks without the compare on the cursor."""
    for _ in range(10):
        database.run(succeeded_run)
    upto = settled(database, within=SOON)

    def work(_number: int) -> None:
        while database.run(lambda conn: fold(conn, upto=upto, limit=7)):
            pass

    together(8, work)
    while database.run(lambda conn: fold(conn, upto=upto, limit=7)):
        pass
    counted = "SELECT SUM(value) FROM runclaim_counters WHERE name LIKE 'events/%'"

    assert len(journal(database)) == database.ask(lambda conn: conn.execute(text(counted)).scalar_one())


def test_the_number_of_a_purged_event_is_never_given_again(database):
    """
    INVARIANT: no cursor is past an event that is yet to come, also one that a turn under way writes later.

    Breaks without AUTOINCREMENT: SQLite numbers from the highest row that is left.
    """
    for _ in range(5):
        database.run(succeeded_run)
    newest = journal(database)[-1]
    database.run(lambda conn: add_listener(conn, "audit", start=0))
    turn = database.run(lambda conn: take_turn(conn, "audit", owner="teller", hold=SOON))
    database.run(lambda conn: purge(conn, dict.fromkeys(TERMINAL, NOW)))
    database.run(queued_run)
    database.run(lambda conn: keep_turn(conn, turn, cursor=newest, hold=SOON))

    assert journal(database)
    assert journal(database) == journal(database, cursor=database.ask(places)["audit"])


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_a_batch_has_at_most_its_limit_and_goes_on_after_the_last(database, limit):
    for _ in range(3):
        database.run(succeeded_run)
    read: list[int] = []

    def more():
        return database.ask(lambda conn: tail.after(conn, read[-1] if read else 0, 2**60, limit=limit))

    while found := more():
        assert len(found) <= limit
        read += [line.id for line in found]

    assert journal(database) == read


def test_a_writer_that_begins_between_the_two_questions_is_waited_for(postgres):
    """
    INVARIANT: the newest id is asked for before its writers are.

    Breaks if they are asked for in the other order: who begins between the two may have an id below the newest one.
    """
    postgres.run(queued_run)
    settled_before = journal(postgres)[-1]
    with Actor(postgres) as open_writer:
        asked = []

        def between(*_):
            asked.append(1)
            if len(asked) == 1:
                open_writer.do(queued_run)
                postgres.run(queued_run)

        event.listen(postgres.engine, "after_cursor_execute", between)
        upto = settled(postgres, within=NOW)
        event.remove(postgres.engine, "after_cursor_execute", between)
        open_writer.commit()

    assert upto in {None, settled_before}
    assert 2 == len(journal(postgres, settled_before))


def test_a_prepared_transaction_that_wrote_an_event_is_waited_for(private_postgres):
    """
    INVARIANT: also what no session holds any more can commit yet.

    Breaks if writers are told apart by their process: a prepared transaction has none.
    """
    database = Database(private_postgres.url, patience=timedelta(seconds=20))
    migrations.upgrade(database)
    with database.begin() as conn:
        queued_run(conn)
        conn.exec_driver_sql("PREPARE TRANSACTION 'an application''s'")
    database.run(queued_run)
    during = settled(database, within=NOW)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("COMMIT PREPARED 'an application''s'")
    after = settled(database, within=NOW)
    events = journal(database)
    database.close()

    assert during is None
    assert (len(events), events[-1]) == (2, after)


def test_who_has_lost_a_turn_neither_moves_nor_ends_the_one_of_another(database):
    """INVARIANT: one process at a time tells a listener. Breaks if a turn is left or kept without its owner."""
    database.run(lambda conn: add_listener(conn, "audit", start=0))
    stale = database.run(lambda conn: take_turn(conn, "audit", owner="slow", hold=timedelta(0)))
    fresh = database.run(lambda conn: take_turn(conn, "audit", owner="quick", hold=timedelta(minutes=2)))
    kept = database.run(lambda conn: keep_turn(conn, stale, cursor=9, hold=timedelta(minutes=2)))
    database.run(lambda conn: leave_turn(conn, stale, failures=3, pause=timedelta(hours=1)))

    assert (False, True) == (
        kept,
        database.run(lambda conn: keep_turn(conn, fresh, cursor=5, hold=timedelta(minutes=2))),
    )
    assert {"audit": 5} == database.run(places)
