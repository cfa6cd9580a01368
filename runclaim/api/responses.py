"""What clients get, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from runclaim.api.examples import JOB_EXAMPLE, RUN_EXAMPLE

State = Literal["queued", "running", "waiting", "blocked", "succeeded", "failed", "canceled", "superseded"]


class PhaseOut(BaseModel):
    """A phase of a run."""

    name: str
    status: Literal["pending", "active", "complete", "failed", "blocked"]


class ErrorOut(BaseModel):
    """Why a run stopped, or why its last attempt failed."""

    type: str | None
    message: str | None


class RunLineOut(BaseModel):
    """A run, without its input and result."""

    id: str
    project: str
    flow: str
    key: str
    rerun: int
    subject: str | None
    state: State
    phase: str
    phases: list[PhaseOut]
    attempts: int
    priority: int | None
    cancel_requested: bool
    error: ErrorOut | None
    enqueued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    claimed_at: datetime | None
    output_ref: str | None


class RunOut(RunLineOut):
    """A run with its input, and its result once it has succeeded."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN_EXAMPLE]})

    input: Any
    result: Any
    output_refs: dict[str, str] = Field(description="Phase → where its output lies, for those that named a place.")
    phase_is_gone: bool = Field(description="Queued at a phase that no release which is alive declares.")
    delivery_id: str | None = Field(description="The webhook's delivery that made the run.")
    delivery_action: str | None = Field(description="The event and action that this delivery told of.")


class RunBrief(BaseModel):
    """What a token without `runs:read` sees of a run."""

    model_config = ConfigDict(extra="forbid")

    id: str
    state: State


class RunsOut(BaseModel):
    """A page of runs; `next_page_token` is empty on the last one."""

    runs: list[RunLineOut]
    next_page_token: str


class RunsChanged(BaseModel):
    """Several runs after a change to all of them."""

    runs: list[RunLineOut | RunBrief]


class ClaimOut(BaseModel):
    """A claimed phase: what to do, and how long the claim holds without a heartbeat."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: str
    claim: str
    project: str
    flow: str
    phase: str
    attempt: int
    max_attempts: int
    key: str
    subject: str | None
    input: Any
    results: dict[str, Any]
    idempotency_key: str
    lease_seconds: float
    lease_expires_at: datetime
    deadline_at: datetime


class Beat(BaseModel):
    """A lease after a heartbeat; a worker that sees `cancel_requested` stops and sends `:fail`."""

    id: str
    lease_expires_at: datetime
    deadline_at: datetime
    cancel_requested: bool


class Settled(BaseModel):
    """What a claim has recorded; repeated requests get the same answer."""

    id: str
    phase: str
    attempt: int
    recorded: Literal["succeeded", "failed"]


class MistakeOut(BaseModel):
    """One thing that is wrong with the request."""

    pointer: str
    detail: str


class ProblemOut(BaseModel):
    """What went wrong (RFC 9457). `code` is for programs; some codes have further members."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[MistakeOut] | None = None


class EventOut(BaseModel):
    """One line of a run's journal; its types are in docs/lifecycle.md."""

    id: int
    type: str
    phase: str | None
    attempt: int | None
    data: Any
    at: datetime


class EventsOut(BaseModel):
    """Some events; pass `last_id` as `after` to get the next ones."""

    events: list[EventOut]
    last_id: int


class FlowPhaseOut(BaseModel):
    """A phase of a registered flow; durations are in seconds."""

    name: str
    queue: str | None
    on: str | None
    max_attempts: int
    max_losses: int
    lease: float
    max_duration: float


class FlowOut(BaseModel):
    """A flow as its application registered it."""

    name: str
    phases: list[FlowPhaseOut]
    input: dict[str, Any]
    own_code: str | None = Field(
        description="Why only the application can check the input; if set, enqueue with its code at hand (`-A`)."
    )
    key: str | None
    subject: str | None


class FlowsOut(BaseModel):
    """Every registered flow."""

    flows: list[FlowOut]


class ReceivedOut(BaseModel):
    """What became of a delivery."""

    outcome: str
    run_id: str | None


class Health(BaseModel):
    """Whether the process can serve requests, and the result of each check."""

    status: str
    checks: dict[str, str]
