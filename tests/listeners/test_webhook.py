"""Webhooks out: signed CloudEvents to real servers, in order and again, and to no address that is not public."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from runclaim import Runclaim
from runclaim.errors import ConfigError, GiveUp, Retry, SecretUnavailable, SignatureRefused
from runclaim.listeners import http_post as posting
from runclaim.listeners import webhook as outgoing
from runclaim.listeners.addresses import AddressRefused, Target
from runclaim.listeners.cloudevents import body, cloudevent
from runclaim.listeners.http_post import post
from runclaim.listeners.listener import Event, Listener
from runclaim.listeners.webhook import NotTaken, Outgoing
from runclaim.signatures import check_standard, sign_standard
from tests.harness.bench import NO_WAIT, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()
RUN = "019a5c1e-0000-7000-8000-000000000001"
EVENT = Event(
    id=f"{RUN}-7",
    type="run.failed",
    run_id=RUN,
    project="default",
    flow="review",
    key="acme/app:pr-7",
    subject="acme/app:pr-7",
    phase="plan",
    attempt=3,
    data={"type": "ValueError", "message": "no"},
    at=datetime(2026, 5, 1, 12, 0, 0, 5, tzinfo=UTC),
    trace_context={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
)


class Received:
    """What a server of the tests was sent, and what it answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status: Any = lambda: 204
        self.headers: dict[str, str] = {}
        self.url = ""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            received.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, sent))
            self.send_response(received.status())
            for name, value in received.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    received.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}/hooks?team=core"
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Received]:
    with serving() as received:
        yield received


def internal(server: Received, secret: Any = lambda: SECRET) -> Outgoing:
    return Outgoing(server.url, secrets=secret, is_internal=True)


def test_an_event_arrives_as_a_cloudevent_that_the_reference_library_reads(server: Received):
    internal(server).send(EVENT)
    ((path, headers, sent),) = server.requests
    read = from_http_event(HTTPMessage(headers=headers, body=sent))

    assert "/hooks?team=core" == path
    assert "application/cloudevents+json; charset=utf-8" == headers["content-type"]
    assert (EVENT.id, "1.0", "/runclaim/default", "runclaim.run.failed.v1", RUN) == (
        read.get_id(), read.get_specversion(), read.get_source(), read.get_type(), read.get_subject()
    )  # fmt: skip
    assert EVENT.at == read.get_time()
    assert EVENT.trace_context["traceparent"] == read.get_attributes()["traceparent"]
    assert {"run", "phase", "attempt", "details"} == set(read.get_data())


def test_a_cloudevent_names_the_run_and_holds_no_input():
    told = cloudevent(EVENT)

    assert {"id": RUN, "project": "default", "flow": "review", "key": "acme/app:pr-7", "subject": "acme/app:pr-7"} == (
        told["data"]["run"]
    )
    assert "2026-05-01T12:00:00.000005Z" == told["time"]


def test_the_signature_is_one_that_a_receiver_of_standard_webhooks_accepts(server: Received):
    internal(server).send(EVENT)
    ((_, headers, sent),) = server.requests

    assert EVENT.id == check_standard(sent, headers, [SECRET]).delivery_id == headers["webhook-id"]
    with pytest.raises(SignatureRefused):
        check_standard(sent + b" ", headers, [SECRET])


def test_the_published_vector_is_signed_as_published():
    signed = sign_standard(
        b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
    )

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == signed["webhook-signature"]


def test_two_secrets_sign_twice_while_one_replaces_the_other(server: Received):
    internal(server, lambda: [SECRET, OTHER]).send(EVENT)
    ((_, headers, sent),) = server.requests

    for secret in (SECRET, OTHER):
        assert EVENT.id == check_standard(sent, headers, [secret]).delivery_id


@pytest.fixture
def runs(sqlite_url: str) -> Iterator[Runclaim]:
    made = Runclaim(Celery("hooks", set_as_current=False), database_url=sqlite_url)
    yield made
    made.close()


