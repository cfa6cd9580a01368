"""
The request of a body's own task: what `task.request` says in it, as if a message of its own had brought it.

Most bodies never look at theirs, so it is made when one does.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.app import trace
from celery.app.task import Context

from runclaim.secrets import redact
from runclaim.tasks.headers import CELERYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runclaim.ledger.fence import Claim


def request_of(message: Mapping[str, Any], claim: Claim, task_id: str) -> dict[str, Any]:
    """The request of a body's own task, as if a message of its own had brought it. `message` is the delivery's."""
    own = {
        "id": task_id,
        "task": f"{claim.flow}.{claim.phase}",
        "correlation_id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "args": [claim.run_id, claim.fence - 1],
        "kwargs": {},
        "argsrepr": redact(claim.key),
        "kwargsrepr": "{}",
        "retries": claim.attempt - 1,
        # The claim has decided that this is not a second delivery.
        "delivery_info": {**(message.get("delivery_info") or {}), "redelivered": False},
    }
    # Everything else in the message comes from its sender, who may be anyone.
    celerys = {name: value for name, value in message.items() if name in CELERYS}
    custom = claim.headers or {}
    # Said here, because Celery's Context would look for them at length.
    return celerys | {"headers": custom} | custom | own


@contextmanager
def own_request(task: Any, make: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """`task` is the current task in this block, with the request that `make` returns once it is looked at."""
    # Where the tracer itself keeps the current task.
    stack = vars(trace)["_task_stack"]
    stack.push(task)
    task.request_stack.push(_LateRequest(make))
    try:
        yield
    finally:
        task.request_stack.pop()
        stack.pop()


class _LateRequest(Context):
    """A request that is made when it is first looked at, and is an ordinary one then."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        object.__setattr__(self, "_make", make)

    def __getattribute__(self, name: str) -> Any:
        _fill(self)
        return getattr(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        _fill(self)
        setattr(self, name, value)


def _fill(late: _LateRequest) -> None:
    own: dict[str, Any] = object.__getattribute__(late, "__dict__")
    # A second thread of the body may be here at the same time; it does the same.
    if (make := own.get("_make")) is not None:
        own |= vars(Context(make(), called_directly=False))
        object.__setattr__(late, "__class__", Context)
        own.pop("_make", None)
