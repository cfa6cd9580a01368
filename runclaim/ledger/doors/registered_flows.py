"""
registered_flows: what the ledger knows of an application's flows, told by its workers, release by release.

A door outside the application enqueues and completes by this and imports no application code. While several releases
are alive, it goes by the one that came last; a worker of an older one that starts again changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, case, delete, func, literal, select, true

from runclaim.keys import fingerprint
from runclaim.models import flows, releases
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import as_json, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

#: In seconds: workers say this often that their release is alive,
SEEN_EVERY: Final = 120.0
#: and one that nobody has heard of for longer is not. Several times the first, for workers that are busy or away.
_ALIVE: Final = 2.5 * SEEN_EVERY
#: A release that was not seen for longer is forgotten, so that deploys do not fill the table.
_KEPT: Final = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class Registration:
    """A flow as a release declares it: JSON, whose fingerprint also names the release where nothing else does."""

    flow: str
    release: str
    declared: Any

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the declaration."""
        return fingerprint(self.declared)


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """A release of a flow: what it declares, and when its workers were there."""

    project: str
    flow: str
    release: str
    declared: Any
    first_seen_at: datetime
    last_seen_at: datetime
    is_alive: bool


_told: Final = rowset("told", flow=Text(), release=Text(), declared=Text(), fingerprint=Text())
_project: Final = bindparam("its_project", type_=Text())
_alive: Final = releases.c.last_seen_at > shifted(now(), literal(-_ALIVE))


def _see(new: Any) -> Any:
    inserted = new.from_select(
        ["project", "flow", "release", "declared", "fingerprint", "first_seen_at", "last_seen_at"],
        select(_project, _told.c.flow, _told.c.release, as_json(_told.c.declared), _told.c.fingerprint, now(), now())
        .where(true())
        # Sorted, so that two workers that start at once do not wait for each other.
        .order_by(_told.c.flow),
    )
    excluded = inserted.excluded
    return inserted.on_conflict_do_update(
        index_elements=["project", "flow", "release"],
        set_={name: excluded[name] for name in ("declared", "fingerprint", "last_seen_at")},
    )


def _put(new: Any) -> Any:
    inserted = new.from_select(
        ["name", "declared", "fingerprint", "registered_at"],
        select(_told.c.flow, as_json(_told.c.declared), _told.c.fingerprint, now())
        .where(true())
        .order_by(_told.c.flow),
    )
    excluded = inserted.excluded
    return inserted.on_conflict_do_update(
        index_elements=["name"],
        set_={name: excluded[name] for name in ("declared", "fingerprint", "registered_at")},
    )


_SEE: Final = upsert(releases, _see)
#: Doors of releases that know no releases read one description a flow.
_PUT: Final = upsert(flows, _put)
_seen: Final = releases.c.last_seen_at > shifted(now(), literal(-SEEN_EVERY / 2))
_KNOWN: Final = select(releases.c.flow, releases.c.release, releases.c.fingerprint, _seen).where(
    releases.c.project == _project
)
_FORGET: Final = delete(releases).where(releases.c.last_seen_at < shifted(now(), literal(-_KEPT)))
#: The best first: those of the project, those that are alive, the one that came last, the one that was there last.
_BEST: Final = (
    case((releases.c.project == _project, 0), else_=1),
    case((_alive, 0), else_=1),
    case((_alive, releases.c.first_seen_at), else_=releases.c.last_seen_at).desc(),
    releases.c.release,
)
_place: Final = func.row_number().over(partition_by=releases.c.flow, order_by=_BEST)
_ranked: Final = select(releases.c.flow, releases.c.declared, _place.label("place")).subquery("ranked")
#: The best of each flow alone: a flow has as many rows as it had releases in ninety days.
_ALL: Final = select(_ranked.c.flow, _ranked.c.declared).where(_ranked.c.place == 1)
_ONE: Final = select(releases.c.declared).where(releases.c.flow == bindparam("its_flow")).order_by(*_BEST).limit(1)
_ALIVE_ONES: Final = select(releases.c.declared).where(
    releases.c.project == _project, releases.c.flow == bindparam("its_flow"), _alive
)
_RELEASES: Final = (
    select(releases, _alive.label("is_alive"))
    .where(releases.c.project == _project)
    .order_by(releases.c.flow, releases.c.first_seen_at)
)


def unseen(conn: Connection, project: str, told: Iterable[Registration]) -> list[Registration]:
    """Those that the ledger does not have in this very form, or has not heard of for a while. Only reads."""
    known = {(row[0], row[1], row[2]): row[3] for row in conn.execute(_KNOWN, {"its_project": project})}
    return [each for each in told if not known.get((each.flow, each.release, each.fingerprint), False)]


def register(conn: Connection, project: str, told: Iterable[Registration]) -> list[str]:
    """
    Note that these are alive, and keep what is new of them; returns the names of the flows that are new or changed.

    The caller owns the transaction.
    """
    rows = {
        each.flow: {
            "flow": each.flow,
            "release": each.release,
            "declared": json.dumps(each.declared),
            "fingerprint": each.fingerprint,
        }
        for each in told
    }
    if not rows:
        return []
    known = {(row[0], row[1]): row[2] for row in conn.execute(_KNOWN, {"its_project": project})}
    changed = [row for row in rows.values() if known.get((row["flow"], row["release"])) != row["fingerprint"]]
    name = conn.dialect.name
    conn.execute(_SEE[name], {"its_project": project, "told": pack(rows.values())})
    if changed:
        conn.execute(_PUT[name], {"told": pack(changed)})
        conn.execute(_FORGET)
    return [row["flow"] for row in changed]


def registered(conn: Connection, flow: str, project: str) -> dict[str, Any] | None:
    """The description of the flow that doors go by, best of that project; `None` when no application has told of it."""
    found = conn.execute(_ONE, {"its_flow": flow, "its_project": project}).scalar()
    if found is None:
        found = conn.execute(select(flows.c.declared).where(flows.c.name == flow)).scalar()
    return found


def all_registered(conn: Connection, project: str) -> dict[str, dict[str, Any]]:
    """Every registered flow: its name and the description that doors go by, sorted by name."""
    known = dict(conn.execute(select(flows.c.name, flows.c.declared)).all())
    known |= dict(conn.execute(_ALL, {"its_project": project}).all())
    return {name: known[name] for name in sorted(known)}


def alive(conn: Connection, flow: str, project: str) -> list[dict[str, Any]]:
    """What each release of the flow that is alive in that project declares."""
    return list(conn.execute(_ALIVE_ONES, {"its_flow": flow, "its_project": project}).scalars())


def releases_of(conn: Connection, project: str) -> list[ReleaseView]:
    """The releases of each flow of a project, the oldest first."""
    rows = conn.execute(_RELEASES, {"its_project": project})
    return [
        ReleaseView(
            row.project, row.flow, row.release, row.declared, row.first_seen_at, row.last_seen_at, bool(row.is_alive)
        )
        for row in rows
    ]
