"""Idempotency-Key: the same request is done once, and answered the same."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from runclaim.ledger.doors.idempotency_keys import forget_answers
from tests.api.conftest import INPUT, WANTED, Office
from tests.api.served import Served
from tests.harness import until


def ask(client, path="/v1/runs", body=WANTED, key="k1"):
    return client.post(path, body, idempotency_key=f'"{key}"')


def test_the_same_request_gets_the_same_answer(office):
    first, again = ask(office.client), ask(office.client)

    assert (201, 201) == (first.status, again.status)
    assert first.body == again.body
    assert (None, "true") == (first.headers["idempotency-replayed"], again.headers["idempotency-replayed"])
    assert first.headers["location"] == again.headers["location"]


def test_the_same_run_is_answered_as_it_stands_after_it_has_moved_on(office):
    first = ask(office.client)
    office.finish(first.json)
    again, now = ask(office.client), office.client.get(f"/v1/runs/{first.json['id']}")

    assert (201, "true", now.body) == (again.status, again.headers["idempotency-replayed"], again.body)
    assert (first.headers["location"], now.headers["etag"]) == (again.headers["location"], again.headers["etag"])
    assert "succeeded" == again.json["state"]


def test_an_answer_stores_little_however_much_its_run_holds(office):
    """
    INVARIANT: a request of a few bytes does not store a thousand times its size.

    Breaks if an answer keeps the input or the result of its run, or the payload of its action.
    """
    large = WANTED | {"input": INPUT | {"head": "x" * 200_000}}
    made = ask(office.client, body=large).json
    office.client.post(f"/v1/runs/{made['id']}:cancel")
    kinds = [("/v1/runs", large), (f"/v1/runs/{made['id']}:cancel", None), ("/v1/runs:cancel", {"ids": [made["id"]]})]
    answers = [ask(office.client, path, body, key=f"k{n}") for path, body in kinds for n in range(2, 12)]
    rows = office.bench.execute("SELECT * FROM runclaim_answers").all()

    assert {200, 202} == {answer.status for answer in answers}
    assert [] == [row for row in rows if len(str(tuple(row))) > 1000]
    assert 31 == len(rows)


def test_a_project_has_room_for_so_many_answers(sqlite_url):
    office = Office(sqlite_url, api_answers=2)
    with office.served:
        first = ask(office.client, key="a")
        office.served.server.room._counted.clear()
        kept = [ask(office.client, key="b").status, ask(office.client, key="a").status]
        office.served.server.room._counted.clear()
        refused, without = ask(office.client, key="c"), office.client.post("/v1/runs", WANTED)
        theirs = ask(office.with_scopes("admin", projects=("theirs",)), key="c")
    office.close()

    assert (201, [200, 201]) == (first.status, kept)
    assert (429, ["answers"]) == (refused.status, refused.json["violated-policies"])
    assert (200, 201) == (without.status, theirs.status)


def test_an_answer_whose_run_was_purged_says_so(office):
    made = ask(office.client).json
    office.client.post(f"/v1/runs/{made['id']}:cancel")
    office.bench.execute("DELETE FROM runclaim_runs")
    gone = ask(office.client)

    assert (410, "run-purged", made["id"]) == (gone.status, gone.code, gone.json["run_id"])


def test_32_clients_with_one_key_make_one_run(office):
    """
    INVARIANT: one Idempotency-Key is one run, however many send it at once, also to several servers.

    Breaks if the answer is kept in another transaction than the run, or is looked for outside it.
    """
    answers, start = [], threading.Barrier(32)
    with Served(office.bench.config) as other:
        clients = [office.client, other.client(office.token)]

        def send(number):
            start.wait()

            def answered():
                found = ask(clients[number % 2])
                assert found.status in {201, 409}, found
                if found.status == 409:
                    assert ("request-in-flight", "1") == (found.code, found.headers["retry-after"])
                return found if found.status == 201 else None

            answers.append(until(answered, "an answer"))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(32)]
        [thread.start() for thread in threads]
        [thread.join(60) for thread in threads]

    assert 32 == len(answers)
    assert 1 == len({answer.body for answer in answers})
    assert 1 == len([answer for answer in answers if answer.headers["idempotency-replayed"] is None])
    assert (1, 1) == (office.bench.count("runclaim_runs"), office.bench.count("runclaim_answers"))


def test_a_key_that_comes_with_another_payload_is_refused(office):
    ask(office.client)
    refused = ask(office.client, body=WANTED | {"input": INPUT | {"number": 8}})

    assert (422, "idempotency-key-reused") == (refused.status, refused.code)
    assert 1 == office.bench.count("runclaim_runs")


def test_a_key_is_one_of_its_address_and_its_project(office):
    first = ask(office.client).json
    office.bench.database.run(lambda conn: None)
    theirs = office.with_scopes("admin", projects=("theirs",))
    other = ask(theirs)
    canceled = ask(office.client, f"/v1/runs/{first['id']}:cancel", None)

    assert (201, 202) == (other.status, canceled.status)
    assert first["id"] != other.json["id"]


@pytest.mark.parametrize("verb,status", [("cancel", 202), ("retry", 202), ("resume", 202)])
def test_a_change_is_asked_once(office, verb, status):
    made = office.enqueued()
    if verb != "cancel":
        job = office.client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"}).json
        said = {"claim": job["claim"], "error": {}, "verdict": {"retry": "fail", "resume": "block"}[verb]}
        office.client.post(f"/v1/runs/{made['id']}:fail", said)
    path = f"/v1/runs/{made['id']}:{verb}"
    first, again = ask(office.client, path, None), ask(office.client, path, None)
    without = office.client.post(path)

    assert (status, status, "true") == (first.status, again.status, again.headers["idempotency-replayed"])
    assert first.body == again.body
    # A cancel is as good twice; a queued run cannot be retried.
    assert (202 if verb == "cancel" else 409) == without.status


def test_a_refusal_is_not_kept(office):
    made = office.enqueued()
    path = f"/v1/runs/{made['id']}:retry"
    refused = ask(office.client, path, None)
    job = office.client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"}).json
    office.client.post(f"/v1/runs/{made['id']}:fail", {"claim": job["claim"], "error": {}, "verdict": "fail"})

    assert (409, "state-conflict") == (refused.status, refused.code)
    assert 202 == ask(office.client, path, None).status


@pytest.mark.parametrize(
    "header,taken",
    [('"a b"', True), ("bare-8e03978e", True), ('"with \\" inside"', True), ("x" * 255, True), ("", False),
     ('""', False), ("two words", False), ("x" * 256, False), ('"open', False), ('"a", "b"', False)],
)  # fmt: skip
def test_a_key_is_a_text_quoted_or_bare(desk_office, header, taken):
    answer = desk_office.client.post("/v1/runs", WANTED, idempotency_key=header)

    assert 201 == answer.status if taken else (400, "bad-request") == (answer.status, answer.code)


def test_quoted_and_bare_are_the_same_key(desk_office):
    desk_office.client.post("/v1/runs", WANTED, idempotency_key='"abc"')

    assert "true" == desk_office.client.post("/v1/runs", WANTED, idempotency_key="abc").headers["idempotency-replayed"]


def test_an_answer_is_kept_until_a_day_after_its_run_has_ended(office):
    """
    INVARIANT: a client may come back for a day after the end; and nothing is kept for ever.

    Breaks if the day begins with the answer, or the answer of a purged run stays.
    """
    bench = office.bench
    made = ask(office.client).json

    def a_day_later():
        shift = {"sqlite": "- 86400000000", "postgresql": "- interval '1 day'"}[bench.database.url.get_backend_name()]
        bench.execute(f"UPDATE runclaim_answers SET expires_at = expires_at {shift}")
        bench.execute(f"UPDATE runclaim_runs SET finished_at = finished_at {shift} WHERE finished_at IS NOT NULL")
        return bench.database.run(forget_answers), bench.count("runclaim_answers")

    while_it_goes_on = a_day_later()
    office.finish(made)
    after_its_end = bench.database.run(forget_answers), bench.count("runclaim_answers")

    assert ((1, 1), (0, 1)) == (while_it_goes_on, after_its_end)
    assert (1, 0) == a_day_later()
    assert 86_400 == timedelta(days=1).total_seconds()
