"""What clients get of planned actions, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from runclaim.api.examples import RUN_ID
from runclaim.api.responses import ErrorOut

ACTION_EXAMPLE: Final[dict[str, Any]] = {
    "id": "01a1ff25-4c10-7a5e-9f3d-7b0e6a2c41d8",
    "run_id": RUN_ID,
    "phase": "deliver",
    "name": "0",
    "kind": "comment",
    "state": "unknown",
    "attempts": 1,
    "uncertain": True,
    "superseded": False,
    "payload": {"number": 7, "body": "Looks good."},
    "idempotency_key": f"{RUN_ID}:deliver:0",
    "upstream_id": None,
    "error": {"type": "ConnectionError", "message": "connection reset"},
    "planned_at": "2026-11-20T09:30:05.000000Z",
    "attempted_at": "2026-11-20T09:30:06.000000Z",
    "ended_at": "2026-11-20T09:30:07.000000Z",
}

ActionStateName = Literal["planned", "sending", "posted", "failed", "unknown"]


class ActionOut(BaseModel):
    """A planned action: a call to the outside world, and what became of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [ACTION_EXAMPLE]})

    id: str
    run_id: str
    phase: str
    name: str
    kind: str
    state: ActionStateName
    attempts: int
    uncertain: bool
    superseded: bool
    payload: Any
    idempotency_key: str
    upstream_id: str | None
    error: ErrorOut | None
    planned_at: datetime
    attempted_at: datetime | None
    ended_at: datetime | None


class ActionBrief(BaseModel):
    """What a token without `runs:read` sees of an action."""

    model_config = ConfigDict(extra="forbid")

    id: str
    state: ActionStateName


class ActionsOut(BaseModel):
    """A page of actions; `next_page_token` is empty on the last one."""

    actions: list[ActionOut]
    next_page_token: str
