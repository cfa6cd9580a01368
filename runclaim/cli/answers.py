"""
What the API has to answer for a command to print it: the fields that commands read, and their types.

An address may lead to something else, and an API may be hostile; what does not fit is told as an answer that is not
the API's, never as a traceback. Fields that are not named here pass through to `--json` untouched.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import Any, TypedDict, cast

import msgspec

from runclaim.cli.exits import Unreachable


class Phase(TypedDict):
    """A phase of a run."""

    name: str
    status: str


class Error(TypedDict):
    """Why a run stopped."""

    type: str | None
    message: str | None


class RunLine(TypedDict):
    """A run without its input and result."""

    id: str
    project: str
    flow: str
    key: str
    rerun: int
    subject: str | None
    state: str
    phase: str
    phases: list[Phase]
    attempts: int
    priority: int | None
    cancel_requested: bool
    error: Error | None
    enqueued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Run(RunLine):
    """A run with its input, and its result once it has succeeded."""

    input: Any
    result: Any


class Event(TypedDict):
    """A line of a run's journal."""

    type: str
    phase: str | None
    attempt: int | None
    data: Any
    at: datetime


class Action(TypedDict):
    """A planned action."""

    id: str
    state: str
    kind: str
    run_id: str
    phase: str
    attempts: int
    upstream_id: str | None


class Erased(TypedDict):
    """How many runs were erased, and whether others are left."""

    runs: int
    more: bool


class Moved(TypedDict):
    """A run whose phase was moved."""

    id: str
    state: str


class Moves(TypedDict):
    """The runs whose phase was moved, and how many are left: to move, running, with a call in doubt, with both."""

    runs: list[Moved]
    movable: int
    running: int
    in_doubt: int
    with_both: int


class RunsPage(TypedDict):
    """Some runs; the token is empty on the last page."""

    runs: list[RunLine]
    next_page_token: str


class ActionsPage(TypedDict):
    """Some actions; the token is empty on the last page."""

    actions: list[Action]
    next_page_token: str


def fitting(answer: Any, kind: type[Any], *, url: str) -> dict[str, Any]:
    """`answer` itself, which has the fields of `kind`. Raises: Unreachable, which names the first that does not fit."""
    try:
        msgspec.convert(answer, kind)
    except msgspec.ValidationError as mistake:
        raise Unreachable(f"{url} is not a runclaim API ({mistake}); check RUNCLAIM_API_URL") from None
    return cast("dict[str, Any]", answer)
