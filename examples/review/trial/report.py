"""The report: what the ledger tells of the runs, which faults landed, and runclaim beside the bare chain."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from runclaim.events import EventType
from runclaim.ledger import counters, read
from runclaim.states import PhaseStatus
from trial.faults import Kind
from trial.screen import Table, many
from trial.thrice import TIMES
from trial.witness import PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reviewer.checks import Finding

    from runclaim import Run, Runclaim
    from trial.rounds import Outcome
    from trial.screen import Screen

#: Lines of the run table at least, and findings that are shown.
_FEWEST: Final = 6
_EXAMPLES: Final = 3
_LOST: Final = "reviews lost"
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
        rows.append([_short(view.key), view.state, f"{done} of {len(view.phases)}", begun[view.key], said])
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
    created = sum(1 for answer in ours.asked if getattr(answer, "created", False))
    found = sum(1 for answer in ours.asked if getattr(answer, "created", True) is False)
    with runs.ledger.database.read() as conn:
        refused = counters.totals(conn).get(("duplicates_refused", "review"), 0)
        journals = [read.journal(conn, run.id) for run in handles]
    rescued = Counter(
        event.data["why"] for journal in journals for event in journal if event.type == EventType.PHASE_RESCUED
    )
    reasons = ", ".join(f"{count} because {why}" for why, count in sorted(rescued.items()))
    verdict = ours.verdict
    phases = verdict.starts - verdict.repeats
    screen.head("What became of it")
    calls, copies, gone = len(ours.asked), ours.messages * TIMES, sum(fault.messages for fault in ours.injector.fired)
    for name, text in {
        "enqueued twice": f"{calls} calls made {many(created, 'run')}; {found} were given the run that was there",
        "delivered thrice": f"{ours.messages} messages, upkeep included, {copies} copies; {gone} went with the broker",
        "duplicates refused": f"at least {refused}: what a killed process had counted in its last seconds is missing",
        "claims rescued": f"{rescued.total()}{f': {reasons}' if reasons else ''}",
        "bodies": f"{verdict.starts} starts for {phases} phases; bodies that started again: {verdict.repeats}",
        "rows": f"{verdict.rows} committed with {len(ours.keys) * len(PHASES)} phases",
    }.items():
        screen.say(f"  {name:<20}{text}")


def side_by_side(screen: Screen, ours: Outcome, chain: Outcome) -> None:
    """The same reviews, the same faults, through runclaim and as a bare chain; counted by the witness."""
    asked, wanted = len(ours.keys), len(ours.keys) * len(PHASES)
    lines: Mapping[str, Any] = {
        "reviews asked for, each twice": lambda _: asked,
        "reviews finished": lambda it: it.verdict.finished,
        _LOST: lambda it: asked - it.verdict.finished - len(_unfinished(it)),
        "reviews still going on when time was up": lambda it: len(_unfinished(it)),
        f"steps recorded twice or more, of {wanted}": lambda it: len(it.verdict.doubled),
        f"rows written, where {wanted} are right": lambda it: it.verdict.rows,
        "bodies started": lambda it: it.verdict.starts,
        "callers who got an error": lambda it: sum(isinstance(answer, Exception) for answer in it.asked),
        "seconds": lambda it: f"{it.seconds:.0f}",
    }
    rows = [[name, count(ours), count(chain)] for name, count in lines.items()]
    rows = [row for row in rows if row[1:] != [0, 0] or row[0] == _LOST]
    screen.table(
        Table(
            "The same reviews under the same faults, counted outside of the ledger",
            ["", " runclaim", " bare celery.chain"],
            rows,
        )
    )
    screen.say("  The chain has Celery's defaults. It works on every copy; nobody knows what a flush took.")


def _unfinished(outcome: Outcome) -> set[str]:
    done = {key for key, phase in outcome.verdict.lost if phase == PHASES[-1]}
    return {key for key in done if key.rpartition("..")[2] in outcome.waiting}


def _short(key: str) -> str:
    base, _, head = key.partition("..")
    return f"{base[:7]}..{head[:7]}"
