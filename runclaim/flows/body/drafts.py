"""
What a body has found, planned and pointed to: kept in memory, and written with the completion of its phase.

A finding or an action of an attempt that fails, or whose claim is lost, has never been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import InputError
from runclaim.keys import check_text, dump_json, uuid7
from runclaim.ledger.actions.plan import NewAction
from runclaim.ledger.body.findings import NewFinding

if TYPE_CHECKING:
    from collections.abc import Container

#: A phase that finds more has found a report: store it, and record where it is.
MOST_RECORDS: Final = 10_000
_MOST_TEXT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding that the completion will record; name it in `ctx.plan_action(…, finding=…)`."""

    id: str


class Drafts:
    """The findings and actions of one attempt, in order. `kinds` are the declared actions."""

    def __init__(self, run_id: str, phase: str, kinds: Container[str]) -> None:
        self._run_id, self._phase, self._kinds = run_id, phase, kinds
        self.findings: list[NewFinding] = []
        self.actions: list[NewAction] = []
        self.output_ref: str | None = None

    def finding(
        self,
        *,
        severity: str,
        title: str,
        body: str | None = None,
        path: str | None = None,
        line: int | None = None,
        session_id: str | None = None,
    ) -> Finding:
        """See `Context.finding`."""
        if len(self.findings) >= MOST_RECORDS:
            raise InputError(
                "finding", f"a phase records at most {MOST_RECORDS:,}; store them elsewhere and keep a reference"
            )
        if line is not None and (not isinstance(line, int) or isinstance(line, bool) or line < 1):
            raise InputError("line", f"is {line!r:.40}; line numbers start at 1")
        for name, value, needed in (("severity", severity, True), ("title", title, True), ("path", path, False)):
            if needed or value is not None:
                check_text(name, _text(name, value))
        if body is not None:
            dump_json("body", _text("body", body), cap=_MOST_TEXT)
        found = NewFinding(
            id=uuid7(),
            run_id=self._run_id,
            phase=self._phase,
            session_id=session_id,
            severity=severity,
            title=title,
            body=body,
            path=path,
            line=line,
        )
        self.findings.append(found)
        return Finding(found.id)

    def plan_action(self, kind: str, payload: Any, *, name: str | None = None, finding: Finding | None = None) -> str:
        """See `Context.plan_action`."""
        if kind not in self._kinds:
            raise InputError("kind", f"{kind!r:.80} is not an action of this application; declare it with @runs.action")
        if len(self.actions) >= MOST_RECORDS:
            raise InputError("action", f"a phase plans at most {MOST_RECORDS:,}")
        if finding is not None and all(finding.id != each.id for each in self.findings):
            raise InputError(
                "finding", "was not returned by ctx.finding in this attempt; pass a finding that this attempt recorded"
            )
        named = str(len(self.actions)) if name is None else check_text("name", _text("name", name))
        if any(named == each.name for each in self.actions):
            raise InputError(
                "name", f"{named!r:.80} is planned twice in this phase; give each action a name of its own"
            )
        planned = NewAction(
            id=uuid7(),
            run_id=self._run_id,
            phase=self._phase,
            name=named,
            kind=kind,
            payload=dump_json("payload", payload),
            finding_id=None if finding is None else finding.id,
        )
        self.actions.append(planned)
        return planned.idempotency_key


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(name, f"is {value!r:.40}, not text")
    return value
