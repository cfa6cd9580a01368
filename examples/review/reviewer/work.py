"""The work itself, the same for the flow and for the bare chain: plain functions that know neither of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reviewer.changes import Changes, content
from reviewer.checks import Finding, Severity, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Who looks for what: each role holds one session with whoever finds it, here pyflakes.
ROLES: Final[Mapping[str, frozenset[Severity]]] = {
    "correctness": frozenset({"critical", "major"}),
    "hygiene": frozenset({"minor"}),
}
#: What goes beyond is counted and left out.
MOST_FINDINGS = 200
#: Comments on lines a review; the rest of its findings stands in the summary, as far as it fits.
MOST_COMMENTS = 5
_MOST_IN_SUMMARY = 20


@dataclass(frozen=True)
class PullRequest:
    """Two commits of a pull request, and the clone on this machine that has them."""

    repo: str
    number: int
    base: str
    head: str
    clone: str


@dataclass(frozen=True)
class Comment:
    """What is said on a pull request: on a line of a file at a commit, or, without these, on the whole."""

    repo: str
    number: int
    body: str
    path: str | None = None
    line: int | None = None
    commit_id: str | None = None


@dataclass(frozen=True)
class Examined:
    """What the changed Python files of a review gave, the worst first."""

    files: int
    findings: list[Finding]
    left_out: int


def examine_all(clone: str, head: str, changed: Changes, check: Callable[[], None] = lambda: None) -> Examined:
    """Examine the changed Python files; `check` is called before each."""
    found: list[Finding] = []
    for path in changed.python:
        check()
        found += examine(path, content(clone, head, path))
    order = ("critical", "major", "minor")
    found.sort(key=lambda each: (order.index(each.severity), each.path, each.line))
    return Examined(len(changed.python), found[:MOST_FINDINGS], max(0, len(found) - MOST_FINDINGS))


def commented(examined: Examined) -> list[Finding]:
    """The findings that get a comment on their line."""
    return examined.findings[:MOST_COMMENTS]


def remark(pull: PullRequest, finding: Finding) -> Comment:
    """The comment on a finding's line."""
    body = f"**{finding.severity}**: {finding.title}"
    return Comment(pull.repo, pull.number, body, finding.path, finding.line, pull.head)


def summary(changed: Changes, examined: Examined) -> str:
    """The review in a sentence: `7 files changed, 3 examined: 2 findings (1 major, 1 minor)`."""
    by = Counter(finding.severity for finding in examined.findings)
    parts = ", ".join(f"{by[severity]} {severity}" for severity in ("critical", "major", "minor") if by[severity])
    total = len(examined.findings) + examined.left_out
    files = f"{changed.files} file{'' if changed.files == 1 else 's'} changed, {examined.files} examined"
    return f"{files}: {total} finding{'' if total == 1 else 's'}{f' ({parts})' if parts else ''}"


def conclusion(pull: PullRequest, text: str, examined: Examined) -> Comment:
    """The comment on the whole: the summary, and the findings that have no comment of their own."""
    rest = examined.findings[MOST_COMMENTS:]
    lines = [f"- {each.path}:{each.line} **{each.severity}** {each.title}" for each in rest[:_MOST_IN_SUMMARY]]
    if more := len(rest) - len(lines) + examined.left_out:
        lines.append(f"- and {more} more")
    about = f"Review of {pull.base[:12]}..{pull.head[:12]}: {text}"
    return Comment(pull.repo, pull.number, "\n".join([about, *([""] if lines else []), *lines]))
