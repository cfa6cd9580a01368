"""The report's other half: what the forge has, and runclaim beside the bare chain; counted outside of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from forge.faults import Fault

from runclaim.errors import SignatureRefused
from trial.screen import Table
from trial.witness import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trial.rounds import Outcome
    from trial.screen import Screen

_LOST: Final = "reviews lost"


def forge_table(screen: Screen, ours: Outcome, chain: Outcome | None) -> None:
    """What the forge did to the requests; it has applied what it answered badly, or it has not."""
    columns = [ours.comments.met(), *([chain.comments.met()] if chain else [])]
    rows: list[Sequence[object]] = []
    for fault in Fault:
        counts: list[object] = []
        for met in columns:
            posts = met[fault, "POST", True] + met[fault, "POST", False]
            counts += [posts, met[fault, "POST", True], met[fault, "GET", False]]
        rows.append(["answered" if fault is Fault.NONE else fault.value, *counts])
    headings = ["the forge", " posts", " applied", " lookups"]
    headings += [" chain: posts", " applied", " lookups"] if chain else []
    screen.table(Table("What the forge did with the requests that came", headings, rows))


def comments_table(screen: Screen, ours: Outcome, chain: Outcome | None) -> None:
    """The comments: what was wanted, what it took, and what a reader finds on the forge."""
    lines: Mapping[str, Callable[[Outcome], int]] = {
        "comments planned": lambda it: it.tally.planned,
        "posted (requests)": lambda it: it.tally.posts,
        "… of these applied, but answered badly or not at all": lambda it: it.tally.unanswered,
        "looked up (requests)": lambda it: it.tally.lookups,
        "refused by the forge": lambda it: len(it.tally.refused),
        "not sent any more after a push": lambda it: len(it.tally.dropped),
        "on the forge": lambda it: it.tally.present,
        "lost": lambda it: len(it.tally.lost),
        "doubled": lambda it: len(it.tally.doubled),
    }
    outcomes = [ours, *([chain] if chain else [])]
    headings = ["", " runclaim", *([" bare celery.chain"] if chain else [])]
    rows = [[name, *(count(outcome) for outcome in outcomes)] for name, count in lines.items()]
    screen.table(Table("The comments, counted by asking the forge", headings, rows))


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
        "callers who got an error": _errors,
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


def _errors(outcome: Outcome) -> int:
    """Calls that failed, less the forged deliveries, which have to."""
    return sum(isinstance(answer, Exception) and not isinstance(answer, SignatureRefused) for answer in outcome.asked)


def _unfinished(outcome: Outcome) -> set[str]:
    done = {key for key, phase in outcome.verdict.lost if phase == PHASES[-1]}
    return {key for key in done if key in outcome.waiting}
