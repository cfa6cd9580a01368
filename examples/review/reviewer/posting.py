"""
The forge's API, as far as a review needs it: post a comment, and look for one that may have arrived.

A comment carries its idempotency key where no reader sees it, because a forge takes no such key: the lookup searches
the pull request's comments for it.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from runclaim import ActionRejected, Retry

if TYPE_CHECKING:
    from reviewer.work import Comment

#: Seconds that the forge may be silent for. Long before the action's `max_duration`, so that a send is not overtaken.
TIMEOUT_SECONDS: Final = 1.5
_PAGE: Final = 100
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERRORS: Final = 500
_NEXT: Final = re.compile(r'<([^>]+)>; rel="next"')


def post(comment: Comment, marker: str = "") -> str:
    """
    Post a comment; `marker` goes with it unseen. Returns: its id.

    Raises: Retry when it surely has not arrived, ActionRejected when the forge will not have it, and anything else
    (URLError, TimeoutError, RemoteDisconnected) when nobody knows.
    """
    hidden = f"\n\n{_hidden(marker)}" if marker else ""
    place = {"path": comment.path, "line": comment.line, "commit_id": comment.commit_id} if comment.path else {}
    sent = json.dumps({"body": f"{comment.body}{hidden}", **place}).encode()
    try:
        answer, _ = _ask(Request(_comments(comment), data=sent, method="POST"))  # noqa: S310 - our own forge
    except HTTPError as refusal:
        # An error of the server says nothing of what it did before; what it refuses, it has not taken.
        if refusal.code >= _SERVER_ERRORS:
            raise
        if refusal.code == _TOO_MANY_REQUESTS:
            raise Retry("the forge has had too much of us") from refusal
        raise ActionRejected(f"{refusal.code} {refusal.reason}") from refusal
    except URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            raise Retry("the forge is down") from error
        raise
    return str(answer["id"])


def find(comment: Comment, marker: str) -> str | None:
    """The id of the comment that carries `marker`, or `None` when it has not arrived."""
    page: str | None = f"{_comments(comment)}?per_page={_PAGE}"
    while page:
        found, page = _ask(Request(page))  # noqa: S310 - as above
        for each in found:
            if _hidden(marker) in each["body"]:
                return str(each["id"])
    return None


def visible(body: str) -> str:
    """What a reader sees of a comment."""
    return re.sub(r"\s*<!-- runclaim:.*? -->", "", body)


def _hidden(marker: str) -> str:
    return f"<!-- runclaim:{marker} -->"


def _comments(comment: Comment) -> str:
    kind = "pulls" if comment.path else "issues"
    return f"{os.environ['REVIEW_FORGE_URL']}/repos/{comment.repo}/{kind}/{comment.number}/comments"


def _ask(request: Request) -> tuple[Any, str | None]:
    """The answer, and the address of the next page if there is one."""
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - as above
        further = _NEXT.search(response.headers.get("Link", ""))
        return json.load(response), further and further[1]
