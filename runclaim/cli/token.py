"""`runclaim token`: who may use the HTTP API. A token is printed once, and can be revoked at any time."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from runclaim.config import duration, resolve
from runclaim.errors import RunclaimError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.database import Database
    from runclaim.ledger.tokens import TokenView

_SCOPES = ("runs:read", "runs:write", "worker", "admin")
_url = click.option("--url", metavar="URL", help="The ledger's database; default: RUNCLAIM_DATABASE_URL.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON: one object, or one a line.")


class NoSuchToken(RunclaimError):
    """There is no token of that id that could still be used."""


@click.group()
def command() -> None:
    """Make, list and revoke tokens of the HTTP API."""


@command.command()
@click.option("--name", help="What it is for, for people; needed unless it replaces another.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(_SCOPES), help="What it may do; repeatable.")
@click.option("--project", "projects", multiple=True, help="Its project, '*' for every one; repeatable.")
@click.option("--expires", metavar="TIME", help="How long it is good, such as 90d; default: until it is revoked.")
@click.option("--replaces", metavar="ID", help="In the place of that token: its name, scopes and projects.")
@click.option("--overlap", metavar="TIME", default="1h", show_default=True, help="How long that one stays good.")
@_url
@_json
def create(
    *,
    name: str | None,
    scopes: tuple[str, ...],
    projects: tuple[str, ...],
    expires: str | None,
    replaces: str | None,
    overlap: str,
    url: str | None,
    as_json: bool,
) -> None:
    """Make a token and print it. It is not shown again; the ledger keeps its hash."""
    from runclaim.ledger import tokens

    lasts = None if expires is None else duration("--expires", expires)
    with _ledger(url) as (database, project):
        if replaces is None:
            if not scopes or not name:
                raise click.UsageError("a token is for something: give --name and --scope")
            wanted, where = [tokens.Scope(scope) for scope in scopes], projects or (project,)
            text = database.run(lambda conn: tokens.create(conn, name=name, scopes=wanted, projects=where, lasts=lasts))
        else:
            if scopes or projects or name:
                raise click.UsageError("--replaces keeps name, scopes and projects: leave them out")
            kept = duration("--overlap", overlap)
            found = database.run(lambda conn: tokens.replace(conn, replaces, overlap=kept, lasts=lasts))
            text = _there(found, replaces)
    click.echo(json.dumps({"id": text.split("_")[1], "token": text}) if as_json else text)
    click.echo("This is the only time it is shown. Send it as: Authorization: Bearer <token>", err=True)


@command.command(name="list")
@_url
@_json
def list_tokens(*, url: str | None, as_json: bool) -> None:
    """List all tokens, the newest first; also those that are over."""
    from runclaim.ledger import tokens

    with _ledger(url) as (database, _):
        found = database.ask(tokens.listed)
    for token in found:
        shown = _shown(token)
        click.echo(json.dumps(shown) if as_json else "  ".join(str(value) for value in shown.values()))
    if not found:
        click.echo("no tokens; make one: runclaim token create --name me --scope runs:write", err=True)


@command.command()
@click.argument("token_id", metavar="ID")
@_url
def revoke(*, token_id: str, url: str | None) -> None:
    """End a token at once, by its id."""
    from runclaim.ledger import tokens

    with _ledger(url) as (database, _):
        _there(database.run(lambda conn: tokens.revoke(conn, token_id)) or None, token_id)
    click.echo(f"token {token_id} is revoked", err=True)


def _there(found: Any, token_id: str) -> Any:
    if found is None:
        raise NoSuchToken(f"no token {token_id} that could still be used; `runclaim token list` shows them all")
    return found


def _shown(token: TokenView) -> dict[str, Any]:
    times = {
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    }
    return {
        "id": token.id,
        "name": token.name,
        "scopes": ",".join(sorted(token.scopes)),
        "projects": ",".join(sorted(token.projects)),
    } | {name: None if value is None else value.isoformat(timespec="seconds") for name, value in times.items()}


@contextmanager
def _ledger(url: str | None) -> Iterator[tuple[Database, str]]:
    from runclaim import migrations
    from runclaim.database import Database

    config = resolve({"database_url": url}, os.environ, {})
    database = Database(config.database_url, patience=config.ledger_patience)
    try:
        migrations.require_current(database)
        yield database, config.project
    finally:
        database.close()
