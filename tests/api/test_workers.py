"""Workers outside Celery: the same verbs and the same fence, over HTTP."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from runclaim import Backoff
from runclaim.flows.client.handle import Run
from runclaim.ledger.rescue import rescue
from runclaim.models import runs

ASKED = {"flow": "review", "phases": ["plan", "deliver"], "worker": "outside-1"}


def claim(office, **more):
    answer = office.client.post("/v1/runs:claim", ASKED | more)
    assert 200 == answer.status, answer
    return answer.json


def lapse(office):
    """Nobody has heard of the worker for too long."""
    with office.bench.database.begin() as conn:
        past = "0" if conn.dialect.name == "sqlite" else "'2000-01-01T00:00:00Z'"
        conn.execute(text(f"UPDATE runclaim_runs SET lease_expires_at = {past} WHERE state = 'running'"))
        rescue(conn)


def say(office, job, verb, **body):
    return office.client.post(f"/v1/runs/{job['id']}:{verb}", {"claim": job["claim"]} | body)


def test_a_worker_takes_a_run_through_its_phases(office):
    made = office.enqueued()
    first = claim(office)
    told = say(office, first, "succeed", result=["app.py"])
    second = claim(office)
    say(office, second, "succeed", result=1)
    run = office.client.get(f"/v1/runs/{made['id']}").json

    assert (made["id"], "plan", 1, {}) == (first["id"], first["phase"], first["attempt"], first["results"])
    assert {"id": made["id"], "phase": "plan", "attempt": 1, "recorded": "succeeded"} == told.json
    assert ("deliver", {"plan": ["app.py"]}) == (second["phase"], second["results"])
    assert (f"{made['id']}:deliver", 60.0) == (second["idempotency_key"], second["lease_seconds"])
    assert ("succeeded", 1) == (run["state"], run["result"])


@pytest.mark.parametrize("key", ["{number}", lambda job: f"job-{job.number}"])
def test_the_idempotency_key_of_a_flow_that_fails_open_is_the_same_outside(office, key):
    """INVARIANT: whoever works on it, the other side sees one key. Breaks if a worker outside is given the run's id."""
    bench, keys = office.bench, []
    notes = bench.flow("notes", key=key, fail_open=True)
    notes.phase(name="write", idempotent=True)(lambda ctx: keys.append(ctx.idempotency_key))
    bench.register(notes)
    run = notes.enqueue(repo="a", number=7)
    outside = claim(office, flow="notes", phases=["write"])
    assert 200 == say(office, outside, "fail", error={"type": "E", "message": "no"}, verdict="fail").status
    run.retry()
    bench.finish(notes, run)
    bench.finish(notes, run.rerun())

    assert keys[0] == outside["idempotency_key"] != f"{run.id}:write"
    assert keys[0] != keys[1]


def test_a_worker_outside_and_one_of_celery_do_a_phase_each(office):
    made = office.enqueued()
    say(office, claim(office, phases=["plan"]), "succeed", result=["app.py"])
    office.finish(made)
    run = Run(office.bench.ledger, made["id"])

    assert ("succeeded", {"plan": ["app.py"], "deliver": 1}) == (run.state, run.results)
    assert ["run.enqueued", "run.started", "phase.started", "phase.completed", "phase.started", "phase.completed",
            "run.succeeded"] == office.bench.events(run)  # fmt: skip


def test_who_has_nothing_to_do_is_told_so_and_writes_nothing(office):
    office.enqueued(delay_seconds=60)

    assert 204 == office.client.post("/v1/runs:claim", ASKED).status
    assert 204 == office.client.post("/v1/runs:claim", ASKED, prefer="wait=1").status


def test_who_waits_for_work_gets_it_when_it_comes(office):
    got = []
    waiting = threading.Thread(target=lambda: got.append(office.client.post("/v1/runs:claim", ASKED, prefer="wait=20")))
    waiting.start()
    made = office.enqueued()
    waiting.join(25)

    assert (made["id"], "wait=20") == (got[0].json["id"], got[0].headers["preference-applied"])


def test_workers_that_ask_at_once_get_different_runs(office):
    """
    INVARIANT: one run, one claim.

    Breaks if the look for a run and the claim of it are two transactions, without the fence of the first.
    """
    made = {office.enqueued(number)["id"] for number in range(8)}
    got = []

    def work():
        while (answer := office.client.post("/v1/runs:claim", ASKED | {"phases": ["plan"]})).status == 200:
            got.append(answer.json["id"])

    workers = [threading.Thread(target=work) for _ in range(4)]
    [worker.start() for worker in workers]
    [worker.join(30) for worker in workers]

    # Two that look at one run at once: the loser is told that there is nothing, and would ask again.
    while (answer := office.client.post("/v1/runs:claim", ASKED)).status == 200:
        got.append(answer.json["id"])
    assert (sorted(made), 8) == (sorted(set(got)), len(got))


