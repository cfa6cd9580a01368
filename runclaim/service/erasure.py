"""Erasing all runs of a key or of a subject, in transactions of at most a hundred runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from runclaim.errors import InputError
from runclaim.flows.client.erase import Erase, NotEnded
from runclaim.ledger.history.erase import Whose, ended_runs, unended_runs
from runclaim.ledger.history.unused_subjects import end_subjects
from runclaim.service.runs import find_run

if TYPE_CHECKING:
    from runclaim.flows.client.access import LedgerAccess

#: The most runs of one transaction, and of one request.
BATCH: Final = 100
MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Erasure:
    """How many runs were erased, or with a question would be; `more` says that others are left: ask again."""

    runs: int
    more: bool


def whose(project: str, *, flow: str | None, key: str | None, subject: str | None) -> Whose:
    """The runs that a door names. Raises: InputError unless it is a key of a flow, or a subject."""
    if (key is None) is (subject is None):
        raise InputError("key", "give either a key or a subject")
    if key is not None and flow is None:
        raise InputError("flow", "is missing; a key is one of a flow")
    return Whose(project=project, flow=flow, key=key, subject=subject)


def erasable(access: LedgerAccess, named: Whose, *, keys: bool = False) -> Erasure:
    """How many runs `erase_all` would erase; counts up to `MOST`. Raises: NotEnded."""
    for run_id in access.ask(partial(unended_runs, whose=named, limit=1)):
        raise NotEnded(run_id, find_run(access, run_id).state)
    many = len(access.ask(partial(ended_runs, whose=named, keys=keys, limit=MOST + 1)))
    return Erasure(min(many, MOST), many > MOST)


def erase_all(access: LedgerAccess, named: Whose, *, by: str, keys: bool = False) -> Erasure:
    """
    Erase the runs of a key or a subject, at most `MOST` of them.

    Raises: NotEnded before anything is erased, or for a run that was enqueued meanwhile; InputError.
    """
    asked = erasable(access, named, keys=keys)
    total = 0
    while total < asked.runs:
        batch = access.ask(partial(ended_runs, whose=named, keys=keys, limit=min(BATCH, asked.runs - total)))
        if not batch:
            break
        total += len(access.do(Erase(list(batch), by, keys)))
        if keys:
            subjects = {subject for subject in batch.values() if subject is not None}
            access.database.run(partial(end_subjects, named=subjects))
    return Erasure(total, asked.more)
