"""The tests' application with tenants: each task runs as the tenant of its message's header, and fails as any other."""

from __future__ import annotations

import json
import os
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import signals

from runclaim import Backoff
from tests.harness.app import Stage, Work, build

if TYPE_CHECKING:
    from runclaim import Context
    from runclaim.flows.flow import Flow

#: Whoever acts here; a task's own is taken from its request.
tenant: ContextVar[str] = ContextVar("tenant", default="public")


def send(headers: Any = None, **_told: Any) -> None:
    headers["tenant"] = tenant.get()


def take(task: Any = None, **_told: Any) -> None:
    tenant.set(task.request.get("tenant") or "nobody")


def with_tenants(told: dict[str, Any]) -> tuple[Stage, Flow[Work]]:
    """The application, and a flow whose bodies note as whom they run; the second phase of each run fails once."""
    stage, noted = build(told), Path(told["folder"]) / "tenants"
    flow = stage.runs.flow("owned", Work, key="{name}")

    def body(ctx: Context[Work]) -> None:
        with noted.open("a") as file:
            file.write(f"{ctx.input.about} {tenant.get()} {ctx.phase} {ctx.attempt}\n")
        if ctx.phase == "second" and ctx.attempt == 1:
            raise KeyError("once")

    for name in ("first", "second", "third"):
        flow.phase(name=name, backoff=Backoff(first=timedelta(seconds=0.01)))(body)
    signals.before_task_publish.connect(send, weak=False)
    signals.task_prerun.connect(take, weak=False)
    return stage, flow


if "HARNESS" in os.environ:
    stage, _ = with_tenants(json.loads(os.environ["HARNESS"]))
    app = stage.app
