"""
Page tokens: where the next page begins, signed, and good only for the listing that gave them.

What is signed holds the whole question, the project with it: a token of one listing opens no other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from runclaim.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runclaim.ledger.doors.run_pages import RunFilter

_BYTES: Final = 32


def page_token(key: bytes, question: Sequence[str], after: str) -> str:
    """The token of the page that begins after that place."""
    return base64.urlsafe_b64encode(_signed(key, question, after) + after.encode()).decode().rstrip("=")


def place_of(key: bytes, question: Sequence[str], token: str) -> str:
    """The place that a token names. Raises: Problem unless it was given for this very listing."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = raw[_BYTES:].decode("ascii")
    except (binascii.Error, ValueError):
        raw, after = b"", ""
    # One spelling per token: base64 has several for the same bytes.
    if not hmac.compare_digest(page_token(key, question, after).encode(), token.encode()) or not after:
        raise Problem("invalid-page-token", "repeat the parameters of the first page, or leave out page_token")
    return after


def question_of(wanted: RunFilter) -> list[str]:
    """The whole question of a listing of runs. Another kind of listing has another number of parts."""
    return [
        wanted.project,
        wanted.flow or "",
        ",".join(sorted(wanted.states)),
        wanted.since.isoformat() if wanted.since else "",
        wanted.until.isoformat() if wanted.until else "",
        str(wanted.oldest_first),
    ]


def _signed(key: bytes, question: Sequence[str], after: str) -> bytes:
    told = "".join(f"{len(part)}:{part}" for part in (*question, after))
    return hmac.new(key, told.encode(), hashlib.sha256).digest()
