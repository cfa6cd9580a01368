"""Planned actions: listed, read, and each as JSON. What people decide of them is a `Change`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runclaim.flows.client.changes import ActionNotFound
from runclaim.ledger.actions import decide
from runclaim.service.runs import error_json, find_run
from runclaim.sql.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.ledger.actions.decide import ActionView
    from runclaim.ledger.actions.settle import ActionState


@dataclass(frozen=True, slots=True)
class ActionPage:
    """Some actions, and what to give as `after` for the next ones; `None` when there are no more."""

    actions: Sequence[ActionView]
    next_after: str | None


def action_page(
    conn: Connection,
    *,
    project: str | None,
    run_id: str | None,
    state: ActionState | None,
    after: str | None,
    limit: int,
) -> ActionPage:
    """At most `limit` actions, the newest first: of a project, of a run, in a state."""
    actions = decide.list_actions(conn, project=project, run_id=run_id, state=state, after=after, limit=limit + 1)
    page = actions[:limit]
    return ActionPage(page, page[-1].id if len(actions) > limit else None)


def actions(
    access: LedgerAccess, *, project: str | None, run_id: str | None, state: ActionState | None, limit: int
) -> list[dict[str, Any]]:
    """At most `limit` actions as JSON: those of a run in their order, else the newest first. Raises: RunNotFound."""
    if run_id is None:
        newest = access.ask(lambda conn: decide.list_actions(conn, project=project, state=state, limit=limit))
        return [action_json(each) for each in newest]
    is_of_project = project in {None, find_run(access, run_id).project}
    of_run = access.ask(lambda conn: decide.actions_of(conn, run_id)) if is_of_project else []
    return [action_json(each) for each in of_run if state is None or each.state == state][:limit]


def find_action(access: LedgerAccess, action_id: str) -> ActionView:
    """One action. Raises: ActionNotFound, LedgerUnavailable."""
    action = access.ask(lambda conn: decide.action(conn, action_id))
    if action is None:
        raise ActionNotFound(action_id)
    return action


def action_json(action: ActionView) -> dict[str, Any]:
    """The action."""
    return {
        "id": action.id,
        "run_id": action.run_id,
        "phase": action.phase,
        "name": action.name,
        "kind": action.kind,
        "state": action.state,
        "attempts": action.attempts,
        "uncertain": action.uncertain,
        "superseded": action.superseded,
        "payload": action.payload,
        "idempotency_key": action.idempotency_key,
        "upstream_id": action.upstream_id,
        "error": error_json(action.error),
        "planned_at": rfc3339(action.planned_at),
        "attempted_at": rfc3339(action.attempted_at),
        "ended_at": rfc3339(action.ended_at),
    }
