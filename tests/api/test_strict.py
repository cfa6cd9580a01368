"""Requests that are not what they should be: sizes, depths, doubles, kinds and methods."""

from __future__ import annotations

import json
import socket
import time

import pytest

from runclaim.api import bodies as strict
from runclaim.api.error_problems import problem_of
from runclaim.api.problems import KINDS, Problem
from runclaim.errors import SignatureRefused
from tests.api.conftest import INPUT, WANTED


def post(office, body, **headers):
    return office.client.post("/v1/runs", body, **{"content_type": "application/json"} | headers)


@pytest.mark.parametrize(
    "body,words",
    [
        (b'{"flow": "review", "flow": "deploy", "input": {}}', "twice"),
        (b'{"flow": "review", "input": {"number": 1, "number": 2}}', "twice"),
        (b'{"flow": "review", "input": {"number": NaN}}', "NaN"),
        (b'{"flow": "review", "input": {"number": -Infinity}}', "-Infinity"),
        (b'{"flow": "review", "input": {"number": 1e999}}', "too large"),
        (b'{"flow": "review", "input": ' + b"[" * 33 + b"]" * 33 + b"}", "levels deep"),
        (b"[" * 100_000, "not JSON"),
        (b'{"flow": ', "not JSON"),
        (b'{"flow": "\xff"}', "not JSON"),
        (b'{"number": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"\x00", "not JSON"),
    ],
    ids=["top", "inside", "nan", "infinity", "huge", "deep", "bottomless", "cut", "latin", "digits", "nul"],
)
def test_what_is_no_strict_json_is_refused_and_told_why(desk_office, body, words):
    refused = post(desk_office, body)

    assert (400, "bad-request") == (refused.status, refused.code)
    assert words in refused.json["detail"]


def test_as_deep_as_is_allowed_is_taken(desk_office):
    answer = post(desk_office, b'{"flow": "review", "input": {"x": ' + b"[" * 30 + b"]" * 30 + b"}}")

    assert (422, "invalid") == (answer.status, answer.code)


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b'"review"', b""])
def test_a_body_that_is_no_object_does_not_fit(desk_office, body):
    assert (422, "invalid") == ((refused := post(desk_office, body)).status, refused.code)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_a_body_of_another_kind_is_refused(desk_office, kind):
    refused = post(desk_office, json.dumps(WANTED).encode(), content_type=kind)

    assert (415, "not-json") == (refused.status, refused.code)
    assert 201 == post(desk_office, json.dumps(WANTED).encode(), content_type="application/json; charset=utf-8").status


