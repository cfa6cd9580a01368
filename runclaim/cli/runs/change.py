"""`runclaim runs cancel`, `retry`, `resume` and `rerun`: what moves runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runclaim.cli.exits import Exit, code_of, tell
from runclaim.cli.option_types import Identifier
from runclaim.cli.options import json_option, on_the_ledger, yes_option
from runclaim.cli.terminal import confirmed, give, give_json, one_line, say
from runclaim.errors import RunclaimError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.cli.backend import Backend, Json

_ids = click.argument("run_ids", metavar="ID...", nargs=-1, required=True, type=Identifier("run"))


@click.command()
@_ids
@yes_option
@json_option
@on_the_ledger
def cancel(*, backend: Backend, run_ids: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """
    Cancel runs; workers of running ones are asked to stop. Asks for confirmation.

    A run that no worker holds ends at once; a running one ends when its body next calls the ledger. Repeating the
    command is harmless.
    """
    if not yes:
        runs = [backend.run(run_id) for run_id in run_ids]
        names = "\n".join(one_line(f"  {run['id']}  {run['flow']} {run['key']}, {run['state']}") for run in runs)
        if not confirmed(f"{names}\nCancel {'this run' if len(runs) == 1 else f'these {len(runs)} runs'}?"):
            say("nothing was canceled")
            raise click.exceptions.Exit(Exit.FAILED)

    def what(run: Json) -> str:
        return "canceled" if run["state"] == "canceled" else f"{run['state']}; its worker was asked to stop"

    _each(backend, "cancel", run_ids, what, as_json=as_json)


@click.command()
@_ids
@json_option
@on_the_ledger
def retry(*, backend: Backend, run_ids: tuple[str, ...], as_json: bool) -> None:
    """
    Restart failed runs at their failed phase, with a fresh budget of attempts.

    Completed phases are not run again.
    """
    _each(backend, "retry", run_ids, lambda _: f"starts {backend.starts}", as_json=as_json)


@click.command()
@_ids
@json_option
@on_the_ledger
def resume(*, backend: Backend, run_ids: tuple[str, ...], as_json: bool) -> None:
    """Resume blocked runs at their blocked phase, with a fresh budget of attempts."""
    _each(backend, "resume", run_ids, lambda _: f"starts {backend.starts}", as_json=as_json)


@click.command()
@_ids
@json_option
@on_the_ledger
def rerun(*, backend: Backend, run_ids: tuple[str, ...], as_json: bool) -> None:
    """
    Enqueue new runs with the keys and inputs of existing ones; they start at their first phase.

    Prints the ids of the new runs. A run of the same key that has not ended is superseded.
    """
    _each(backend, "rerun", run_ids, lambda run: f"rerun {run['rerun']}, starts {backend.starts}", as_json=as_json)


def _each(backend: Backend, verb: str, run_ids: tuple[str, ...], what: Callable[[Json], str], *, as_json: bool) -> None:
    """Do the verb to every run; one that is refused keeps no other from its turn, and decides the exit code."""
    code = Exit.DONE
    for run_id in run_ids:
        try:
            run = backend.change(verb, run_id)
        except RunclaimError as refused:
            if (its := code_of(refused)) is Exit.UNREACHABLE:
                raise
            tell(refused)
            code = code or its
            continue
        say(f"run {run['id']}: {what(run)}")
        if as_json:
            give_json(run)
        else:
            give(run["id"] if verb == "rerun" else f"{run['id']}\t{run['state']}")
    if code:
        raise click.exceptions.Exit(code)
