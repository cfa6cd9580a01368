"""A failure between any two statements of a call leaves nothing behind, at each point, on both databases."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select

from runclaim.models import metadata
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim.database import Database
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

ID = "0195c0de-0000-7000-8000-000000000007"
INPUT = PullRequest("acme/app", 7)
CALLS: dict[str, Callable[[Flow], Any]] = {
    "enqueue": lambda flow: flow.enqueue(INPUT),
    "enqueue many": lambda flow: flow.enqueue_many([INPUT, PullRequest("acme/app", 8), PullRequest("acme/lib", 1)]),
    "rerun of a new key": lambda flow: flow.using(rerun=True).enqueue(INPUT),
    "rerun of a live run": lambda flow: flow.using(rerun=True).enqueue(PullRequest("acme/lib", 1)),
    "rerun of many": lambda flow: flow.using(rerun=True).enqueue_many([INPUT, PullRequest("acme/lib", 1)]),
    "recovery": lambda flow: flow.using(run_id=ID).enqueue(INPUT),
}


class Torn(Exception):
    """The failure that a test asks for."""


@contextmanager
def torn_at(database: Database, at: int) -> Iterator[list[str]]:
    """Statement number `at` fails before it is sent, COMMIT being the last; gives what was sent before."""
    sent: list[str] = []

    def statement(conn: Any, _cursor: Any, text: str, *_: Any) -> None:
        if not conn.get_execution_options().get("runclaim_reads"):
            note(text)

    def note(what: Any) -> None:
        if len(sent) == at:
            raise Torn
        sent.append(what if isinstance(what, str) else "COMMIT")

    def commit(conn: Any) -> None:
        # What is a transaction by itself was committed when it was done; no COMMIT is sent.
        if not conn.get_execution_options().get("runclaim_at_once"):
            note(conn)

    event.listen(database.engine, "before_cursor_execute", statement)
    event.listen(database.engine, "commit", commit)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", statement)
        event.remove(database.engine, "commit", commit)


def tables(database: Database) -> dict[str, list[Any]]:
    """All that the ledger holds."""
    with database.read() as conn:
        return {
            name: conn.execute(select(table).order_by(*table.primary_key)).all()
            for name, table in metadata.tables.items()
        }


@pytest.mark.parametrize("subject", [None, "{repo}"], ids=["no subject", "subject"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fails_at_any_of_its_statements_leaves_every_table_as_it_was(bench: Bench, name: str, subject):
    """
    INVARIANT: a run is there with its key, its number, its journal and the end of what it supersedes, or not at all.

    Breaks if any statement of a call runs in a transaction of its own.
    """
    flow = bench.flow(subject=subject)
    flow.phase(name="plan")(lambda ctx: None)
    standing = flow.enqueue(PullRequest("acme/lib", 1))
    older = flow.enqueue(PullRequest("acme/app", 6))
    bench.rung.clear()
    database = bench.ledger.database
    before = tables(database)
    failed = 0
    while True:
        with torn_at(database, failed) as sent:
            try:
                CALLS[name](flow)
            except Torn:
                failed += 1
                assert before == tables(database), f"left behind after {sent}"
                assert [] == bench.rung
                continue
        break

    assert failed == len(sent)
    if database.url.get_backend_name() == "postgresql" and (name, subject) == ("enqueue", None):
        assert 1 == len(sent)
    else:
        assert "COMMIT" == sent[-1]
        assert len(sent) >= 3
    assert before != tables(database)
    assert bench.rung
    assert {0} == {standing.view.rerun, older.view.rerun}
