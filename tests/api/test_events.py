"""Events: a run's journal over HTTP, as it grows."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

from runclaim.api.routes import events as events_module
from tests.api.served import token
from tests.harness import until

STORY = ["run.enqueued", "run.started", "phase.started", "phase.completed", "phase.started", "phase.completed",
         "run.succeeded"]  # fmt: skip


def path(run, query=""):
    return f"/v1/runs/{run['id']}/events{query}"


def test_a_stream_tells_everything_from_the_first_event_and_ends_with_the_run(office):
    made = office.enqueued()
    told = []

    def listen():
        with office.client.stream(path(made)) as events:
            told.extend(events)

    listening = threading.Thread(target=listen)
    listening.start()
    until(lambda: told, "the first event")
    office.finish(made)
    listening.join(20)

    assert [*STORY, "end"] == [event["event"] for event in told]
    data = json.loads(told[2]["data"])
    assert ("phase.started", "plan", 1) == (data["type"], data["phase"], data["attempt"])
    assert str(data["id"]) == told[2]["id"]


def test_who_comes_back_misses_and_doubles_nothing(office):
    """
    INVARIANT: over any number of broken connections each event is told once.

    Breaks if the id of an event is not its place in the journal, or the place is compared by `>=`.
    """
    made = office.enqueued()
    office.finish(made)
    told, last = [], "0"
    for _ in range(2 * len(STORY)):
        answer = office.client.get(path(made), last_event_id=last, accept="application/json")
        with_stream = None
        if office.client.get(path(made), last_event_id=last).status == 204:
            break
        with office.client.stream(path(made), last_event_id=last) as events:
            with_stream = next(events)
        assert with_stream["event"] == answer.json["events"][0]["type"]
        told.append(with_stream["event"])
        last = with_stream["id"]

    assert STORY == told


def test_who_has_heard_the_end_is_told_not_to_come_back(desk_office):
    made = desk_office.enqueued()
    desk_office.client.post(f"/v1/runs/{made['id']}:cancel")
    events = desk_office.client.get(path(made), accept="application/json").json

    assert ["run.enqueued", "run.canceled"] == [event["type"] for event in events["events"]]
    assert 204 == desk_office.client.get(path(made), last_event_id=str(events["last_id"])).status


def test_what_there_is_can_be_had_as_json_page_by_page(desk_office):
    made = desk_office.enqueued()
    desk_office.finish(made)
    first = desk_office.client.get(path(made, "?limit=3"), accept="application/json").json
    rest = desk_office.client.get(path(made, f"?after={first['last_id']}"), accept="application/json").json
    none = desk_office.client.get(path(made, f"?after={rest['last_id']}"), accept="application/json").json

    assert STORY == [event["type"] for event in first["events"] + rest["events"]]
    assert {"events": [], "last_id": rest["last_id"]} == none


def test_an_event_says_who_asked_and_shows_no_traceback(desk_office):
    made = desk_office.enqueued()

    @desk_office.review.phase(name="never")
    def never(ctx):
        """Not of this run."""

    desk_office.review.phases["plan"].body = lambda ctx: 1 / 0
    desk_office.bench.deliver(desk_office.review, due(desk_office, made))
    desk_office.client.post(f"/v1/runs/{made['id']}:cancel")
    events = desk_office.client.get(path(made), accept="application/json").json["events"]

    assert {"type": "ZeroDivisionError", "message": "division by zero"} == events[3]["data"]
    assert events[4]["data"]["by"].startswith(f"token {desk_office.token.split('_')[1]} (test)")
    assert desk_office.token not in json.dumps(events)


def due(office, made):
    from runclaim.ledger.dispatch import Due

    return Due(made["id"], 0, "review", "plan", None, made["key"], 0)


@pytest.mark.parametrize(
    "header", ["x", "-1", "1.5", "9" * 30, "0" * 20 + "1999", "9" * 5000, "\u00b2", "9223372036854775808"]
)
def test_what_is_no_event_is_refused(desk_office, header):
    refused = desk_office.client.get(path(desk_office.enqueued()), last_event_id=header)

    assert (400, "bad-request") == (refused.status, refused.code)


def test_so_many_streams_and_no_more(desk_office):
    shares = desk_office.served.server.shares
    made = desk_office.enqueued()
    with ExitStack() as others:
        for number in range(200):
            others.enter_context(shares.held("streams", f"t{number}", f"p{number}"))
        refused = desk_office.client.get(path(made))

    assert (503, "busy", "5") == (refused.status, refused.code, refused.headers["retry-after"])


def test_one_token_and_one_project_have_a_share_of_the_streams(desk_office):
    """
    INVARIANT: nobody's streams take the place of everybody's.

    Breaks if streams are counted for the process alone.
    """
    shares, made, own = desk_office.served.server.shares, desk_office.enqueued(), desk_office.token.split("_")[1]
    with ExitStack() as mine:
        for _ in range(20):
            mine.enter_context(shares.held("streams", own, "default"))
        of_the_token = desk_office.client.get(path(made))
        of_another = desk_office.with_scopes("runs:read").get(path(made), accept="application/json")
        with desk_office.with_scopes("runs:read").stream(path(made)) as events:
            heard = next(events)
        for number in range(80):
            mine.enter_context(shares.held("streams", f"t{number}", "default"))
        of_the_project = desk_office.with_scopes("runs:read").get(path(made))

    assert (429, "quota-exceeded", ["streams"]) == (
        of_the_token.status,
        of_the_token.code,
        of_the_token.json["violated-policies"],
    )
    assert (200, "run.enqueued") == (of_another.status, heard["event"])
    assert (429, "5") == (of_the_project.status, of_the_project.headers["retry-after"])


def test_a_stream_is_not_held_back_by_a_proxy_and_a_head_of_it_ends(desk_office):
    made = desk_office.enqueued()
    found = desk_office.client.ask("HEAD", path(made))
    with closing(HTTPConnection("127.0.0.1", desk_office.client.port, timeout=30)) as connection:
        connection.request("GET", path(made), *desk_office.client.told(None, {}))
        streamed = connection.getresponse().getheader("x-accel-buffering")

    assert "no" == streamed
    assert (200, b"", "no") == (found.status, found.body, found.headers["x-accel-buffering"])
    assert found.headers["content-type"].startswith("text/event-stream")


def test_a_head_of_a_stream_leaves_no_stream_behind_while_its_connection_stays(desk_office):
    """
    INVARIANT: who asks for the head of a stream takes nobody's place.

    Breaks if the stream itself is begun: the server drops what it says, and it goes on as long as the connection.
    """
    made, shares = desk_office.enqueued(), desk_office.served.server.shares
    with closing(HTTPConnection("127.0.0.1", desk_office.port, timeout=30)) as connection:
        connection.request("HEAD", path(made), *desk_office.client.told(None, {}))
        connection.getresponse().read()
        connection.request("GET", "/livez")
        after = connection.getresponse().status
        streams = shares.many("streams")

    assert (200, 0) == (after, streams)


@pytest.mark.parametrize("column", ["revoked_at", "expires_at"])
def test_a_stream_ends_with_its_token(office, monkeypatch, column):
    """
    INVARIANT: a token that is over reads nothing more.

    Breaks if it is looked at when a stream begins and never again.
    """
    monkeypatch.setattr(events_module, "_KEEP_ALIVE_SECONDS", 0.05)
    made, listener = office.enqueued(), token(office.bench.database, "runs:read")
    with office.served.client(listener).stream(path(made)) as events:
        first = next(events)
        office.bench.execute(f"UPDATE runclaim_tokens SET {column} = created_at WHERE id = '{listener.split('_')[1]}'")
        rest = list(events)

    assert ("run.enqueued", []) == (first["event"], rest)
    assert 401 == office.served.client(listener).get(path(made), last_event_id=first["id"]).status


@pytest.mark.parametrize("seconds,is_said", [(15.0, False), (0.0, True)])
def test_a_stream_says_that_it_is_there_when_nothing_was_said_for_a_while(desk_office, monkeypatch, seconds, is_said):
    """
    INVARIANT: a quiet stream is kept open through proxies, and one that says something costs no line more.

    Breaks if the time since the last line is compared the other way round.
    """
    monkeypatch.setattr(events_module, "_KEEP_ALIVE_SECONDS", seconds)
    made = desk_office.enqueued()
    with closing(HTTPConnection("127.0.0.1", desk_office.port, timeout=30)) as connection:
        connection.request("GET", path(made), *desk_office.client.told(None, {}))
        streamed = connection.getresponse()
        while b"run.enqueued" not in streamed.readline():
            """It has begun, and looks again and again."""
        desk_office.client.post(f"/v1/runs/{made['id']}:cancel")
        rest = streamed.read()

    assert is_said is (b": still here\n" in rest)
    assert b"event: end\n" in rest


def test_a_client_that_disconnects_leaves_no_stream_behind(desk_office):
    made = desk_office.enqueued()
    shares = desk_office.served.server.shares
    with desk_office.client.stream(path(made)) as events:
        next(events)
        streams = shares.many("streams")

    assert 1 == streams
    until(lambda: shares.many("streams") == 0, "the end of the stream")
