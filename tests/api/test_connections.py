"""Connections: what strangers may hold open, and for how long."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

from runclaim.api import bodies as strict
from runclaim.api.bodies import Buffers
from runclaim.api.connections import BoundedConnection, _Chunked
from runclaim.api.origins import origin
from runclaim.api.problems import Problem
from tests.api.conftest import WANTED, Office
from tests.harness import until

HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


def connected(office, sent=b""):
    raw = socket.create_connection(("127.0.0.1", office.port), timeout=20)
    raw.sendall(sent)
    return raw


def is_closed(raw):
    try:
        return raw.recv(1) == b""
    except ConnectionError:
        return True


def answer(office, head, body=b""):
    with connected(office, head + body) as raw:
        return raw.recv(65_536)


@pytest.mark.parametrize("sent", [b"", HALF, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + HALF])
def test_who_sends_no_whole_head_is_let_go(desk_office, monkeypatch, sent):
    """
    INVARIANT: silence holds no connection, whether nothing, half a head, or half of the next one was sent.

    Breaks if the clock does not start with the connection, or any byte stops it.
    """
    monkeypatch.setattr(BoundedConnection, "head_seconds", 0.3)
    with connected(desk_office, sent) as raw:
        until(lambda: is_closed(raw), "the end of the connection")

    assert 200 == desk_office.client.get("/livez").status


def test_silent_connections_shut_nobody_out(desk_office, monkeypatch):
    """
    INVARIANT: who asks is answered, however many connections say nothing.

    Breaks if connections are refused when there are many, in place of the silent ones being let go.
    """
    monkeypatch.setattr(BoundedConnection, "most", 20)
    # Nobody is let go because it is slow.
    monkeypatch.setattr(BoundedConnection, "head_seconds", 3600.0)
    with ExitStack() as silent:
        held = [silent.enter_context(connected(desk_office, HALF)) for _ in range(40)]
        answers = [desk_office.client.get(path).status for path in ("/livez", "/v1/runs", "/livez")]
        until(lambda: is_closed(held[0]), "the end of the one that was silent first")

    assert [200, 200, 200] == answers


def test_one_connection_too_many_costs_the_one_that_has_been_silent_longest(desk_office, monkeypatch):
    """
    INVARIANT: the bound is how many connections there are, and one more costs one.

    Breaks if the bound is exceeded by one, or more than one connection is let go for it.
    """
    monkeypatch.setattr(BoundedConnection, "most", 5)
    # Nobody is let go because it is slow.
    monkeypatch.setattr(BoundedConnection, "head_seconds", 3600.0)
    with ExitStack() as silent:
        first, second, *_ = [silent.enter_context(connected(desk_office, HALF)) for _ in range(6)]
        first.settimeout(5)
        is_first_closed = is_closed(first)
        second.sendall(b"\r\n")
        told = second.recv(65_536)

    assert is_first_closed
    assert told.startswith(b"HTTP/1.1 200 ")


def test_an_address_has_a_share_of_the_connections_and_a_proxy_that_is_trusted_has_none(sqlite_url, monkeypatch):
    monkeypatch.setattr(BoundedConnection, "most_of_origin", 5)
    # Nobody is let go because it is slow.
    monkeypatch.setattr(BoundedConnection, "head_seconds", 3600.0)
    office = Office(sqlite_url)
    with office.served, ExitStack() as held:
        for _ in range(5):
            held.enter_context(connected(office, HALF))
        with connected(office, HALF) as raw:
            until(lambda: is_closed(raw), "the end of the sixth")
    office.close()
    monkeypatch.setattr(BoundedConnection, "trusted", frozenset({"127.0.0.1"}))
    office = Office(sqlite_url.replace(".db", "-2.db"), trusts=["127.0.0.1"])
    with office.served, ExitStack() as held:
        for _ in range(10):
            held.enter_context(connected(office, HALF))
        statuses = {office.client.get("/livez").status}
    office.close()

    assert {200} == statuses


def test_a_body_of_ever_so_many_chunks_is_refused(desk_office):
    start = f"POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {desk_office.token}\r\n"
    start += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(desk_office, start.encode()) as raw:
        try:
            for _ in range(20):
                raw.sendall(b"1\r\nx\r\n" * 1000)
        except OSError:
            pass  # it has been told enough
        until(lambda: is_closed(raw), "the end of the connection")

    assert 200 == desk_office.client.get("/livez").status


def test_the_chunks_of_one_body_are_not_those_of_the_next(desk_office, monkeypatch):
    """
    INVARIANT: a connection may carry as many requests as it likes, each within its own bounds.

    Breaks if the chunks of a connection are counted, and not those of a body.
    """
    monkeypatch.setattr(_Chunked, "most_chunks", 10)
    told = {"Authorization": f"Bearer {desk_office.token}", "Content-Type": "application/json"}
    body = json.dumps(WANTED).encode()
    with closing(HTTPConnection("127.0.0.1", desk_office.port, timeout=30)) as connection:
        statuses = []
        for _ in range(3):
            connection.request("POST", "/v1/runs", iter([body, *[b" "] * 7]), told, encode_chunked=True)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)

    assert [201, 200, 200] == statuses


def test_a_body_with_two_lengths_is_refused_and_its_connection_closed(desk_office):
    """RFC 9112, 6.1: what the next program on the way reads as another request."""
    told = answer(
        desk_office,
        b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )

    assert told.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in told.lower()


@pytest.mark.parametrize(
    "path,header,status",
    [
        ("/v1/runs", "", 401),
        ("/v1/runs", f"Authorization: Bearer rc_{'0' * 12}_{'0' * 64}\r\n", 401),
        ("/v1/runs/nowhere", "", 404),
        ("/v1/webhooks/nobody", "", 404),
    ],
)
def test_nothing_is_read_of_who_is_refused_anyway(desk_office, path, header, status):
    """
    INVARIANT: a stranger is answered before his body comes.

    Breaks if bodies are read in front of the routes.
    """
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Type: application/json\r\nContent-Length: 300000\r\n\r\n"
    )

    assert answer(desk_office, head.encode()).startswith(f"HTTP/1.1 {status} ".encode())


def test_unfinished_bodies_have_room_and_no_more(desk_office):
    desk_office.served.server.buffers.most = 1000
    refused = desk_office.client.post("/v1/runs", {"flow": "review", "input": {"head": "x" * 2000}})

    assert (503, "busy", 0) == (refused.status, refused.code, desk_office.served.server.buffers.held)
    assert 422 == desk_office.client.post("/v1/runs", {"flow": "review", "input": {}}).status


def test_a_body_that_fills_the_room_is_held_and_one_byte_more_is_not():
    buffers = Buffers(most=1000)
    buffers.add(1000)
    with pytest.raises(Problem) as refused:
        buffers.add(1)

    assert "busy" == refused.value.code


def test_a_server_ships_with_the_bounds_that_the_page_on_deploying_names():
    """
    INVARIANT: docs/deploy.md is true of a server that nobody has configured.

    Breaks if a bound grows: every other test here sets the bound that it needs.
    """
    assert (10.0, 1000, 250) == (
        BoundedConnection.head_seconds,
        BoundedConnection.most,
        BoundedConnection.most_of_origin,
    )
    assert (20.0, 8192, 64 * 1024 * 1024) == (strict._BODY_SECONDS, _Chunked.most_chunks, Buffers().most)


@pytest.mark.parametrize(
    "host,counted",
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("\x9b31m", "?"),
        ("", "?"),
        (None, "?"),
    ],
)
def test_whose_limits_count_is_an_address_or_a_network(host, counted):
    assert counted == origin(host)


@pytest.mark.parametrize("trusts,statuses", [([], {429}), (["127.0.0.1"], {401})])
def test_an_address_of_a_header_counts_only_from_a_proxy_that_is_trusted(sqlite_url, trusts, statuses):
    """
    INVARIANT: nobody guesses on by naming another address.

    Breaks if the server believes X-Forwarded-For of everybody, as it does by default on one machine.
    """
    office = Office(sqlite_url, trusts=trusts)
    with office.served:
        stranger = office.served.client(f"rc_{'0' * 12}_{'0' * 64}")
        for number in range(60):
            stranger.get("/v1/runs", x_forwarded_for=f"192.0.2.{number}")
        found = {stranger.get("/v1/runs", x_forwarded_for="192.0.2.200").status}
    office.close()

    assert statuses == found


def test_who_only_guesses_costs_the_ledger_nothing(desk_office, monkeypatch):
    """
    INVARIANT: after sixty wrong tokens the ledger is asked for none of them, and a right one still opens the door.

    Breaks if the count is looked at after the question.
    """
    service, asked = desk_office.served.server, []
    stranger = desk_office.served.client(f"rc_{'0' * 12}_{'0' * 64}")
    [stranger.get("/v1/runs") for _ in range(61)]
    real = service.ask
    monkeypatch.setattr(service, "ask", lambda question: asked.append(1) or real(question))
    refused = [stranger.get("/v1/runs").status for _ in range(5)]
    costs = len(asked)

    assert ([429] * 5, 0) == (refused, costs)
    assert 200 == desk_office.client.get("/v1/runs").status
