"""The way to the API: where the token goes, what is asked again, and what is said of an address that is no API."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import cli
from tests.harness.command_line import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

Answer = tuple[int, dict[str, str], str]
TOKEN = "canary-77ab"
RUN_ID = "01a1ff2d-bb47-71c7-ae3a-fff5e236b971"
RUN = {
    "id": RUN_ID,
    "project": "default",
    "flow": "review",
    "key": "acme/app:pr-7",
    "rerun": 0,
    "subject": None,
    "state": "canceled",
    "phase": "plan",
    "phases": [{"name": "plan", "status": "pending"}],
    "attempts": 0,
    "priority": 0,
    "cancel_requested": True,
    "error": None,
    "enqueued_at": "2026-11-20T09:30:00.000000Z",
    "started_at": None,
    "finished_at": "2026-11-20T09:31:00.000000Z",
    "input": {},
    "result": None,
}
EVENT = {"id": 7, "type": "run.enqueued", "phase": None, "attempt": None, "data": None, "at": RUN["enqueued_at"]}
ACTION = {
    "id": RUN_ID, "state": "planned", "kind": "comment", "run_id": RUN_ID, "phase": "plan", "attempts": 0,
    "upstream_id": None,
}  # fmt: skip


class Standin:
    """A server that gives the answers in turn, the last one for good, and keeps what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        answers_left, asked = list(answers), self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append((f"{self.command} {self.path}", dict(self.headers), body))
                status, headers, text = answers_left.pop(0) if len(answers_left) > 1 else answers_left[0]
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(text.encode()))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_CONNECT = do_GET  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(*answers: Answer) -> Iterator[Standin]:
    made = Standin(*answers)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Standin]]:
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(serving(*answers))


def ask(url: str, *words: str, **others: str) -> Result:
    environment = {
        "RUNCLAIM_API_URL": url,
        "RUNCLAIM_TOKEN": TOKEN,
        "RUNCLAIM_DATABASE_URL": None,
        "RUNCLAIM_APP": None,
    } | others
    told = runner().invoke(cli.command, words, env=environment, prog_name="runclaim")
    assert TOKEN not in told.output
    return told


def problem(status: int, code: str = "x", **headers: str) -> Answer:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, said, json.dumps({"code": code, "detail": f"what {status} means"})


def test_a_token_is_not_carried_to_where_a_redirect_points(serve: Callable[..., Standin]):
    """INVARIANT: the token goes to the address that was named. Breaks when redirects are followed."""
    thief = serve((200, {}, "{}"))
    api = serve((307, {"Location": f"{thief.url}/v1/runs"}, ""))
    told = ask(api.url, "runs", "list")

    assert [] == thief.asked
    assert f"Bearer {TOKEN}" == api.asked[0][1]["Authorization"]
    assert 4 == told.exit_code
    assert f"redirects to {thief.url}/v1/runs; set RUNCLAIM_API_URL to the new address" in told.stderr


def test_a_change_is_asked_again_under_the_same_key_while_the_api_is_busy(serve: Callable[..., Standin]):
    api = serve(problem(503), problem(503), (202, {}, json.dumps(RUN)))
    told = ask(api.url, "runs", "cancel", RUN_ID, "--yes")

    assert (0, f"{RUN_ID}\tcanceled\n") == (told.exit_code, told.stdout)
    assert [f"POST /v1/runs/{RUN_ID}:cancel"] * 3 == [line for line, _, _ in api.asked]
    assert 1 == len({headers["Idempotency-Key"] for _, headers, _ in api.asked})


@pytest.mark.parametrize(
    "answer, code, said",
    [
        (problem(400), 4, "what 400 means"),
        (problem(401), 5, "what 401 means; set RUNCLAIM_TOKEN to a valid token"),
        (problem(403), 5, "what 403 means"),
        (problem(404), 3, "what 404 means"),
        (problem(409), 4, "what 409 means"),
        (problem(422), 4, "what 422 means"),
        (problem(422, "unknown-flow"), 3, "what 422 means"),
        (problem(429, Retry_After="7"), 4, "what 429 means (try again in 7 s)"),
        (problem(500), 1, "what 500 means"),
        (problem(503), 6, "what 503 means"),
        ((404, {}, "<html>nginx</html>"), 6, "is not a runclaim API (it answered 404); check RUNCLAIM_API_URL"),
        ((200, {}, "<html>login</html>"), 6, "is not a runclaim API (it answered 200); check RUNCLAIM_API_URL"),
        ((200, {}, "[]"), 6, "is not a runclaim API (it answered 200); check RUNCLAIM_API_URL"),
        ((200, {"Content-Length": "100"}, "{}"), 6, "does not answer"),
    ],
)
def test_each_answer_has_its_exit_code(serve: Callable[..., Standin], answer: Answer, code: int, said: str):
    told = ask(serve(answer).url, "runs", "status", RUN_ID)

    assert (code, "") == (told.exit_code, told.stdout)
    assert said in told.stderr
    assert "Traceback" not in told.output


