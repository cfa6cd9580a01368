"""A process that a body forks and that comes back from it: the claim, the run and its rows are its parent's."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import RunState
from tests.harness.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bench(sqlite_url: str) -> Iterator[Bench]:
    made = Bench(sqlite_url)
    yield made
    made.close()


def returns() -> str:
    return "the child's"


def raises() -> str:
    raise ValueError("the child's")


def leaves() -> str:
    raise SystemExit(0)


@pytest.mark.parametrize("comes_back", [returns, raises, leaves])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_that_comes_back_from_the_body_settles_nothing(bench: Bench, comes_back: Any):
    """
    INVARIANT: only the process that claimed a run records what became of its body.

    Breaks if a copy of the process that unwinds through the runner goes on as if it were the worker.
    """
    flow = bench.flow()
    us, ended = os.getpid(), []

    @flow.phase(max_attempts=1)
    def plan(ctx: Any) -> str:
        if (child := os.fork()) == 0:
            return str(comes_back())
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return "the parent's"

    run = flow.enqueue(repo="acme/app", number=1)
    try:
        bench.deliver(flow)
    finally:
        if os.getpid() != us:
            # Without the guard the child would go on with the rest of these tests.
            os.kill(os.getpid(), signal.SIGKILL)

    assert (RunState.SUCCEEDED, {"plan": "the parent's"}) == (run.state, run.results)
    assert [1 if comes_back is raises else 0] == ended
