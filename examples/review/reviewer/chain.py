"""
The same review as a bare `celery.chain`: the same work on the same workers and broker, with Celery's own defaults.

A step writes its row in a session of its own, as a task does that has nothing to commit it with.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from celery import chain
from sqlalchemy.orm import Session

from reviewer import record, work
from reviewer.app import app
from reviewer.changes import Changes, changes


def submit(repo: str, base: str, head: str) -> None:
    """Send the review on its way."""
    pair = {"repo": repo, "base": base, "head": head}
    chain(plan.s(pair=pair), deliver.s(pair=pair), compound.s(pair=pair)).apply_async()


@app.task(name="chain.plan")
def plan(pair: dict[str, str]) -> Any:
    _started(pair, "plan")
    found = changes(pair["repo"], pair["base"], pair["head"])
    _done(pair, "plan")
    return msgspec.to_builtins(found)


@app.task(name="chain.deliver")
def deliver(planned: Any, pair: dict[str, str]) -> Any:
    _started(pair, "deliver")
    changed = msgspec.convert(planned, Changes)
    found = work.examine_all(pair["repo"], pair["head"], changed)
    _done(pair, "deliver")
    return msgspec.to_builtins([changed, found])


@app.task(name="chain.compound")
def compound(delivered: Any, pair: dict[str, str]) -> str:
    _started(pair, "compound")
    changed, found = msgspec.convert(delivered, tuple[Changes, work.Examined])
    text = work.summary(changed, found)
    _done(pair, "compound")
    return text


def _key(pair: dict[str, str]) -> str:
    return f"{pair['base']}..{pair['head']}"


def _started(pair: dict[str, str], step: str) -> None:
    record.started(record.chain_rows, _key(pair), step)


def _done(pair: dict[str, str], step: str) -> None:
    record.linger()
    with Session(record.engine(os.environ["RUNCLAIM_DATABASE_URL"])) as session, session.begin():
        record.add(session, record.chain_rows, _key(pair), step)