def test_a_secret_is_read_by_its_reference_at_each_send(
    runs: Runclaim, server: Received, monkeypatch: pytest.MonkeyPatch
):
    runs.send_events("billing", url=server.url, secret="secret:env:HOOK_SECRET", is_internal=True)
    send = runs.ledger.listeners["billing"].tell
    with pytest.raises(SecretUnavailable, match="secret:env:HOOK_SECRET"):
        send(EVENT)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    send(EVENT)
    monkeypatch.setenv("HOOK_SECRET", OTHER)
    send(EVENT)

    for (_, headers, sent), secret in zip(server.requests, (SECRET, OTHER), strict=True):
        check_standard(sent, headers, [secret])


def test_a_secret_may_come_from_a_resolver_of_the_application(runs: Runclaim, server: Received):
    runs.secret_resolver("vault")({"hooks": SECRET}.__getitem__)
    runs.send_events("billing", url=server.url, secret="secret:vault:hooks", is_internal=True)
    runs.ledger.listeners["billing"].tell(EVENT)

    ((_, headers, sent),) = server.requests
    check_standard(sent, headers, [SECRET])


def test_a_secret_that_stands_in_the_code_is_refused_and_not_repeated(runs: Runclaim):
    with pytest.raises(SecretUnavailable) as refused:
        runs.send_events("billing", url="https://example.com/", secret=SECRET)

    assert SECRET not in str(refused.value)
    assert {} == runs.ledger.listeners


def test_a_weak_secret_signs_nothing(server: Received):
    with pytest.raises(ConfigError, match="16"):
        internal(server, lambda: "whsec_" + base64.b64encode(b"short").decode()).send(EVENT)

    assert [] == server.requests


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 429, 500, 503])
def test_any_answer_but_success_is_told_again(server: Received, status: int):
    server.status, server.headers = lambda: status, {"location": server.url}
    with pytest.raises(NotTaken, match=str(status)):
        internal(server).send(EVENT)

    # And no redirect is followed, wherever it leads.
    assert 1 == len(server.requests)


def test_410_gives_up_and_retry_after_is_heard(server: Received):
    server.status = lambda: 410
    with pytest.raises(GiveUp):
        internal(server).send(EVENT)
    server.status, server.headers = lambda: 503, {"Retry-After": "120"}
    with pytest.raises(Retry) as asked:
        internal(server).send(EVENT)

    assert timedelta(minutes=2) == asked.value.after


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "https://user:pass@example.com/", "https:///x",
        "https://example.com:22/", "https://example.com:0/", "https://example.com:99999/",
        "https://example.com/\r\nx: y", "https://example.com/ x", "https://exämple.com/", "", "https://[::1/",
        f"https://{'a' * 64}.example/", "https://a..example/", "https://.example/", f"https://{'a.' * 127}example/",
    ],
)  # fmt: skip
def test_a_url_that_is_never_called_is_refused_when_it_is_declared(url: str):
    with pytest.raises(ConfigError):
        Outgoing(url, secrets=lambda: SECRET)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://127.1/",
        "https://localhost/",
        "https://[::1]/",
    ],
)
def test_every_way_to_write_loopback_is_refused(url: str):
    with pytest.raises(AddressRefused):
        Outgoing(url, secrets=lambda: SECRET).send(EVENT)


def test_a_name_that_changes_its_address_after_the_check_is_not_followed(monkeypatch: pytest.MonkeyPatch):
    """
    INVARIANT: the connection goes to an address that was checked (DNS rebinding).

    Breaks if the name itself is given to the connection: it would be resolved once more.
    """
    real, asked, called = socket.getaddrinfo, [], []

    def rebinding(host: str, *arguments: Any, **named: Any) -> Any:
        if host != "rebind.example":
            return real(host, *arguments, **named)
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    def connect(address: Any, **_: Any) -> Any:
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ConnectionRefusedError):
        Outgoing("https://rebind.example/", secrets=lambda: SECRET).send(EVENT)

    assert [("93.184.216.34", 443)] == called
    assert ["rebind.example"] == asked


