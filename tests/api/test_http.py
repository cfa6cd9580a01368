"""HTTP as it is spoken: HEAD, prefixes, odd texts, purged keys, long errors, and what is written in logs."""

from __future__ import annotations

import http.client
import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runclaim.api.__main__ import require_addresses
from runclaim.errors import ConfigError
from tests.api.conftest import INPUT, WANTED, Office
from tests.api.served import Served

CLAIM = {"flow": "review", "phases": ["plan"], "worker": "w"}


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/v1/runs", "/v1/flows", "/v1/actions", "/metrics", "/openapi.json"]
)
def test_whoever_may_get_may_ask_for_the_head(desk_office, path):
    got, head = desk_office.client.get(path), desk_office.client.ask("HEAD", path)

    assert (got.status, b"") == (head.status, head.body)
    assert got.headers["content-type"] == head.headers["content-type"]


def test_a_head_needs_the_token_that_a_get_needs(desk_office):
    assert 401 == desk_office.served.client().ask("HEAD", "/v1/runs").status
    assert 404 == desk_office.client.ask("HEAD", "/nowhere").status
    assert 405 == desk_office.client.ask("HEAD", "/v1/runs:cancel").status


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B14:00"]
)
def test_a_time_that_no_clock_shows_is_a_bad_request(desk_office, name, moment):
    refused = desk_office.client.get(f"/v1/runs?{name}={moment}")

    assert (400, "bad-request", name) == (refused.status, refused.code, refused.json["errors"][0]["pointer"][-5:])


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_ends_of_time_are_asked_for_as_any_other(office, moment):
    assert [200, 200] == [office.client.get(f"/v1/runs?{name}={moment}").status for name in ("since", "until")]


_odd = st.text(st.characters(), max_size=6)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _odd, lambda inner: st.dictionaries(_odd, inner, max_size=3)
)
_bodies = st.fixed_dictionaries(
    {
        "flow": st.just("review") | _odd,
        "input": st.dictionaries(_odd | st.sampled_from(["repo", "number"]), _values, max_size=4),
    },
    optional={"key": _odd, "subject": _odd, "project": _odd, "delay_seconds": st.floats(allow_nan=False) | _odd},
)


def test_no_body_of_odd_texts_is_an_error_of_the_server(desk_office):
    """
    INVARIANT: whatever a client sends, the fault is the client's.

    Breaks if an answer repeats a lone surrogate or NUL that it cannot encode.
    """

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(body=_bodies, field=_odd)
    def ask(body, field):
        for each in (body, WANTED | {field: 1}, {"flow": "review", "input": INPUT | {field: 1}}):
            answer = desk_office.client.post("/v1/runs", json.dumps(each).encode(), content_type="application/json")
            assert answer.status < 500, (each, answer)
            json.loads(answer.body.decode("utf-8"))

    ask()
    named = desk_office.client.post(
        "/v1/runs", b'{"flow":"review","input":{"\\ud800":1}}', content_type="application/json"
    )

    assert (422, "invalid") == (named.status, named.code)


def test_the_key_of_a_purged_run_is_told_and_makes_no_other(office):
    """
    INVARIANT: a late duplicate starts nothing, over HTTP too.

    Breaks if the run of a key is taken for one that is there.
    """
    made = office.enqueued()
    office.bench.execute("DELETE FROM runclaim_runs")
    gone, again = office.client.post("/v1/runs", WANTED), office.client.post("/v1/runs", WANTED, idempotency_key="k")

    assert [(410, "run-purged", made["id"])] * 2 == [
        (each.status, each.code, each.json["run_id"]) for each in (gone, again)
    ]
    assert (0, 0) == (office.bench.count("runclaim_runs"), office.bench.count("runclaim_answers"))


@pytest.mark.parametrize("root", ["", "/prefix"])
def test_what_answers_point_to_stays_below_the_prefix_of_a_proxy(desk_office, root):
    with Served(desk_office.bench.config, root_path=root) as served:
        client = served.client(desk_office.token)
        made = [client.post("/v1/runs", WANTED | {"input": INPUT | {"number": n}}, host="evil.example") for n in (1, 2)]
        page = client.get("/v1/runs?page_size=1", host="evil.example", x_forwarded_proto="https")
        next_page = client.at("/v1/runs", page.headers["link"].partition("<")[2].partition(">")[0])
        servers = client.get("/openapi.json").json.get("servers")

    assert [f"runs/{each.json['id']}" for each in made] == [each.headers["location"] for each in made]
    assert made[0].json["id"] == next_page.json["runs"][0]["id"]
    assert "evil" not in page.headers["link"]
    assert ([{"url": root}] if root else None) == servers


def test_an_error_that_is_too_long_or_odd_is_cut_and_ends_the_attempt(office):
    """
    INVARIANT: a worker that says that it failed has failed, whatever its words are.

    Breaks if an error is refused for its length: its run would stay in its hands until the lease lapses.
    """
    made = office.enqueued()
    job = office.client.post("/v1/runs:claim", CLAIM).json
    hidden = "ghp_" + "a1B2" * 9
    error = {"type": "E" * 500, "message": "m" * 20_000 + "\x00", "traceback": f"line {hidden}\n" + "t" * 50_000}
    told = office.client.post(f"/v1/runs/{made['id']}:fail", {"claim": job["claim"], "error": error, "verdict": "fail"})
    ((kept,),) = office.bench.execute("SELECT CAST(error AS text) FROM runclaim_runs").all()
    shown = office.client.get(f"/v1/runs/{made['id']}").json

    assert (200, "failed") == (told.status, shown["state"])
    assert len(kept.encode()) < 9000
    assert "traceback" in json.loads(kept)
    assert hidden not in kept
    assert {"type", "message"} == set(shown["error"])


