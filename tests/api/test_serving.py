"""How the API is served: what its command makes of its arguments, and what the server is told."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from fastapi import FastAPI

from runclaim.api import __main__ as serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Iterator[Callable[..., uvicorn.Config]]:
    """Run the command with these arguments; gives what its server was told, which ends at once."""
    servers: list[uvicorn.Server] = []

    def run(server: uvicorn.Server) -> None:
        servers.append(server)
        server.started = True

    def start(*arguments: str) -> uvicorn.Config:
        monkeypatch.setattr(sys, "argv", ["runclaim.api", "--url", sqlite_url, *arguments])
        serving.main()
        return servers[-1].config

    monkeypatch.setattr(uvicorn.Server, "run", run)
    # The test's own process keeps its signals.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    yield start
    for server in servers:
        made: Any = server.config.app
        made.state.server.close()


def test_the_command_listens_where_its_arguments_say(started: Callable[..., uvicorn.Config], capsys):
    """
    INVARIANT: the address that was checked and printed is the one that is listened on.

    Breaks if the host is lost on the way to the server, whose default hides that.
    """
    told = started("--host", "::1", "--port", "8401")

    assert ("::1", 8401) == (told.host, told.port)
    assert "API on http://[::1]:8401, " in capsys.readouterr().err


def test_the_command_listens_on_this_machine_alone_unless_it_is_told(started: Callable[..., uvicorn.Config]):
    told = started()

    assert ("127.0.0.1", 8400, "", False, []) == (
        told.host, told.port, told.root_path, told.proxy_headers, told.forwarded_allow_ips
    )  # fmt: skip


def test_the_command_hands_on_the_prefix_and_the_proxies(started: Callable[..., uvicorn.Config]):
    told = started("--root-path", "/claims/", "--trust-proxy", "192.0.2.1", "--trust-proxy", "192.0.2.2")

    assert ("/claims", True, ["192.0.2.1", "192.0.2.2"]) == (
        told.root_path, told.proxy_headers, told.forwarded_allow_ips
    )  # fmt: skip


def test_an_address_that_strangers_reach_is_refused_in_words(started: Callable[..., uvicorn.Config]):
    with pytest.raises(SystemExit, match=r"^runclaim: 0\.0\.0\.0 can be reached from other machines"):
        started("--host", "0.0.0.0")


def test_the_server_tells_nothing_of_itself_and_writes_no_line_of_its_own():
    """
    INVARIANT: an answer names no software, and the gate alone writes a line for a request, without its query.

    Breaks if a setting is left to the server's default.
    """
    told = serving.settings(FastAPI(), root_path="/claims/", host="192.0.2.7", port=8401)

    assert (False, False, "none") == (told.server_header, told.access_log, told.ws)
    assert ("/claims", "192.0.2.7", 8401) == (told.root_path, told.host, told.port)
    assert (64 * 1024, 5) == (told.h11_max_incomplete_event_size, told.timeout_graceful_shutdown)