def test_a_token_that_could_be_read_on_its_way_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runclaim.cli.http.Api.ask", lambda *_, **__: (200, {"runs": [], "next_page_token": ""}))

    assert "the token is sent to http://10.0.0.1:8400 unencrypted" in ask("http://10.0.0.1:8400", "runs", "list").stderr
    assert "unencrypted" not in ask("http://localhost:8400", "runs", "list").stderr
    assert "unencrypted" not in ask("https://10.0.0.1", "runs", "list").stderr


def test_of_several_runs_none_is_asked_for_after_the_api_has_gone():
    told = ask("http://127.0.0.1:1", "runs", "retry", RUN_ID, RUN_ID)

    assert 6 == told.exit_code
    assert 1 == told.stderr.count("does not answer")


def test_a_token_may_stand_in_a_file(serve: Callable[..., Standin], tmp_path: Path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    api = serve((200, {}, json.dumps({"runs": [], "next_page_token": ""})))
    environment = {"RUNCLAIM_API_URL": api.url, "RUNCLAIM_TOKEN": None, "RUNCLAIM_TOKEN_FILE": str(tmp_path / "token")}
    told = runner().invoke(cli.command, ["runs", "list", "--remote"], env=environment)

    assert 0 == told.exit_code, told.output
    assert f"Bearer {TOKEN}" == api.asked[0][1]["Authorization"]


def ok(value: Any) -> Answer:
    return 200, {}, json.dumps(value)


def streamed(*lines: str) -> Answer:
    return 200, {"Content-Type": "text/event-stream"}, "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    "token",
    [f"rc_{TOKEN}\rx", f"{TOKEN}\n{TOKEN}", f"{TOKEN} x", f"{TOKEN}€", f"{TOKEN}\x7f", f"Bearer {TOKEN}", f"={TOKEN}"],
)
def test_a_token_that_is_none_is_refused_and_not_repeated(serve: Callable[..., Standin], token: str):
    """INVARIANT: no token reaches a log of CI. Breaks when a header's value is checked by the HTTP library alone."""
    api = serve(ok({"runs": [], "next_page_token": ""}))
    told = ask(api.url, "runs", "list", RUNCLAIM_TOKEN=token)

    assert 1 == told.exit_code
    assert "RUNCLAIM_TOKEN is not a valid token: set it to what `runclaim token create` printed" in told.stderr
    assert None is told.exception or isinstance(told.exception, SystemExit)
    assert [] == api.asked


@pytest.mark.parametrize("around", ["{}\r", "{}\n", "\t{}\r\n", " {} "])
def test_white_space_around_a_token_is_not_sent(serve: Callable[..., Standin], around: str):
    api = serve(ok({"runs": [], "next_page_token": ""}))
    told = ask(api.url, "runs", "list", RUNCLAIM_TOKEN=around.format(TOKEN))

    assert 0 == told.exit_code, told.output
    assert f"Bearer {TOKEN}" == api.asked[0][1]["Authorization"]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:canary-pw@example.com", "https://canary-pw@example.com", "http://[::1", "http://example.com:99999",
        "http://example.com:x", "http://:80", "ftp://example.com", "example.com", "http://exämple.com", "http://a b",
        "http://example.com/?canary-pw", "http://example.com/#canary-pw", "http://example.com\r\nx: y", "http://",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_not_repeated(url: str):
    told = ask(url, "runs", "list")

    assert 1 == told.exit_code, told.output
    assert "RUNCLAIM_API_URL" in told.stderr
    assert "write https://host or http://host:port" in told.stderr
    assert "canary-pw" not in told.output


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_does_not_see_what_is_not_encrypted(serve: Callable[..., Standin], variable: str):
    """INVARIANT: the token goes to the address that was named. Breaks when an http:// request asks a proxy."""
    proxy = serve(ok({"runs": [], "next_page_token": ""}))
    api = serve(ok({"runs": [], "next_page_token": ""}))
    told = ask(api.url, "runs", "list", **{variable: proxy.url})

    assert 0 == told.exit_code, told.output
    assert [] == proxy.asked
    assert 1 == len(api.asked)


def test_a_proxy_is_asked_for_a_tunnel_where_the_request_is_encrypted(serve: Callable[..., Standin]):
    proxy = serve((403, {}, ""))
    told = ask("https://runs.example:8443", "runs", "list", https_proxy=proxy.url)

    assert 6 == told.exit_code, told.output
    assert {"CONNECT runs.example:8443"} == {line for line, _, _ in proxy.asked}
    assert all("Authorization" not in headers for _, headers, _ in proxy.asked)


_HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\r\u2028"


