"""
Named places where a test can kill, stop or fail this process. Off unless RUNCLAIM_FAILPOINTS is set.

`RUNCLAIM_FAILPOINTS="complete.before_commit=kill@/some/file;claim.after_commit=killparent@/other/file"`: the
action runs once for each file, by whichever process creates it first.
Actions: `kill` (SIGKILL this process), `killparent`, `stop` (SIGSTOP this process), `raise`.
"""

from __future__ import annotations

import os
import signal
from typing import Final

#: Every place in the order in which a run passes it. The fault tests go through this list.
NAMES: Final = (
    "enqueue.before_commit",
    "enqueue.after_commit",
    "claim.before_commit",
    "claim.after_commit",
    "body.before",
    "body.after",
    "complete.before_cas",
    "complete.before_commit",
    "complete.after_commit",
    "dispatch.after_commit",
    "rescue.after_commit",
    "action.after_claim",
    "action.before_send",
    "action.after_send",
)


def _armed() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for item in filter(None, os.environ.get("RUNCLAIM_FAILPOINTS", "").split(";")):
        name, _, rest = item.partition("=")
        action, _, once = rest.partition("@")
        if name not in NAMES or action not in {"kill", "killparent", "stop", "raise"} or not once:
            raise ValueError(f"RUNCLAIM_FAILPOINTS: {item!r} is not <name>=<action>@<file>; names: {', '.join(NAMES)}")
        found[name] = (action, once)
    return found


_ARMED: Final = _armed()


def hit(name: str) -> None:
    """Pass the place `name`. Costs one dictionary look-up unless a test armed it."""
    if name not in _ARMED:
        return
    action, once = _ARMED[name]
    try:
        os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    if action == "raise":
        raise RuntimeError(f"failpoint {name}")
    target = os.getppid() if action == "killparent" else os.getpid()
    os.kill(target, signal.SIGSTOP if action == "stop" else signal.SIGKILL)
