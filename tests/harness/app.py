"""
The application of the tests: one flow of three phases whose bodies do what the run's input tells them.

Configured by the one variable HARNESS, as JSON: `broker`, `database_url`, `folder`, Celery's `conf`, the `settings` of
`Runclaim`, and for each of the `phases` its options (durations in seconds). `python -m celery -A tests.harness.app`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert

from runclaim import Backoff, Context, Runclaim
from tests.harness.bodies import gate, perform, wait_at

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow

metadata = MetaData()
#: Written by `ctx.in_completion`, read by the tests in the order of writing. A second completion is a second row.
rows_table = Table(
    "harness_rows",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("run_id", Text),
    Column("name", Text),
    Column("phase", Text),
    Column("attempt", Integer),
    Column("pid", Integer),
)

PHASES = ("first", "second", "third")
_DURATIONS = {"lease", "max_duration"}
#: Quick enough for tests; every value can be set by the site. Each run has messages and commits of its own, so that a
#: test knows which message it hits; what is about groups says so.
_SETTINGS = {
    "rescue_every": "500ms",
    "dispatch_every": "500ms",
    "dispatch_after": "2s",
    "deliver_every": "500ms",
    "grouped": False,
}


@dataclass(frozen=True)
class Work:
    """The input of a run: `name` is the key; `do` maps a phase to what its body does, see `tests.harness.bodies`."""

    name: str
    about: str = ""
    do: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """The application as it was built."""

    app: Celery
    runs: Runclaim
    steps: Flow[Work]


def build(told: dict[str, Any]) -> Stage:
    """A new application; any number of them live in one process."""
    app = Celery("harness", broker=told["broker"], set_as_current=False)
    app.conf.update({"broker_connection_retry_on_startup": True} | told.get("conf", {}))
    runs = Runclaim(app, database_url=told["database_url"], **_SETTINGS | told.get("settings", {}))
    steps = runs.flow(
        told.get("flow", "steps"),
        Work,
        key="{name}",
        subject=(lambda work: work.about) if told.get("subjects") else None,
        fail_open=told.get("fail_open", False),
        allow_secrets=told.get("allow_secrets", False),
    )
    _actions(runs, Path(told["folder"]), told)
    # Tasks of the application's own, beside the phases.
    app.task(hello, name="own.hello", shared=False)
    app.task(_large(Path(told["folder"])), name="own.large", shared=False)
    folder = Path(told["folder"])
    for name in told.get("names", PHASES):
        steps.phase(name=name, **_options(told.get("phases", {}).get(name, {})))(
            _body(folder, rows=told.get("rows", not steps.fail_open))
        )
    return Stage(app, runs, steps)


def _actions(runs: Runclaim, folder: Path, told: dict[str, Any]) -> None:
    """The other side: a file with a line for each call that arrived, under its key."""
    arrived = folder / "arrived"

    @runs.action(
        "note",
        max_duration=timedelta(seconds=told.get("send_seconds", 2)),
        backoff=Backoff(first=timedelta(seconds=0.01), jitter=False),
    )
    def note(payload: Any, idempotency_key: str) -> str:
        with arrived.open("a") as file:
            file.write(f"{idempotency_key} {payload}\n")
        return idempotency_key

    @note.lookup
    def find(_payload: Any, idempotency_key: str) -> str | None:
        lines = arrived.read_text().splitlines() if arrived.exists() else []
        return idempotency_key if any(line.startswith(f"{idempotency_key} ") for line in lines) else None


def hello() -> str:
    return "hello"


def _large(folder: Path) -> Any:
    def large() -> None:
        """Fail with more than a pipe holds, once its gate is open. Its file says that it waits there."""
        (folder / "large").touch()
        wait_at(gate(folder, "own", "large"))
        raise ValueError("x" * 100_000)

    return large


def _options(given: dict[str, Any]) -> dict[str, Any]:
    found = {name: timedelta(seconds=value) if name in _DURATIONS else value for name, value in given.items()}
    seconds = found.pop("backoff", 0.01)
    return found | {"backoff": Backoff(first=timedelta(seconds=seconds), jitter=False)}


def _body(folder: Path, *, rows: bool) -> Any:
    def body(ctx: Context[Work]) -> str:
        with (folder / "effects").open("a") as effects:
            effects.write(f"{ctx.run_id} {ctx.input.name} {ctx.phase} {ctx.attempt} {os.getpid()}\n")
        perform(ctx, ctx.input.do.get(ctx.phase, "pass"), folder)
        row = {"run_id": ctx.run_id, "name": ctx.input.name, "phase": ctx.phase, "attempt": ctx.attempt}
        if rows:
            ctx.in_completion(lambda session: session.execute(insert(rows_table).values(pid=os.getpid(), **row)))
        return f"{ctx.phase} of {ctx.input.name}"

    return body


if "HARNESS" in os.environ:
    stage = build(json.loads(os.environ["HARNESS"]))
    app = stage.app
