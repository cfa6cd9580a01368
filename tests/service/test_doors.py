"""The same change through Python's handle, the command line and the HTTP API: the same answer, the same refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Run
from runclaim.cli.local import LocalBackend
from runclaim.errors import RunclaimError, StateConflict
from tests.api.conftest import Office

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def office(sqlite_url: str) -> Iterator[Office]:
    made = Office(sqlite_url)
    with made.served:
        yield made
    made.close()


def by_handle(office: Office, verb: str, run_id: str) -> str:
    with pytest.raises(StateConflict) as refused:
        getattr(Run(office.bench.ledger, run_id), verb)()
    return str(refused.value)


def by_command_line(office: Office, verb: str, run_id: str) -> str:
    with pytest.raises(RunclaimError) as refused:
        LocalBackend(None, office.bench.ledger).change(verb, run_id)
    return str(refused.value)


def by_api(office: Office, verb: str, run_id: str) -> str:
    answer = office.client.post(f"/v1/runs/{run_id}:{verb}")
    assert (409, "state-conflict") == (answer.status, answer.code)
    return str(answer.json["detail"])


def queued(office: Office) -> str:
    return str(office.enqueued()["id"])


def succeeded(office: Office) -> str:
    run = office.enqueued()
    office.finish(run)
    return str(run["id"])


def failed_beside_a_newer_run(office: Office) -> str:
    """Of a subject that has another run by now."""
    flow = office.bench.flow("review", subject="{repo}", key="{head}")

    @flow.phase(max_attempts=1)
    def plan(ctx: Any) -> None:
        raise ValueError("no")

    run = flow.enqueue(repo="acme/app", number=7, head="older")
    office.bench.finish(flow, run)
    flow.enqueue(repo="acme/app", number=7, head="newer")
    return run.id


@pytest.mark.parametrize(
    "verb, state",
    [
        ("retry", queued),
        ("resume", queued),
        ("retry", succeeded),
        ("resume", succeeded),
        ("cancel", succeeded),
        ("retry", failed_beside_a_newer_run),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_a_refusal_has_the_same_words_at_every_door_and_changes_nothing(office: Office, verb: str, state: Any):
    """
    INVARIANT: one change is refused for one reason, in the same words, whoever asks for it.

    Breaks if a door decides or words a refusal by itself.
    """
    run_id = state(office)
    before = office.bench.events(Run(office.bench.ledger, run_id))
    words = {door(office, verb, run_id) for door in (by_handle, by_command_line, by_api)}

    assert 1 == len(words), words
    assert before == office.bench.events(Run(office.bench.ledger, run_id))


def test_a_decision_about_an_action_has_the_same_words_too(office: Office):
    action = office.planned()
    answer = office.client.post(f"/v1/actions/{action['id']}:retry")
    with pytest.raises(RunclaimError) as refused:
        LocalBackend(None, office.bench.ledger).retry_action(action["id"])

    assert (409, str(refused.value)) == (answer.status, answer.json["detail"])


def test_a_run_is_the_same_json_at_the_command_line_and_over_http(office: Office):
    run_id = succeeded(office)

    assert LocalBackend(None, office.bench.ledger).run(run_id) == office.client.get(f"/v1/runs/{run_id}").json
