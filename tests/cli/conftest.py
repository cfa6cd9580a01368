"""The command line in the test's own process, on a ledger of each kind: at hand, and behind the HTTP API."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Blocked, cli
from tests.api.served import Served, token
from tests.harness.command_line import runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

_NONE = {
    "RUNCLAIM_API_URL": None,
    "RUNCLAIM_TOKEN": None,
    "RUNCLAIM_DATABASE_URL": None,
    "RUNCLAIM_APP": None,
    "NO_COLOR": None,
}
_SCOPES = ("runs:read", "runs:write", "runs:erase")


class Line:
    """
    `line("runs", "list")`: a command and what it gives.

    Its bench is the application's side: the flow `review` of two phases, whose first one fails for the repo `evil` and
    blocks for `stuck`, registered as its worker would.
    """

    def __init__(self, bench: Bench, review: Flow[Any], environment: dict[str, str]) -> None:
        self.bench, self.review, self.environment = bench, review, environment
        self.is_remote = "RUNCLAIM_API_URL" in environment

    def __call__(self, *words: str, stdin: str | None = None, **more: str | None) -> Result:
        return runner().invoke(
            cli.command, words, input=stdin, env=_NONE | self.environment | more, prog_name="runclaim"
        )

    def local(self, *words: str, **more: str | None) -> Result:
        """The same on the ledger itself."""
        told = dict.fromkeys(self.environment) | {"RUNCLAIM_DATABASE_URL": self.bench.config.database_url}
        return self(*words, **told | more)


def _plan(ctx: Any) -> str:
    if ctx.input.repo == "evil":
        raise ValueError("red \x1b[31m\ttab \x9b0m\nline")
    if ctx.input.repo == "stuck":
        raise Blocked("ask somebody")
    return "planned"


@pytest.fixture
def review(bench: Bench) -> Flow[Any]:
    flow = bench.flow()
    flow.phase(name="plan", max_attempts=1)(_plan)
    flow.phase(name="deliver")(lambda ctx: {"delivered": ctx.input.number})
    bench.register(flow)
    return flow


@pytest.fixture(params=["local", "remote"])
def line(request: pytest.FixtureRequest, bench: Bench, review: Flow[Any]) -> Iterator[Line]:
    """On the ledger itself, and through the API."""
    with ExitStack() as stack:
        if request.param == "local":
            environment = {"RUNCLAIM_DATABASE_URL": bench.config.database_url}
        else:
            served = stack.enter_context(Served(bench.config))
            environment = {
                "RUNCLAIM_API_URL": f"http://127.0.0.1:{served.port}",
                "RUNCLAIM_TOKEN": token(bench.database, *_SCOPES, projects=("default", "other")),
            }
        yield Line(bench, review, environment)


@pytest.fixture
def local(bench: Bench, review: Flow[Any]) -> Line:
    """On the ledger itself, for what the API has no part in."""
    return Line(bench, review, {"RUNCLAIM_DATABASE_URL": bench.config.database_url})
