"""Real workers: each body runs as the tenant of its enqueuer, and under the limits that remote control sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import signals

from runclaim import RunState
from tests.acceptance import tenants_app
from tests.acceptance.tenants_app import tenant
from tests.harness import Site, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.flows.flow import Flow
    from tests.harness.app import Stage, Work

TENANTS = ("emil", "fred", "gert")


@pytest.fixture
def owned(redis_site: Site) -> Iterator[tuple[Stage, Flow[Work]]]:
    stage, flow = tenants_app.with_tenants(redis_site.told)
    yield stage, flow
    stage.runs.close()
    stage.app.close()
    signals.before_task_publish.disconnect(tenants_app.send)
    signals.task_prerun.disconnect(tenants_app.take)


@pytest.mark.site(settings={"grouped": True})
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_each_body_runs_as_the_tenant_of_its_enqueuer(redis_site: Site, owned: tuple[Stage, Flow[Work]], pool: str):
    """
    INVARIANT: a run never runs as another tenant, nor as none: not in a group, not inline, not in a later attempt.

    Breaks if a body takes the headers of the message that brought it, or the context of the body before it.
    """
    site, (stage, flow), runs = redis_site, owned, []
    for number in range(30):
        as_whom = TENANTS[number % 3]
        token = tenant.set(as_whom)
        runs.append(flow.enqueue(name=f"{as_whom}{number}", about=as_whom))
        tenant.reset(token)
    site.worker(pool=pool, module="tests.acceptance.tenants_app")

    def ended() -> bool:
        stage.runs._runtime.dispatch()
        return all(run.state is RunState.SUCCEEDED for run in runs)

    until(ended, "the end of the runs", within=90, so_far=site.story)

    lines = [line.split() for line in (site.folder / "tenants").read_text().splitlines()]
    assert 4 * 30 == len(lines)
    assert [] == [line for line in lines if line[0] != line[1]]


@pytest.mark.site(settings={"grouped": True, "dispatch_after": "10m"})
def test_a_rate_limit_by_remote_control_counts_each_body(redis_site: Site):
    site = redis_site
    worker = site.worker(pool="prefork", concurrency=1)
    assert site.stage.app.control.rate_limit("steps.first", "1/m", reply=True, timeout=20)
    site.stage.steps.enqueue_many([{"name": f"run{n}"} for n in range(5)])
    until(lambda: worker.text.count("Task steps.first[") >= 6, "each as a message of its own", so_far=site.story)

    assert 1 == len(site.starts(phase="first"))


@pytest.mark.site(settings={"lease": "10m", "rescue_every": "10m"})
def test_a_time_limit_by_remote_control_ends_a_body_of_a_later_phase(redis_site: Site):
    site = redis_site
    worker = site.worker(pool="prefork", concurrency=1)
    assert site.stage.app.control.time_limit("steps.second", hard=1, reply=True, timeout=20)
    run = site.enqueue("x", second="deaf 1")
    site.ended(run, upkeep=True)

    assert "Hard time limit" in worker.text
    assert [1, 2] == [start.attempt for start in site.starts(run, "second")]
