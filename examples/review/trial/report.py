"""The report: what the ledger tells of the runs, which faults landed, and what became of the deliveries."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from runclaim.ledger import counters, read
from runclaim.types import EventType, PhaseStatus
from trial.plan import Kind
from trial.pulls import short
from trial.screen import Table, many
from trial.thrice import TIMES
from trial.witness import PHASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reviewer.checks import Finding

    from runclaim import Run, Runclaim
    from trial.rounds import Outcome
    from trial.screen import Screen

#: Lines of the run table at least, and findings that are shown.
_FEWEST: Final = 6
_EXAMPLES: Final = 3
#: What the rest of the report takes of a screen.
_REST: Final = 30


def runs_table(screen: Screen, handles: Sequence[Run], ours: Outcome) -> None:
    """The runs as the ledger has them, those that were started most often first, cut to what fits."""
    begun = Counter(start.key for start in ours.witness.starts())
    views = sorted(((run.view, run) for run in handles), key=lambda each: -begun[each[0].key])
    fits = max(_FEWEST, screen.height - _REST)
    rows = []
    for view, run in views[:fits]:
        done = sum(1 for status in view.phases.values() if status is PhaseStatus.COMPLETE)
        said = run.results.get(PHASES[-1]) or (view.error or {}).get("message", "")
        rows.append([short(view.key), view.state, f"{done} of {len(view.phases)}", begun[view.key], said])
    headings = ["run", "state", "phases", " attempts", "review"]
    screen.table(Table("The runs, those with the most attempts (starts of a body) first", headings, rows))
    if rest := views[fits:]:
        states = Counter(view.state for view, _ in rest)
        screen.say(f"  and {len(rest)} more: {', '.join(f'{count} {state}' for state, count in states.items())}")
    found = [finding for _, run in views if (result := run.results.get("deliver")) for finding in result.findings]
    _findings(screen, found)


def _findings(screen: Screen, found: Sequence[Finding]) -> None:
    order = ("critical", "major", "minor")
    worst = sorted(set(found), key=lambda each: (order.index(each.severity), each.path, each.line))
    if worst:
        screen.say(f"  {many(len(found), 'finding')} in all, such as:")
    for each in worst[:_EXAMPLES]:
        screen.say(f"    {each.path}:{each.line}  {each.severity}  {each.title}")


def faults_table(screen: Screen, ours: Outcome, chain: Outcome | None) -> None:
    """Each kind of fault: how many were armed, fired, and hit work in flight."""
    headings = ["fault", " armed", " fired", " landed"] + ([" chain: fired", " landed"] if chain else [])
    rows: list[Sequence[object]] = []
    for kind in Kind:
        if not (armed := sum(1 for _, each in ours.injector.plan if each is kind)):
            continue
        row: list[object] = [kind.value, armed, ours.count(kind, ours.injector.fired), ours.count(kind, ours.landed)]
        if chain:
            row += [chain.count(kind, chain.injector.fired), chain.count(kind, chain.landed)]
        rows.append(row)
    screen.table(Table("The faults; one has landed when it hit work in flight", headings, rows))


def ledger_lines(screen: Screen, runs: Runclaim, handles: Sequence[Run], ours: Outcome) -> None:
    """What the ledger refused and gave back, beside what came in."""
    with runs.ledger.database.read() as conn:
        refused = counters.totals(conn).get(("duplicates_refused", "review"), 0)
        journals = [read.journal(conn, run.id) for run in handles]
    rescued = Counter(
        event.data["why"] for journal in journals for event in journal if event.type == EventType.PHASE_RESCUED
    )
    reasons = ", ".join(f"{count} because {why}" for why, count in sorted(rescued.items()))
    verdict = ours.verdict
    phases = len({start.place for start in ours.witness.starts()})
    screen.head("What became of it")
    copies, gone = ours.messages * TIMES, sum(fault.messages for fault in ours.injector.fired)
    for name, text in {
        "webhooks": _webhooks(ours),
        "pushed to again": _pushed(handles, ours),
        "delivered thrice": f"{ours.messages} messages, upkeep included, {copies} copies; {gone} went with the broker",
        "duplicates refused": f"at least {refused}: what a killed process had counted in its last seconds is missing",
        "claims rescued": f"{rescued.total()}{f': {reasons}' if reasons else ''}",
        "bodies": f"{verdict.starts} starts for {phases} phases; bodies that started again: {verdict.repeats}",
        "sessions": _sessions(handles),
        "rows": f"{verdict.rows} committed; {len(ours.keys) * len(PHASES)} had to be, a push overtook the others",
    }.items():
        if text:
            screen.say(f"  {name:<20}{text}")


def _sessions(handles: Sequence[Run]) -> str:
    states = Counter(session.status for run in handles for session in run.sessions)
    found = sum(len(run.findings) for run in handles)
    ended = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{ended}; {many(found, 'finding')} recorded in them"


def _webhooks(ours: Outcome) -> str:
    """What was answered to the deliveries."""
    answers = Counter(str(getattr(answer, "outcome", type(answer).__name__)) for answer in ours.asked)
    made, twice, there = (answers.pop(outcome, 0) for outcome in ("enqueued", "duplicate", "existing"))
    forged = answers.pop("SignatureRefused", 0)
    others = "".join(f", {count} {answer}" for answer, count in answers.items())
    return (
        f"{len(ours.asked)} deliveries made {many(made, 'run')}; {twice} were doubled, {there} told of a run that was"
        f" there, {forged} forged and refused{others}"
    )


def _pushed(handles: Sequence[Run], ours: Outcome) -> str:
    states = Counter(run.state for run in handles if run.view.key in ours.overtaken)
    ended = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{many(states.total(), 'pull request')}; their older runs: {ended}" if states else ""
