"""The way to the API: where the token goes, what is asked again, and what is said of an address that is no API."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from runclaim import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Answer = tuple[int, dict[str, str], str]
TOKEN = "canary-77ab"
RUN_ID = "01a1ff2d-bb47-71c7-ae3a-fff5e236b971"
RUN = {"id": RUN_ID, "state": "canceled", "phase": "plan", "phases": [], "cancel_requested": True}


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

            do_POST = do_GET  # noqa: N815 - http.server's name

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


def ask(url: str, *words: str) -> Result:
    environment = {
        "RUNCLAIM_API_URL": url,
        "RUNCLAIM_TOKEN": TOKEN,
        "RUNCLAIM_DATABASE_URL": None,
        "RUNCLAIM_APP": None,
    }
    told = CliRunner().invoke(cli.command, words, env=environment, prog_name="runclaim")
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
    assert f"set RUNCLAIM_API_URL to where {thief.url}/v1/runs is" in told.stderr


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
        (problem(401), 5, "what 401 means. RUNCLAIM_TOKEN is where a token goes"),
        (problem(403), 5, "what 403 means"),
        (problem(404), 3, "what 404 means"),
        (problem(409), 4, "what 409 means"),
        (problem(422), 4, "what 422 means"),
        (problem(422, "unknown-flow"), 3, "what 422 means"),
        (problem(429, Retry_After="7"), 4, "what 429 means (try again in 7 s)"),
        (problem(500), 1, "what 500 means"),
        (problem(503), 6, "what 503 means"),
        ((404, {}, "<html>nginx</html>"), 6, "answers 404 and is no runclaim API: check RUNCLAIM_API_URL"),
        ((200, {}, "<html>login</html>"), 6, "answers 200 and is no runclaim API: check RUNCLAIM_API_URL"),
        ((200, {}, "[]"), 6, "answers 200 and is no runclaim API: check RUNCLAIM_API_URL"),
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

    assert "goes to http://10.0.0.1:8400 unencrypted" in ask("http://10.0.0.1:8400", "runs", "list").stderr
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
    told = CliRunner().invoke(cli.command, ["runs", "list", "--remote"], env=environment)

    assert 0 == told.exit_code, told.output
    assert f"Bearer {TOKEN}" == api.asked[0][1]["Authorization"]
