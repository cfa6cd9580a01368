"""The ledger goes away, clients go away, and secrets stay where they are."""

from __future__ import annotations

import http.client
import io
import json
import logging
import socket
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from runclaim.api import __main__ as serving
from runclaim.api.server import Server
from runclaim.config import Config
from runclaim.errors import ConfigError
from runclaim.ledger.doors import tokens
from tests.api.conftest import INPUT, WANTED, Office
from tests.harness import until
from tests.servers import database

CANARY = "canary-5d41402abc4b2a76"


@pytest.fixture
def fragile(private_postgres):
    """An office whose PostgreSQL is its own, to be stopped."""
    made = Office(private_postgres.url)
    with made.served:
        yield made
    made.close()


def count(office, table):
    """Over a connection that outlived no server."""
    asked = text(f"SELECT COUNT(*) FROM {table}")
    return office.bench.database.ask(lambda conn: conn.execute(asked).scalar_one())


ASKED = [
    ("GET", "/v1/runs", None),
    ("POST", "/v1/runs", WANTED),
    ("GET", "/v1/flows", None),
    ("POST", "/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"}),
]


def test_a_ledger_that_is_away_is_told_with_when_to_try_again_and_nothing_is_half_done(fragile, private_postgres):
    """
    INVARIANT: 503 means that nothing was done.

    Breaks if a handler writes in more than one transaction, or answers from what it has not committed.
    """
    made = fragile.enqueued(1)
    private_postgres.stop(immediate=True)
    asked = [*ASKED, ("GET", f"/v1/runs/{made['id']}", None), ("POST", f"/v1/runs/{made['id']}:cancel", None)]
    refused = [fragile.client.ask(method, path, body, idempotency_key="k") for method, path, body in asked]
    lives, is_ready = fragile.client.get("/livez"), fragile.client.get("/readyz")
    private_postgres.start()

    assert [(503, "ledger-unavailable", "2")] * 6 == [
        (answer.status, answer.code, answer.headers["retry-after"]) for answer in refused
    ]
    assert (200, 503, "2") == (lives.status, is_ready.status, is_ready.headers["retry-after"])
    assert "5432" not in refused[0].body.decode()
    until(lambda: fragile.client.get("/readyz").status == 200, "the ledger")
    assert [made["id"]] == [run["id"] for run in fragile.client.get("/v1/runs").json["runs"]]
    assert 0 == count(fragile, "runclaim_answers")
    assert 201 == fragile.client.post("/v1/runs", WANTED, idempotency_key="k").status


def test_a_ledger_that_is_stopped_while_many_ask_makes_each_run_whole_or_not_at_all(fragile, private_postgres):
    answers = {}

    def send(number):
        body = WANTED | {"input": INPUT | {"number": number}}
        answers[number] = fragile.client.post("/v1/runs", body, idempotency_key=f"k{number}")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(40)]
    for number, thread in enumerate(threads):
        thread.start()
        if number == 20:
            private_postgres.restart(immediate=True)
    [thread.join(60) for thread in threads]
    until(lambda: fragile.client.get("/readyz").status == 200, "the ledger")

    assert {answer.status for answer in answers.values()} <= {201, 503}
    # Whoever was told 503 asks again with the same key; whoever was told 201 gets that answer again.
    for number, first in answers.items():
        body = WANTED | {"input": INPUT | {"number": number}}
        again = fragile.client.post("/v1/runs", body, idempotency_key=f"k{number}")
        assert 201 == again.status
        assert 503 == first.status or first.body == again.body
    assert (40, 40) == (count(fragile, "runclaim_runs"), count(fragile, "runclaim_answers"))


def test_a_stream_ends_with_the_ledger_and_goes_on_where_it_was(fragile, private_postgres):
    made = fragile.enqueued(1)
    path = f"/v1/runs/{made['id']}/events"
    with fragile.client.stream(path) as events:
        first = next(events)
        private_postgres.stop(immediate=True)
        rest = list(events)
    private_postgres.start()
    until(lambda: fragile.client.get("/readyz").status == 200, "the ledger")
    fragile.client.post(f"/v1/runs/{made['id']}:cancel")
    with fragile.client.stream(path, last_event_id=first["id"]) as events:
        told = [event["event"] for event in events]

    assert ("run.enqueued", [], ["run.canceled", "end"]) == (first["event"], rest, told)


