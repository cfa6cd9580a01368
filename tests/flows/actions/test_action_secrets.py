"""What a handler or a lookup raises is kept with its action, and told in the log, without what looks like a secret."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from runclaim import ActionRejected, Backoff, Retry

if TYPE_CHECKING:
    from tests.harness.bench import Bench

CANARY = "ghp_" + "Can4ry" * 6


@pytest.mark.parametrize("error", [Retry, ActionRejected, OSError])
@pytest.mark.parametrize("asks", ["a handler", "a lookup"])
@pytest.mark.parametrize("max_attempts", [1, 2])
def test_no_secret_of_an_action_is_in_the_database_or_the_log(
    bench: Bench, caplog, error: type[Exception], asks: str, max_attempts: int
):
    def refuse(_payload: object, _key: str) -> str:
        raise error(f"https://me:{CANARY}@host said no to {CANARY}, {'x ' * 2000}{CANARY}")

    action = bench.action(max_attempts=max_attempts, backoff=Backoff(first=timedelta(0), jitter=False))(refuse)
    if asks == "a lookup":
        action.lookup(refuse)
    flow = bench.flow()
    flow.phase(name="deliver")(lambda ctx: ctx.plan_action("comment", {"body": "hello"}) and None)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    with caplog.at_level(logging.DEBUG, logger="runclaim"):
        bench.send()

    with bench.database.read() as conn:
        kept = str(conn.execute(text("SELECT * FROM runclaim_actions")).all())
    assert "[redacted: " in kept
    assert "[redacted: " in caplog.text
    assert CANARY[:12] not in kept + caplog.text + str(run.actions)
