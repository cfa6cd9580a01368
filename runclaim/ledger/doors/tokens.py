"""
tokens: who may use the HTTP API. A token is shown once; the ledger keeps the SHA-256 of its secret.

`rc_<id>_<secret>`: the id finds the row, the secret is compared in constant time. A token that has expired or was
revoked is not a valid token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Text, and_, bindparam, func, insert, null, or_, select, true, update

from runclaim.errors import InputError
from runclaim.keys import check_name, check_text
from runclaim.models import tokens
from runclaim.secrets import refuse_secrets
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import as_json, pack, rowset

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

#: A token of this project is one of every project.
EVERY_PROJECT: Final = "*"
_TOKEN: Final = re.compile(r"rc_([0-9a-f]{12})_([0-9a-f]{64})")
_MINUTE: Final = 60.0
#: It goes into the journal with whatever the token does.
_LONGEST_NAME: Final = 100


class Scope(StrEnum):
    """What a token may do. `admin` is all of them."""

    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    RUNS_ERASE = "runs:erase"
    WORKER = "worker"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token without its secret."""

    id: str
    name: str
    scopes: frozenset[Scope]
    projects: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def may(self, scope: Scope) -> bool:
        """Whether it may do that."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees(self, project: str) -> bool:
        """Whether the project is one of its own."""
        return project in self.projects or EVERY_PROJECT in self.projects


_made: Final = rowset(
    "made",
    id=Text(),
    name=Text(),
    secret_hash=Text(),
    scopes=Text(),
    projects=Text(),
    expires_seconds=Double(),
)
_INSERT: Final = insert(tokens).from_select(
    ["id", "name", "secret_hash", "scopes", "projects", "created_at", "expires_at"],
    select(_made.c.id, _made.c.name, _made.c.secret_hash, as_json(_made.c.scopes), as_json(_made.c.projects), now())
    .add_columns(shifted(now(), _made.c.expires_seconds))
    .where(true()),
    include_defaults=False,
)
_id: Final = tokens.c.id == bindparam("its_id")
_USABLE: Final = and_(tokens.c.revoked_at.is_(None), or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now()))
_stale: Final = or_(
    tokens.c.last_used_at.is_(None), tokens.c.last_used_at < shifted(now(), -bindparam("minute", type_=Double()))
)
_FIND: Final = select(tokens, _stale.label("is_stale")).where(_id, _USABLE)
_USED: Final = update(tokens).where(_id, _stale).values(last_used_at=now())
_REVOKE: Final = (
    update(tokens).where(_id, tokens.c.revoked_at.is_(None)).values(revoked_at=now()).returning(tokens.c.id)
)
_end: Final = shifted(now(), bindparam("overlap", type_=Double()))
_EXPIRE: Final = (
    update(tokens)
    .where(_id, _USABLE, or_(tokens.c.expires_at.is_(null()), tokens.c.expires_at > _end))
    .values(expires_at=_end)
)


def create(
    conn: Connection, *, name: str, scopes: Collection[Scope], projects: Collection[str], lasts: timedelta | None
) -> str:
    """
    Make a token and return its text, which cannot be read again.

    `lasts` is how long it is valid; `None`: until it is revoked. The caller owns the transaction. Raises: InputError
    without a scope or a project.
    """
    if not scopes or not projects:
        raise InputError(
            "scopes" if not scopes else "projects", "is empty; a token needs a name, a scope and a project"
        )
    for project in set(projects) - {EVERY_PROJECT}:
        check_name("project", project)
    if len(check_text("name", name)) > _LONGEST_NAME:
        raise InputError("name", f"has more than {_LONGEST_NAME} characters")
    refuse_secrets("name", name)
    token_id, secret = os.urandom(6).hex(), os.urandom(32).hex()
    row = {
        "id": token_id,
        "name": name,
        "secret_hash": hashlib.sha256(secret.encode()).hexdigest(),
        "scopes": json.dumps(sorted(scopes)),
        "projects": json.dumps(sorted(projects)),
        "expires_seconds": None if lasts is None else lasts.total_seconds(),
    }
    conn.execute(_INSERT, {"made": pack([row])})
    return f"rc_{token_id}_{secret}"


def find(conn: Connection, text: str) -> tuple[TokenView, bool] | None:
    """The token of that text and whether its use is to be noted, or `None` if it is not a usable token."""
    given = _TOKEN.fullmatch(text)
    if given is None:
        return None
    row = conn.execute(_FIND, {"its_id": given[1], "minute": _MINUTE}).one_or_none()
    # Even without a row. A row still takes the time of reading it, some tenths of a millisecond: an id is not secret.
    kept = "0" * 64 if row is None else row.secret_hash
    equal = hmac.compare_digest(hashlib.sha256(given[2].encode()).hexdigest(), kept)
    return (_view(row), bool(row.is_stale)) if equal and row is not None else None


def secret_hash(text: str) -> str:
    """What the ledger keeps of a token's text; empty when it is not a token."""
    given = _TOKEN.fullmatch(text)
    return "" if given is None else hashlib.sha256(given[2].encode()).hexdigest()


def secret_hashes(conn: Connection) -> frozenset[str]:
    """What is kept of every token that can be used now."""
    return frozenset(conn.execute(select(tokens.c.secret_hash).where(_USABLE)).scalars())


def is_usable(conn: Connection, token_id: str) -> bool:
    """Whether the token can be used now."""
    return conn.execute(select(tokens.c.id).where(_id, _USABLE), {"its_id": token_id}).one_or_none() is not None


def note_use(conn: Connection, token_id: str) -> None:
    """Keep when it was used, to the minute. The caller owns the transaction."""
    conn.execute(_USED, {"its_id": token_id, "minute": _MINUTE})


def listed(conn: Connection) -> list[TokenView]:
    """Every token, newest first, including expired and revoked ones."""
    return [_view(row) for row in conn.execute(select(tokens).order_by(tokens.c.created_at.desc(), tokens.c.id))]


def usable(conn: Connection) -> int:
    """How many tokens can be used now."""
    return int(conn.execute(select(func.count()).select_from(tokens).where(_USABLE)).scalar_one())


def revoke(conn: Connection, token_id: str) -> bool:
    """End a token at once; returns whether there was one to end. The caller owns the transaction."""
    return conn.execute(_REVOKE, {"its_id": token_id}).one_or_none() is not None


def replace(conn: Connection, token_id: str, *, overlap: timedelta, lasts: timedelta | None) -> str | None:
    """
    A new token in the place of one, which stays good for `overlap`; `None` when that one is not in use.

    The caller owns the transaction.
    """
    row = conn.execute(select(tokens).where(_id, _USABLE), {"its_id": token_id}).one_or_none()
    if row is None:
        return None
    old = _view(row)
    made = create(conn, name=old.name, scopes=old.scopes, projects=old.projects, lasts=lasts)
    conn.execute(_EXPIRE, {"its_id": token_id, "overlap": overlap.total_seconds()})
    return made


def _view(row: Any) -> TokenView:
    return TokenView(
        id=row.id,
        name=row.name,
        # What a later release may do is nothing here.
        scopes=frozenset(Scope(each) for each in row.scopes if each in set(Scope)),
        projects=frozenset(row.projects),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
