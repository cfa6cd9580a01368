"""Cancel, retry, resume and rerun over HTTP."""

from __future__ import annotations

import pytest

from runclaim.flows.client.handle import Run
from tests.api.conftest import INPUT, WANTED


def change(office, run, verb):
    return office.client.post(f"/v1/runs/{run['id']}:{verb}")


def stopped(office, verdict):
    """A run whose first phase ended so."""
    made = office.enqueued()
    job = office.client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"}).json
    said = {"claim": job["claim"], "error": {"type": "E", "message": "m"}, "verdict": verdict}
    office.client.post(f"/v1/runs/{made['id']}:fail", said)
    return made


def test_a_queued_run_is_canceled_at_once_and_twice_is_as_good_as_once(office):
    made = office.enqueued()
    first, again = change(office, made, "cancel"), change(office, made, "cancel")

    assert (202, "canceled", "1") == (first.status, first.json["state"], first.headers["retry-after"])
    assert (202, first.json) == (again.status, again.json)


def test_a_running_run_is_asked_to_stop_and_stays_running_until_its_worker_has_heard(office):
    made = office.enqueued()
    office.client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"})
    asked = change(office, made, "cancel")

    assert (202, "running", True) == (asked.status, asked.json["state"], asked.json["cancel_requested"])


def test_a_run_that_has_succeeded_cannot_be_canceled(office):
    made = office.enqueued()
    office.finish(made)
    refused = change(office, made, "cancel")

    assert (409, "state-conflict", "succeeded") == (refused.status, refused.code, refused.json["state"])


@pytest.mark.parametrize("verb,verdict", [("retry", "fail"), ("resume", "block")])
def test_a_run_that_stopped_goes_on_when_it_is_asked_to(office, verb, verdict):
    made = stopped(office, verdict)
    moved = change(office, made, verb)
    office.finish(made)

    assert (202, "queued", 0, None) == (
        moved.status, moved.json["state"], moved.json["attempts"], moved.json["error"]
    )  # fmt: skip
    assert "succeeded" == office.client.get(f"/v1/runs/{made['id']}").json["state"]


@pytest.mark.parametrize("verb,verdict", [("retry", "block"), ("resume", "fail"), ("retry", None), ("resume", None)])
def test_a_run_in_another_state_is_left_alone(office, verb, verdict):
    made = stopped(office, verdict) if verdict else office.enqueued()
    refused = change(office, made, verb)

    assert (409, "state-conflict") == (refused.status, refused.code)
    assert "only a" in refused.json["detail"]


def test_a_rerun_is_the_next_run_of_the_key_and_ends_the_older_one(office):
    made = office.enqueued()
    again = change(office, made, "rerun")
    older = office.client.get(f"/v1/runs/{made['id']}").json

    assert (201, 1, "queued", INPUT) == (
        again.status, again.json["rerun"], again.json["state"], again.json["input"]
    )  # fmt: skip
    assert again.json["id"] == again.headers["location"]
    assert again.json == office.client.at(f"/v1/runs/{made['id']}:rerun", again.headers["location"]).json
    assert (made["key"], "superseded") == (again.json["key"], older["state"])
    # The key names the new run now, and the older one cannot come back beside it.
    assert again.json["id"] == office.client.post("/v1/runs", WANTED).json["id"]
    assert (409, "state-conflict") == ((refused := change(office, made, "retry")).status, refused.code)


def test_one_idempotency_key_is_one_rerun(office):
    """
    INVARIANT: a rerun is asked once, however often its request arrives; the run key cannot tell.

    Breaks if the answer is not kept in the transaction of the rerun.
    """
    made = office.enqueued()
    path = f"/v1/runs/{made['id']}:rerun"
    first, again = (office.client.post(path, idempotency_key="k") for _ in range(2))

    assert (201, 201) == (first.status, again.status)
    assert first.body == again.body
    assert 2 == office.bench.count("runclaim_runs")


def test_several_runs_are_canceled_together(office):
    ids = [office.enqueued(number)["id"] for number in range(3)]
    asked = office.client.post("/v1/runs:cancel", {"ids": [*ids, ids[0].upper()]})

    assert (202, ids) == (asked.status, [run["id"] for run in asked.json["runs"]])
    assert {"canceled"} == {run["state"] for run in asked.json["runs"]}


