"""
Descriptions in the ledger: told by an application's workers, release by release, and read by doors without one.

Which of several releases a door goes by: see `ledger.doors.registered_flows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runclaim.flows.actions.hooks import plan_stopped
from runclaim.flows.declare.description import FlowDescription
from runclaim.keys import fingerprint
from runclaim.ledger.doors import registered_flows as ledger
from runclaim.ledger.doors.registered_flows import Registration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.actions.plan import NewAction, Stopped

#: Of the fingerprint that names a release which has no name.
_SHORT: Final = 12


def register_flows(database: Database, flows: Iterable[DeclaredFlow[Any]], config: Config) -> list[str]:
    """
    Tell the ledger that these flows are alive in this release; returns the names of those that were new or changed.

    Writes nothing where another worker has just said the same.
    """
    told = [_registration(each, config) for each in flows if each.phases]
    unseen = database.ask(lambda conn: ledger.unseen(conn, config.project, told))
    return database.run(lambda conn: ledger.register(conn, config.project, unseen)) if unseen else []


def _registration(flow: DeclaredFlow[Any], config: Config) -> Registration:
    declared = flow.described(config).as_json()
    return Registration(flow.name, config.release or fingerprint(declared)[:_SHORT], declared)


def registered(conn: Connection, name: str, project: str) -> FlowDescription | None:
    """The flow of that name, best of that project, or `None` when no application has registered it."""
    declared = ledger.registered(conn, name, project)
    return None if declared is None else FlowDescription.from_json(declared)


def all_registered(conn: Connection, project: str) -> dict[str, FlowDescription]:
    """Every registered flow by its name, sorted by it; best those of that project."""
    return {name: FlowDescription.from_json(each) for name, each in ledger.all_registered(conn, project).items()}


def is_gone(conn: Connection, flow: str, phase: str, project: str) -> bool:
    """Whether releases of the flow are alive and none of them declares the phase: no worker will take a run at it."""
    alive = [FlowDescription.from_json(each) for each in ledger.alive(conn, flow, project)]
    return bool(alive) and all(each.phase(phase) is None for each in alive)


def hooks_of_any_stop(
    conn: Connection, flows: Mapping[str, DeclaredFlow[Any]]
) -> Callable[[Stopped], Iterable[NewAction]]:
    """
    What is planned for any run of the ledger that stops: the hooks that are registered, and those of `flows`.

    The rescue may be done by another application, or an older release; no hook is lost by that. Reads the registry when
    a run stops, in the transaction of `conn`.
    """

    def plan(stopped: Stopped) -> Iterable[NewAction]:
        flow, description = flows.get(stopped.flow), registered(conn, stopped.flow, project="")
        known = [each for each in (flow and flow.hooks.kinds, description and description.hooks) if each]
        words = {word for each in known for word in each}
        kinds = {word: list(dict.fromkeys(kind for each in known for kind in each.get(word, ()))) for word in words}
        return plan_stopped(kinds, stopped)

    return plan
