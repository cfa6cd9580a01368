"""`runclaim runs enqueue`: a run from a shell, from another language, from a script in CI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from runclaim.cli.option_types import Duration, input_from
from runclaim.cli.options import json_option, on_the_ledger, project_option
from runclaim.cli.runs.wait import require_success, wait_for
from runclaim.cli.terminal import give, give_json, give_output, say
from runclaim.service.run_request import RunRequest

if TYPE_CHECKING:
    from datetime import timedelta

    from runclaim.cli.backend import Backend, Json

_FRESH: Final = frozenset({"queued", "waiting"})


@click.command()
@click.argument("flow")
@project_option
@click.option("--input", "given", metavar="JSON", help="The input as a JSON object.")
@click.option("--stdin", is_flag=True, help="Read the input from stdin.")
@click.option("--input-file", type=click.Path(exists=True, dir_okay=False), help="Read the input from a file.")
@click.option("--key", help="The run key, for flows whose key is computed by a function.")
@click.option("--subject", help="The subject, for flows whose subject is computed by a function.")
@click.option("--idempotency-key", metavar="KEY", help="Repeating the command with the same key gets the same run.")
@click.option("--delay", type=Duration(), help="Delay before the run may start, such as 90s, 5m or 2h.")
@click.option("--priority", type=click.IntRange(0, 9), default=None, help="The broker's priority, 0 to 9.")
@click.option("--wait", is_flag=True, help="Wait until the run ends and print its result.")
@click.option("--timeout", type=Duration(), help="With --wait: give up after this long and exit with 8.")
@json_option
@on_the_ledger
def command(
    *,
    backend: Backend,
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
    Enqueue a run of FLOW, or get the run that its key already has.

    Prints the id of the run, or with --wait its result. The same input always gets the same run, so repeating is safe.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout only works with --wait")
    request = RunRequest(
        flow=flow,
        input=input_from(given, stdin=stdin, file=input_file),
        project=project,
        key=key,
        subject=subject,
        delay=delay,
        priority=priority,
    )
    run, created = backend.enqueue(request, idempotency_key)
    say(f"run {run['id']} {_what(backend, run, request, idempotency_key, created=created)}")
    if not wait:
        say(f"follow it: runclaim runs tail {run['id']}")
        if as_json:
            give_json(run | {"created": created})
        else:
            give(run["id"])
        return
    run = wait_for(backend, run["id"], timeout=timeout)
    if as_json:
        give_json(run | {"created": created})
    require_success(run)
    if not as_json:
        give_output(run["result"])


def _what(backend: Backend, run: Json, request: RunRequest, idempotency_key: str | None, *, created: bool) -> str:
    is_fresh = run["state"] in _FRESH
    # Under an idempotency key the answer is that of the first call, which may be an earlier one.
    if not created or (idempotency_key is not None and not is_fresh):
        return f"already existed; it is {run['state']}"
    if not is_fresh:
        return f"is {run['state']}"  # a worker was faster than this line
    return "is queued" if request.delay else f"is queued; starts {backend.starts}"