def test_a_stale_lease_is_told_that_its_claim_is_lost(office):
    """
    INVARIANT: only the newest claim on a run can complete its phase, whatever it is written in.

    Breaks if a verb over HTTP takes the run's id for the proof.
    """
    office.enqueued()
    stale = claim(office)
    lapse(office)
    fresh = claim(office)
    refused = [
        say(office, stale, "heartbeat"),
        say(office, stale, "succeed", result="stale"),
        say(office, stale, "fail", error={}),
    ]
    told = say(office, fresh, "succeed", result="fresh")

    assert [(409, "claim-lost")] * 3 == [(answer.status, answer.code) for answer in refused]
    assert 200 == told.status
    assert {"plan": "fresh"} == Run(office.bench.ledger, fresh["id"]).results


@pytest.mark.parametrize("first,other", [(1, True), (0, False), (1, 1.0), ([{"n": 1}], [{"n": True}])])
def test_a_result_that_only_python_calls_equal_is_another_result(office, first, other):
    office.enqueued()
    job = claim(office)
    told = say(office, job, "succeed", result=first)
    again = say(office, job, "succeed", result=other)

    assert 200 == told.status
    assert (409, "result-conflict") == (again.status, again.code)


def test_a_result_told_twice_is_recorded_once_and_answered_the_same(office):
    office.enqueued()
    job = claim(office)
    first = say(office, job, "succeed", result={"n": 1.5})
    claim(office)
    again = say(office, job, "succeed", result={"n": 1.5})
    other = say(office, job, "succeed", result={"n": 2})

    assert (200, first.json) == (first.status, again.json)
    assert (200, 409, "result-conflict") == (again.status, other.status, other.code)
    assert 1 == office.bench.count("runclaim_phase_results")


def test_a_failed_attempt_is_tried_again_and_told_once(office):
    made = office.enqueued()
    job = claim(office)
    said = {"error": {"type": "Timeout", "message": "no answer"}, "retry_after_seconds": 0}
    first, again = say(office, job, "fail", **said), say(office, job, "fail", **said)
    second = claim(office)
    run = office.client.get(f"/v1/runs/{made['id']}").json

    assert (200, 200, "failed") == (first.status, again.status, first.json["recorded"])
    assert first.json == again.json
    assert (made["id"], 2) == (second["id"], second["attempt"])
    assert {"type": "Timeout", "message": "no answer"} == run["error"]


@pytest.mark.parametrize("verdict,state", [("fail", "failed"), ("block", "blocked"), ("retry", "queued")])
def test_a_verdict_decides_what_becomes_of_the_run(office, verdict, state):
    made = office.enqueued()
    say(office, claim(office), "fail", error={}, verdict=verdict, retry_after_seconds=60)

    assert state == office.client.get(f"/v1/runs/{made['id']}").json["state"]
    assert 204 == office.client.post("/v1/runs:claim", ASKED).status


def test_a_heartbeat_keeps_a_claim_and_tells_of_a_cancel(office):
    made = office.enqueued()
    job = claim(office)
    first = say(office, job, "heartbeat")
    office.client.post(f"/v1/runs/{made['id']}:cancel")
    second = say(office, job, "heartbeat")
    say(office, job, "fail", error={"type": "Canceled"})

    assert (200, False, True) == (first.status, first.json["cancel_requested"], second.json["cancel_requested"])
    assert job["lease_expires_at"] <= first.json["lease_expires_at"] <= job["deadline_at"]
    assert "canceled" == office.client.get(f"/v1/runs/{made['id']}").json["state"]


@pytest.mark.parametrize("proof", ["1." + "0" * 32, "2.{owner}", "999999999999999999.{owner}"])
def test_a_claim_that_was_never_given_is_lost(office, proof):
    office.enqueued()
    job = claim(office)
    forged = job | {"claim": proof.format(owner=job["claim"].partition(".")[2])}

    for verb, body in [("heartbeat", {}), ("succeed", {"result": 1}), ("fail", {"error": {}})]:
        assert (409, "claim-lost") == ((answer := say(office, forged, verb, **body)).status, answer.code)
    assert "running" == office.client.get(f"/v1/runs/{job['id']}").json["state"]


