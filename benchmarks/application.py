"""
The two sides: bare tasks and a chain, and the same bodies as a flow. One Celery application, one queue for each side.

Every body is the same: one short line of a file, which proves that it ran.
"""

from __future__ import annotations

import json
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery

from runclaim import Context, Runclaim

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Run, phase and the monotonic clock of the machine in nanoseconds.
LINE = struct.Struct("<IIQ")
_files: dict[int, int] = {}


def effect(folder: Path, run: int, phase: int) -> int:
    """What every body does."""
    file = _files.get(os.getpid())
    if file is None:
        file = os.open(folder / f"{os.getpid()}.effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _files[os.getpid()] = file
    os.write(file, LINE.pack(run, phase, time.monotonic_ns()))
    return run


def effects(folder: Path) -> Iterator[tuple[int, int, int]]:
    """Every effect so far: run, phase, nanoseconds."""
    for path in folder.glob("*.effects"):
        told = path.read_bytes()
        yield from LINE.iter_unpack(told[: len(told) - len(told) % LINE.size])


def many_effects(folder: Path) -> int:
    """How many there are; cheap enough to be asked often."""
    return sum(path.stat().st_size for path in folder.glob("*.effects")) // LINE.size


@dataclass(frozen=True, slots=True)
class Work:
    """The input of a run."""

    number: int


class Sides:
    """Both sides of one measurement. Every setting is Celery's and runclaim's default, but for the queues' names."""

    def __init__(self, broker: str, database_url: str, folder: Path) -> None:
        self.app = app = Celery("bench", broker=broker)
        app.conf.update(
            task_ignore_result=True,
            worker_hijack_root_logger=False,
            task_default_queue="bare",
            task_routes={"one.*": {"queue": "durable"}, "three.*": {"queue": "durable"}},
        )
        self.runs = Runclaim(app, database_url=database_url)
        self.one = self.runs.flow("one", Work, key="{number}")
        self.three = self.runs.flow("three", Work, key="{number}")
        for name, flow, phase in (
            ("only", self.one, 0),
            ("a", self.three, 0),
            ("b", self.three, 1),
            ("c", self.three, 2),
        ):
            flow.phase(name=name)(_body(folder, phase))
        self.first, self.second, self.third = (_task(app, folder, phase) for phase in range(3))

    def chain(self, number: int) -> Any:
        """Three phases as bare Celery has them."""
        return self.first.s(number) | self.second.s() | self.third.s()


def _task(app: Celery, folder: Path, phase: int) -> Any:
    def body(number: int) -> int:
        return effect(folder, number, phase)

    make: Any = app.task
    return make(name=f"bare.{phase}", shared=False)(body)


def _body(folder: Path, phase: int) -> Any:
    def body(ctx: Context[Work]) -> int:
        return effect(folder, ctx.input.number, phase)

    return body


if "RUNCLAIM_BENCH" in os.environ:
    _told = json.loads(os.environ["RUNCLAIM_BENCH"])
    sides = Sides(_told["broker"], _told["database_url"], Path(_told["folder"]))
    app = sides.app
