"""
What an error of the database means for the transaction that it ended.

Decided by the class of the SQLSTATE (PostgreSQL, appendix A) or SQLite's result code. An error without either is one of
the connection if it is an `OperationalError`, by inheritance: SQLAlchemy looks at the driver's whole class hierarchy.
Only a connection that was refused has neither: libpq hands out the server's words alone, so those words are read.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

_ACCESS: Final = "check the user and the password in RUNCLAIM_DATABASE_URL, and what the server's pg_hba.conf allows"
_DATABASE: Final = "create that database, or name one that exists in RUNCLAIM_DATABASE_URL"
_GRANTS: Final = (
    "grant the role USAGE on the schema and what it needs of the runclaim tables, as `runclaim db grants` prints it;"
    " `runclaim db upgrade` needs CREATE on the schema, and on the database to create a schema"
)
_PARAMETER: Final = "check the parameters in RUNCLAIM_DATABASE_URL"
_DAMAGED: Final = "the file is damaged; restore it from a backup"
_PREPARED: Final = (
    "a pooler such as PgBouncer gives each transaction a different session; add ?prepare_threshold=none to"
    " RUNCLAIM_DATABASE_URL"
)
_FILE: Final = "check that its folder exists and that this user may write there; ~ is not expanded"
_NO_DATABASE_FILE: Final = "the file is not a SQLite database; name another one, or restore it from a backup"


class Trouble(Enum):
    """What a database error means for the transaction it ended."""

    REPEAT = auto()  #: nothing was committed; do all of it again
    STALE = auto()  #: as REPEAT, on another session: this one holds what the server no longer has
    DOUBT = auto()  #: the connection died: committed or not, only the ledger knows
    REFUSED = auto()  #: a person has to mend the role, the database or its rights first
    FATAL = auto()  #: repeating would not help


#: SQLSTATE, or its class, and what it means. The whole state decides before its class; what is not listed is FATAL.
_STATES: Final[dict[str, Trouble]] = {
    "08": Trouble.DOUBT,
    "0A000": Trouble.STALE,  # "cached plan must not change result type"
    "0L": Trouble.REFUSED,
    "0P": Trouble.REFUSED,
    "25006": Trouble.REPEAT,  # a standby: the address leads to the new primary in a while
    "25P03": Trouble.DOUBT,
    "25P04": Trouble.DOUBT,
    "26": Trouble.STALE,
    "28": Trouble.REFUSED,
    "3D": Trouble.REFUSED,
    "3F": Trouble.REFUSED,
    "40": Trouble.REPEAT,
    "40003": Trouble.DOUBT,
    "42501": Trouble.REFUSED,
    "42P05": Trouble.STALE,
    "53": Trouble.REPEAT,
    "55000": Trouble.REPEAT,
    "55006": Trouble.REPEAT,
    "55P03": Trouble.REPEAT,
    "57": Trouble.DOUBT,
    "57000": Trouble.REPEAT,
    "57014": Trouble.REPEAT,
    "58": Trouble.REPEAT,
    "72": Trouble.REPEAT,
    "F0": Trouble.REFUSED,
    "XX001": Trouble.REFUSED,
    "XX002": Trouble.REFUSED,
}
#: SQLite's primary result codes: busy, locked, out of memory, interrupted, disk I/O, full, protocol, schema.
_SQLITE: Final[dict[int, Trouble]] = {
    **dict.fromkeys((5, 6, 7, 9, 13, 15, 17), Trouble.REPEAT),
    10: Trouble.DOUBT,
    # Not permitted, read-only, damaged, cannot be opened, not authorised, no database.
    **dict.fromkeys((3, 8, 11, 14, 23, 26), Trouble.REFUSED),
}
_SQLITE_CANTOPEN: Final = 14
#: What a session keeps that would break the next transaction as well: a pool has to be rid of all like it.
_POISONED: Final = frozenset({"25006"})
#: SQLSTATE or its class → what a person has to do.
_ADVICE: Final = {
    "0L": _GRANTS,
    "0P": _ACCESS,
    "28": _ACCESS,
    "3D": _DATABASE,
    "3F": _GRANTS,
    "42501": _GRANTS,
    "26": _PREPARED,
    "42P05": _PREPARED,
    "F0": "correct the configuration of the server",
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}
_SQLITE_ADVICE: Final = {3: _FILE, 8: _FILE, 11: _DAMAGED, 14: _FILE, 23: _FILE, 26: _NO_DATABASE_FILE}
#: Of a refused connection: what the server, or the driver, says → the SQLSTATE that it keeps to itself.
_REFUSALS: Final = tuple(
    (re.compile(pattern), state)
    for pattern, state in (
        (r"authentication failed for user|no password supplied", "28P01"),
        (r'no pg_hba\.conf entry|FATAL:\s+role "[^"]*" (does not exist|is not permitted)', "28000"),
        (r'FATAL:\s+database "[^"]*" does not exist', "3D000"),
        (r"permission denied for database", "42501"),
    )
)
#: What a value is, and not whether the database can take it now.
_OF_DATA: Final = frozenset({"21", "22", "23", "44"})


def trouble(error: BaseException, *, was_open: bool = False) -> Trouble:
    """
    What an error means.

    `was_open` says that this process had the database open before: a SQLite file that cannot be opened then is on a
    disk that comes back.
    """
    if isinstance(error, PoolTimeout):
        return Trouble.REPEAT
    if not isinstance(error, DBAPIError):
        return Trouble.FATAL
    if (code := sqlite_code(error)) is not None:
        kind = _SQLITE.get(code, Trouble.FATAL)
        return Trouble.REPEAT if was_open and code == _SQLITE_CANTOPEN else kind
    if (state := sqlstate(error)) is not None:
        kind = _of(_STATES, state) or Trouble.FATAL
        return Trouble.DOUBT if kind is Trouble.FATAL and error.connection_invalidated else kind
    if isinstance(error, ProgrammingError) and error.statement is None and not error.connection_invalidated:
        # Before there was a connection: a parameter of the URL that the driver does not know.
        return Trouble.REFUSED
    lost = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return Trouble.DOUBT if lost and not _of_sqlite(error) else Trouble.FATAL


def sqlstate(error: DBAPIError) -> str | None:
    """The SQLSTATE that the driver tells, or that the words of a refused connection stand for; `None` without one."""
    state: str | None = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if state is not None or not isinstance(error, OperationalError) or error.statement is not None:
        return state
    words = str(error.orig)
    return next((state for pattern, state in _REFUSALS if pattern.search(words)), None)


def sqlite_code(error: DBAPIError) -> int | None:
    """SQLite's primary result code; `None` when the error is not one of SQLite's."""
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def poisons(error: BaseException | None) -> bool:
    """Whether the driver's error says that the session would fail in the next transaction too."""
    state: str | None = getattr(error, "sqlstate", None)
    return state is not None and (state in _POISONED or _of(_STATES, state) is Trouble.STALE)


def is_of_data(error: DBAPIError) -> bool:
    """Whether the database refuses a value for what it is: it would refuse it at any other time too."""
    if (code := sqlite_code(error)) is not None:
        return code in {18, 19, 20}  # too big, constraint, mismatch
    return (sqlstate(error) or "")[:2] in _OF_DATA


def advice(error: BaseException) -> str | None:
    """What a person has to do about it; `None` when time is what helps."""
    if not isinstance(error, DBAPIError):
        return None
    if (code := sqlite_code(error)) is not None:
        return _SQLITE_ADVICE.get(code)
    if (state := sqlstate(error)) is not None:
        return _of(_ADVICE, state)
    return _PARAMETER if trouble(error) is Trouble.REFUSED else None


def in_words(error: BaseException) -> str:
    """The error in one line, as the driver tells it."""
    words = str(getattr(error, "orig", None) or error).strip()
    return f"{type(error).__name__}: {words.splitlines()[0]}" if words else type(error).__name__


def _of(table: Mapping[str, T], state: str) -> T | None:
    """What a table says of a SQLSTATE, or of its class."""
    return table.get(state, table.get(state[:2]))


def _of_sqlite(error: DBAPIError) -> bool:
    return type(error.orig).__module__.startswith("sqlite3")
