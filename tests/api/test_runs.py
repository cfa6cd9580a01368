"""Runs over HTTP: made, found, listed, read and waited for."""

from __future__ import annotations

import json
import threading

import pytest

from runclaim.flows.client.handle import Run
from tests.api.conftest import INPUT, WANTED


def test_a_run_is_made_once_and_then_found(office):
    made = office.client.post("/v1/runs", WANTED)
    again = office.client.post("/v1/runs", WANTED)

    assert (201, 200) == (made.status, again.status)
    assert f"runs/{made.json['id']}" == made.headers["location"] == again.headers["location"]
    assert made.json == again.json
    assert ("queued", "plan", "acme/app:pr-7", INPUT) == tuple(
        made.json[name] for name in ("state", "phase", "key", "input")
    )


def test_a_run_can_be_read_where_it_was_said_to_be(office):
    made = office.client.post("/v1/runs", WANTED)
    found = office.client.at("/v1/runs", made.headers["location"])

    assert (200, made.json) == (found.status, found.json)
    assert made.headers["etag"] == found.headers["etag"]


def test_the_run_of_the_api_is_the_run_of_the_application(office):
    made = office.enqueued()
    run = office.review.enqueue(repo="acme/app", number=7)

    assert (made["id"], False) == (run.id, run.created)


def test_a_run_goes_through_its_phases_and_shows_its_result(office):
    made = office.enqueued()
    office.finish(made)
    found = office.client.get(f"/v1/runs/{made['id']}").json

    assert ("succeeded", 1) == (found["state"], found["result"])
    assert ["complete", "complete"] == [phase["status"] for phase in found["phases"]]


def test_the_callers_trace_is_kept_with_the_run(office):
    """
    INVARIANT: who enqueues over HTTP is found from the run's spans, with an SDK at this door or without.

    Breaks if the trace is taken from a span of this process only, which there is none of without an SDK.
    """
    sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    made = office.client.post("/v1/runs", WANTED, traceparent=sent, tracestate="vendor=1").json
    plain = office.enqueued(8)
    kept = dict(office.bench.execute("SELECT CAST(id AS text), CAST(trace_context AS text) FROM runclaim_runs").all())

    assert {"traceparent": sent, "tracestate": "vendor=1"} == json.loads(kept[made["id"]])
    assert kept[plain["id"]] is None


def test_a_key_with_another_input_is_a_conflict_that_shows_no_value(office):
    made = office.enqueued()
    refused = office.client.post("/v1/runs", WANTED | {"input": INPUT | {"head": "c3"}})

    assert (409, "key-conflict") == (refused.status, refused.code)
    assert (made["id"], ["head"]) == (refused.json["run_id"], refused.json["differs"])
    assert not {"b2", "c3"} & set(str(refused.json["detail"]).split())


