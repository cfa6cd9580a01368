"""
Descriptions in the ledger: written by an application's workers when they start, read by doors without an application.

The worker that started last is right: a release registers its flows with its first worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runclaim.flows.actions.hooks import plan_stopped
from runclaim.flows.declare.description import FlowDescription
from runclaim.ledger.doors import registered_flows as ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.actions.plan import NewAction, Stopped


def register_flows(database: Database, flows: Iterable[DeclaredFlow[Any]], config: Config) -> list[str]:
    """Tell the ledger of these flows; returns the names of those that were new or changed. Writes only those."""
    declared = {each.name: each.described(config).as_json() for each in flows if each.phases}
    changed = database.ask(lambda conn: ledger.unregistered(conn, declared))
    return database.run(lambda conn: ledger.register(conn, changed)) if changed else []


def registered(conn: Connection, name: str) -> FlowDescription | None:
    """The flow of that name, or `None` when no application has registered it."""
    declared = ledger.registered(conn, name)
    return None if declared is None else FlowDescription.from_json(declared)


def all_registered(conn: Connection) -> dict[str, FlowDescription]:
    """Every registered flow by its name, sorted by it."""
    return {name: FlowDescription.from_json(each) for name, each in ledger.all_registered(conn).items()}


def hooks_of_any_stop(
    conn: Connection, flows: Mapping[str, DeclaredFlow[Any]]
) -> Callable[[Stopped], Iterable[NewAction]]:
    """
    What is planned for any run of the ledger that stops: the hooks that are registered, and those of `flows`.

    The rescue may be done by another application, or an older release; no hook is lost by that. Reads the registry when
    a run stops, in the transaction of `conn`.
    """

    def plan(stopped: Stopped) -> Iterable[NewAction]:
        flow, description = flows.get(stopped.flow), registered(conn, stopped.flow)
        known = [each for each in (flow and flow.hooks.kinds, description and description.hooks) if each]
        words = {word for each in known for word in each}
        kinds = {word: list(dict.fromkeys(kind for each in known for kind in each.get(word, ()))) for word in words}
        return plan_stopped(kinds, stopped)

    return plan
