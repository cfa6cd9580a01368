"""
Problems: every error response is `application/problem+json` (RFC 9457), with a code that programs read.

One table says what each code means. Nothing in a problem tells of a secret, of another project, or of our own code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

MEDIA_TYPE: Final = "application/problem+json"
_QUOTA: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its status, its title, and whether trying the same again later can help."""

    status: int
    title: str
    retry_after: int | None = None


KINDS: Final[dict[str, Kind]] = {
    "bad-request": Kind(400, "The request cannot be understood"),
    "invalid-page-token": Kind(400, "The page token does not belong to this listing"),
    "unauthorized": Kind(401, "A valid bearer token is required"),
    "scope-missing": Kind(403, "The token does not have the required scope"),
    "signature-refused": Kind(403, "The delivery's signature is not valid"),
    "not-found": Kind(404, "Not found"),
    "method-not-allowed": Kind(405, "This address does not support that method"),
    "request-timeout": Kind(408, "The request body did not arrive in time"),
    "claim-lost": Kind(409, "The claim is no longer current; drop the work"),
    "key-conflict": Kind(409, "The run key already has a run with a different input"),
    "request-in-flight": Kind(409, "A request with this Idempotency-Key is still in progress", 1),
    "result-conflict": Kind(409, "This claim has already recorded a different result"),
    "state-conflict": Kind(409, "The state of the run or action does not allow this"),
    "run-purged": Kind(410, "The run was purged; its key cannot start another run"),
    "too-large": Kind(413, "The request is too large"),
    "not-json": Kind(415, "The body must be application/json"),
    "invalid": Kind(422, "The request is not valid"),
    "idempotency-key-reused": Kind(422, "The Idempotency-Key was already used for a different request"),
    "unknown-flow": Kind(422, "No application has registered this flow"),
    "quota-exceeded": Kind(429, "Too many requests", 1),
    "internal": Kind(500, "Internal server error"),
    "busy": Kind(503, "The server is too busy", 5),
    "ledger-refused": Kind(503, "The ledger refused this server; nothing was done"),
    "ledger-unavailable": Kind(503, "The ledger does not answer; nothing was done", 2),
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that does not fit: a JSON pointer into the body, or the name of a parameter, and why."""

    pointer: str
    detail: str


@dataclass(slots=True)
class Problem(Exception):
    """What a handler raises to answer with a problem. `more` are members of its own, `headers` come with it."""

    code: str
    detail: str
    mistakes: Sequence[Mistake] = ()
    more: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, instance: str) -> dict[str, Any]:
        """The members of the problem."""
        kind = KINDS[self.code]
        found: dict[str, Any] = {
            "type": _QUOTA if self.code == "quota-exceeded" else f"urn:runclaim:problem:{self.code}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
        }
        if self.mistakes:
            found["errors"] = [{"pointer": each.pointer, "detail": each.detail} for each in self.mistakes]
        return found | self.more

    def response(self, instance: str) -> Response:
        """The answer. A lone surrogate of a field's name is shown as a question mark."""
        kind = KINDS[self.code]
        headers = {} if kind.retry_after is None else {"Retry-After": str(kind.retry_after)}
        text = json.dumps(self.body(instance), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return Response(text, status_code=kind.status, media_type=MEDIA_TYPE, headers=headers | self.headers)


def answer(request: Request, problem: Problem) -> Response:
    """The problem as the answer to a request."""
    return problem.response(request.url.path)