def head(office):
    """Of a request that is known by its token; its body is read only then."""
    start = f"POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {office.token}\r\n"
    return start.encode() + b"Content-Type: application/json\r\n"


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(desk_office):
    """
    INVARIANT: nobody makes this process read more than the cap.

    Breaks if the length is looked at after the body was read.
    """
    with socket.create_connection(("127.0.0.1", desk_office.port), timeout=10) as raw:
        raw.sendall(head(desk_office) + b"Content-Length: 99999999999\r\n\r\n{")
        answer = raw.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_read_up_to_the_cap(desk_office):
    with socket.create_connection(("127.0.0.1", desk_office.port), timeout=10) as raw:
        raw.sendall(head(desk_office) + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            for _ in range(40):
                raw.sendall(chunk)
        except OSError:
            pass  # it has been told enough
        answer = raw.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for(desk_office, monkeypatch):
    monkeypatch.setattr(strict, "_BODY_SECONDS", 0.2)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", desk_office.port), timeout=10) as raw:
        raw.sendall(head(desk_office) + b"Content-Length: 10\r\n\r\n{")
        answer = raw.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 9


@pytest.mark.parametrize("name", ["", "no name", "1st", "a/b", "../etc", "é", "a\n", "a\x00", "a" * 101])
@pytest.mark.parametrize(
    "path,field,rest",
    [
        ("/v1/runs", "flow", {"input": INPUT}),
        ("/v1/runs", "project", WANTED),
        ("/v1/runs:claim", "flow", {"phases": ["plan"], "worker": "w"}),
    ],
)
def test_a_text_that_cannot_be_a_name_is_told_with_its_field(desk_office, path, field, rest, name):
    refused = desk_office.client.post(path, rest | {field: name})

    assert (422, "invalid") == (refused.status, refused.code)
    assert [f"/{field}"] == [each["pointer"] for each in refused.json["errors"]]


def test_an_input_of_its_full_size_fits(desk_office):
    full = WANTED | {"input": INPUT | {"head": "x" * 200_000}}
    over = WANTED | {"input": INPUT | {"number": 8, "head": "x" * 280_000}}

    assert 201 == desk_office.client.post("/v1/runs", full).status
    assert (422, "invalid") == ((refused := desk_office.client.post("/v1/runs", over)).status, refused.code)
    assert 413 == desk_office.client.post("/v1/runs", over | {"input": {"head": "x" * 400_000}}).status


@pytest.mark.parametrize(
    "method,path,allow",
    [
        ("PUT", "/v1/runs", "GET, HEAD, POST"),
        ("DELETE", "/v1/runs/01a1ff25-3afd-7d27-b4d9-2a64eef8722e", "GET, HEAD"),
        ("GET", "/v1/runs/01a1ff25-3afd-7d27-b4d9-2a64eef8722e:cancel", "POST"),
        ("GET", "/v1/runs:claim", "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("TRACE", "/v1/flows", "GET, HEAD"),
        ("PATCH", "/v1/runs/01a1ff25-3afd-7d27-b4d9-2a64eef8722e/events", "GET, HEAD"),
    ],
)
def test_a_method_that_an_address_has_not_is_told_with_those_that_it_has(desk_office, method, path, allow):
    refused = desk_office.client.ask(method, path)

    assert (405, "method-not-allowed", allow) == (refused.status, refused.code, refused.headers["allow"])


@pytest.mark.parametrize(
    "path",
    ["/v1/runs/pr-7", "/v1/runs/01a1ff25-3afd-7d27-b4d9-2a64eef8722e:explode", "/v1/runs/..%2f..%2fetc", "/v1/runs/",
     "/v1/runs/01a1ff25-3afd-7d27-b4d9-2a64eef8722e:cancel/x", "//v1/runs", "/v2/runs"],
)  # fmt: skip
def test_an_address_that_is_none_is_told_so(desk_office, path):
    refused = desk_office.client.get(path)

    assert (404, "not-found") == (refused.status, refused.code)
    assert refused.json["instance"]


@pytest.mark.parametrize("path", ["/v1/runs", "/livez", "/nothing", "/openapi.json"])
def test_every_answer_has_the_safe_headers(desk_office, path):
    answer = desk_office.client.get(path)

    assert ("nosniff", "no-store") == (answer.headers["x-content-type-options"], answer.headers["cache-control"])
    assert answer.headers["server"] is None


def test_an_error_of_ours_is_a_problem_that_tells_nothing_of_us(desk_office, monkeypatch):
    monkeypatch.setattr(desk_office.served.server.access, "ask", lambda _question: 1 / 0)
    broken = desk_office.client.get("/v1/flows")

    assert (500, "internal") == (broken.status, broken.code)
    assert "ZeroDivision" not in broken.body.decode()


@pytest.mark.parametrize("code", KINDS)
def test_every_problem_says_what_it_is(code):
    told = Problem(code, "because").body("/v1/runs")

    assert {"type", "title", "status", "detail", "instance", "code"} == set(told)
    assert told["type"].startswith(("urn:runclaim:problem:", "https://iana.org/"))
    assert 400 <= told["status"] < 600


def test_a_refused_signature_is_a_problem_in_its_own_words():
    refused = SignatureRefused("x-hub-signature-256", "does not match")
    problem = problem_of(refused)

    assert ("signature-refused", str(refused)) == (problem.code, problem.detail)
