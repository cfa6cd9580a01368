"""`runclaim db`: the ledger's tables."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from runclaim.cli.options import app_option, config_of, find_app, json_option, url_option
from runclaim.cli.terminal import give, give_json, say
from runclaim.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim.database import Database

T = TypeVar("T")


@click.group()
def command() -> None:
    """Create, upgrade and check the ledger's tables."""


@command.command()
@app_option
@url_option
@json_option
def upgrade(*, app: str | None, url: str | None, as_json: bool) -> None:
    """Create or upgrade the tables for this release. Safe to repeat and to run from several places at once."""
    with _database(app, url) as database:
        from runclaim import migrations

        before, after = _reach(database, lambda: migrations.upgrade(database))
    done = "already up to date" if before == after else f"upgraded from {before or 'nothing'}"
    say(f"{database}: schema {after}, {done}")
    if as_json:
        give_json({"before": before, "after": after})


@command.command()
@app_option
@url_option
@json_option
def current(*, app: str | None, url: str | None, as_json: bool) -> None:
    """Print the schema revision of the ledger, or `none`."""
    with _database(app, url) as database:
        from runclaim import migrations

        found = _reach(database, lambda: migrations.current(database))
    if as_json:
        give_json({"current": found, "wanted": migrations.HEAD})
    else:
        give(found or "none")


@command.command()
@app_option
@url_option
@json_option
def check(*, app: str | None, url: str | None, as_json: bool) -> None:
    """Check that the tables are exactly what this release needs. Exits with 1 and lists the differences if not."""
    with _database(app, url) as database:
        from runclaim import migrations

        found = _reach(database, lambda: migrations.current(database))
        differences = migrations.differences(database) if found == migrations.HEAD else []
    if as_json:
        give_json({"current": found, "wanted": migrations.HEAD, "differences": differences})
    if found != migrations.HEAD:
        _reach(database, lambda: database.ask(lambda conn: migrations.require_fit(conn, found, str(database))))
        say(f"{database}: schema {found}, of a later release; this one can work on it")
        return
    if differences:
        say(f"{database}: schema {found}, but the tables were changed by hand:")
        for each in [] if as_json else differences:
            give(each)
        sys.exit(1)
    say(f"{database}: schema {found}, exactly what this release needs")


@contextmanager
def _database(app: str | None, url: str | None) -> Iterator[Database]:
    """The database itself, whatever schema it has."""
    runs = find_app(app, url)
    config = config_of(url) if runs is None else runs.config
    from runclaim.database import Database

    database = Database(config.database_url, patience=config.ledger_patience)
    try:
        yield database
    finally:
        database.close()


def _reach(database: Database, call: Callable[[], T]) -> T:
    from sqlalchemy.exc import DBAPIError

    from runclaim.sql.patience import refusal
    from runclaim.sql.trouble import Trouble, in_words, trouble

    try:
        return call()
    except DBAPIError as error:
        if refused := refusal(str(database), error):
            raise refused from error
        if trouble(error) is Trouble.FATAL:
            raise
        raise LedgerUnavailable(f"the ledger {database} cannot be reached ({in_words(error)})") from error
