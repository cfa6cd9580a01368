"""
An enqueue of a fail-open flow while the ledger is away: straight to the broker, under the run's own key.

The run's id is made from its key, so two such enqueues name one run. Whoever receives the message inserts the run, or
finds that its key has one already.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runclaim import logs
from runclaim.flows.carrying import load
from runclaim.ledger.dispatch import Due
from runclaim.ledger.enqueue import Enqueued
from runclaim.rowset import as_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runclaim.errors import LedgerUnavailable
    from runclaim.flows.flow import Flow
    from runclaim.flows.publishing import Publisher
    from runclaim.ledger.new_run import NewRun

logger: Final = logs.logger("runclaim.fail_open")

_VERSION: Final = 8


def id_of(new: NewRun) -> str:
    """The id that every open enqueue of this key gives its run: a UUID of version 8 (RFC 9562)."""
    digest = int.from_bytes(hashlib.sha256(f"{new.namespace}/{new.key.hash}".encode()).digest()[:16], "big")
    return str(UUID(int=(digest & ~(0xF << 76) & ~(0b11 << 62)) | _VERSION << 76 | 0b10 << 62))


def is_open_id(run_id: str) -> bool:
    """Whether the id was made by `id_of`: the ledger may not have the run yet."""
    return UUID(as_id(run_id)).version == _VERSION


def send(
    wanted: Sequence[NewRun], *, flows: Mapping[str, Flow[Any]], publisher: Publisher, away: LedgerUnavailable
) -> list[Enqueued]:
    """
    Publish the runs without the ledger; nobody knows yet whether they are new.

    Raises: `away`, when a flow does not fail open, an input is too large for a message, a run is delayed, or the
    broker does not answer either. Some messages may have gone then; enqueueing again names the same runs.
    """
    named = [replace(new, run_id=id_of(new)) for new in wanted]
    messages = [message(new, flows.get(new.flow)) for new in named]
    if any(new.delay for new in wanted) or any(each.carried is None for each in messages):
        raise away
    logger.warning("%d runs of %s go to the broker without the ledger: %s", len(named), named[0].flow, away)
    if publisher.publish(messages) < len(messages):
        raise away
    return [Enqueued(new.run_id, created=False) for new in named]


def message(new: NewRun, flow: Flow[Any] | None) -> Due:
    """The first message of a run."""
    due = Due(new.run_id, 0, new.flow, new.phases[0], new.queue, new.key.text, new.priority)
    return load(due, flow, project=new.project, subject=new.subject, value=new.input, headers=new.headers)
