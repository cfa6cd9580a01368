"""What an API that has the application at hand publishes: the same message of a run as anybody else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Run
from runclaim.ledger.dispatch import Due
from tests.api.conftest import INPUT
from tests.harness.bench import ends_as_its_head_says

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.flow import Flow
    from tests.api.conftest import Office

WANTED = {"flow": "remind", "input": INPUT, "priority": 3}


def declared(office: Office, *, fail_open: bool) -> Flow:
    """A flow of two phases with a queue each, and the application where the API finds it."""
    bench = office.bench
    bench.ledger.headers_of = lambda _new: {"tenant": "acme"}
    office.served.server.attach(SimpleNamespace(flows=bench.flows, ledger=bench.ledger, config=bench.config))
    flow = bench.flow("remind", subject="{repo}", fail_open=fail_open)

    flow.phase(name="plan", queue="quick", idempotent=True)(ends_as_its_head_says)
    flow.phase(name="deliver", queue="slow", idempotent=True)(lambda ctx: None)
    return flow


def made(office: Office, head: str = "b2") -> str:
    answer = office.client.post("/v1/runs", WANTED | {"input": INPUT | {"head": head}})
    assert 201 == answer.status, answer
    return str(answer.json["id"])


def changed(office: Office, run_id: str, verb: str, body: Any = None) -> Any:
    answer = office.client.post(f"/v1/runs/{run_id}:{verb}", body)
    assert answer.status in {200, 201, 202}, answer
    return answer.json


def enqueued(office: Office, _flow: Flow) -> str:
    return made(office)


def rerun(office: Office, _flow: Flow) -> str:
    run_id = made(office)
    office.bench.rung.clear()
    return str(changed(office, run_id, "rerun")["id"])


def retried(office: Office, flow: Flow) -> str:
    run_id = made(office, "failing")
    office.bench.deliver(flow)
    changed(office, run_id, "retry")
    return run_id


def resumed(office: Office, flow: Flow) -> str:
    run_id = made(office, "blocked")
    office.bench.deliver(flow)
    changed(office, run_id, "resume")
    return run_id


def gone_on(office: Office, _flow: Flow) -> str:
    """After a phase that a worker outside Celery has done."""
    made(office)
    office.bench.rung.clear()
    job = office.client.post("/v1/runs:claim", {"flow": "remind", "phases": ["plan"], "worker": "shell"}).json
    changed(office, job["id"], "succeed", {"claim": job["claim"], "result": None})
    return str(job["id"])


def expected(office: Office, run_id: str, flow: Flow) -> Due:
    """The message of the run as it stands in the ledger."""
    view = Run(office.bench.ledger, run_id).view
    carried = {
        "project": view.project,
        "key": "acme/app:pr-7",
        "subject": "acme/app",
        "priority": 3,
        "input": view.input,
        "headers": {"tenant": "acme"},
    } | ({"rerun": 1} if view.rerun else {})
    queue = {"plan": "quick", "deliver": "slow"}[view.phase]
    return Due(run_id, view.fence, "remind", view.phase, queue, "acme/app:pr-7", 3, carried if flow.fail_open else None)


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "fails open"])
@pytest.mark.parametrize("publisher", [enqueued, rerun, retried, resumed, gone_on])
def test_the_api_publishes_what_the_ledger_has(
    desk_office: Office, publisher: Callable[[Office, Flow], str], fail_open: bool
):
    """
    INVARIANT: a message from the API has the run's queue, key and priority, and its input if the flow fails open.

    Breaks if the API makes messages of its own: a run that was enqueued over HTTP waits for a ledger that is away.
    """
    flow = declared(desk_office, fail_open=fail_open)
    run_id = publisher(desk_office, flow)

    assert [expected(desk_office, run_id, flow)] == desk_office.bench.rung
