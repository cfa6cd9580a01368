"""`runclaim db`: the ledger's tables."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypeVar

import click

from runclaim.config import resolve
from runclaim.errors import LedgerUnavailable, SchemaBehind

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.database import Database

T = TypeVar("T")

_url = click.option(
    "--url",
    metavar="URL",
    help="The ledger's database; default: RUNCLAIM_DATABASE_URL, then sqlite:///runclaim.db here.",
)


@click.group()
def command() -> None:
    """Make and check the ledger's tables."""


@command.command()
@_url
def upgrade(url: str | None) -> None:
    """Bring the tables to this release. Safe to repeat, and from several places at once."""
    from runclaim import migrations

    database = _database(url)
    before, after = _reach(database, lambda: migrations.upgrade(database))
    done = "was up to date" if before == after else f"upgraded from {before or 'nothing'}"
    click.echo(f"{database}: schema {after}, {done}", err=True)


@command.command()
@_url
def current(url: str | None) -> None:
    """Print the revision of the tables, or `none`."""
    from runclaim import migrations

    database = _database(url)
    click.echo(_reach(database, lambda: migrations.current(database)) or "none")


@command.command()
@_url
def check(url: str | None) -> None:
    """Exit 0 when the tables are exactly what this release needs; else say what differs and exit 1."""
    from runclaim import migrations

    database = _database(url)
    found = _reach(database, lambda: migrations.current(database))
    if found != migrations.HEAD:
        raise SchemaBehind(found, migrations.HEAD, str(database))
    if differences := migrations.differences(database):
        click.echo(f"{database}: schema {found}, but its tables were changed by hand:", err=True)
        for each in differences:
            click.echo(each)
        sys.exit(1)
    click.echo(f"{database}: schema {found}, as this release needs it", err=True)


def _database(url: str | None) -> Database:
    from runclaim.database import Database

    config = resolve({"database_url": url}, os.environ, {})
    return Database(config.database_url, patience=config.ledger_patience)


def _reach(database: Database, call: Callable[[], T]) -> T:
    from sqlalchemy.exc import OperationalError

    try:
        return call()
    except OperationalError as error:
        said = str(error.orig).strip().splitlines()[0]
        raise LedgerUnavailable(f"the ledger {database} cannot be reached ({said})") from error
