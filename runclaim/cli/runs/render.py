"""One run as people read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from runclaim.cli.terminal import coloured, give_styled, is_terminal, one_line

if TYPE_CHECKING:
    from runclaim.cli.backend import Json


def show(run: Json) -> None:
    """Name and value on each line; what a run does not have is left out."""
    lines = [(name, value) for name, value in _lines(run) if value]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        give_styled(f"{click.style(name.ljust(width), dim=True)}  {value}" if is_terminal() else f"{name}\t{value}")


def runs_text(count: int) -> str:
    """A number of runs, in words."""
    return "1 run" if count == 1 else f"{count} runs"


def ending(run: Json) -> str:
    """How a run ended without success, and how to continue it, as one line."""
    state, why = run["state"], f": {_error(run)}" if run["error"] else ""
    if state == "blocked":
        said = f"is blocked in {run['phase']}{why}. After fixing the cause: runclaim runs resume {run['id']}"
    elif state == "failed":
        said = f"failed in {run['phase']}{why}. After fixing the cause: runclaim runs retry {run['id']}"
    else:
        said = f"ended {state}{why}"
    return one_line(said)


def _lines(run: Json) -> list[tuple[str, str | None]]:
    rerun = f" (rerun {run['rerun']})" if run["rerun"] else ""
    asked = " (asked to stop)" if run["cancel_requested"] and run["state"] == "running" else ""
    phases = (f"{one_line(phase['name'])} {coloured(phase['status'])}" for phase in run["phases"])
    return [
        ("id", one_line(run["id"])),
        ("project", one_line(run["project"])),
        ("flow", one_line(run["flow"])),
        ("key", one_line(run["key"]) + rerun),
        ("subject", run["subject"] and one_line(run["subject"])),
        ("state", coloured(run["state"]) + asked),
        ("phases", ", ".join(phases)),
        ("gone", _gone(run)),
        ("attempts", str(run["attempts"] or "")),
        ("priority", "" if run["priority"] is None else str(run["priority"])),
        ("enqueued", one_line(run["enqueued_at"] or "")),
        ("started", one_line(run["started_at"] or "")),
        ("finished", one_line(run["finished_at"] or "")),
        ("output", one_line(run.get("output_ref") or "")),
        ("made by", _delivery(run)),
        ("error", run["error"] and _error(run)),
        ("input", one_line(json.dumps(run["input"], ensure_ascii=False))),
        ("result", one_line(json.dumps(run["result"], ensure_ascii=False)) if run["state"] == "succeeded" else None),
    ]


def _gone(run: Json) -> str | None:
    if not run.get("phase_is_gone"):
        return None
    return one_line(f"no release that is alive declares phase {run['phase']}; runclaim deploy check says what to do")


def _delivery(run: Json) -> str | None:
    if (number := run.get("delivery_id")) is None:
        return None
    action = run.get("delivery_action")
    return one_line(f"delivery {number} ({action})" if action else f"delivery {number}")


def _error(run: Json) -> str:
    return one_line(f"{run['error']['type']}: {run['error']['message']}")
