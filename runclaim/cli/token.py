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

_SCOPES = ("runs:read", "runs:write", "runs:erase", "worker", "admin")


@click.group()
def command() -> None:
    """Create, list and revoke tokens for the HTTP API."""


@command.command()
@click.option("--name", help="What the token is for, in your words; required unless --replaces is given.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(_SCOPES), help="What the token may do; repeatable.")
@click.option("--project", "projects", multiple=True, help="A project that it may use, '*' for all; repeatable.")
@click.option("--expires", type=Duration(), help="How long it is valid, such as 90d; default: until it is revoked.")
@click.option("--replaces", metavar="ID", help="Replace this token: the new one gets its name, scopes and projects.")
@click.option(
    "--overlap",
    type=Duration(),
    default="1h",
    show_default=True,
    help="With --replaces: how long the old token stays valid.",
)
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
    """Create a token and print it. It is not shown again; the ledger keeps only its hash."""
    from runclaim.ledger.doors import tokens

    with _ledger(app, url) as (database, project):
        if replaces is None:
            if not scopes or not name:
                raise click.UsageError("give --name and at least one --scope")
            wanted, where = [tokens.Scope(scope) for scope in scopes], projects or (project,)
            text = database.run(
                lambda conn: tokens.create(conn, name=name, scopes=wanted, projects=where, lasts=expires)
            )
        else:
            if scopes or projects or name:
                raise click.UsageError(
                    "--replaces keeps the name, scopes and projects; leave out --name, --scope and --project"
                )
            found = database.run(lambda conn: tokens.replace(conn, replaces, overlap=overlap, lasts=expires))
            text = _there(found, replaces)
    if as_json:
        give_json({"id": text.split("_")[1], "token": text})
    else:
        give(text)
    say("copy the token now, it is not shown again: set RUNCLAIM_TOKEN to it, or send Authorization: Bearer <token>")


@command.command(name="list")
@app_option
@url_option
@json_option
def list_tokens(*, app: str | None, url: str | None, as_json: bool) -> None:
    """
    List all tokens, newest first, including expired and revoked ones.

    In a pipe, each line is one token: id, name, scopes, projects, and the times when it was created, expires, was last
    used and was revoked, separated by tabs.
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
        say("no tokens yet; create one: runclaim token create --name me --scope runs:write")


@command.command()
@click.argument("token_id", metavar="ID")
@app_option
@url_option
@json_option
def revoke(*, token_id: str, app: str | None, url: str | None, as_json: bool) -> None:
    """Revoke a token by its id, with immediate effect."""
    from runclaim.ledger.doors import tokens

    with _ledger(app, url) as (database, _):
        _there(database.run(lambda conn: tokens.revoke(conn, token_id)) or None, token_id)
    say(f"token {token_id} is revoked")
    if as_json:
        give_json({"id": token_id, "revoked": True})


def _there(found: Any, token_id: str) -> Any:
    if found is None:
        raise NotFound(f"there is no usable token {token_id}; list all tokens with: runclaim token list")
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
