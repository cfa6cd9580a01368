"""Sites for the acceptance tests: a broker of the test's own, a ledger of its own, and no process yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.harness import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class MakeSite(Protocol):
    """`new_site(broker=…, database_url=…, **told)`; every site is closed after the test."""

    def __call__(self, *, broker: str, database_url: str, **told: Any) -> Site: ...


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[MakeSite]:
    made: list[Site] = []

    def make(*, broker: str, database_url: str, **told: Any) -> Site:
        made.append(Site(tmp_path / f"site{len(made)}", broker=broker, database_url=database_url, **told))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def redis_site(request: pytest.FixtureRequest, new_site: MakeSite, valkey_server: Any, sqlite_url: str) -> Site:
    """A site on a Valkey of its own and SQLite; `@pytest.mark.site(conf=…, phases=…)` tells it more."""
    mark = request.node.get_closest_marker("site")
    return new_site(broker=valkey_server.url, database_url=sqlite_url, **(mark.kwargs if mark else {}))


@pytest.fixture
def postgres_site(request: pytest.FixtureRequest, new_site: MakeSite, valkey_server: Any, postgres_url: str) -> Site:
    """As `redis_site`, with the ledger on PostgreSQL."""
    mark = request.node.get_closest_marker("site")
    return new_site(broker=valkey_server.url, database_url=postgres_url, **(mark.kwargs if mark else {}))
