"""`runclaim actions`: what was planned for the outside world, and what a person decides of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runclaim.cli.exits import Exit
from runclaim.cli.option_types import Identifier
from runclaim.cli.options import json_option, on_the_ledger, yes_option
from runclaim.cli.terminal import Table, confirmed, give, give_json, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runclaim.cli.backend import Backend, Json

_STATES = ("planned", "sending", "posted", "failed", "unknown")
_id = click.argument("action_id", metavar="ID", type=Identifier("action"))


@click.group()
def command() -> None:
    """List planned actions; retry or resolve those that failed or are unknown."""


@command.command("list")
@click.option("--run", "run_id", metavar="ID", type=Identifier("run"), help="Actions of this run, in order.")
@click.option(
    "--project",
    metavar="NAME",
    help="Actions of this project; default: every project, or through the API the token's project.",
)
@click.option("--state", type=click.Choice(_STATES), help="Actions in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show at most this many.")
@json_option
@on_the_ledger
def list_(
    *, backend: Backend, run_id: str | None, project: str | None, state: str | None, limit: int, as_json: bool
) -> None:
    """
    List actions, newest first, or those of one run in order.

    In a pipe, each line is one action: id, state, kind, run, phase, attempts and upstream id, separated by tabs.
    """
    found = backend.actions(project=project, run_id=run_id, state=state, limit=limit)
    if as_json:
        for action in found:
            give_json(action)
    elif not _table().show(_rows(found)):
        say("no actions")


@command.command()
@_id
@yes_option
@json_option
@on_the_ledger
def retry(*, backend: Backend, action_id: str, yes: bool, as_json: bool) -> None:
    """
    Send a failed or unknown action again. Its idempotency key stays the same.

    Asks for confirmation if the action is unknown, because it may have arrived. If its kind has a lookup, the other
    side is asked before anything is sent; otherwise it may arrive twice.
    """
    action = backend.action(action_id)
    question = f"{action['kind']} {action_id} may have arrived. Send it again?"
    if action["state"] == "unknown" and not yes and not confirmed(question):
        say("nothing was sent")
        raise click.exceptions.Exit(Exit.FAILED)
    _give(backend.retry_action(action_id), as_json=as_json)
    say(f"action {action_id} will be sent {backend.sends}")


@command.command()
@_id
@click.option(
    "--posted", "upstream_id", metavar="UPSTREAM_ID", help="The action arrived; this is its id on the other side."
)
@click.option("--never", is_flag=True, help="The action never arrived; it ends as failed.")
@json_option
@on_the_ledger
def resolve(*, backend: Backend, action_id: str, upstream_id: str | None, never: bool, as_json: bool) -> None:
    """Record what became of an unknown action; nothing is sent."""
    if (upstream_id is None) is not never:
        raise click.UsageError("give either --posted UPSTREAM_ID or --never")
    action = backend.resolve_action(action_id, upstream_id)
    say(f"action {action_id} is {action['state']}")
    _give(action, as_json=as_json)


def _give(action: Json, *, as_json: bool) -> None:
    if as_json:
        give_json(action)
    else:
        give(f"{action['id']}\t{action['state']}")


def _table() -> Table:
    return Table("id", "state", "kind", "run", "phase", "attempts", "upstream", flexible="upstream", state="state")


def _rows(actions: Iterable[Json]) -> Iterator[list[str]]:
    for action in actions:
        found = [action[name] for name in ("id", "state", "kind", "run_id", "phase", "attempts", "upstream_id")]
        yield ["" if cell is None else str(cell) for cell in found]
