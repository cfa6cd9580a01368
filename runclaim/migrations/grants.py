"""
What each part of a deployment may do with each table, as GRANT statements for roles of its own.

The owner of the tables needs none of them: that role runs `db upgrade` and makes tokens. Nothing here lets a role
create, alter or drop anything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from runclaim.migrations.revisions import SCHEMA_TABLE, VERSION_TABLE
from runclaim.models import metadata
from runclaim.sql.schemas import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Part(StrEnum):
    """A part of a deployment that has a role of its own."""

    APPLICATION = "application"  #: enqueues, reads, cancels, retries and signals runs; receives webhooks
    WORKER = "worker"  #: runs phases and sends actions; beat's upkeep; plain calls
    API = "api"  #: serves the HTTP API, with workers outside Celery
    READER = "reader"  #: reads runs and their results, checks the tables; for dashboards and support


#: Table → what the application, a worker, the API and a reader may do, in this order: by the letters of SELECT, INSERT,
#: UPDATE and DELETE. A new run that comes too late is deleted by its enqueuer, so all of them may.
_MAY: Final[dict[str, tuple[str, str, str, str]]] = {
    VERSION_TABLE: ("S", "S", "S", "S"),
    SCHEMA_TABLE: ("S", "S", "S", "S"),
    "runclaim_run_keys": ("SIUD", "SIUD", "SIUD", "S"),
    "runclaim_subjects": ("SIU", "SIUD", "SIU", "S"),
    "runclaim_runs": ("SIUD", "SIUD", "SIUD", "S"),
    "runclaim_phase_results": ("S", "SI", "SIU", "S"),
    "runclaim_events": ("SI", "SI", "SIU", "S"),
    "runclaim_counters": ("S", "SIU", "S", "S"),
    "runclaim_actions": ("SU", "SIU", "SIU", "S"),
    "runclaim_acts": ("SU", "SIUD", "SUD", "S"),
    "runclaim_findings": ("S", "SI", "SID", "S"),
    "runclaim_sessions": ("S", "SIU", "SD", "S"),
    "runclaim_named_sessions": ("S", "SIU", "SD", "S"),
    "runclaim_signals": ("SIU", "SIU", "SIU", "S"),
    "runclaim_dedup_keys": ("SIUD", "SUD", "SIUD", "S"),
    "runclaim_flows": ("S", "SIU", "S", "S"),
    "runclaim_listeners": ("", "SIU", "S", "S"),
    "runclaim_untold": ("", "SIUD", "SU", "S"),
    # With these one can act as another caller: hashes of tokens, keys that sign pages, what was answered to whom.
    "runclaim_tokens": ("", "", "SU", ""),
    "runclaim_signing_keys": ("", "", "SI", ""),
    "runclaim_answers": ("", "SUD", "SIUD", ""),
    "runclaim_releases": ("S", "SIUD", "S", "S"),
    # No verb uses these yet: narrow them with the first one.
    **dict.fromkeys(
        (
            "runclaim_bulk",
            "runclaim_duties",
            "runclaim_joins",
            "runclaim_limits",
            "runclaim_maps",
            "runclaim_pauses",
            "runclaim_schedules",
        ),
        ("S", "SIUD", "S", "S"),
    ),
}
_VERBS: Final = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}
#: `db check` compares it with the numbers of the events.
_SEQUENCE: Final = "runclaim_events_id_seq"


def tables() -> list[str]:
    """Every table of the ledger."""
    return sorted({*metadata.tables, VERSION_TABLE})


def may(part: Part, table: str) -> str:
    """What a part may do with a table, by the first letters. Raises: KeyError for a table that is not listed."""
    return _MAY[table][list(Part).index(part)]


def statements(roles: Mapping[Part, str], schema: str | None) -> Iterator[str]:
    """The lines of a script that grants each role what its part needs, in the schema that was chosen or in public."""
    space = quoted(schema or "public")
    for part, name in roles.items():
        role = quoted(name)
        yield f"-- {part}"
        yield f"GRANT USAGE ON SCHEMA {space} TO {role};"
        yield f"GRANT EXECUTE ON FUNCTION {space}.runclaim_now() TO {role};"
        granted: dict[str, list[str]] = {}
        for table in tables():
            if letters := may(part, table):
                granted.setdefault(letters, []).append(f"{space}.{table}")
        for letters, names in sorted(granted.items()):
            verbs = ", ".join(_VERBS[letter] for letter in letters)
            yield "\n    ".join([f"GRANT {verbs} ON", ",\n    ".join(names), f"TO {role};"])
        if part is Part.READER:
            yield f"GRANT SELECT ON SEQUENCE {space}.{_SEQUENCE} TO {role};"
