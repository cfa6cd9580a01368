"""Sites for faults: leases of two seconds, upkeep twice a second, and a verdict that does not ask the ledger alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.oracle import SETTINGS
from tests.harness import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runclaim.servers import Server


@pytest.fixture
def make_site(tmp_path: Path, valkey_server: Server) -> Iterator[Callable[..., Site]]:
    """Make a site on a Valkey of this test's own: `make_site(database_url, settings={...}, phases={...}, …)`."""
    made: list[Site] = []

    def make(
        database_url: str, *, broker: str | None = None, settings: dict[str, Any] | None = None, **told: Any
    ) -> Site:
        folder = tmp_path / f"site{len(made)}"
        told = {"settings": SETTINGS | (settings or {})} | told
        made.append(Site(folder, broker=broker or valkey_server.url, database_url=database_url, **told))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site], postgres_url: str) -> Site:
    """A site on PostgreSQL with every setting as it is."""
    return make_site(postgres_url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def either_site(request: pytest.FixtureRequest, make_site: Callable[..., Site]) -> Site:
    """A site on each of the two databases."""
    return make_site(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))
