"""RabbitMQ restarts under work, in order and by SIGKILL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.oracle import nothing_lost_or_doubled

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.servers import Server
    from tests.harness import Site

WAITING = 6


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["in order", "by SIGKILL"])
def test_a_restart_of_rabbitmq_loses_no_run(
    make_site: Callable[..., Site], postgres_url: str, private_rabbitmq: Server, how: str
):
    """The second phase goes through the broker, so messages are published before, during and after the restart."""
    site = make_site(postgres_url, broker=private_rabbitmq.url, phases={"second": {"queue": "apart"}})
    worker = site.worker(queues="celery,apart", ready=False)
    site.beat()
    runs = [site.enqueue(f"gated{number}", first="gate") for number in range(2)]
    for run in runs:
        site.started(run, "first")
    runs += [site.enqueue(f"behind{number}") for number in range(WAITING)]
    if how == "in order":
        private_rabbitmq.stop()
    else:
        private_rabbitmq.kill()
    runs.append(site.enqueue("while-it-is-down"))
    # These complete while the broker is down, and their next phase has to be published.
    site.open("gated0", "first")
    site.open("gated1", "first")
    worker.said("the broker does not answer")
    private_rabbitmq.start()

    nothing_lost_or_doubled(site, runs, within=120)
    assert "Connection to broker lost" in worker.text