def test_one_address_that_is_not_public_refuses_the_name(monkeypatch: pytest.MonkeyPatch):
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443)) for each in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)

    with pytest.raises(AddressRefused):
        Target("https://both.example/").addresses()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for hooks.example, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", ["hooks.example", "other.example"])
def test_the_certificate_has_to_be_the_names_whatever_address_it_leads_to(
    certificate: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    theirs = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    real = socket.getaddrinfo

    def here(host: str, *rest: Any, **named: Any) -> Any:
        return real("127.0.0.1" if "example" in host else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with serving(ours) as server:
        url = server.url.replace("127.0.0.1", name)
        out = Outgoing(url, secrets=lambda: SECRET, is_internal=True, tls=theirs)
        if name == "hooks.example":
            out.send(EVENT)
            assert name in server.requests[0][1]["host"]
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                out.send(EVENT)
            assert [] == server.requests


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"no http at all\r\n\r\n", b"x" * 20_000, b"HTTP/1.1 abc\r\n\r\n"]
)
def test_an_answer_that_is_none_is_a_failure(answer: bytes):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65_536)

        thread = threading.Thread(target=serve)
        thread.start()
        target = Target(f"http://127.0.0.1:{listening.getsockname()[1]}/", is_internal=True)
        with pytest.raises(OSError, match="answer"):
            post(target, b"{}", {}, seconds=5)
        thread.join(5)


def test_a_server_that_drips_bytes_is_left_at_the_deadline():
    """INVARIANT: one deadline for all of it. Breaks if each read has a time-out of its own."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while not done.wait(0.05):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        target = Target(f"http://127.0.0.1:{listening.getsockname()[1]}/", is_internal=True)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            post(target, b"{}", {}, seconds=0.5)
        took = time.monotonic() - began
        done.set()
        thread.join(5)

    assert took < 3


def test_a_server_that_says_nothing_is_left_at_the_deadline():
    """INVARIANT: silence ends at the deadline too. Breaks if a wait for the next byte has no limit."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                # Long enough for the deadline, and not for ever when there is none.
                done.wait(5)

        thread = threading.Thread(target=serve)
        thread.start()
        target = Target(f"http://127.0.0.1:{listening.getsockname()[1]}/", is_internal=True)
        with pytest.raises(TimeoutError):
            post(target, b"{}", {}, seconds=0.3)
        done.set()
        thread.join(5)


def test_no_proxy_of_the_environment_is_asked(server: Received, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    internal(server).send(EVENT)

    assert 1 == len(server.requests)


def test_the_events_of_each_run_arrive_in_order_though_the_server_fails_now_and_then(bench: Bench, server: Received):
    """
    INVARIANT: order by run, at least once, the same webhook-id at every send.

    Breaks if an event is sent while an earlier one of its run is set aside, or is signed anew with another id.
    """
    number = iter(range(10_000))
    server.status = lambda: 204 if next(number) % 3 else 500
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: 1)
    out = Listener(name="billing", types=("run.*",), flows=None, tell=internal(server).send, schedule=(NO_WAIT,) * 20)
    bench.ledger.listeners.add(out)
    bench.tell()
    runs = flow.enqueue_many([{"repo": "acme/app", "number": each} for each in range(5)])
    while bench.rung:
        bench.deliver(flow)
    for _ in range(30):
        bench.tell()

    taken: dict[str, list[str]] = {}
    for place, (_, headers, sent) in enumerate(server.requests):
        told = json.loads(sent)
        assert headers["webhook-id"] == told["id"]
        if place % 3:
            taken.setdefault(told["subject"], []).append(told["type"])
    wanted = [f"runclaim.run.{each}.v1" for each in ("enqueued", "started", "succeeded")]
    assert {run.id: wanted for run in runs} == taken
    assert 0 == bench.count("runclaim_untold")


def test_what_is_signed_is_what_is_sent(server: Received):
    internal(server).send(EVENT)

    assert body(EVENT) == server.requests[0][2]
    assert outgoing._SECONDS < 30
    assert posting._LONGEST_HEAD < 2**20
