"""`runclaim token`: who may use the HTTP API. A token is printed once, and can be revoked at any time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from runclaim.cli.exits import NotFound
from runclaim.cli.option_types import Duration
from runclaim.cli.options import app_option, config_of, find_app, json_option, url_option
from runclaim.cli.terminal import Table, give, give_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from runclaim.database import Database
    from runclaim.ledger.doors.tokens import TokenView

_SCOPES = ("runs:read", "runs:write", "worker", "admin")


@click.group()
def command() -> None:
    """Make, list and revoke tokens of the HTTP API."""


@command.command()
@click.option("--name", help="What it is for, for people; needed unless it replaces another.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(_SCOPES), help="What it may do; repeatable.")
@click.option("--project", "projects", multiple=True, help="Its project, '*' for every one; repeatable.")
@click.option("--expires", type=Duration(), help="How long it is good, such as 90d; default: until it is revoked.")
@click.option("--replaces", metavar="ID", help="In the place of that token: its name, scopes and projects.")
@click.option("--overlap", type=Duration(), default="1h", show_default=True, help="How long that one stays good.")
@app_option
@url_option
@json_option
def create(
    *,
    name: str | None,
    scopes: tuple[str, ...],
    projects: tuple[str, ...],
    expires: timedelta | None,
    replaces: str | None,
    overlap: timedelta,
    app: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Make a token and print it. It is not shown again; the ledger keeps its hash."""
    from runclaim.ledger.doors import tokens

    with _ledger(app, url) as (database, project):
        if replaces is None:
            if not scopes or not name:
                raise click.UsageError("a token is for something: give --name and --scope")
            wanted, where = [tokens.Scope(scope) for scope in scopes], projects or (project,)
            text = database.run(
                lambda conn: tokens.create(conn, name=name, scopes=wanted, projects=where, lasts=expires)
            )
        else:
            if scopes or projects or name:
                raise click.UsageError("--replaces keeps name, scopes and projects: leave them out")
            found = database.run(lambda conn: tokens.replace(conn, replaces, overlap=overlap, lasts=expires))
            text = _there(found, replaces)
    if as_json:
        give_json({"id": text.split("_")[1], "token": text})
    else:
        give(text)
    say("this is the only time it is shown: set RUNCLAIM_TOKEN to it, or send it as Authorization: Bearer <token>")


@command.command(name="list")
@app_option
@url_option
@json_option
def list_tokens(*, app: str | None, url: str | None, as_json: bool) -> None:
    """
    List all tokens, the newest first; also those that are over.

    In a pipe: a line for each token, its id, name, scopes, projects, and when it was made, expires, was last used and
    was revoked, with tabs between.
    """
    from runclaim.ledger.doors import tokens

    with _ledger(app, url) as (database, _):
        found = [_shown(token) for token in database.ask(tokens.listed)]
    if as_json:
        for token in found:
            give_json(token)
    else:
        columns = ("id", "name", "scopes", "projects", "created", "expires", "used", "revoked")
        Table(*columns, flexible="name", state="revoked").show(
            [[value or "" for value in each.values()] for each in found]
        )
    if not found:
        say("no tokens; make one: runclaim token create --name me --scope runs:write")


@command.command()
@click.argument("token_id", metavar="ID")
@app_option
@url_option
@json_option
def revoke(*, token_id: str, app: str | None, url: str | None, as_json: bool) -> None:
    """End a token at once, by its id."""
    from runclaim.ledger.doors import tokens

    with _ledger(app, url) as (database, _):
        _there(database.run(lambda conn: tokens.revoke(conn, token_id)) or None, token_id)
    say(f"token {token_id} is revoked")
    if as_json:
        give_json({"id": token_id, "revoked": True})


def _there(found: Any, token_id: str) -> Any:
    if found is None:
        raise NotFound(f"no token {token_id} that could still be used; `runclaim token list` shows them all")
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
def _ledger(app: str | None, url: str | None) -> Iterator[tuple[Database, str]]:
    runs = find_app(app, url)
    config = config_of(url) if runs is None else runs.config
    from runclaim import migrations
    from runclaim.database import Database

    database = Database(config.database_url, patience=config.ledger_patience)
    try:
        migrations.require_current(database)
        yield database, config.project
    finally:
        database.close()
