"""Planned actions over HTTP: listed, read, sent again and resolved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from runclaim import ActionRejected
from tests.api.conftest import WANTED

CUT = ConnectionError("cut")
NOBODYS = "01a1ff25-3afd-7d27-b4d9-2a64eef8722e"


def decide(office, action, verb, body=None, **headers):
    return office.client.post(f"/v1/actions/{action['id']}:{verb}", body, **headers)


def ids(office, query=""):
    return [each["id"] for each in office.client.get(f"/v1/actions?{query}").json["actions"]]


def test_an_action_is_shown_with_what_became_of_it(office):
    action = office.planned()
    found = office.client.get(f"/v1/actions/{action['id']}")

    assert (200, action) == (found.status, found.json)
    assert ("posted", "upstream-7", {"number": 7}) == (action["state"], action["upstream_id"], action["payload"])
    assert f"{action['run_id']}:write:0" == action["idempotency_key"]


def test_the_pages_of_actions_follow_each_other(office):
    made = [office.planned(number)["id"] for number in range(5)]
    first = office.client.get("/v1/actions?page_size=2&state=posted")
    second = office.client.get(f"/v1/actions?page_size=2&state=posted&page_token={first.json['next_page_token']}")
    third = office.client.get(f"/v1/actions?page_size=2&state=posted&page_token={second.json['next_page_token']}")

    assert made[::-1] == [each["id"] for page in (first, second, third) for each in page.json["actions"]]
    assert ("", None) == (third.json["next_page_token"], third.headers["link"])
    reference = first.headers["link"].partition("<")[2].partition(">")[0]
    assert second.json == office.client.at("/v1/actions", reference).json


def test_a_page_has_at_most_a_hundred(desk_office):
    bench = desk_office.bench
    notes = bench.flow("notes", key="{number}")
    notes.phase(name="write")(lambda ctx: [ctx.plan_action("comment", {}) for _ in range(101)] and None)
    bench.action("comment")(lambda payload, idempotency_key: "sent")
    bench.finish(notes, notes.enqueue(repo="a", number=7))

    assert 100 == len(ids(desk_office, "page_size=100000"))
    assert 50 == len(ids(desk_office))


def test_actions_are_listed_by_run_and_by_state(office):
    posted, unknown = office.planned(1), office.planned(2, CUT)

    assert [unknown["id"], posted["id"]] == ids(office)
    assert [posted["id"]] == ids(office, f"run={posted['run_id']}")
    assert [unknown["id"]] == ids(office, "state=unknown")
    assert [] == ids(office, f"run={posted['run_id']}&state=unknown")


def test_a_listing_shows_the_actions_of_its_project_only(office):
    """
    INVARIANT: an action belongs to its run's project, in every listing.

    Breaks if the listing does not ask for the project of the action's run.
    """
    ours, theirs = office.planned(1), office.planned(2, project="theirs")
    other = office.with_scopes("runs:read", projects=("theirs",))
    both = office.with_scopes("runs:read", projects=("default", "theirs"))
    refused = office.client.get(f"/v1/actions?run={theirs['run_id']}")

    assert [ours["id"]] == ids(office)
    assert [theirs] == other.get("/v1/actions").json["actions"]
    assert [theirs] == both.get(f"/v1/actions?run={theirs['run_id']}").json["actions"]
    assert [] == both.get(f"/v1/actions?project=default&run={theirs['run_id']}").json["actions"]
    assert (404, "not-found") == (refused.status, refused.code)


@pytest.mark.parametrize(
    "query", ["state=done", "page_size=0", "run=7", "colour=red", "project=a%20b", "page_token=" + "x" * 600]
)
def test_a_question_that_is_none_is_refused(desk_office, query):
    refused = desk_office.client.get(f"/v1/actions?{query}")

    assert (400, "bad-request") == (refused.status, refused.code)
    assert query.partition("=")[0] in refused.json["errors"][0]["pointer"]


def test_a_page_token_belongs_to_its_own_listing(desk_office):
    """
    INVARIANT: a token of one question opens no other.

    Breaks if what is signed leaves out the project, the run, the state, or that it is a listing of actions.
    """
    office = desk_office
    actions = [office.planned(number) for number in (1, 2)]
    [office.enqueued(number) for number in (1, 2)]
    ours = office.client.get("/v1/actions?page_size=1").json["next_page_token"]
    of_runs = office.client.get("/v1/runs?page_size=1").json["next_page_token"]
    theirs = office.with_scopes("admin", projects=("theirs",))
    theirs.post("/v1/runs", WANTED)
    refused = [
        office.client.get(f"/v1/actions?page_token={of_runs}"),
        office.client.get(f"/v1/runs?page_token={ours}"),
        office.client.get(f"/v1/actions?state=posted&page_token={ours}"),
        office.client.get(f"/v1/actions?run={actions[0]['run_id']}&page_token={ours}"),
        office.client.get(f"/v1/actions?page_token={ours[1:]}"),
        theirs.get(f"/v1/actions?page_token={ours}"),
    ]  # fmt: skip

    assert [(400, "invalid-page-token")] * len(refused) == [(each.status, each.code) for each in refused]


@pytest.mark.parametrize("error", [CUT, ActionRejected("closed")])
def test_an_action_that_was_not_posted_is_sent_again(office, error):
    action = office.planned(error=error)
    asked = decide(office, action, "retry")
    office.planned(8)
    after = office.client.get(f"/v1/actions/{action['id']}").json

    assert (202, "planned", 0, "1") == (
        asked.status, asked.json["state"], asked.json["attempts"], asked.headers["retry-after"]
    )  # fmt: skip
    assert ("posted", "upstream-7", action["idempotency_key"]) == (
        after["state"], after["upstream_id"], after["idempotency_key"]
    )  # fmt: skip


@pytest.mark.parametrize("upstream_id,state", [("note-9", "posted"), (None, "failed")])
def test_an_unknown_action_is_resolved_once_by_whoever_asks(office, upstream_id, state):
    action = office.planned(error=CUT)
    said = decide(office, action, "resolve", {"upstream_id": upstream_id})
    twice = decide(office, action, "resolve", {"upstream_id": upstream_id})

    assert (200, state, upstream_id) == (said.status, said.json["state"], said.json["upstream_id"])
    assert f"resolved by token {office.token.split('_')[1]} (test)" == said.json["error"]["message"]
    assert said.json == office.client.get(f"/v1/actions/{action['id']}").json
    assert (409, "state-conflict", state) == (twice.status, twice.code, twice.json["state"])


@pytest.mark.parametrize("verb,error,why", [
    ("retry", None, "it is posted (only a failed or unknown one can be)"),
    ("resolve", None, "it is posted (only an unknown one can be)"),
    ("resolve", ActionRejected("closed"), "it is failed (only an unknown one can be)"),
])  # fmt: skip
def test_an_action_in_another_state_is_left_alone(office, verb, error, why):
    action = office.planned(error=error)
    refused = decide(office, action, verb, {"upstream_id": "x"} if verb == "resolve" else None)

    assert (409, "state-conflict", action["state"]) == (refused.status, refused.code, refused.json["state"])
    assert f"cannot {verb} action {action['id']}: {why}" == refused.json["detail"]
    assert action == office.client.get(f"/v1/actions/{action['id']}").json


def test_an_action_whose_run_was_superseded_is_not_sent_again(desk_office):
    action = desk_office.planned(error=CUT)
    desk_office.bench.execute("UPDATE runclaim_actions SET superseded = true")
    refused = decide(desk_office, action, "retry")

    assert (409, "state-conflict") == (refused.status, refused.code)
    assert "it is unknown (its run was superseded or erased)" in refused.json["detail"]


@pytest.mark.parametrize("body", [{}, {"upstream_id": ""}, {"upstream_id": 7}, {"upstream_id": "a\x00b"},
    {"upstream_id": "x" * 5000}, {"upstream_id": None, "sent": True}, None])  # fmt: skip
def test_a_resolution_that_is_none_is_refused(desk_office, body):
    action = desk_office.planned(error=CUT)
    refused = decide(
        desk_office, action, "resolve", body if body is not None else b"null", content_type="application/json"
    )

    assert (422, "invalid") == (refused.status, refused.code)
    assert "unknown" == desk_office.client.get(f"/v1/actions/{action['id']}").json["state"]


@pytest.mark.parametrize("verb,body", [("retry", None), ("resolve", {"upstream_id": "note-9"})])
def test_one_idempotency_key_is_one_decision(office, verb, body):
    action = office.planned(error=CUT)
    first, again = (decide(office, action, verb, body, idempotency_key="k") for _ in range(2))

    assert first.status in {200, 202}
    assert (first.status, first.body, "true") == (again.status, again.body, again.headers["idempotency-replayed"])


def test_an_action_that_never_was_is_not_there(desk_office):
    found = desk_office.client.get(f"/v1/actions/{NOBODYS}")

    assert (404, "not-found") == (found.status, found.code)
    assert f"no action {NOBODYS}: it never existed, or was purged with its run" == found.json["detail"]


def test_an_api_with_the_application_rings_for_an_action_that_is_due(desk_office):
    action = desk_office.planned(error=CUT)
    bench = desk_office.bench
    desk_office.served.server.attach(SimpleNamespace(flows={}, ledger=bench.ledger, config=bench.config))
    bench.rung.actions = 0
    asked = decide(desk_office, action, "retry")
    refused = decide(desk_office, action, "retry")

    assert (202, 409, 1) == (asked.status, refused.status, bench.rung.actions)


@pytest.mark.parametrize("verb,body", [("retry", None), ("resolve", {"upstream_id": "note-9"})])
def test_a_decision_whose_commit_was_not_confirmed_is_read_back(desk_office, monkeypatch, verb, body):
    """
    INVARIANT: what was decided is answered as decided, although doing it again would be refused.

    Breaks if an ambiguous commit is not read back, or is taken for done before it was.
    """
    database, read = desk_office.served.server.database, []
    real = database.run

    def run(work, *, read_back=None, **how):
        if read_back is None:
            return real(work, **how)
        read.append(database.ask(read_back))
        real(work)
        read.append(database.ask(read_back))
        return read[-1]

    action = desk_office.planned(error=CUT)
    monkeypatch.setattr(database, "run", run)
    answer = decide(desk_office, action, verb, body)

    assert read[0] is None
    assert (read[1].answer.status, read[1].body) == (answer.status, answer.json)
    assert answer.json == desk_office.client.get(f"/v1/actions/{action['id']}").json