def test_a_batch_with_one_run_that_cannot_be_canceled_cancels_none(office):
    done, live = office.enqueued(1), office.enqueued(2)
    office.bench.finish(office.review, Run(office.bench.ledger, done["id"]))
    live = office.enqueued(3)
    refused = office.client.post("/v1/runs:cancel", {"ids": [live["id"], done["id"]]})

    assert (409, "state-conflict") == (refused.status, refused.code)
    assert "queued" == office.client.get(f"/v1/runs/{live['id']}").json["state"]


@pytest.mark.parametrize("ids", [[], ["pr-7"], ["01a1ff25-3afd-7d27-b4d9-2a64eef8722e"] * 101, "all", [7]])
def test_a_batch_that_is_none_is_refused(desk_office, ids):
    assert (422, "invalid") == (
        (refused := desk_office.client.post("/v1/runs:cancel", {"ids": ids})).status,
        refused.code,
    )


def test_erasing_needs_a_scope_of_its_own_and_says_how_many(office):
    run = office.enqueued()
    office.finish(run)
    eraser = office.with_scopes("runs:erase")
    whose = {"flow": "review", "key": run["key"]}
    counted = eraser.post("/v1/runs:erase", whose | {"dry_run": True})
    before = office.client.get(f"/v1/runs/{run['id']}").json["input"]
    done = eraser.post("/v1/runs:erase", whose)
    after = office.client.get(f"/v1/runs/{run['id']}").json

    assert [(200, {"runs": 1, "more": False})] * 2 == [(each.status, each.json) for each in (counted, done)]
    assert "repo" in before
    assert ({"runclaim.erased": True}, None) == (after["input"], after["result"])
    assert {"runs": 0, "more": False} == eraser.post("/v1/runs:erase", whose).json


def test_erasing_is_refused_for_live_runs_for_other_projects_and_for_unclear_requests(office):
    run = office.enqueued()
    eraser = office.with_scopes("runs:erase")
    live = eraser.post("/v1/runs:erase", {"flow": "review", "key": run["key"]})
    theirs = eraser.post("/v1/runs:erase", {"project": "theirs", "subject": "acme"})
    unclear = eraser.post("/v1/runs:erase", {"flow": "review"})

    assert [(409, "state-conflict"), (404, "not-found"), (422, "invalid")] == [
        (each.status, each.code) for each in (live, theirs, unclear)
    ]


def renamed(office):
    """The new release of the office's flow is registered: its second phase is `publish`."""
    newer = office.bench.flow("review")
    newer.phase(name="plan")(lambda ctx: None)
    newer.phase(name="publish")(lambda ctx: None)
    office.bench.register(newer)


MOVE = {"flow": "review", "from": "deliver", "to": "publish"}


def test_a_phase_is_moved_in_live_runs_and_the_answer_names_them_by_id_and_state(office):
    run, other = office.enqueued(), office.enqueued(8)
    renamed(office)
    writer = office.with_scopes("runs:write")
    counted = writer.post("/v1/runs:move-phase", MOVE | {"dry_run": True}).json
    one = writer.post("/v1/runs:move-phase", MOVE | {"ids": [run["id"]]}).json
    done = writer.post("/v1/runs:move-phase", MOVE).json
    rest = {"movable": 0, "running": 0, "in_doubt": 0, "with_both": 0}

    assert {"runs": []} | rest | {"movable": 2} == counted
    assert {"runs": [{"id": run["id"], "state": "queued"}]} | rest == one
    assert {"runs": [{"id": other["id"], "state": "queued"}]} | rest == done
    assert ["plan", "publish"] == [each["name"] for each in office.client.get(f"/v1/runs/{run['id']}").json["phases"]]


def test_a_move_is_refused_for_other_projects_and_for_unclear_requests(office):
    run = office.enqueued()
    renamed(office)
    theirs = office.with_scopes("runs:write", projects=("theirs",))
    asked = [
        theirs.post("/v1/runs:move-phase", MOVE | {"ids": [run["id"]]}),
        theirs.post("/v1/runs:move-phase", MOVE | {"project": "default"}),
        office.client.post("/v1/runs:move-phase", MOVE | {"to": "ship"}),
        office.client.post("/v1/runs:move-phase", MOVE | {"ids": [run["id"]], "key": run["key"]}),
        office.client.post("/v1/runs:move-phase", MOVE | {"flow": "nothing"}),
    ]

    assert [(404, "not-found")] * 2 + [(422, "invalid")] * 2 == [(each.status, each.code) for each in asked[:-1]]
    assert "unknown-flow" == asked[-1].code
    assert [] == theirs.post("/v1/runs:move-phase", MOVE).json["runs"]
