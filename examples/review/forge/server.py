"""
The forge's HTTP side: the comments of issues and pull requests as GitHub's REST API has them.

    POST, GET  /repos/{owner}/{repo}/issues/{number}/comments    body
    POST, GET  /repos/{owner}/{repo}/pulls/{number}/comments     body, path, line, commit_id
    PUT        /control/faults                                   a plan, see `faults`

A listing takes `per_page` (30, at most 100) and `page`, and names the next page in its Link header. What GitHub
refuses of these is refused here: 400 no JSON, 404 no such place, 422 a field that is missing or of the wrong type.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from forge.faults import Fault

if TYPE_CHECKING:
    from forge.faults import Plan
    from forge.store import Comment, Store

_PLACE: Final = re.compile(r"/repos/(?P<repo>[\w.-]+/[\w.-]+)/(?P<kind>issues|pulls)/(?P<number>\d+)/comments")
_DEFAULT_PAGE: Final = 30
_LARGEST_PAGE: Final = 100
_LARGEST_BODY: Final = 1024 * 1024
_LONGEST_COMMENT: Final = 65_536
#: The fields of a comment, and their types, by its kind.
_FIELDS: Final[dict[str, dict[str, type]]] = {
    "issues": {"body": str},
    "pulls": {"body": str, "path": str, "line": int, "commit_id": str},
}


class Forge(ThreadingHTTPServer):
    """Serves a store on 127.0.0.1; port 0 is a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: Store, *, port: int = 0) -> None:
        self.store = store
        #: Set when it closes, so that no slow answer holds it up.
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def server_close(self) -> None:
        self.closing.set()
        super().server_close()


class _Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        self.status, self.answer = status, {"message": message, **more}
        super().__init__(message)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Forge
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class has
        """Nothing: the store keeps the log."""

    def _answer(self, work: Any) -> None:
        try:
            work()
        except _Refusal as refusal:
            self._send(refusal.status, refusal.answer)
        except ConnectionError:
            self.close_connection = True  # the client has gone

    def _post(self) -> None:
        place, text = self._place(), self._body()
        comment = {**place, **_fields(place["kind"], _object(text))}
        fault, plan, made = self.server.store.post(self.path, text, comment)
        if fault is Fault.REFUSED:
            raise _Refusal(422, "Validation Failed", errors=[{"code": "custom", "message": "as the plan has it"}])
        if self._misbehaves(fault, plan) and made is not None:
            self._send(201, self._shown(made))

    def _get(self) -> None:
        place = self._place()
        query = parse_qs(urlsplit(self.path).query)
        size = min(_LARGEST_PAGE, _count(query, "per_page", _DEFAULT_PAGE))
        page = _count(query, "page", 1)
        fault, plan = self.server.store.get(self.path)
        if self._misbehaves(fault, plan):
            found, more = self.server.store.page(place["repo"], place["number"], place["kind"], size=size, page=page)
            after = f"{self.server.url}{urlsplit(self.path).path}?per_page={size}&page={page + 1}"
            self._send(
                200, [self._shown(each) for each in found], **({"Link": f'<{after}>; rel="next"'} if more else {})
            )

    def _put(self) -> None:
        if self.path != "/control/faults":
            raise _Refusal(404, "Not Found")
        try:
            plan = self.server.store.set_plan(_object(self._body()))
        except (ValueError, TypeError, AttributeError) as error:
            raise _Refusal(422, f"no plan: {error}") from error
        self._send(200, json.loads(plan.write()))

    def _misbehaves(self, fault: Fault, plan: Plan) -> bool:
        """Do what the fault does to the answer; returns whether there is still one to give."""
        if fault is Fault.SLOW:
            self.server.closing.wait(plan.slow_seconds)
        elif fault is Fault.LOST_REPLY:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return False
        elif fault in {Fault.ERROR_AFTER, Fault.ERROR_BEFORE}:
            raise _Refusal(500 if fault is Fault.ERROR_AFTER else 502, "Server Error")
        return True

    def _place(self) -> dict[str, Any]:
        found = _PLACE.fullmatch(urlsplit(self.path).path)
        if found is None:
            raise _Refusal(404, "Not Found")
        return {**found.groupdict(), "number": int(found["number"])}

    def _body(self) -> str:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY:
            self.close_connection = True
            raise _Refusal(411 if not length else 413, "The length is missing or too much")
        try:
            return self.rfile.read(int(length)).decode()
        except UnicodeDecodeError as error:
            raise _Refusal(400, "Problems parsing JSON") from error

    def _shown(self, comment: Comment) -> dict[str, Any]:
        """A comment as the API shows it."""
        owner = comment.repo.partition("/")[0]
        api = f"{self.server.url}/repos/{comment.repo}"
        shown: dict[str, Any] = {
            "id": comment.id,
            "url": f"{api}/{comment.kind}/comments/{comment.id}",
            "html_url": f"{self.server.url}/{comment.repo}/pull/{comment.number}#comment-{comment.id}",
            "body": comment.body,
            "user": {"login": f"{owner}-bot", "type": "Bot"},
            "created_at": comment.created_at,
            "updated_at": comment.created_at,
        }
        if comment.kind == "issues":
            return shown | {"issue_url": f"{api}/issues/{comment.number}"}
        kept = asdict(comment)
        line = {name: kept[name] for name in ("path", "line", "commit_id")}
        return shown | {"pull_request_url": f"{api}/pulls/{comment.number}", "side": "RIGHT", **line}

    def _send(self, status: int, answer: object, **headers: str) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json; charset=utf-8", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _Refusal(400, "Problems parsing JSON") from error
    if not isinstance(found, dict):
        raise _Refusal(400, "Body should be a JSON object")
    return found


def _fields(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """The fields of a comment. Refuses, as GitHub does, what is missing, empty, too long or of another type."""
    errors = [
        {"resource": "IssueComment" if kind == "issues" else "PullRequestReviewComment", "code": code, "field": name}
        for name, type_ in _FIELDS[kind].items()
        if (code := _wrong(found.get(name), type_))
    ]
    if errors:
        raise _Refusal(422, "Validation Failed", errors=errors)
    return {name: found[name] for name in _FIELDS[kind]}


def _wrong(value: object, type_: type) -> str | None:
    if value is None or value == "":
        return "missing_field"
    too_much = isinstance(value, str) and len(value) > _LONGEST_COMMENT
    return "invalid" if type(value) is not type_ or too_much else None


def _count(query: dict[str, list[str]], name: str, default: int) -> int:
    """A number above 0; as GitHub does, what is none counts as the default."""
    given = query.get(name, [""])[-1]
    return int(given) if given.isdecimal() and int(given) > 0 else default
