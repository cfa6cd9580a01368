"""URLs of ledgers and brokers: how they may be shown, and which file one of SQLite names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode

from runclaim.errors import ConfigError

_SQLITE: Final = "sqlite:"
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


def sqlite_file(url: str) -> Path | None:
    """The file that the URL of a SQLite database names, or `None` for another database. Raises: ConfigError."""
    if not url.startswith(_SQLITE):
        return None
    from sqlalchemy import make_url

    named = make_url(url)
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


def absolute(url: str) -> str:
    """The URL, with the whole path of a SQLite file: a body may change the working directory. Raises: ConfigError."""
    return url if (file := sqlite_file(url)) is None else sqlite_url(file)


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite file, whatever signs its name has."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(file)).render_as_string()
