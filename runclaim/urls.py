"""URLs of ledgers and brokers: how they may be shown, which driver they are for, and what one of SQLite names."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import URL

#: The driver of PostgreSQL, and the names by which its databases are handed out.
_POSTGRESQL: Final = "postgresql+psycopg"
_TAKEN: Final = frozenset({_POSTGRESQL, "postgresql", "postgres"})
_SQLITE: Final = "sqlite:"
#: The parameter of a URL that names the schema, and the most bytes that PostgreSQL has for a name.
_SCHEMA: Final = "schema"
_LONGEST: Final = 63
_SECRET: Final = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_MASK: Final = "***"
#: Celery separates the URLs of one broker so; a password may hold the sign as well.
_NEXT: Final = re.compile(r";(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
#: A name and what follows its colon, up to the last sign that could end a password.
_PASSWORD: Final = re.compile(r"(://[^:/@]*:)(?!@).*@")


def masked(url: str) -> str:
    """The URL, or the several with `;` between, without passwords: for whatever is printed, logged or raised."""
    return ";".join(_masked(one) for one in _NEXT.split(url))


def _masked(url: str) -> str:
    if "://" not in url:
        return url
    address, mark, query = _PASSWORD.sub(rf"\1{_MASK}@", url).partition("?")
    if not mark:
        return address
    shown = [
        (name, _MASK if _SECRET.search(name) else value) for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{address}?{urlencode(shown, safe='*/')}"


def parsed(url: str) -> URL:
    """The parts of a database's URL; PostgreSQL's in any spelling is psycopg's. Raises: ConfigError."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        # Without its words and its cause: they may show what stands where the port should, a part of a password.
        found = None
    if found is None:
        raise ConfigError(
            "database_url cannot be read: use postgresql://user:password@host:5432/database or sqlite:///file.db,"
            " with @ : / ? # % in a password written as %40 %3A %2F %3F %23 %25"
        )
    if found.database and not _reads_escapes():
        found = found.set(database=unquote(found.database))
    if found.drivername in _TAKEN:
        return found.set(drivername=_POSTGRESQL)
    if found.drivername != "sqlite":
        driver = found.drivername.partition("+")[2]
        other = f", without {driver}: the ledger has a driver of its own" if driver else ""
        raise ConfigError(
            f"database_url {found.drivername}://… is not supported: use postgresql://user@host/database or"
            f" sqlite:///file.db{other}"
        )
    return found


def written(url: URL) -> str:
    """The URL as text that `parsed` reads, with its password."""
    if url.database and not _reads_escapes():
        url = url.set(database=quote(url.database, safe=" +/"))
    return url.render_as_string(hide_password=False)


@cache
def _reads_escapes() -> bool:
    """Whether SQLAlchemy reads %25 as % in the name of a database, as it does from 2.1 on."""
    from sqlalchemy import make_url

    return make_url("sqlite:///%25").database == "%"


def sqlite_file(url: str) -> Path | None:
    """The file that the URL of a SQLite database names, or `None` for another database. Raises: ConfigError."""
    if not url.startswith(_SQLITE):
        return None
    named = parsed(url)
    path = named.database or ""
    if path in {"", ":memory:"} or path.startswith("file:") or named.query:
        raise ConfigError(
            f"database_url {masked(url)} does not name a plain file; workers and callers share the ledger,"
            " so use sqlite:///file.db"
        )
    if path.startswith("~"):
        raise ConfigError(
            f"database_url {url} begins with ~, which only shells expand; write sqlite:///{Path(path).expanduser()}"
        )
    return Path(os.path.abspath(path))  # noqa: PTH100 - without following links: they may change


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite file, whatever signs its name has."""
    from sqlalchemy import URL

    return written(URL.create("sqlite", database=str(file)))


def settled(url: str, schema: str = "") -> str:
    """
    The URL as every process of the ledger has it, wherever it started.

    With the driver, the whole path of a SQLite file (a body may change the working directory), and the schema on
    PostgreSQL. Raises: ConfigError.
    """
    if (file := sqlite_file(url)) is not None:
        if schema:
            raise ConfigError(f"schema is {schema!r}, but the ledger is on SQLite, which has none: leave schema out")
        return sqlite_url(file)
    found = parsed(url)
    named = schema_of(found)
    if schema and named and named != schema:
        raise ConfigError(f"schema is {schema!r}, but database_url names the schema {named!r}: name one of the two")
    if schema:
        found = found.update_query_dict({_SCHEMA: schema})
        schema_of(found)
    return written(found)


def schema_of(url: URL) -> str | None:
    """The schema that a URL of PostgreSQL names, as it is written there; `None` for none. Raises: ConfigError."""
    if (found := url.query.get(_SCHEMA)) is None:
        return None
    # PostgreSQL would cut a longer name, read $user as the role's, and keep pg_ for itself.
    if (
        not isinstance(found, str)
        or not 0 < len(found.encode()) <= _LONGEST
        or "\0" in found
        or found.startswith(("$user", "pg_"))
    ):
        raise ConfigError(
            f"schema is {found!r}; write the name of one schema, at most {_LONGEST} bytes, that does not begin with pg_"
        )
    return found
