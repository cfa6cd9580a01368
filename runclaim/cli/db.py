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
@click.option(
    "--wait",
    type=click.FloatRange(min=0.1, max=86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each step may wait in total for locks that others hold.",
)
@json_option
def upgrade(*, app: str | None, url: str | None, wait: float, as_json: bool) -> None:
    """
    Create or upgrade the tables for this release. Safe to repeat and to run from several places at once.

    Says what it locks, which sessions are in the way, and how long each step took. No one waits behind it for more than
    two seconds at a time; indexes of tables that are in use are made CONCURRENTLY.
    """
    with _database(app, url) as database:
        from runclaim import migrations

        before, after = _reach(database, lambda: migrations.upgrade(database, wait=wait, say=say))
    if after > migrations.HEAD:
        done = f"newer than this release's {migrations.HEAD}, which works on it; nothing was changed"
    else:
        done = "already up to date" if before == after else f"upgraded from {before or 'nothing'}"
    say(f"{database}: schema {after}, {done}")
    if as_json:
        give_json({"before": before, "after": after})


@command.command()
@app_option
@url_option
@click.option("--from", "start", metavar="REVISION", help="What the tables are at; without it, there are none.")
@click.option("--to", "end", metavar="REVISION", help="Where to stop; without it, at what this release brings.")
@click.option(
    "--dialect",
    type=click.Choice(["postgresql", "sqlite"]),
    help="For which database; without it, for that of the ledger's URL.",
)
@json_option
def sql(
    *, app: str | None, url: str | None, start: str | None, end: str | None, dialect: str | None, as_json: bool
) -> None:
    """
    Print the statements of an upgrade, for psql or sqlite3. Connects to nothing.

    `runclaim db current` prints the revision that --from takes.
    """
    runs = find_app(app, url)
    config = config_of(url) if runs is None else runs.config
    from runclaim import migrations
    from runclaim.migrations import ddl
    from runclaim.urls import parsed, schema_of

    ledger = parsed(config.database_url)
    dialect = dialect or ledger.get_backend_name()
    text = ddl.statements(dialect, start, end, chosen=schema_of(ledger))
    if as_json:
        give_json({"dialect": dialect, "from": start, "to": end or migrations.HEAD, "sql": text})
    for line in [] if as_json else text.splitlines():
        give(line)
    if not text:
        say(f"the tables are at {start} already; there is nothing to do")


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
    """
    Check that the tables are exactly what this release needs. Exits with 1 and lists the differences if not.

    Of tables of a newer release, on which this one works, that all is there that this one needs.
    """
    with _database(app, url) as database:
        from runclaim import migrations

        found = _reach(database, lambda: migrations.current(database))
        refused = _reach(database, lambda: migrations.misfit(database, found))
        differences = [] if refused else _reach(database, lambda: migrations.differences(database))
    if as_json:
        give_json({"current": found, "wanted": migrations.HEAD, "differences": differences})
    if refused:
        raise refused
    if differences:
        say(f"{database}: schema {found}, but the tables were changed by hand:")
        for each in [] if as_json else differences:
            give(each)
        sys.exit(1)
    if found == migrations.HEAD:
        say(f"{database}: schema {found}, exactly what this release needs")
    else:
        say(f"{database}: schema {found}, newer than this release's {migrations.HEAD}, which finds all that it needs")


@command.command()
@app_option
@url_option
@json_option
def restored(*, app: str | None, url: str | None, as_json: bool) -> None:
    """
    Note that the ledger was restored from a backup, before workers start on it.

    Calls of the runs that are in it may have arrived since the backup: from now on each is looked up before it is sent,
    and waits for a person where it has no lookup and is not idempotent. Repeating it is harmless.
    """
    with _database(app, url) as database:
        from runclaim import migrations
        from runclaim.ledger.history.restored import mark_restored
        from runclaim.sql.clock import rfc3339

        _reach(database, lambda: migrations.require_current(database))
        at = rfc3339(_reach(database, lambda: database.run(mark_restored)))
    say(f"{database}: calls of runs from before {at} are looked up before they are sent")
    if as_json:
        give_json({"restored_at": at})


@command.command()
@app_option
@url_option
@click.option("--application", metavar="ROLE", help="Of processes that enqueue, read and change runs.")
@click.option("--worker", metavar="ROLE", help="Of Celery workers and beat.")
@click.option("--api", metavar="ROLE", help="Of the HTTP API.")
@click.option("--reader", metavar="ROLE", help="Of people and dashboards that only look.")
@json_option
def grants(*, app: str | None, url: str | None, as_json: bool, **roles: str | None) -> None:
    """
    Print GRANT statements for roles that may do no more than they need. Connects to nothing.

    Without a name: for all four, under the names runclaim_application, runclaim_worker, runclaim_api, runclaim_reader.
    Apply them as the owner of the tables, again after each `db upgrade`: runclaim db grants | psql …
    """
    runs = find_app(app, url)
    config = config_of(url) if runs is None else runs.config
    from runclaim.migrations.grants import Part, statements
    from runclaim.urls import parsed, schema_of

    named = {part: role for part in Part if (role := roles[part])}
    wanted = named or {part: f"runclaim_{part}" for part in Part}
    lines = list(statements(wanted, schema_of(parsed(config.database_url))))
    if as_json:
        give_json({"roles": {str(part): role for part, role in wanted.items()}, "sql": "\n".join(lines)})
    for line in [] if as_json else lines:
        give(line)


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
