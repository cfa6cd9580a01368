"""The examples of the OpenAPI document: one run, and one claim of it."""

from __future__ import annotations

from typing import Any, Final

RUN_ID: Final = "01a1ff25-3afd-7d27-b4d9-2a64eef8722e"
CLAIM_EXAMPLE: Final = "1.0f343d6a1e8b42d5b3a1c07e9d2f6a54"
RUN_EXAMPLE: Final[dict[str, Any]] = {
    "id": RUN_ID,
    "project": "default",
    "flow": "review",
    "key": "acme/app:pr-7:base-a1:head-b2",
    "rerun": 0,
    "subject": "acme/app:pr-7",
    "state": "queued",
    "phase": "plan",
    "phases": [{"name": "plan", "status": "pending"}, {"name": "deliver", "status": "pending"}],
    "attempts": 0,
    "priority": 0,
    "cancel_requested": False,
    "error": None,
    "enqueued_at": "2026-11-20T09:30:00.000000Z",
    "started_at": None,
    "finished_at": None,
    "updated_at": "2026-11-20T09:30:00.000000Z",
    "claimed_at": None,
    "output_ref": None,
    "input": {"repo": "acme/app", "number": 7, "base": "a1", "head": "b2"},
    "result": None,
    "output_refs": {},
    "phase_is_gone": False,
    "delivery_id": None,
    "delivery_action": None,
}

JOB_EXAMPLE: Final[dict[str, Any]] = {
    "id": RUN_ID,
    "claim": CLAIM_EXAMPLE,
    "project": "default",
    "flow": "review",
    "phase": "deliver",
    "attempt": 1,
    "max_attempts": 5,
    "key": RUN_EXAMPLE["key"],
    "subject": RUN_EXAMPLE["subject"],
    "input": RUN_EXAMPLE["input"],
    "results": {"plan": ["app.py"]},
    "idempotency_key": f"{RUN_ID}:deliver",
    "lease_seconds": 60.0,
    "lease_expires_at": "2026-11-20T09:31:00.000000Z",
    "deadline_at": "2026-11-20T10:30:00.000000Z",
}
