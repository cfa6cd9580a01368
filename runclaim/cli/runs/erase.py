"""`runclaim runs erase`: what the ended runs of a key or a subject hold is blanked for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runclaim.cli.backend import Erasing
from runclaim.cli.exits import Exit, NotFound
from runclaim.cli.options import json_option, on_the_ledger, project_option, yes_option
from runclaim.cli.runs.render import runs_text
from runclaim.cli.terminal import confirmed, give, give_json, say

if TYPE_CHECKING:
    from runclaim.cli.backend import Backend


@click.command()
@project_option
@click.option("--flow", metavar="NAME", help="Runs of this flow; required with --key.")
@click.option("--key", metavar="KEY", help="Runs of this key, with all its reruns.")
@click.option("--subject", metavar="SUBJECT", help="Runs of this subject.")
@click.option("--blank-key", is_flag=True, help="Blank the texts of keys and subjects as well; their hashes stay.")
@yes_option
@json_option
@on_the_ledger
def command(
    *,
    backend: Backend,
    project: str | None,
    flow: str | None,
    key: str | None,
    subject: str | None,
    blank_key: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """
    Erase what the ended runs of a key or a subject hold, for good.

    Asks for confirmation. Inputs, results, errors, findings, payloads and the data of events are blanked. The runs and
    their keys stay: a late duplicate of a key still starts nothing. Refused while one of the runs has not ended.
    """
    if (key is None) is (subject is None) or (key is not None and flow is None):
        raise click.UsageError("give either --key KEY with --flow NAME, or --subject SUBJECT")
    whose = Erasing(project=project, flow=flow, key=key, subject=subject, blank_key=blank_key)
    count, more = backend.erasable(whose)
    if not count:
        raise NotFound(f"there is nothing to erase: {whose} has no runs, or they were erased before")
    many = f"more than {runs_text(count)}" if more else runs_text(count)
    if not yes and not confirmed(f"{whose}: {many}. Erase what they hold? It cannot be undone."):
        say("nothing was erased")
        raise click.exceptions.Exit(Exit.FAILED)
    total = _erase(backend, whose)
    say(f"erased what {runs_text(total)} held")
    if as_json:
        give_json({"runs": total})
    else:
        give(str(total))


def _erase(backend: Backend, whose: Erasing) -> int:
    total, more = 0, True
    while more:
        count, more = backend.erase(whose)
        total += count
        if more:
            say(f"{total} runs so far")
    return total
