"""
HTTP as the API speaks it: JSON in and out, problems as refusals, and a stream of server-sent events.

The token goes to the address that was named and nowhere else: no redirect is followed, and a proxy sees only encrypted
requests. A request that is safe to repeat is repeated when the connection was lost or the API was busy.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead, LineTooLong
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
    HTTPStatus.GONE: NotFound,
    HTTPStatus.BAD_GATEWAY: Unreachable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unreachable,
    HTTPStatus.GATEWAY_TIMEOUT: Unreachable,
}
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
#: What may follow `Bearer` (RFC 6750, 2.1).
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
#: The last event of a stream has none.
_EVENT_ID: Final = re.compile(r"[0-9]{0,20}")
_VISIBLE: Final = re.compile(r"[!-~]+")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the token along."""

    def redirect_request(self, *_: Any) -> None:
        """No."""


class Api:
    """The API at an address, as the bearer of a token."""

    def __init__(self, url: str, token: str | None) -> None:
        """At a URL, with a token as the environment has it. Raises: ConfigError, which repeats neither of them."""
        is_tls, host = _address(url)
        self.url, self._token = url.rstrip("/"), _bearer(token)
        #: Whether the token could be read on its way.
        self.is_open = not is_tls and host not in _LOOPBACK and self._token is not None
        # A proxy is asked for a tunnel where the request is encrypted, and would read the token where it is not.
        proxies = urllib.request.getproxies() if is_tls else {}
        self._opener = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler(proxies))

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
        The status and the JSON of an answer; `seconds` is how long it may take in addition to the usual time.

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
                for event_id, text in _events(stream):
                    event = _object(text)
                    if event is None or not _EVENT_ID.fullmatch(event_id):
                        raise self._no_api(stream.status)
                    yield event_id, event
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
            return Refused(f"{self.url} redirects to {where}; set RUNCLAIM_API_URL to the new address")
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
            said += "; set RUNCLAIM_TOKEN to a valid token"
        if told.get("code") == "unknown-flow":
            return NotFound(one_line(said))
        server_error = problem.code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return _REFUSALS.get(problem.code, RunclaimError if server_error else Refused)(one_line(said))

    def _parsed(self, answer: HTTPResponse) -> Json:
        text = answer.read(_MOST_BYTES)
        if answer.length:
            raise IncompleteRead(text, answer.length)
        if (found := _object(text)) is None:
            raise self._no_api(answer.status)
        return found

    def _no_api(self, status: int) -> Unreachable:
        return Unreachable(f"{self.url} is not a runclaim API (it answered {status}); check RUNCLAIM_API_URL")

    def _gone(self, lost: Exception) -> Unreachable:
        reason = getattr(lost, "reason", None) or lost
        return Unreachable(
            f"the API {self.url} does not answer ({one_line(str(reason)) or type(reason).__name__});"
            " check RUNCLAIM_API_URL, or try again later"
        )


def _address(url: str) -> tuple[bool, str]:
    """Whether requests to the URL are encrypted, and its host. Raises: ConfigError, which does not repeat the URL."""
    write = "write https://host or http://host:port"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.query or parts.fragment or not _VISIBLE.fullmatch(url):
        raise ConfigError(f"RUNCLAIM_API_URL is not a valid address: {write}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"RUNCLAIM_API_URL contains a user or a password, which the API does not use: {write}")
    return parts.scheme == "https", str(parts.hostname)


def _bearer(token: str | None) -> str | None:
    """The token without the white space around it. Raises: ConfigError, which does not repeat it."""
    text = (token or "").strip()
    if text and not _TOKEN.fullmatch(text):
        raise ConfigError("RUNCLAIM_TOKEN is not a valid token: set it to what `runclaim token create` printed")
    return text or None


def _object(text: str | bytes) -> Json | None:
    """A JSON object, or `None` for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _events(stream: HTTPResponse) -> Iterator[tuple[str, str]]:
    """
    The id and the data of each event, as the HTML standard has it: fields to a blank line, comments between.

    Raises: HTTPException for a line or an event past what an API sends.
    """
    last_id, size = "", 0
    data: list[str] = []
    while raw := stream.readline(_MOST_BYTES):
        if (size := size + len(raw)) > _MOST_BYTES:
            raise LineTooLong("event")
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            size = 0
        if not line and data:
            yield last_id, "\n".join(data)
            data = []
        elif name == "id":
            last_id = value
        elif name == "data":
            data.append(value)
