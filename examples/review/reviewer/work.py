"""The work itself, the same for the flow and for the bare chain: plain functions that know neither of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reviewer.changes import Changes, content
from reviewer.checks import Finding, examine

if TYPE_CHECKING:
    from collections.abc import Callable

#: What goes beyond is counted and left out.
MOST_FINDINGS = 200


@dataclass(frozen=True)
class Examined:
    """What the changed Python files of a review gave."""

    files: int
    findings: list[Finding]
    left_out: int


def examine_all(repo: str, head: str, changed: Changes, check: Callable[[], None] = lambda: None) -> Examined:
    """Examine the changed Python files; `check` is called before each."""
    found: list[Finding] = []
    for path in changed.python:
        check()
        found += examine(path, content(repo, head, path))
    return Examined(len(changed.python), found[:MOST_FINDINGS], max(0, len(found) - MOST_FINDINGS))


def summary(changed: Changes, examined: Examined) -> str:
    """The review in a sentence: `7 files changed, 3 examined: 2 findings (1 major, 1 minor)`."""
    by = Counter(finding.severity for finding in examined.findings)
    parts = ", ".join(f"{by[severity]} {severity}" for severity in ("critical", "major", "minor") if by[severity])
    total = len(examined.findings) + examined.left_out
    files = f"{changed.files} file{'' if changed.files == 1 else 's'} changed, {examined.files} examined"
    return f"{files}: {total} finding{'' if total == 1 else 's'}{f' ({parts})' if parts else ''}"
