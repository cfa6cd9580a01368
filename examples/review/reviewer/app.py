"""
The review worker: a Celery app, runclaim on it, a webhook, one flow of three phases, and one action.

What is called of `record` serves the demo, which counts bodies and comments and hits them; a review needs none of it.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import Celery

from reviewer import posting, record, work
from reviewer.changes import Changes, changes
from reviewer.work import Comment, PullRequest
from runclaim import Backoff, Context, Runclaim

if TYPE_CHECKING:
    from runclaim.types import Delivery

app = Celery("reviewer", include=["reviewer.chain"])  # broker: CELERY_BROKER_URL
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, task_ignore_result=True)
runs = Runclaim(app)  # ledger: RUNCLAIM_DATABASE_URL

review = runs.flow(
    "review", PullRequest, key="{repo}:pr-{number}:base-{base}:head-{head}", subject="{repo}:pr-{number}"
)


@runs.webhook("github", flow=review, secret=lambda: os.environ["REVIEW_WEBHOOK_SECRET"])
def github(delivery: Delivery) -> PullRequest | None:
    """A pull request has new commits; or it is of no interest."""
    if delivery.event != "pull_request" or delivery.payload["action"] not in {"opened", "synchronize", "reopened"}:
        return None
    pull, repo = delivery.payload["pull_request"], delivery.payload["repository"]["full_name"]
    # Where a fetch would have put the commits; the demo's clone is the one that it was given.
    return PullRequest(repo, pull["number"], pull["base"]["sha"], pull["head"]["sha"], os.environ["REVIEW_CLONE"])


@runs.action(
    "comment",
    max_attempts=30,
    backoff=Backoff(first=timedelta(seconds=0.3), ceiling=timedelta(seconds=2)),
    max_duration=timedelta(seconds=4),
)
def comment(payload: Any, idempotency_key: str) -> str:
    """Post it to the forge."""
    with record.sending(record.review_comments):
        return posting.post(Comment(**payload), idempotency_key)


@comment.lookup
def find_comment(payload: Any, idempotency_key: str) -> str | None:
    """Ask the forge whether it has the comment already."""
    return posting.find(Comment(**payload), idempotency_key)


@review.phase(max_attempts=30)
def plan(ctx: Context[PullRequest]) -> Changes:
    """List the changed files."""
    record.started(record.review_rows, ctx.key, ctx.phase)
    found = changes(ctx.input.clone, ctx.input.base, ctx.input.head)
    record.linger()
    ctx.in_completion(lambda session: record.add(session, record.review_rows, ctx.key, ctx.phase))
    return found


@review.phase(max_attempts=30)
def deliver(ctx: Context[PullRequest]) -> work.Examined:
    """Examine each changed Python file; the worst findings get a comment on their line."""
    record.started(record.review_rows, ctx.key, ctx.phase)
    examined = work.examine_all(ctx.input.clone, ctx.input.head, ctx.result(plan), ctx.check)
    commented = work.commented(examined)
    for role, severities in work.ROLES.items():
        # With a model's provider, `session.started(its_id)` keeps the conversation for the attempt after a crash.
        with ctx.session(role) as session:
            mine = [each for each in examined.findings if each.severity in severities]
            for each in mine:
                found = session.finding(
                    severity=each.severity,
                    title=each.title,
                    path=each.path,
                    line=each.line,
                    blocking=each.severity == "critical",
                )
                if each in commented:
                    _say(ctx, work.remark(ctx.input, each), finding=found)
            session.outcome = f"{len(mine)} found"
    record.linger()
    ctx.in_completion(lambda session: record.add(session, record.review_rows, ctx.key, ctx.phase))
    return examined


@review.phase(max_attempts=30)
def compound(ctx: Context[PullRequest]) -> str:
    """Write the summary, and say it on the pull request."""
    record.started(record.review_rows, ctx.key, ctx.phase)
    text = work.summary(ctx.result(plan), ctx.result(deliver))
    _say(ctx, work.conclusion(ctx.input, text, ctx.result(deliver)))
    record.linger()
    ctx.in_completion(lambda session: record.add(session, record.review_rows, ctx.key, ctx.phase))
    return text


def _say(ctx: Context[PullRequest], said: Comment, **about: Any) -> None:
    """Plan a comment: it is posted once this phase has completed, and never if it does not."""
    ctx.plan_action("comment", asdict(said), **about)
    ctx.in_completion(lambda session: record.planned(session, record.review_comments, ctx.key, said))
