"""`runclaim listeners`: who is told of events, and what was given up for them. On the ledger itself; no API has it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from runclaim.cli.options import app_option, config_of, find_app, json_option, url_option
from runclaim.cli.terminal import Table, give, give_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.cli.local import LocalBackend


@click.group()
def command() -> None:
    """List event listeners; tell them again the events that were given up."""


@command.command("list")
@app_option
@url_option
@json_option
def list_(*, app: str | None, url: str | None, as_json: bool) -> None:
    """
    List event listeners by name.

    In a pipe, each line is one listener: name, how many events it is behind at most, how many failed and will be told
    again, and how many were given up, separated by tabs.
    """
    with _ledger(app, url) as backend:
        found = backend.listeners()
    if as_json:
        for listener in found:
            give_json(listener)
    elif not Table("name", "behind", "untold", "given up", flexible="name", state="given up").show(
        [[str(value) for value in each.values()] for each in found]
    ):
        say("no listeners")


@command.command()
@click.argument("name")
@app_option
@url_option
@json_option
def retry(*, name: str, app: str | None, url: str | None, as_json: bool) -> None:
    """
    Tell a listener again the events that were given up. Prints how many.

    Their attempts are counted from zero and their ids stay the same. The listener may already have been told later
    events of the same runs.
    """
    with _ledger(app, url) as backend:
        many, tells = backend.tell_again(name), backend.tells
    if as_json:
        give_json({"name": name, "told_again": many})
    else:
        give(f"{name}\t{many}")
    events = "1 event" if many == 1 else f"{many} events"
    say(f"{events} will be told again; {tells}" if many else f"no events were given up for {name}")


@contextmanager
def _ledger(app: str | None, url: str | None) -> Iterator[LocalBackend]:
    from runclaim.cli.local import LocalBackend

    with LocalBackend.on(find_app(app, url), config_of(url)) as backend:
        yield backend
