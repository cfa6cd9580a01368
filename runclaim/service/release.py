"""A release as its application declares it, and what of the ledger it could not do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from runclaim.sql.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from runclaim.flows.declare.declared_flow import DeclaredFlow


class Kind(StrEnum):
    """What does not fit, the worst first."""

    PHASE = "phase"
    FLOW = "flow"
    INPUT = "input"
    ACTION = "action"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """One thing that the release cannot do; `name` is the phase, the input's field, the action's kind, the schedule."""

    kind: Kind
    flow: str
    name: str | None
    many: int
    problem: str
    remedies: list[str]
    #: Runs that are due within an hour, and when the first one is.
    soon: int = 0
    earliest: datetime | None = None
    run_ids: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As doors show it."""
        return {
            "kind": str(self.kind),
            "flow": self.flow,
            "name": self.name,
            "count": self.many,
            "due_within_an_hour": self.soon,
            "earliest": rfc3339(self.earliest),
            "run_ids": self.run_ids,
            "problem": self.problem,
            "remedies": self.remedies,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what does not fit, the worst first."""

    project: str
    runs: int
    inputs: int
    inputs_checked: int
    misfits: list[Misfit]

    def as_json(self) -> dict[str, Any]:
        """As doors show it."""
        return {
            "fits": not self.misfits,
            "project": self.project,
            "live_runs": self.runs,
            "inputs": self.inputs,
            "inputs_checked": self.inputs_checked,
            "misfits": [each.as_json() for each in self.misfits],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What an application declares, the project that it works in, and flows there that are other applications'."""

    flows: Mapping[str, DeclaredFlow[Any]]
    actions: Collection[str]
    project: str
    others: frozenset[str] = frozenset()

    def declares(self, flow: str) -> bool:
        """Whether it can run the flow."""
        return flow in self.flows and bool(self.flows[flow].phases)
