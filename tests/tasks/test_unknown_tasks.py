"""Messages of tasks that a worker's release does not have: what is ours is put back, and nothing else is touched."""

from __future__ import annotations

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