@pytest.mark.parametrize("body", [{"claim": "x"}, {}, {"claim": "0." + "a" * 32}, {"claim": "9" * 19 + "." + "a" * 32}])
def test_what_is_no_claim_is_refused(desk_office, body):
    made = desk_office.enqueued()
    refused = desk_office.client.post(f"/v1/runs/{made['id']}:heartbeat", body)

    assert (422, "/claim") == (refused.status, refused.json["errors"][0]["pointer"])


@pytest.mark.parametrize("body", [{"flow": "deploy"}, {"phases": ["plan", "compound"]}])
def test_a_worker_for_what_does_not_exist_is_told_so(desk_office, body):
    assert "unknown-flow" == desk_office.client.post("/v1/runs:claim", ASKED | body).code


def test_a_completion_from_outside_plans_the_hooks_of_the_application(office):
    """
    INVARIANT: what the application wants to be told is planned whoever worked.

    Breaks if the API completes a phase without the hooks that its flow registered.
    """
    told = []
    office.review.on_complete(lambda_named("done", told))
    office.review.on_failed(lambda_named("lost", told))
    office.bench.register(office.review)
    office.enqueued()
    say(office, claim(office), "succeed", result=1)
    say(office, claim(office), "fail", error={"type": "E"}, verdict="fail")
    office.bench.send()

    assert [("done", "plan", "complete"), ("lost", "deliver", "failed")] == sorted(told)


def lambda_named(name, told):
    def hook(event):
        told.append((name, event.phase, event.state))

    hook.__name__ = name
    return hook


def test_a_result_is_kept_with_the_worker_that_claimed_its_phase(office):
    office.enqueued()
    say(office, claim(office), "succeed", result=1)
    with office.bench.database.read() as conn:
        found = conn.execute(text("SELECT worker, attempts FROM runclaim_phase_results")).one()

    assert ("http:outside-1", 1) == tuple(found)


def test_a_worker_of_an_older_release_gives_the_next_phase_no_budget_of_its_own(office):
    """
    INVARIANT: the budgets and the queue of a phase are those of a release that knows it, also behind the API.

    Breaks if the API gives a phase that nobody has registered its neighbour's budgets, or if no claim mends them.
    """
    bench = office.bench
    older = orders(bench)
    bench.register(older)
    newer = orders(bench)
    newer.phase(name="charge", max_attempts=2, max_losses=3, queue="cards", backoff=AT_ONCE)(broken)
    run = newer.enqueue(repo="a", number=7)
    assert 200 == say(office, claim(office, flow="orders", phases=["pack"]), "succeed", result=None).status
    queued = run.view
    bench.rung.clear()
    bench.finish(newer, run)

    assert ("queued", "charge", None) == (queued.state, queued.phase, queued.queue)
    assert [("charge", 1), ("charge", 2)] == [line[:2] for line in bench.diary.lines]
    assert (2, 3) == budgets(bench, run)


AT_ONCE = Backoff(first=timedelta(0), jitter=False)


def orders(bench):
    flow = bench.flow("orders", key="{number}")
    flow.phase(name="pack", max_attempts=5, queue="slow")(lambda ctx: None)
    return flow


def broken(ctx):
    raise ValueError("no")


def budgets(bench, run):
    with bench.database.read() as conn:
        return conn.execute(select(runs.c.max_attempts, runs.c.max_losses).where(runs.c.id == run.id)).one()


def test_a_worker_says_where_its_output_lies(office):
    made = office.enqueued()
    job = claim(office)
    told = say(office, job, "succeed", result=1, output_ref="s3://reports/7.json")
    repeated = say(office, job, "succeed", result=1, output_ref="s3://reports/7.json")
    other = say(office, job, "succeed", result=1, output_ref="s3://reports/8.json")
    run = office.client.get(f"/v1/runs/{made['id']}").json

    assert (200, 200, told.json) == (told.status, repeated.status, repeated.json)
    assert (409, "result-conflict") == (other.status, other.json["type"].rpartition(":")[2])
    assert ("s3://reports/7.json", {"plan": "s3://reports/7.json"}) == (run["output_ref"], run["output_refs"])


@pytest.mark.parametrize(
    "url", ["reports/7.json", "https://deploy:hunter2hunter2@reports.example/7", "s3:" + "a" * 3000, 7]
)
def test_an_output_that_is_no_url_is_refused_and_the_claim_stays(office, url):
    office.enqueued()
    job = claim(office)
    refused = say(office, job, "succeed", output_ref=url)

    assert (422, "/output_ref") == (refused.status, refused.json["errors"][0]["pointer"])
    assert "hunter2" not in str(refused.json)
    assert 200 == say(office, job, "succeed").status
