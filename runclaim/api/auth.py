"""
Who asks: a bearer token, its scopes and its projects. A route that says nothing of a scope does not exist.

A run of another project is answered as if it did not exist.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from runclaim.api.origins import origin
from runclaim.api.problems import Problem
from runclaim.errors import RunclaimError
from runclaim.keys import clip
from runclaim.ledger.actions import decide as decisions
from runclaim.ledger.doors import tokens
from runclaim.ledger.doors.run_pages import run_line
from runclaim.ledger.doors.tokens import EVERY_PROJECT, Scope, TokenView
from runclaim.ledger.read import RunLine

if TYPE_CHECKING:
    from fastapi import Request
    from sqlalchemy import Connection

    from runclaim.api.server import Server
    from runclaim.ledger.actions.decide import ActionView

_CHALLENGE: Final = 'Bearer realm="runclaim"'
_SAID: Final = 80


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: its token, and the server that answers."""

    token: TokenView
    server: Server

    @property
    def name(self) -> str:
        """As the journal keeps it."""
        return f"token {self.token.id} ({self.token.name})"

    def project(self, name: str | None) -> str:
        """The project that a request is about. Raises: Problem when it is another's, or cannot be told."""
        if name is not None:
            if not self.token.sees(name):
                raise Problem("not-found", f"there is no project {clip(name, _SAID)!r}")
            return name
        if len(self.token.projects) == 1 and EVERY_PROJECT not in self.token.projects:
            return next(iter(self.token.projects))
        if self.token.sees(self.server.config.project):
            return self.server.config.project
        raise Problem("bad-request", "the token has several projects; name one of them in `project`")

    @property
    def reads(self) -> bool:
        """Whether it may see what runs hold; who may only change them is told of their states."""
        return self.token.may(Scope.RUNS_READ)

    def is_still_good(self, conn: Connection) -> bool:
        """Whether the token can still be used."""
        return tokens.is_usable(conn, self.token.id)

    def run(self, run_id: str) -> RunLine:
        """The run of that id. Raises: Problem when there is none in the token's projects."""
        found = self.server.ask(lambda conn: run_line(conn, run_id))
        if found is None or not self.token.sees(found.project):
            raise no_run(run_id)
        return found

    def action(self, action_id: str) -> tuple[ActionView, str]:
        """The action of that id and its project. Raises: Problem when no run of the token's projects has it."""

        def look(conn: Connection) -> tuple[ActionView | None, RunLine | None]:
            found = decisions.action(conn, action_id)
            return found, None if found is None else run_line(conn, found.run_id)

        found, line = self.server.ask(look)
        if found is None or line is None or not self.token.sees(line.project):
            raise no_action(action_id)
        return found, line.project


def no_action(action_id: str) -> Problem:
    """The problem of an action that is not there, or not the caller's."""
    return Problem("not-found", f"no action {action_id}: it never existed, or was purged with its run")


def no_run(run_id: str) -> Problem:
    """The problem of a run that is not there, or not the caller's."""
    return Problem("not-found", f"no run {run_id}: it never existed, or was purged after its retention")


def authenticate(server: Server, request: Request, scope: Scope) -> Caller:
    """The caller of a request, who may do what `scope` says. Raises: Problem."""
    text = _bearer(request)
    whose = origin(request.client.host if request.client else None)
    if server.quota.has_guessed_enough(whose) and not server.known_tokens.may_be(text):
        # The ledger is not asked for origins that only guess.
        raise server.quota.too_many_guesses(whose)
    found = server.ask(lambda conn: tokens.find(conn, text))
    if found is None:
        server.quota.guess(whose)
        challenge = {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
        raise Problem("unauthorized", "this token is unknown, expired or revoked", headers=challenge)
    token, is_stale = found
    if not token.may(scope):
        challenge = {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'}
        raise Problem("scope-missing", f"the token needs the scope {scope}", headers=challenge)
    if is_stale and server.known_tokens.is_to_be_noted(token.id):
        # When it was used is worth no refusal, neither by a ledger that is away nor by one that only reads.
        with contextlib.suppress(RunclaimError, SQLAlchemyError):
            server.database.run(lambda conn: tokens.note_use(conn, token.id), patience=0.1)
    return Caller(token, server)


def _bearer(request: Request) -> str:
    """The text of the request's token. Raises: Problem."""
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise Problem("bad-request", "send exactly one Authorization header")
    kind, _, text = "".join(given).partition(" ")
    if kind.lower() != "bearer":
        raise Problem("unauthorized", "send Authorization: Bearer <token>", headers={"WWW-Authenticate": _CHALLENGE})
    return text.strip()
