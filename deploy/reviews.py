"""The application of compose.yaml: put yours in its place, and its module into RUNCLAIM_APP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Celery

from runclaim import Context, Runclaim

app = Celery("reviews")  # the broker: CELERY_BROKER_URL
runs = Runclaim(app)  # the ledger: RUNCLAIM_DATABASE_URL, or the file that RUNCLAIM_DATABASE_URL_FILE names


@dataclass(frozen=True)
class PullRequest:
    """What a review is about."""

    repo: str
    number: int
    head: str


review = runs.flow("review", PullRequest, key="{repo}:pr-{number}:{head}", subject="{repo}:pr-{number}")


@review.phase
def plan(ctx: Context[PullRequest]) -> list[str]:
    """Name what is to be read."""
    return [f"{ctx.input.repo}@{ctx.input.head}"]


@review.phase
def deliver(ctx: Context[PullRequest]) -> dict[str, Any]:
    """Read it."""
    return {"read": ctx.result(plan)}
