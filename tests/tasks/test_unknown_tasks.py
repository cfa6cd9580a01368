"""Messages of tasks that a worker's release does not have: what is ours is put back, and nothing else is touched."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from runclaim.worker.unknown_tasks import UnknownTasks, message_of
from tests.harness.until import until

if TYPE_CHECKING:
    from tests.harness.bench import Bench

ID = "0195c0de-0000-7000-8000-000000000007"


def raw(*positional: Any, **named: Any) -> Any:
    return SimpleNamespace(payload=(list(positional), named, {}))


@pytest.mark.parametrize("sent, named", [((ID, 3), [(ID, 3)]), (([[ID, 3], [ID, 4]],), [(ID, 3), (ID, 4)])])
def test_a_message_of_a_phase_is_read_as_its_own_release_would(sent: Any, named: Any):
    found = message_of(raw(*sent))

    assert found is not None
    assert found.named == named


@pytest.mark.parametrize(
    "message",
    [
        raw(),
        raw("hello"),
        raw(ID, "3"),
        raw(ID, -1),
        raw([[ID, 3]] * 1000),
        raw({"run": ID}),
        raw(ID, 3, carried="nothing"),
        SimpleNamespace(payload="of another protocol"),
        SimpleNamespace(),
    ],
    ids=repr,
)
def test_a_message_of_anything_else_is_nobodys(message: Any):
    """
    INVARIANT: whoever writes to the broker can make a worker neither fail nor look for what is no run.

    Breaks if the arguments of a message are used before they are checked.
    """
    assert message_of(message) is None


def test_runs_are_put_back_however_many_messages_come(bench: Bench):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    runs = [flow.enqueue(repo="acme/app", number=number) for number in range(20)]
    with bench.database.begin() as conn:
        conn.execute(text("UPDATE runclaim_runs SET dispatches = 1"))
    unknown = UnknownTasks(SimpleNamespace(ledger=bench.ledger))  # type: ignore[arg-type]
    for run in runs:
        message = message_of(raw(run.id, 0))
        assert message is not None
        unknown.add("review.plan", message)

    asked = "SELECT count(*) FROM runclaim_runs WHERE dispatches = 0"
    until(lambda: bench.execute(asked).scalar_one() == len(runs), "all of them to be put back")
    assert {0} == {run.view.fence for run in runs}


def test_what_to_do_about_a_phase_that_is_gone_is_said_once_and_of_a_new_one_nothing(bench: Bench, caplog: Any):
    """
    INVARIANT: the log says of a phase what `deploy check` says, once a process, and only if no release has it.

    Breaks if it is said for each message, or while a release that is alive declares the phase.
    """
    older = bench.flow()
    older.phase(name="plan")(lambda ctx: None)
    runs = [older.enqueue(repo="acme/app", number=number) for number in range(4)]
    unknown = UnknownTasks(SimpleNamespace(ledger=bench.ledger))  # type: ignore[arg-type]
    caplog.set_level("WARNING", logger="runclaim.worker")

    def meet(*met: Any) -> list[str]:
        caplog.clear()
        for run in met:
            unknown._put_back("review.plan", [(run.id, 0)])
        return [each.getMessage() for each in caplog.records if "name=" in each.getMessage()]

    nobody_knows = meet(runs[0])
    bench.register(older)
    alive = meet(runs[1])
    newer = bench.flow()
    newer.phase(name="start")(lambda ctx: None)
    bench.execute("UPDATE runclaim_releases SET last_seen_at = first_seen_at - :past", past=past_of(bench))
    bench.register(newer)
    gone = meet(runs[2], runs[3])

    assert ([], []) == (nobody_knows, alive)
    (said,) = gone
    assert (
        'flow review: this release does not declare phase plan; to keep the old name: @review.phase(name="plan");'
        " or: runclaim runs move-phase --flow review --from plan --to start"
    ) == said


def past_of(bench: Bench) -> Any:
    """A day, as the ledger's database counts it."""
    return timedelta(days=1) if bench.database.file is None else 86_400_000_000
