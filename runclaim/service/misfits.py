"""
What of a project a release could not do: asked before it is deployed, with its application at hand.

Nothing is written, and no broker is asked. Every misfit names what to do; none of them shows a value of an input.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final

from runclaim.flows.declare import gone_phase
from runclaim.flows.declare.registry import all_registered
from runclaim.flows.plain_calls import WORK
from runclaim.ledger.doors import live_runs
from runclaim.service.recorded_inputs import RecordedInputs
from runclaim.service.release import Kind, Misfit, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim.database import Database
    from runclaim.ledger.doors.live_runs import Backlog
    from runclaim.service.release import Release

_PAGE: Final = 500


def check_release(
    database: Database,
    release: Release,
    *,
    at_most: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """
    Everything of the ledger that the release could not do.

    The inputs of at most `at_most` runs are checked, the oldest first; `progress` is told after each page how many of
    how many. Raises: LedgerUnavailable.
    """
    backlogs = [each for each in _backlogs(database, release.project) if each.flow not in release.others]
    total = sum(each.many for each in backlogs if release.declares(each.flow))
    inputs = RecordedInputs(release)
    while inputs.checked < min(total, at_most):
        if not inputs.check(database, limit=min(_PAGE, at_most - inputs.checked)):
            break
        progress(inputs.checked, max(total, inputs.checked))
    misfits = [
        *_phases(release, backlogs),
        *_flows(release, backlogs),
        *inputs.misfits(),
        *_actions(database, release),
        *_schedules(database, release),
    ]
    ranks = list(Kind)
    misfits.sort(key=lambda each: (ranks.index(each.kind), -each.soon, -each.many, each.flow, each.name or ""))
    return Report(
        release.project, sum(each.many for each in backlogs), max(total, inputs.checked), inputs.checked, misfits
    )


def _backlogs(database: Database, project: str) -> list[Backlog]:
    """Without plain calls, which the code that made them does itself; no application declares or registers those."""
    known = database.ask(partial(all_registered, project=project))
    found = database.ask(partial(live_runs.backlogs, project=project))
    return [each for each in found if each.phases != (WORK,) or each.flow in known]


def _phases(release: Release, backlogs: list[Backlog]) -> Iterator[Misfit]:
    gone: defaultdict[tuple[str, str], list[Backlog]] = defaultdict(list)
    for each in backlogs:
        if release.declares(each.flow):
            declared = release.flows[each.flow].phases
            for phase in each.phases[each.cursor :]:
                if phase not in declared:
                    gone[each.flow, phase].append(each)
    for (flow, phase), pinned in gone.items():
        new = [name for name in release.flows[flow].phases if not any(name in each.phases for each in pinned)]
        problem = f"{gone_phase.problem(flow, phase)}; {_counted(pinned)}, pinned to it"
        yield _of_backlogs(Kind.PHASE, flow, phase, pinned, problem, gone_phase.remedies(flow, phase, new))


def _flows(release: Release, backlogs: list[Backlog]) -> Iterator[Misfit]:
    for flow in sorted({each.flow for each in backlogs if not release.declares(each.flow)}):
        its = [each for each in backlogs if each.flow == flow]
        problem = f"flow {flow}: this release does not declare it; {_counted(its)}"
        remedies = [
            "keep the flow until its runs have ended",
            f"or, if another application has it: --except-flow {flow}",
        ]
        yield _of_backlogs(Kind.FLOW, flow, None, its, problem, remedies)


def _of_backlogs(
    kind: Kind, flow: str, name: str | None, its: list[Backlog], problem: str, remedies: list[str]
) -> Misfit:
    return Misfit(
        kind=kind,
        flow=flow,
        name=name,
        many=sum(each.many for each in its),
        soon=sum(each.soon for each in its),
        earliest=min((each.earliest for each in its if each.earliest is not None), default=None),
        problem=problem,
        remedies=remedies,
    )


def _actions(database: Database, release: Release) -> Iterator[Misfit]:
    for each in database.ask(partial(live_runs.unsent_actions, project=release.project)):
        if each.kind not in release.actions and each.flow not in release.others:
            waiting = "1 action waits" if each.many == 1 else f"{each.many} actions wait"
            problem = f"flow {each.flow}: {waiting} to be sent, and this release has no handler of {each.kind}"
            remedies = [f'keep the handler until they are sent: @runs.action("{each.kind}")']
            yield Misfit(
                kind=Kind.ACTION,
                flow=each.flow,
                name=each.kind,
                many=each.many,
                earliest=each.earliest,
                problem=problem,
                remedies=remedies,
            )


def _schedules(database: Database, release: Release) -> Iterator[Misfit]:
    for each in database.ask(partial(live_runs.scheduled, project=release.project)):
        if not release.declares(each.flow) and each.flow not in release.others:
            yield Misfit(
                kind=Kind.SCHEDULE,
                flow=each.flow,
                name=each.name,
                many=1,
                earliest=each.next_at,
                problem=f"flow {each.flow}: schedule {each.name} makes its runs; this release does not declare it",
                remedies=["keep the flow, or remove the schedule"],
            )


def _counted(its: list[Backlog]) -> str:
    many, soon = sum(each.many for each in its), sum(each.soon for each in its)
    due = f", {soon} of them due within an hour" if soon and many > 1 else ", due within an hour" if soon else ""
    return f"{many} live run{'' if many == 1 else 's'}{due}"
