"""
The same review as a bare `celery.chain`: the same work on the same workers and broker, with Celery's own defaults.

A step writes its rows in a session of its own, as a task does that has nothing to commit them with. A comment is a task
that Celery tries again when it fails, as its documentation shows it.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
from celery import chain
from sqlalchemy.orm import Session

from reviewer import posting, record, work
from reviewer.app import app
from reviewer.changes import Changes, changes
from reviewer.work import Comment, PullRequest

if TYPE_CHECKING:
    from collections.abc import Sequence


def submit(key: str, pull: dict[str, Any]) -> None:
    """Send the review on its way."""
    on = {"key": key, "pull": pull}
    chain(plan.s(**on), deliver.s(**on), compound.s(**on)).apply_async()


@app.task(name="chain.plan")
def plan(key: str, pull: dict[str, Any]) -> Any:
    record.started(record.chain_rows, key, "plan")
    asked = PullRequest(**pull)
    found = changes(asked.clone, asked.base, asked.head)
    _done(key, "plan")
    return msgspec.to_builtins(found)


@app.task(name="chain.deliver")
def deliver(planned: Any, key: str, pull: dict[str, Any]) -> Any:
    record.started(record.chain_rows, key, "deliver")
    asked, changed = PullRequest(**pull), msgspec.convert(planned, Changes)
    found = work.examine_all(asked.clone, asked.head, changed)
    _done(key, "deliver", [work.remark(asked, each) for each in work.commented(found)])
    return msgspec.to_builtins([changed, found])


@app.task(name="chain.compound")
def compound(delivered: Any, key: str, pull: dict[str, Any]) -> str:
    record.started(record.chain_rows, key, "compound")
    changed, found = msgspec.convert(delivered, tuple[Changes, work.Examined])
    text = work.summary(changed, found)
    _done(key, "compound", [work.conclusion(PullRequest(**pull), text, found)])
    return text


@app.task(name="chain.comment", autoretry_for=(Exception,), max_retries=2, default_retry_delay=1)
def comment(said: dict[str, Any]) -> str:
    with record.sending(record.chain_comments):
        return posting.post(Comment(**said))


def _done(key: str, step: str, said: Sequence[Comment] = ()) -> None:
    record.linger()
    with Session(record.engine(os.environ["RUNCLAIM_DATABASE_URL"])) as session, session.begin():
        record.add(session, record.chain_rows, key, step)
        for each in said:
            record.planned(session, record.chain_comments, key, each)
    for each in said:
        comment.delay(asdict(each))
