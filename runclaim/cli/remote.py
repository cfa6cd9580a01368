"""The runs of a ledger behind the HTTP API, for people and programs that cannot reach the database."""

from __future__ import annotations

import time
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from runclaim.cli.answers import Action, ActionsPage, Erased, Event, Moves, Run, RunLine, RunsPage, fitting
from runclaim.cli.backend import ENDS, Erasing, Filter, Json, Moving
from runclaim.cli.environment import API_URL, TOKEN
from runclaim.cli.exits import Refused, Unreachable
from runclaim.cli.http import Api
from runclaim.cli.terminal import say
from runclaim.config import from_environment
from runclaim.errors import ConfigError
from runclaim.events import EventType
from runclaim.keys import nonce

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runclaim.service.run_request import RunRequest

_PAGE: Final = 100
#: The API waits no longer in one request.
_LONGEST_WAIT: Final = 30.0
_RECONNECTS: Final = 5
_CREATED: Final = 201


class RemoteBackend:
    """A `Backend` that asks the API."""

    #: The API knows it only where it is told; it is not known here.
    starts = "as soon as a worker has room"
    sends = "soon"

    def __init__(self, api: Api) -> None:
        self._api = api
        if api.is_open:
            say(f"the token is sent to {api.url} unencrypted; use https:// unless you trust the network")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """At the address and with the token that the environment names. Raises: ConfigError."""
        if not (url := from_environment(environ, API_URL)):
            raise ConfigError(f"set {API_URL} to the API's address, such as https://runs.example.com")
        return cls(Api(url, from_environment(environ, TOKEN) or None))

    def enqueue(self, request: RunRequest, idempotency_key: str | None) -> tuple[Json, bool]:
        """The run, with its input, and whether this call made it."""
        wanted = {
            "flow": request.flow,
            "input": request.input,
            "project": request.project,
            "key": request.key,
            "subject": request.subject,
            "delay_seconds": request.delay and request.delay.total_seconds(),
            "priority": request.priority,
        }
        body = {name: value for name, value in wanted.items() if value is not None}
        status, run = self._api.ask("POST", "/v1/runs", body=body, headers=_once(idempotency_key))
        return self._fitting(run, RunLine), status == _CREATED

    def run(self, run_id: str) -> Json:
        """The run with its input, and its result once it has succeeded."""
        return self._fitting(self._of_run("GET", run_id), Run)

    def runs(self, wanted: Filter) -> Iterator[Json]:
        """Runs, the newest first, as their pages come."""
        query = {
            "project": wanted.project,
            "flow": wanted.flow,
            "state": wanted.states or None,
            "since": wanted.since and wanted.since.isoformat(),
            "until": wanted.until and wanted.until.isoformat(),
        }
        yield from islice(self._pages("runs", RunsPage, query, min(wanted.limit, _PAGE)), wanted.limit)

    def _pages(self, what: str, kind: type[Any], query: Json, size: int) -> Iterator[Json]:
        """What a listing has, page by page."""
        token = None
        while True:
            _, page = self._api.ask("GET", f"/v1/{what}", query=query | {"page_size": size, "page_token": token})
            yield from self._fitting(page, kind)[what]
            if not (token := page["next_page_token"]):
                return

    def _fitting(self, answer: Json, kind: type[Any]) -> Json:
        return fitting(answer, kind, url=self._api.url)

    def change(self, verb: str, run_id: str) -> Json:
        """Do the verb to the run; the run as it is then, for a rerun the new one."""
        return self._fitting(self._of_run("POST", run_id, f":{verb}", headers=_once(None)), RunLine)

    def erasable(self, whose: Erasing) -> tuple[int, bool]:
        """How many runs would be erased, and whether there are more."""
        return self._erasing(whose, dry_run=True)

    def erase(self, whose: Erasing) -> tuple[int, bool]:
        """Erase some of the runs: how many, and whether others are left."""
        return self._erasing(whose, dry_run=False)

    def _erasing(self, whose: Erasing, *, dry_run: bool) -> tuple[int, bool]:
        body = {name: value for name, value in asdict(whose).items() if value is not None} | {"dry_run": dry_run}
        answer = self._fitting(self._api.ask("POST", "/v1/runs:erase", body=body)[1], Erased)
        return answer["runs"], answer["more"]

    def move_phase(self, moving: Moving, *, dry_run: bool) -> Json:
        """Move the phase of some of the runs, with `dry_run` of none; how the others stand."""
        given: Json = {"project": moving.project, "flow": moving.flow, "from": moving.old, "to": moving.new}
        given |= {"key": moving.key, "ids": list(moving.ids) or None, "dry_run": dry_run}
        body = {name: value for name, value in given.items() if value is not None}
        return self._fitting(self._api.ask("POST", "/v1/runs:move-phase", body=body)[1], Moves)

    def follow(self, run_id: str) -> Iterator[Json]:
        """The events of the run, as they come; after a lost connection it continues behind the last one."""
        last_id, losses, stopped = None, 0, False
        while True:
            try:
                if stopped and self._is_over(run_id):
                    return
                for event_id, event in self._api.events(f"/v1/runs/{run_id}/events", last_id=last_id):
                    last_id, losses = event_id, 0
                    if event:  # the last one is empty: the run has ended
                        yield self._fitting(event, Event)
                    # The stream of a blocked run does not end: a person may resume it.
                    stopped = event.get("type") == EventType.RUN_BLOCKED
                    if stopped and self._is_over(run_id):
                        return
                if self._is_over(run_id):
                    return
            except Unreachable:
                if (losses := losses + 1) > _RECONNECTS:
                    raise
            time.sleep(min(0.2 * 2**losses, 5.0))

    def _is_over(self, run_id: str) -> bool:
        return self.run(run_id)["state"] in ENDS

    def wait(self, run_id: str, seconds: float) -> Json:
        """The run once it has ended, or as it is after `seconds`."""
        whole = int(min(seconds, _LONGEST_WAIT))
        prefer = {"Prefer": f"wait={whole}"} if whole else {}
        run = self._fitting(self._of_run("GET", run_id, headers=prefer, seconds=whole), Run)
        if run["state"] not in ENDS:
            time.sleep(min(seconds - whole, 1.0) if seconds < _LONGEST_WAIT else 0.0)
        return run

    def actions(self, *, project: str | None, run_id: str | None, state: str | None, limit: int) -> Iterator[Json]:
        """Planned actions: those of a run in their order, or the newest first."""
        query = {"project": project, "run": run_id, "state": state}
        if run_id is None:
            yield from islice(self._pages("actions", ActionsPage, query, min(limit, _PAGE)), limit)
        else:
            # The API begins with the newest.
            yield from list(self._pages("actions", ActionsPage, query, _PAGE))[::-1][:limit]

    def action(self, action_id: str) -> Json:
        """One action."""
        return self._fitting(self._api.ask("GET", f"/v1/actions/{action_id}")[1], Action)

    def retry_action(self, action_id: str) -> Json:
        """Send an action again that failed or is unknown."""
        path = f"/v1/actions/{action_id}:retry"
        return self._fitting(self._api.ask("POST", path, headers=_once(None))[1], Action)

    def resolve_action(self, action_id: str, upstream_id: str | None) -> Json:
        """Say what became of an unknown action."""
        path, body = f"/v1/actions/{action_id}:resolve", {"upstream_id": upstream_id}
        return self._fitting(self._api.ask("POST", path, body=body, headers=_once(None))[1], Action)

    def _of_run(
        self,
        method: str,
        run_id: str,
        verb: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
    ) -> Json:
        return self._api.ask(method, f"/v1/runs/{run_id}{verb}", headers=headers, seconds=seconds)[1]


def _once(key: str | None) -> dict[str, str]:
    """A header that makes a request safe to repeat, under the caller's key or a new one."""
    return {"Idempotency-Key": f'"{_quoted(key or nonce())}"'}


def _quoted(key: str) -> str:
    if not key.isascii() or not key.isprintable():
        raise Refused("--idempotency-key must consist of printable ASCII characters")
    return key.replace("\\", "\\\\").replace('"', '\\"')