def _poisoned(value: Any) -> Any:
    """The same answer with steering characters in each of its texts, but for those that are times."""
    if isinstance(value, dict):
        return {name: _poisoned(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_poisoned(part) for part in value]
    return value + _HOSTILE if isinstance(value, str) and not value.startswith("2026-") else value


FAILED = RUN | {"state": "failed", "error": {"type": "ValueError", "message": "no"}}


@pytest.mark.parametrize("on_a_terminal", [True, False])
@pytest.mark.parametrize(
    "words, answers",
    [
        (["runs", "status", RUN_ID], [ok(_poisoned(FAILED))]),
        (["runs", "list"], [ok({"runs": [_poisoned(FAILED)], "next_page_token": ""})]),
        (["runs", "cancel", RUN_ID, "--yes"], [ok(_poisoned(RUN))]),
        (["runs", "rerun", RUN_ID], [ok(_poisoned(RUN))]),
        (["runs", "enqueue", "review"], [ok(_poisoned(RUN))]),
        (["runs", "tail", RUN_ID], [
            streamed("id: 7", f"data: {json.dumps(_poisoned(EVENT))}", ""), ok(FAILED), ok(_poisoned(FAILED))
        ]),
        (["runs", "enqueue", "review", "--wait"], [ok(RUN), ok(FAILED), ok(_poisoned(FAILED))]),
        (["actions", "list"], [ok({"actions": [_poisoned(ACTION)], "next_page_token": ""})]),
        (["actions", "retry", RUN_ID], [ok(_poisoned(ACTION))]),
        (["runs", "list"], [(403, {}, json.dumps({"code": "x", "detail": f"no{_HOSTILE}"}))]),
        (["runs", "list"], [(302, {"Location": "http://x/\x9b31m"}, "")]),
    ],
)  # fmt: skip
def test_no_answer_steers_the_terminal(
    serve: Callable[..., Standin], monkeypatch: pytest.MonkeyPatch, words: list[str], answers: list[Answer], *,
    on_a_terminal: bool,
):  # fmt: skip
    """INVARIANT: what somebody else's API answers is text. Breaks for each field that is printed as it came."""
    monkeypatch.setattr("runclaim.cli.terminal.is_terminal", lambda: on_a_terminal)
    monkeypatch.setattr("runclaim.cli.runs.render.is_terminal", lambda: on_a_terminal)
    monkeypatch.setattr("runclaim.cli.runs.tail.is_terminal", lambda: on_a_terminal)
    monkeypatch.setattr("runclaim.cli.runs.read.is_terminal", lambda: on_a_terminal)
    told = ask(serve(*answers).url, *words)

    assert isinstance(told.exception, SystemExit | None), told.exception
    assert "" != told.stdout + told.stderr
    assert set() == set(told.stdout + told.stderr) & set("\x1b\x07\x9b\u202e\r\u2028"), ascii(told.output)


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RUN.items() if key != name}


@pytest.mark.parametrize(
    "words, answer",
    [
        *[(["runs", "status", RUN_ID], ok(_without(name))) for name in RUN],
        *[(["runs", "status", RUN_ID], ok(RUN | {name: [1]})) for name in RUN if name not in {"input", "result"}],
        (["runs", "status", RUN_ID], ok(RUN | {"enqueued_at": "yesterday"})),
        (["runs", "list"], ok({"runs": [1], "next_page_token": ""})),
        (["runs", "list"], ok({"runs": {}, "next_page_token": ""})),
        (["runs", "list"], ok({"runs": []})),
        (["runs", "list"], ok({"runs": [], "next_page_token": 7})),
        (["runs", "list"], (200, {}, "[" * 100_000)),
        (["runs", "cancel", RUN_ID, "--yes"], ok({})),
        (["runs", "enqueue", "review"], ok({"id": 7})),
        (["runs", "tail", RUN_ID], streamed("id: 7", "data: no JSON", "")),
        (["runs", "tail", RUN_ID], streamed("id: 7", "data: [1]", "")),
        (["runs", "tail", RUN_ID], streamed("id: 7", 'data: {"type": 7}', "")),
        (["runs", "tail", RUN_ID], streamed("id: 7\rx: y", f"data: {json.dumps(EVENT)}", "")),
        (["actions", "list"], ok({"actions": [ACTION | {"attempts": "many"}], "next_page_token": ""})),
        (["actions", "resolve", RUN_ID, "--never"], ok({"id": RUN_ID})),
    ],
)
def test_an_answer_that_is_not_the_apis_is_said_to_be_none(
    serve: Callable[..., Standin], monkeypatch: pytest.MonkeyPatch, words: list[str], answer: Answer
):
    monkeypatch.setattr("runclaim.cli.remote._RECONNECTS", 0)
    told = ask(serve(answer).url, *words)

    assert isinstance(told.exception, SystemExit), told.exception
    assert (6, "") == (told.exit_code, told.stdout)
    assert "not a runclaim API" in told.stderr
