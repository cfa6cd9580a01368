"""A phase that runs are pinned to and a release no longer declares, in the same words everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def problem(flow: str, phase: str) -> str:
    """What is wrong."""
    return f"flow {flow}: this release does not declare phase {phase}"


def warning(flow: str, phase: str, new: Sequence[str]) -> str:
    """Both in one line, for a log and for one run."""
    return f"{problem(flow, phase)}; {'; '.join(remedies(flow, phase, new))}"


def remedies(flow: str, phase: str, new: Sequence[str]) -> list[str]:
    """What to do, a line each; `new` are the phases that the release declares and the runs are not pinned to."""
    target = new[0] if len(new) == 1 else "NEW"
    lines = [f'to keep the old name: @{flow}.phase(name="{phase}")']
    if not new:
        return [*lines, "or keep the phase until these runs have ended"]
    which = f", where NEW is one of {', '.join(new)}" if len(new) > 1 else ""
    return [*lines, f"or: runclaim runs move-phase --flow {flow} --from {phase} --to {target}{which}"]
