"""
`make many`: what a hundred workers would do to one PostgreSQL, as far as one machine can show it.

    python -m benchmarks.many [--parts groups,pages,connections,ledgers,partitions,beats,keepers] [--rounds 3] [--write]

Each part prints one table. Quote ratios.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

from benchmarks import many_connections, many_groups, many_ledgers, many_pages, many_partitions, many_upkeep
from benchmarks.ledgers import migrate, up
from benchmarks.pages import SCALING, renew
from tests import servers
from tests.servers.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    #: A ledger's URL → the part's name and its table.
    Part = Callable[..., tuple[str, str]]

_PARTS: Final[dict[str, Part]] = {
    "groups": many_groups.measured,
    "pages": many_pages.measured,
    "connections": many_connections.measured,
    "ledgers": many_ledgers.measured,
    "partitions": many_partitions.measured,
    "beats": many_upkeep.beats,
    "keepers": many_upkeep.keepers,
}
#: A modest server with room for many sessions.
_SETTINGS: Final = {"max_connections": "500", "shared_buffers": "512MB", "max_wal_size": "4GB"}


def main() -> None:
    """Measure, print, and with `--write` renew the page's tables."""
    asked = argparse.ArgumentParser(prog="make many", description=__doc__)
    asked.add_argument("--parts", default=",".join(_PARTS))
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--write", action="store_true", help="renew docs/scaling.md")
    told = asked.parse_args()
    server = postgres(durable=True, settings=_SETTINGS)
    with up(server):
        _say(f"{server.how}, {', '.join(f'{name} = {value}' for name, value in _SETTINGS.items())}")
        for part in told.parts.split(","):
            with servers.database(server.url) as url:
                migrate(url)
                name, shown = _PARTS[part](url, rounds=told.rounds, say=_say)
            print(f"\n{name}\n\n{shown}\n", flush=True)
            if told.write:
                renew(SCALING, f"make many, {name}", f"{shown}\n\nMedians of {told.rounds} interleaved rounds.")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