@pytest.mark.parametrize(
    "body,pointer",
    [
        ({"flow": "review", "input": {"repo": "a"}}, "/input"),
        ({"flow": "review", "input": INPUT | {"number": "7"}}, "/input/number"),
        ({"flow": "review", "input": INPUT | {"colour": "red"}}, "/input"),
        ({"flow": "review"}, "/input"),
        ({"input": INPUT}, "/flow"),
        ({"flow": "re view", "input": INPUT}, "/flow"),
        (WANTED | {"priority": 10}, "/priority"),
        (WANTED | {"priority": True}, "/priority"),
        (WANTED | {"delay_seconds": -1}, "/delay_seconds"),
        (WANTED | {"delay": 1}, "/delay"),
        (WANTED | {"key": "mine"}, "/key"),
        (WANTED | {"subject": "mine"}, "/subject"),
        (WANTED | {"input": INPUT | {"repo": "a\x00b"}}, "/input/repo"),
        (WANTED | {"input": INPUT | {"repo": "ghp_" + "a1B2" * 9}}, "/input/repo"),
        (WANTED | {"input": INPUT | {"repo": "secret:env:TOKEN"}}, "/input/repo"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(desk_office, body, pointer):
    refused = desk_office.client.post("/v1/runs", body)

    assert (422, "invalid") == (refused.status, refused.code)
    assert pointer in [each["pointer"] for each in refused.json["errors"]]
    assert 0 == desk_office.bench.count("runclaim_runs")


def test_a_flow_that_nobody_registered_is_unknown(desk_office):
    refused = desk_office.client.post("/v1/runs", WANTED | {"flow": "deploy"})

    assert (422, "unknown-flow") == (refused.status, refused.code)


def test_a_delayed_run_is_published_later_and_any_other_at_the_next_dispatch(office):
    office.enqueued(1, delay_seconds=3600)
    now = office.enqueued(2)
    office.bench.finish(office.review, Run(office.bench.ledger, now["id"]))

    assert ["succeeded", "queued"] == [run["state"] for run in office.client.get("/v1/runs").json["runs"]]


def test_the_pages_of_a_listing_follow_each_other(office):
    made = [office.enqueued(number)["id"] for number in range(5)]
    first = office.client.get("/v1/runs?page_size=2&flow=review")
    second = office.client.get(f"/v1/runs?page_size=2&flow=review&page_token={first.json['next_page_token']}")
    third = office.client.get(f"/v1/runs?page_size=2&flow=review&page_token={second.json['next_page_token']}")

    assert made[::-1] == [run["id"] for page in (first, second, third) for run in page.json["runs"]]
    assert ("", None) == (third.json["next_page_token"], third.headers["link"])
    link = first.headers["link"]
    assert link.endswith('>; rel="next"')
    assert link.startswith("<?")
    assert second.json == office.client.at("/v1/runs", link.partition("<")[2].partition(">")[0]).json
    assert "input" not in first.json["runs"][0]


def test_a_listing_is_filtered_and_sorted(office):
    first, second = office.enqueued(1), office.enqueued(2)
    office.client.post(f"/v1/runs/{first['id']}:cancel")

    def ids(query):
        return [run["id"] for run in office.client.get(f"/v1/runs?{query}").json["runs"]]

    assert [second["id"]] == ids("state=queued")
    assert [second["id"], first["id"]] == ids("state=queued&state=canceled&project=default")
    assert [first["id"], second["id"]] == ids("order_by=enqueued_at%20asc")
    assert [] == ids("flow=deploy")
    assert [] == ids(f"until={first['enqueued_at']}")
    assert [second["id"], first["id"]] == ids(f"since={first['enqueued_at']}")


@pytest.mark.parametrize(
    "query",
    ["state=done", "page_size=0", "page_size=-1", "page_size=x", "since=yesterday", "since=2026-01-01T00:00:00",
     "colour=red", "order_by=key", "flow=a%20b", "page_token=" + "x" * 600],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(desk_office, query):
    refused = desk_office.client.get(f"/v1/runs?{query}")

    assert (400, "bad-request") == (refused.status, refused.code)
    assert query.partition("=")[0] in refused.json["errors"][0]["pointer"]


def test_a_page_of_more_than_a_hundred_is_one_of_a_hundred(desk_office):
    assert 200 == desk_office.client.get("/v1/runs?page_size=100000").status


@pytest.mark.parametrize("header", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
def test_a_run_that_is_known_is_not_sent_again(desk_office, header):
    made = desk_office.enqueued()
    path = f"/v1/runs/{made['id']}"
    etag = desk_office.client.get(path).headers["etag"]
    known = desk_office.client.get(path, if_none_match=header.format(etag=etag))
    desk_office.client.post(f"{path}:cancel")

    assert (304, b"", etag) == (known.status, known.body, known.headers["etag"])
    if header != "*":
        assert 200 == desk_office.client.get(path, if_none_match=header.format(etag=etag)).status


def test_the_etag_changes_when_a_running_run_is_asked_to_stop(desk_office):
    made = desk_office.enqueued()
    path = f"/v1/runs/{made['id']}"
    asked = {"flow": "review", "phases": ["plan"], "worker": "w"}
    desk_office.client.post("/v1/runs:claim", asked)
    before = desk_office.client.get(path).headers["etag"]
    desk_office.client.post(f"{path}:cancel")

    assert before != desk_office.client.get(path).headers["etag"]


def test_whoever_waits_for_a_run_hears_when_it_has_ended(office):
    made = office.enqueued()
    heard = []
    waiting = threading.Thread(
        target=lambda: heard.append(office.client.get(f"/v1/runs/{made['id']}", prefer="respond-async, wait=20"))
    )
    waiting.start()
    office.finish(made)
    waiting.join(25)

    assert ("succeeded", "wait=20") == (heard[0].json["state"], heard[0].headers["preference-applied"])


def test_who_waits_long_enough_gets_the_run_as_it_is(desk_office):
    made = desk_office.enqueued()
    found = desk_office.client.get(f"/v1/runs/{made['id']}", prefer="wait=1")

    assert ("queued", "wait=1") == (found.json["state"], found.headers["preference-applied"])


@pytest.mark.parametrize("prefer,applied", [("wait=900", "wait=30"), ("wait=0", "wait=0"), ("await=3", None)])
def test_a_wait_is_capped(desk_office, prefer, applied):
    made = desk_office.enqueued()
    desk_office.client.post(f"/v1/runs/{made['id']}:cancel")

    assert applied == desk_office.client.get(f"/v1/runs/{made['id']}", prefer=prefer).headers["preference-applied"]


def test_metrics_are_the_ledgers(office):
    office.finish(office.enqueued())
    found = office.client.get("/metrics")

    assert (200, True) == (found.status, found.headers["content-type"].startswith("text/plain"))
    assert "runclaim_up 1.0" in found.body.decode()
    assert "acme/app" not in found.body.decode()


def test_flows_are_listed_with_their_schemas(desk_office):
    (flow,) = desk_office.client.get("/v1/flows").json["flows"]

    assert ("review", "{repo}:pr-{number}", None) == (flow["name"], flow["key"], flow["subject"])
    assert ["plan", "deliver"] == [phase["name"] for phase in flow["phases"]]
    assert "backoff" not in flow["phases"][0]
    assert {"repo", "number", "base", "head"} == set(flow["input"]["$defs"]["PullRequest"]["properties"])
