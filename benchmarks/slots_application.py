"""Flows of three phases whose bodies wait so many milliseconds and then leave one line, which proves that they ran."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from celery import Celery

from benchmarks.application import Work
from benchmarks.effects import effect
from runclaim import Context, Runclaim

if TYPE_CHECKING:
    from runclaim import Flow

#: How long the bodies wait, in milliseconds; a flow for each.
WAITS: Final = (0, 5, 20)
PHASES: Final = 3
TOLD: Final = "RUNCLAIM_SLOTS"


class Slots:
    """One Celery application whose flows share a queue. All other settings are Celery's and runclaim's defaults."""

    def __init__(self, broker: str, database_url: str, folder: Path) -> None:
        self.app = app = Celery("slots", broker=broker)
        app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False, task_default_queue="slots")
        self.runs = Runclaim(app, database_url=database_url)
        self.flows = {milliseconds: self._flow(milliseconds, folder) for milliseconds in WAITS}

    def _flow(self, milliseconds: int, folder: Path) -> Flow[Work]:
        flow = self.runs.flow(f"waits{milliseconds}", Work, key="{number}")
        for phase in range(PHASES):
            flow.phase(name="abc"[phase])(_body(folder, phase, milliseconds / 1000))
        return flow


def _body(folder: Path, phase: int, seconds: float) -> Any:
    def body(ctx: Context[Work]) -> int:
        if seconds:
            time.sleep(seconds)
        return effect(folder, ctx.input.number, phase)

    return body


if TOLD in os.environ:
    _told = json.loads(os.environ[TOLD])
    slots = Slots(_told["broker"], _told["database_url"], Path(_told["folder"]))
    app = slots.app
