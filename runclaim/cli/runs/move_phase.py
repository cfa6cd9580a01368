"""`runclaim runs move-phase`: live runs go on with the new name of a phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runclaim.cli.backend import Moving
from runclaim.cli.exits import Exit, NotFound
from runclaim.cli.option_types import Identifier
from runclaim.cli.options import json_option, on_the_ledger, project_option, yes_option
from runclaim.cli.runs.render import runs_text
from runclaim.cli.terminal import confirmed, give, give_json, say

if TYPE_CHECKING:
    from runclaim.cli.backend import Backend, Json


@click.command()
@click.argument("run_ids", metavar="[ID]...", nargs=-1, type=Identifier("run"))
@project_option
@click.option("--flow", metavar="NAME", required=True, help="Runs of this flow.")
@click.option("--from", "old", metavar="OLD", required=True, help="The phase that the runs are pinned to.")
@click.option("--to", "new", metavar="NEW", required=True, help="The phase of the flow that takes its place.")
@click.option("--key", metavar="KEY", help="Only the run of this key.")
@yes_option
@json_option
@on_the_ledger
def command(
    *,
    backend: Backend,
    run_ids: tuple[str, ...],
    project: str | None,
    flow: str,
    old: str,
    new: str,
    key: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """
    Give a phase its new name in live runs that are pinned to the old one.

    Asks for confirmation. A completed phase keeps its name, and a run that is running is left alone: repeat the command
    when it has ended. Runs at the phase get the queue and the budgets of the new one and start again at once.
    """
    moving = Moving(project=project, flow=flow, old=old, new=new, key=key, ids=run_ids)
    before = backend.move_phase(moving, dry_run=True)
    if not any(before[name] for name in ("movable", "running", "in_doubt", "with_both")):
        raise NotFound(f"no live run of flow {flow} has phase {old} before it; see: runclaim runs list --flow {flow}")
    question = f"Move phase {old} to {new} in {runs_text(before['movable'])} of flow {flow}?"
    if before["movable"] and not yes and not confirmed(question):
        say("nothing was moved")
        raise click.exceptions.Exit(Exit.FAILED)
    moved, left = _move(backend, moving, before)
    say(f"moved phase {old} to {new} in {runs_text(len(moved))}")
    _say_left(left, old, new)
    if as_json:
        give_json(left | {"runs": moved})
    else:
        for run in moved:
            give(f"{run['id']}\t{run['state']}")
    if any(left[name] for name in ("movable", "running", "in_doubt", "with_both")):
        raise click.exceptions.Exit(Exit.FAILED)


def _move(backend: Backend, moving: Moving, before: Json) -> tuple[list[Json], Json]:
    """Every run that was moved, and how the others stand; ends when a call moves none."""
    moved: list[Json] = []
    left = before
    while left["movable"]:
        left = backend.move_phase(moving, dry_run=False)
        moved += left["runs"]
        if not left["runs"]:
            break
        if left["movable"]:
            say(f"{runs_text(len(moved))} so far")
    return moved, left


def _say_left(left: Json, old: str, new: str) -> None:
    """What was left alone, and what to do about it."""
    if count := left["movable"]:
        say(f"{_are(count)} being changed by others; repeat the command")
    if count := left["running"]:
        say(f"{_are(count)} running; repeat the command when they have ended the phase they are in")
    if count := left["in_doubt"]:
        say(f'{_have(count)} a call in {old} whose answer is not known; keep the phase, with name="{old}"')
    if count := left["with_both"]:
        say(f"{_have(count)} a phase {new} already; keep {old} until they have ended")


def _are(count: int) -> str:
    return "1 run is" if count == 1 else f"{count} runs are"


def _have(count: int) -> str:
    return "1 run has" if count == 1 else f"{count} runs have"
