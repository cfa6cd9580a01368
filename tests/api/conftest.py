"""An API on each of the two databases, with a flow that is registered and a bench that can work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runclaim.flows.client.handle import Run
from tests.api.served import Client, Served, token
from tests.harness.bench import Bench
from tests.harness.ledgers import put_away

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUT = {"repo": "acme/app", "number": 7, "base": "a1", "head": "b2"}
WANTED = {"flow": "review", "input": INPUT}


class Office:
    """A bench with the flow `review` of two phases, an API on its ledger, and a client that may do everything."""

    def __init__(self, url: str, *, trusts: tuple[str, ...] = (), **settings: Any) -> None:
        self.bench = Bench(url, **settings)
        self.review = self.bench.flow()
        self.review.phase(name="plan")(lambda ctx: ["app.py"])
        self.review.phase(name="deliver")(lambda ctx: 1)
        self.bench.register(self.review)
        self.served = Served(self.bench.config, proxies=trusts)
        self.port = self.served.port
        self.token = token(self.bench.database, "admin")
        self.client = self.served.client(self.token)

    def with_scopes(self, *scopes: str, projects: tuple[str, ...] = ("default",)) -> Client:
        return self.served.client(token(self.bench.database, *scopes, projects=projects))

    def enqueued(self, number: int = 7, **more: Any) -> dict[str, Any]:
        """A run that was made just now."""
        answer = self.client.post("/v1/runs", WANTED | {"input": INPUT | {"number": number}} | more)
        assert 201 == answer.status, answer
        return answer.json

    def planned(self, number: int = 7, error: Exception | None = None, project: str = "default") -> dict[str, Any]:
        """An action, as the API shows it, of a run that was made just now; sending it was tried, and gave the error."""

        @self.bench.action("comment", max_attempts=1)
        def send(payload: Any, idempotency_key: str) -> str:
            if error is not None:
                raise error
            return f"upstream-{payload['number']}"

        notes = self.bench.flow("notes", key="{number}")
        notes.phase(name="write")(lambda ctx: ctx.plan_action("comment", {"number": ctx.input.number}))
        run = notes.using(project=project).enqueue(repo="a", number=number)
        self.bench.finish(notes, run)
        self.bench.send()
        everywhere = self.served.client(token(self.bench.database, "admin", projects=("*",)))
        (made,) = everywhere.get(f"/v1/actions?project={project}&run={run.id}").json["actions"]
        return made

    def finish(self, run: dict[str, Any]) -> None:
        """Work on what is due until the run has ended."""
        self.bench.finish(self.review, Run(self.bench.ledger, run["id"]))

    def close(self) -> None:
        self.bench.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    """On both databases."""
    on_sqlite = request.param == "sqlite"
    made = Office(request.getfixturevalue("sqlite_url" if on_sqlite else "bench_postgres_url"))
    with made.served:
        yield made
    put_away(made.bench)


@pytest.fixture
def desk_office(sqlite_url: str) -> Iterator[Office]:
    """On SQLite, for what has nothing to do with the database."""
    made = Office(sqlite_url)
    with made.served:
        yield made
    made.close()
