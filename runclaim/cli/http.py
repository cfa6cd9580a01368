"""
HTTP as the API speaks it: JSON in and out, problems as refusals, and a stream of server-sent events.

The token goes to the address that was named and nowhere else: no redirect is followed. A request that is safe to
repeat is repeated when the connection was lost or the API was busy.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from runclaim.cli.exits import NotAllowed, NotFound, Refused, Unreachable
from runclaim.cli.terminal import one_line
from runclaim.errors import ConfigError, RunclaimError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPResponse

Json = dict[str, Any]

_SECONDS: Final = 15.0
_MOST_BYTES: Final = 16_777_216
_PAUSES: Final = (0.3, 1.0)
_REFUSALS: Final[dict[int, type[RunclaimError]]] = {
    HTTPStatus.UNAUTHORIZED: NotAllowed,
    HTTPStatus.FORBIDDEN: NotAllowed,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.BAD_GATEWAY: Unreachable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unreachable,
    HTTPStatus.GATEWAY_TIMEOUT: Unreachable,
}
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the token along."""

    def redirect_request(self, *_: Any) -> None:
        """No."""


class Api:
    """The API at an address, as the bearer of a token."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"the API's address {url!r} is none: write https://host or http://host:port")
        self.url, self._token = url.rstrip("/"), token
        #: Whether the token could be read on its way.
        self.is_open = parts.scheme == "http" and parts.hostname not in _LOOPBACK and token is not None
        self._opener = urllib.request.build_opener(_Stay)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
    ) -> tuple[int, Json]:
        """
        The status and the JSON of an answer; `seconds` is how long it may take beside the usual time.

        Safe to repeat, and repeated: give a POST an Idempotency-Key. Raises: RunclaimError for a problem.
        """
        request = self._request(method, path, query=query, body=body, headers=headers)
        for pause in (*_PAUSES, None):
            try:
                with self._opener.open(request, timeout=_SECONDS + seconds) as answer:
                    return answer.status, self._parsed(answer)
            except urllib.error.HTTPError as problem:
                with problem:
                    if problem.code != HTTPStatus.SERVICE_UNAVAILABLE or pause is None:
                        raise self._refusal(problem) from None
            except (OSError, HTTPException) as lost:
                if pause is None or isinstance(getattr(lost, "reason", None), ConnectionRefusedError):
                    raise self._gone(lost) from lost
            time.sleep(pause)
        raise AssertionError("the last try has no pause")

    def events(self, path: str, *, last_id: str | None) -> Iterator[tuple[str, Json]]:
        """The id and the data of each server-sent event, until the API ends the stream. Raises: as `ask`."""
        headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
        try:
            # The API says something at least every few seconds; silence is a lost connection.
            with self._opener.open(self._request("GET", path, headers=headers), timeout=4 * _SECONDS) as stream:
                yield from _events(stream)
        except urllib.error.HTTPError as problem:
            with problem:
                raise self._refusal(problem) from None
        except (OSError, HTTPException) as lost:
            raise self._gone(lost) from lost

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> urllib.request.Request:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        address = f"{self.url}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data=data, method=method)  # noqa: S310 - the scheme is checked
        told = {"Accept": "application/json", "User-Agent": f"runclaim/{version('runclaim')}"} | dict(headers or {})
        told |= {} if body is None else {"Content-Type": "application/json"}
        told |= {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        for name, value in told.items():
            request.add_header(name, value)
        return request

    def _refusal(self, problem: urllib.error.HTTPError) -> RunclaimError:
        if HTTPStatus.MULTIPLE_CHOICES <= problem.code < HTTPStatus.BAD_REQUEST:
            where = one_line(problem.headers.get("Location", ""))
            return Refused(f"{self.url} is somewhere else: set RUNCLAIM_API_URL to where {where} is")
        try:
            told = json.loads(problem.read(_MOST_BYTES))
            said = "; ".join(
                [told["detail"], *(f"{each['pointer']}: {each['detail']}" for each in told.get("errors") or ())]
            )
        except (ValueError, KeyError, TypeError, OSError):
            return self._no_api(problem.code)
        if (later := problem.headers.get("Retry-After")) and later.isdecimal():
            said += f" (try again in {later} s)"
        if problem.code == HTTPStatus.UNAUTHORIZED:
            said += ". RUNCLAIM_TOKEN is where a token goes"
        if told.get("code") == "unknown-flow":
            return NotFound(one_line(said))
        server_error = problem.code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return _REFUSALS.get(problem.code, RunclaimError if server_error else Refused)(one_line(said))

    def _parsed(self, answer: HTTPResponse) -> Json:
        text = answer.read(_MOST_BYTES)
        if answer.length:
            raise IncompleteRead(text, answer.length)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._no_api(answer.status)
        return found

    def _no_api(self, status: int) -> Unreachable:
        return Unreachable(f"{self.url} answers {status} and is no runclaim API: check RUNCLAIM_API_URL")

    def _gone(self, lost: Exception) -> Unreachable:
        reason = getattr(lost, "reason", None) or lost
        return Unreachable(f"the API {self.url} does not answer ({one_line(str(reason)) or type(reason).__name__})")


def _events(stream: HTTPResponse) -> Iterator[tuple[str, Json]]:
    """Lines to events, as the HTML standard has it: fields to a blank line, comments for keeping the connection."""
    last_id = ""
    data: list[str] = []
    for raw in stream:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield last_id, json.loads("\n".join(data))
            data = []
        elif name == "id":
            last_id = value
        elif name == "data":
            data.append(value)
