"""
The review worker: a Celery app, runclaim on it, and one flow of three phases.

`record.started` and `record.linger` serve the demo, which counts and hits the bodies; a review needs neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery

from reviewer import record, work
from reviewer.changes import Changes, changes
from runclaim import Context, Runclaim

app = Celery("reviewer", include=["reviewer.chain"])  # broker: CELERY_BROKER_URL
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, task_ignore_result=True)
runs = Runclaim(app)  # ledger: RUNCLAIM_DATABASE_URL


@dataclass(frozen=True)
class Pair:
    """Two commits of a repository on this machine."""

    repo: str
    base: str
    head: str


review = runs.flow("review", Pair, key="{base}..{head}")


@review.phase(max_attempts=30)
def plan(ctx: Context[Pair]) -> Changes:
    """List the changed files."""
    record.started(record.review_rows, ctx.key, ctx.phase)
    found = changes(ctx.input.repo, ctx.input.base, ctx.input.head)
    record.linger()
    ctx.in_completion(lambda session: record.add(session, record.review_rows, ctx.key, ctx.phase))
    return found


@review.phase(max_attempts=30)
def deliver(ctx: Context[Pair]) -> work.Examined:
    """Examine each changed Python file."""
    record.started(record.review_rows, ctx.key, ctx.phase)
    found = work.examine_all(ctx.input.repo, ctx.input.head, ctx.result(plan), ctx.check)
    record.linger()
    ctx.in_completion(lambda session: record.add(session, record.review_rows, ctx.key, ctx.phase))
    return found


@review.phase(max_attempts=30)
def compound(ctx: Context[Pair]) -> str:
    """Write the summary."""
    record.started(record.review_rows, ctx.key, ctx.phase)
    text = work.summary(ctx.result(plan), ctx.result(deliver))
    record.linger()
    ctx.in_completion(lambda session: record.add(session, record.review_rows, ctx.key, ctx.phase))
    return text
