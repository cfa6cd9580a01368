"""What clients send, as the OpenAPI document shows it: no unknown field, and no text for a number."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from runclaim.api.examples import CLAIM_EXAMPLE, RUN_EXAMPLE, RUN_ID
from runclaim.keys import MAX_KEY_BYTES, storable
from runclaim.retries import LONGEST

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_BYTES)]
ClaimText = Annotated[
    str,
    StringConstraints(pattern=r"^[1-9][0-9]{0,17}\.[0-9a-f]{32}$"),
    Field(description="The `claim` that `:claim` returned: the proof that you hold the run.", examples=[CLAIM_EXAMPLE]),
]
#: An attempt that ends with an error has to end, whatever its words are.
Words = Annotated[str, BeforeValidator(lambda given: storable(given) if isinstance(given, str) else given)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST.total_seconds())]


class Body(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EnqueueRequest(Body):
    """A run to enqueue."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"flow": "review", "input": RUN_EXAMPLE["input"], "priority": 0}]}
    )

    flow: Name
    input: dict[str, Any] = Field(description="The flow's input, at most 256 kB of JSON.")
    project: Name | None = Field(None, description="One of the token's projects; required if it has several.")
    key: Text | None = Field(None, description="The run key; only for flows whose key is computed by a function.")
    subject: Text | None = Field(
        None, description="The subject; only for flows whose subject is computed by a function."
    )
    delay_seconds: Seconds = Field(0.0, description="Delay before the run may start, in seconds.")
    priority: int | None = Field(None, ge=0, le=9, description="Celery's priority, 0 to 9; null uses Celery's default.")


RunIds = Annotated[
    list[Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]],
    Field(min_length=1, max_length=100),
]


class Ids(Body):
    """Several runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": [RUN_ID]}]})

    ids: RunIds


class EraseRequest(Body):
    """Whose ended runs to erase: those of a key of a flow, or of a subject."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"flow": "review", "key": RUN_EXAMPLE["key"]}, {"subject": "acme/app:pr-7"}]}
    )

    project: Name | None = Field(None, description="One of the token's projects; required if it has several.")
    flow: Name | None = Field(None, description="The flow of the key; with a subject, only the runs of this flow.")
    key: Text | None = Field(None, description="The run key. Give either this or `subject`.")
    subject: Text | None = Field(None, description="The subject. Give either this or `key`.")
    blank_key: bool = Field(default=False, description="Blank the texts of keys and subjects too; hashes stay.")
    dry_run: bool = Field(default=False, description="Only count the runs.")


class MovePhaseRequest(Body):
    """Of which live runs which phase gets which name."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"flow": "review", "from": "deliver", "to": "publish"}]}, populate_by_name=True
    )

    project: Name | None = Field(None, description="One of the token's projects; required if it has several.")
    flow: Name
    old: Name = Field(alias="from", description="The phase that the runs are pinned to.")
    new: Name = Field(alias="to", description="The phase of the flow that takes its place.")
    key: Text | None = Field(None, description="Only the run of this key.")
    ids: RunIds | None = Field(None, description="Only these runs. Give either this or `key`, or neither.")
    dry_run: bool = Field(default=False, description="Only count the runs.")


class Resolved(Body):
    """What became of an unknown action."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"upstream_id": "comment-17"}]})

    upstream_id: (
        Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", min_length=1, max_length=MAX_KEY_BYTES)] | None
    ) = Field(description="Its id on the other side if it arrived; null if it never did.")


class WorkRequest(Body):
    """What a worker can work on."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"flow": "review", "phases": ["deliver"], "worker": "go-worker-1"}]}
    )

    flow: Name
    phases: Annotated[list[Name], Field(min_length=1, max_length=50)]
    worker: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,100}$")] = Field(description="The name of the worker.")
    project: Name | None = None


class Held(Body):
    """The proof of a claim."""

    claim: ClaimText


class Succeeded(Held):
    """A phase that is complete."""

    result: Any = Field(None, description="The result of the phase, at most 256 kB of JSON.")
    output_ref: str | None = Field(
        None, max_length=2048, description="Where the output of the phase lies: a URL of any scheme, at most 2 kB."
    )


class ErrorReport(Body):
    """What went wrong. Text that is too long, or that a database cannot store, is cut or cleaned, never refused."""

    type: Words = "Error"
    message: Words = Field("", description="Only the first 2 kB are kept.")
    traceback: Words = Field("", description="Only the first 6 kB are kept, for people who read the ledger.")


class FailedAttempt(Held):
    """An attempt that ended without a result."""

    error: ErrorReport
    verdict: Literal["retry", "fail", "block"] = Field(
        "retry",
        description="`retry`: try again while attempts are left; `fail`: the run fails for good;"
        " `block`: the run stops until a person resumes it.",
    )
    retry_after_seconds: Seconds | None = Field(
        None, description="Delay before the next attempt, in seconds; default: the backoff of the phase."
    )
