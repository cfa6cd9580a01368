"""From what the code below the doors refuses to the problem that the caller gets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from runclaim import logs
from runclaim.api.problems import Mistake, Problem, answer
from runclaim.errors import (
    ClaimLost,
    InputError,
    KeyConflict,
    LedgerRefused,
    LedgerUnavailable,
    RunclaimError,
    RunNotFound,
    SignatureRefused,
    StateConflict,
)
from runclaim.flows.client.changes import ActionConflict, ActionNotFound
from runclaim.flows.declare.registered_inputs import InputRefused
from runclaim.keys import clip
from runclaim.service.errors import KeyReused, RequestInFlight, UnknownFlow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

logger: Final = logs.logger("runclaim.api")

_LONGEST_PATH: Final = 200
_STATUSES: Final = {400: "bad-request", 413: "too-large", 415: "not-json"}


def _of_schema(error: InputRefused) -> Problem:
    found = [Mistake(f"/input{pointer}", detail) for pointer, detail in error.problems]
    return Problem("invalid", "the input does not match the schema of its flow", found)


def of_input(error: InputError, fields: Collection[str] = ()) -> Problem:
    """The problem of an input; `fields` are those of the flow's input, which are below `/input` in a body."""
    path = re.sub(r"\[(\d+)\]", r".\1", error.field).split(".")
    below = ["input", *path] if path[0] in fields else path
    return Problem("invalid", str(error), [Mistake("".join(f"/{part}" for part in below), error.problem)])


def _of_key(error: KeyConflict) -> Problem:
    detail = (
        f"run {error.run_id} already has the key {error.key!r} with a different input; put what differs into the key"
    )
    # Which fields, and not what they are: who may enqueue may not always read.
    return Problem("key-conflict", detail, more={"run_id": error.run_id, "differs": sorted(error.differs)})


def _of_ledger(_error: LedgerUnavailable) -> Problem:
    # Not its own words: they name the database.
    return Problem("ledger-unavailable", "nothing was done; try again")


def _of_refusal(error: LedgerRefused) -> Problem:
    logger.error("%s", error)
    return Problem("ledger-refused", "nothing was done; the server's log tells its operator what to fix")


def _of_key_reuse(_error: KeyReused) -> Problem:
    return Problem(
        "idempotency-key-reused", "this key was already sent with a different payload; use a new key for a new request"
    )


def _of_state(error: StateConflict | ActionConflict) -> Problem:
    return Problem("state-conflict", str(error), more={"state": str(error.state)})


#: What each refusal becomes; the first class that fits decides.
_KNOWN: Final[tuple[tuple[type[RunclaimError], Callable[[Any], Problem]], ...]] = (
    (InputRefused, _of_schema),
    (InputError, of_input),
    (KeyConflict, _of_key),
    (LedgerUnavailable, _of_ledger),
    (LedgerRefused, _of_refusal),
    (StateConflict, _of_state),
    (ActionConflict, _of_state),
    (RunNotFound, lambda error: Problem("not-found", str(error))),
    (ActionNotFound, lambda error: Problem("not-found", str(error))),
    (UnknownFlow, lambda error: Problem("unknown-flow", str(error))),
    (
        RequestInFlight,
        lambda _: Problem("request-in-flight", "try again in a moment; you will get the answer to that request"),
    ),
    (KeyReused, _of_key_reuse),
    (ClaimLost, lambda error: Problem("claim-lost", str(error))),
    (SignatureRefused, lambda error: Problem("signature-refused", str(error))),
)


def problem_of(error: RunclaimError) -> Problem:
    """The problem that tells of a refusal."""
    for kind, tell in _KNOWN:
        if isinstance(error, kind):
            return tell(error)
    logger.error("refused: %s", error)
    return Problem("internal", "see the server's log for the reason")


def add_to(app: FastAPI, allowed: Callable[[str], Sequence[str]]) -> None:
    """Answer every error of the app with a problem; `allowed` names the methods of a path."""

    async def known(request: Request, error: Exception) -> Response:
        found = error if isinstance(error, Problem) else problem_of(error)  # type: ignore[arg-type]
        return answer(request, found)

    async def of_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        methods = allowed(request.url.path) if status in {404, 405} else []
        if methods:
            # The router names the methods of the first route only.
            problem = Problem("method-not-allowed", f"{request.method} is not supported here; use {', '.join(methods)}")
            problem.headers = {"Allow": ", ".join(methods)}
            return answer(request, problem)
        if status == 404:  # noqa: PLR2004 - its own name
            return answer(request, Problem("not-found", "there is nothing at this address"))
        return answer(request, Problem(_STATUSES.get(status, "internal"), "the request could not be processed"))

    async def of_validation(request: Request, error: Exception) -> Response:
        found: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
        mistakes = [Mistake(_place(each["loc"]), str(each["msg"])) for each in found]
        in_body = any(each["loc"][:1] == ("body",) for each in found)
        return answer(request, Problem("invalid" if in_body else "bad-request", "see errors", mistakes))

    async def unknown(request: Request, error: Exception) -> Response:
        return answer(request, unforeseen(request.method, request.url.path, error))

    app.add_exception_handler(Problem, known)
    app.add_exception_handler(RunclaimError, known)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(SQLAlchemyError, unknown)


def unforeseen(method: str, path: str, error: Exception) -> Problem:
    """The problem for an unexpected error, which is logged."""
    # Not the error's own words: they may hold what was sent. The kind and the place help the reader of the log.
    logger.error("%s %s failed: %s", method, clip(path, _LONGEST_PATH), type(error).__name__, exc_info=_bare(error))
    return Problem("internal", "see the server's log for the reason")


def _bare(error: Exception) -> Any:
    return (RuntimeError, RuntimeError(type(error).__name__), error.__traceback__)


def _place(loc: Sequence[Any]) -> str:
    where, *path = loc
    return "".join(f"/{part}" for part in path) if where == "body" else ".".join(str(part) for part in path)