@pytest.mark.parametrize("change", ["owner", "verdict", "words"])
def test_only_the_same_claim_with_the_same_error_is_answered_again(office, change):
    """
    INVARIANT: an answer is given again to whoever got it the first time.

    Breaks if a failure is read back by its fence alone.
    """
    made = office.enqueued()
    job = office.client.post("/v1/runs:claim", CLAIM).json
    said = {"claim": job["claim"], "error": {"message": "no"}, "verdict": "retry", "retry_after_seconds": 60}
    path = f"/v1/runs/{made['id']}:fail"
    first, same = office.client.post(path, said), office.client.post(path, said)
    other = {
        "owner": {"claim": job["claim"].partition(".")[0] + "." + "0" * 32},
        "verdict": {"verdict": "fail"},
        "words": {"error": {"message": "yes"}},
    }[change]
    refused = office.client.post(path, said | other)

    assert (200, 200, first.json) == (first.status, same.status, same.json)
    assert (409, "claim-lost" if change == "owner" else "result-conflict") == (refused.status, refused.code)


def test_two_tokens_in_one_request_are_refused(desk_office):
    connection = http.client.HTTPConnection("127.0.0.1", desk_office.port, timeout=30)
    connection.putrequest("GET", "/v1/runs")
    for _ in range(2):
        connection.putheader("Authorization", f"Bearer {desk_office.token}")
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()

    assert 400 == status


def test_a_new_page_key_needs_no_restart(office):
    [office.enqueued(number) for number in range(3)]
    with Served(office.bench.config) as other:
        second = other.client(office.token)
        second.get("/v1/runs?page_size=1")
        office.bench.execute("DELETE FROM runclaim_signing_keys")
        token = office.client.get("/v1/runs?page_size=1").json["next_page_token"]
        other.server._page_key_read_at -= 2
        found, forged = second.get(f"/v1/runs?page_size=1&page_token={token}"), second.get("/v1/runs?page_token=x")

    assert (200, 400) == (found.status, forged.status)


def test_no_query_and_no_word_of_an_error_is_in_a_log(desk_office, monkeypatch, caplog):
    """
    INVARIANT: the logs of the API and of its server hold nothing that was sent in a query or stands in an error.

    Breaks if an error leaves the gate, or the server writes its own line for each request.
    """
    caplog.set_level(logging.DEBUG)
    canary = "canary-5d41402abc4b2a76"

    def broken(_question):
        raise RuntimeError(canary)

    monkeypatch.setattr(desk_office.served.server.access, "ask", broken)
    answers = [desk_office.client.get("/v1/flows"), desk_office.client.get(f"/v1/runs?access_token={canary}")]
    lines = "\n".join(f"{record.getMessage()} {record.exc_text} {record.exc_info}" for record in caplog.records)

    assert [500, 400] == [each.status for each in answers]
    assert canary not in lines + "".join(each.body.decode() for each in answers)
    assert "GET /v1/flows 500" in lines


def test_a_project_may_have_so_many_live_runs(sqlite_url):
    office = Office(sqlite_url, api_live_runs=2)
    room = office.served.server.room._counted
    with office.served:
        made = [office.enqueued(number)["id"] for number in (1, 2)]
        room.clear()
        refused = office.client.post("/v1/runs", WANTED | {"input": INPUT | {"number": 3}})
        theirs = office.with_scopes("runs:write", projects=("theirs",)).post("/v1/runs", WANTED)
        office.client.post(f"/v1/runs/{made[0]}:cancel")
        room.clear()
        later = office.client.post("/v1/runs", WANTED | {"input": INPUT | {"number": 3}})
    office.close()

    assert (429, ["live-runs"]) == (refused.status, refused.json["violated-policies"])
    assert (201, 201) == (theirs.status, later.status)


def test_waits_have_a_share_a_token(desk_office):
    made, own = desk_office.enqueued(), desk_office.token.split("_")[1]
    shares = desk_office.served.server.shares
    shares._many["waits", "token", own] = 50
    refused = desk_office.client.get(f"/v1/runs/{made['id']}", prefer="wait=5")
    at_once = desk_office.client.get(f"/v1/runs/{made['id']}")

    assert (429, ["waits"], 200) == (refused.status, refused.json["violated-policies"], at_once.status)


@pytest.mark.parametrize(
    "sent", ["x" * 200, "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff-" + "a" * 32 + "-" + "b" * 16 + "-01"]
)
def test_what_is_no_trace_is_not_kept(desk_office, sent):
    desk_office.client.post("/v1/runs", WANTED, traceparent=sent)

    assert [(None,)] == desk_office.bench.execute("SELECT trace_context FROM runclaim_runs").all()


@pytest.mark.parametrize("name", ["proxy.example", "10.0.0.0/8", "*", ""])
def test_a_proxy_is_trusted_by_its_address(name):
    with pytest.raises(ConfigError, match="trust-proxy"):
        require_addresses([name])
