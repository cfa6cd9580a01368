"""`runclaim runs enqueue`: a run from a shell, from another language, from a script in CI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from runclaim.cli.option_types import Duration, input_from
from runclaim.cli.options import json_option, on_the_ledger, project_option
from runclaim.cli.runs.wait import require_success, wait_for
from runclaim.cli.service import Asked
from runclaim.cli.terminal import give, give_json, give_output, say

if TYPE_CHECKING:
    from datetime import timedelta

    from runclaim.cli.service import Json, Service

_FRESH: Final = frozenset({"queued", "waiting"})


@click.command()
@click.argument("flow")
@project_option
@click.option("--input", "given", metavar="JSON", help="The input, a JSON object.")
@click.option("--stdin", is_flag=True, help="Read the input from stdin.")
@click.option("--input-file", type=click.Path(exists=True, dir_okay=False), help="Read the input from a file.")
@click.option("--key", help="The run key, where the flow makes it by a function.")
@click.option("--subject", help="The subject, where the flow makes it by a function.")
@click.option("--idempotency-key", metavar="KEY", help="The same key again gives the same answer.")
@click.option("--delay", type=Duration(), help="Start after so long: 90s, 5m, 2h.")
@click.option("--priority", type=click.IntRange(0, 9), default=None, help="The broker's priority, 0 to 9.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
@click.option("--timeout", type=Duration(), help="With --wait: at most so long, then exit 8.")
@json_option
@on_the_ledger
def command(
    *,
    service: Service,
    flow: str,
    project: str | None,
    given: str | None,
    stdin: bool,
    input_file: str | None,
    key: str | None,
    subject: str | None,
    idempotency_key: str | None,
    delay: timedelta | None,
    priority: int | None,
    wait: bool,
    timeout: timedelta | None,
    as_json: bool,
) -> None:
    """
    Make a run of FLOW, or find the run that its key already has.

    Prints the run's id; with --wait the run's result. The same input again is the same run, so it is safe to repeat.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    asked = Asked(
        flow=flow,
        input=input_from(given, stdin=stdin, file=input_file),
        project=project,
        key=key,
        subject=subject,
        idempotency_key=idempotency_key,
        delay=delay,
        priority=priority,
    )
    run, created = service.enqueue(asked)
    say(f"run {run['id']} {_what(service, run, asked, created=created)}")
    if not wait:
        say(f"follow it: runclaim runs tail {run['id']}")
        if as_json:
            give_json(run | {"created": created})
        else:
            give(run["id"])
        return
    run = wait_for(service, run["id"], timeout=timeout)
    if as_json:
        give_json(run | {"created": created})
    require_success(run)
    if not as_json:
        give_output(run["result"])


def _what(service: Service, run: Json, asked: Asked, *, created: bool) -> str:
    is_fresh = run["state"] in _FRESH
    # Under an idempotency key the answer is that of the first call, which may be an earlier one.
    if not created or (asked.idempotency_key is not None and not is_fresh):
        return f"was there already: it is {run['state']}"
    if not is_fresh:
        return f"is {run['state']}"  # a worker was faster than this line
    return "is queued" if asked.delay else f"is queued, starts {service.starts}"