@pytest.mark.parametrize("cut", [0, 1, 20, 60, 120, 150, 180, None])
def test_a_client_that_disconnects_anywhere_leaves_a_whole_run_or_none(desk_office, cut):
    """
    INVARIANT: who hung up and asks again with its key gets the run that there is.

    Breaks if a request is worked on by halves, or its key is held by nobody for ever.
    """
    body = json.dumps(WANTED).encode()
    head = (
        f"POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {desk_office.token}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    whole = head + body
    with socket.create_connection(("127.0.0.1", desk_office.port), timeout=10) as raw:
        raw.sendall(whole if cut is None else whole[: len(head) - 150 + cut])
    answer = until(
        lambda: (found := desk_office.client.post("/v1/runs", WANTED, idempotency_key="k")).status == 201 and found,
        "an answer",
    )

    assert 1 == desk_office.bench.count("runclaim_runs")
    assert answer.json["id"] == desk_office.client.post("/v1/runs", WANTED, idempotency_key="k").json["id"]


def test_a_client_that_stops_waiting_is_not_waited_for(desk_office):
    made = desk_office.enqueued()
    connection = http.client.HTTPConnection("127.0.0.1", desk_office.port, timeout=10)
    headers = {"Authorization": f"Bearer {desk_office.token}", "Prefer": "wait=30"}
    connection.request("GET", f"/v1/runs/{made['id']}", headers=headers)
    connection.close()

    assert 200 == desk_office.client.get("/v1/runs").status


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])
def test_no_address_but_our_own_is_listened_on_without_a_token(sqlite_url, host):
    """
    INVARIANT: nobody else reaches an API that could not tell who asks.

    Breaks if the address is looked at by its text, or an expired token counts as one.
    """
    service = Server(Config(database_url=sqlite_url))
    serving.require_safe(service, "127.0.0.1")
    with pytest.raises(ConfigError, match="token create"):
        serving.require_safe(service, host)
    service.database.run(
        lambda conn: tokens.create(conn, name="x", scopes=[tokens.Scope.ADMIN], projects=["default"], lasts=None)
    )
    serving.require_safe(service, host)
    service.database.run(lambda conn: conn.execute(text("UPDATE runclaim_tokens SET revoked_at = created_at")))
    with pytest.raises(ConfigError, match="token create"):
        serving.require_safe(service, host)
    service.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_our_own_addresses_need_no_token_to_be_listened_on(sqlite_url, host):
    service = Server(Config(database_url=sqlite_url))

    serving.require_safe(service, host)
    service.close()


def test_no_secret_is_in_any_answer_log_or_row(postgres_server, caplog):
    """
    INVARIANT: what was secret when it came in is nowhere when it goes out.

    Breaks if an error shows its statement's parameters, a refusal repeats what was sent, or a token is written.
    """
    caplog.set_level(logging.DEBUG)
    spoken = io.StringIO()
    with database(postgres_server) as url:
        office = Office(url)
        with office.served:
            told = everything(office)
            with office.bench.database.read() as conn:
                asked = text("SELECT tablename FROM pg_tables WHERE tablename LIKE 'runclaim_%'")
                tables = conn.execute(asked).scalars().all()
                rows = [str(tuple(row)) for table in tables for row in conn.execute(text(f"SELECT * FROM {table}"))]
        office.close()
    spoken.write("\n".join(record.getMessage() + str(record.exc_text) for record in caplog.records))
    secret = office.token.split("_")[2]
    hidden = "ghp_" + "a1B2" * 9

    assert [] == [answer for answer in told if secret in answer or CANARY in answer or hidden in answer]
    assert [] == [row for row in rows if secret in row or CANARY in row or hidden in row]
    assert secret not in spoken.getvalue()
    assert CANARY not in spoken.getvalue()
    assert hidden not in spoken.getvalue()


def everything(office):
    """What the API says when it is asked with secrets in every place."""
    hidden = "ghp_" + "a1B2" * 9
    stranger = office.served.client(f"rc_{'0' * 12}_{CANARY}")
    made = office.client.post("/v1/runs", WANTED).json
    job = office.client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"}).json
    office.served.server.database.run(lambda conn: conn.exec_driver_sql("SELECT 1"))
    answers = [
        stranger.get("/v1/runs"),
        office.client.get("/v1/runs", authorization=f"Basic {CANARY}"),
        office.client.post("/v1/runs", WANTED | {"input": INPUT | {"number": 10, "head": hidden}}),
        office.client.post("/v1/runs", WANTED | {"input": INPUT | {"number": 9}, "subject": hidden}),
        office.client.post("/v1/runs", b'{"flow": "' + CANARY.encode(), content_type="application/json"),
        office.client.post("/v1/runs", WANTED, idempotency_key=f"{CANARY} with a blank"),
        office.client.post(
            f"/v1/runs/{job['id']}:fail",
            {"claim": job["claim"], "error": {"type": "E", "message": f"login with {hidden} failed"}},
        ),
        office.client.get(f"/v1/runs/{made['id']}"),
        office.client.get(f"/v1/runs/{made['id']}/events", accept="application/json"),
        office.client.get("/v1/runs"),
    ]
    return [f"{answer.status} {answer.headers} {answer.body.decode()}" for answer in answers]


def test_a_ledger_that_only_reads_answers_whoever_reads(postgres_url: str):
    """
    INVARIANT: a token may be used where its use cannot be written down, as on a replica.

    Breaks if an error of noting the use is an error of the request.
    """
    made = Office(postgres_url)
    name = make_url(postgres_url).database
    made.bench.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with made.served:
        read, written = made.client.get("/v1/runs"), made.client.post("/v1/runs", WANTED)
    made.bench.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
    made.close()

    assert 200 == read.status, read
    assert 503 == written.status, written
