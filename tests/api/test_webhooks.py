"""Webhooks over HTTP: what the application declares, served by an API that was started with it."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass

import pytest
from celery import Celery

from runclaim import Runclaim
from tests.api.served import Served

SECRET = "it's a secret to everybody"


@dataclass(frozen=True)
class Push:
    repo: str
    head: str


class Hooked:
    def __init__(self, url):
        self.runs = Runclaim(Celery("hooked", broker="memory://", set_as_current=False), database_url=url)
        self.build = self.runs.flow("build", Push, key="{repo}@{head}")
        self.build.phase(name="compile")(lambda ctx: None)

        @self.runs.webhook("push", flow=self.build, secret=SECRET, max_body_bytes=2000)
        def push(delivery):
            return {"repo": delivery.payload["repo"], "head": delivery.payload["head"]} if delivery.payload else None

        self.served = Served(self.runs.config, self.runs)
        self.client = self.served.client()

    def deliver(self, payload, *, delivery="d1", secret=SECRET, path="/v1/webhooks/push", body=None):
        raw = json.dumps(payload).encode() if body is None else body
        signed = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
        headers = {"x_hub_signature_256": f"sha256={signed}", "x_github_delivery": delivery}
        return self.client.post(path, raw, content_type="application/json", **headers)


@pytest.fixture
def hooked(ledger_url):
    made = Hooked(ledger_url)
    with made.served:
        yield made
    made.runs.close()


def test_a_delivery_makes_a_run_and_its_repetition_names_it(hooked):
    first = hooked.deliver({"repo": "a", "head": "1"})
    again = hooked.deliver({"repo": "a", "head": "1"})
    later = hooked.deliver({"repo": "a", "head": "1", "more": True}, delivery="d2")

    assert (202, "enqueued") == (first.status, first.json["outcome"])
    assert (200, {"outcome": "duplicate", "run_id": first.json["run_id"]}) == (again.status, again.json)
    assert (200, {"outcome": "existing", "run_id": first.json["run_id"]}) == (later.status, later.json)
    assert {"repo": "a", "head": "1"} == hooked.runs.get(first.json["run_id"]).view.input


def test_a_delivery_that_concerns_no_run_is_answered(hooked):
    assert (200, {"outcome": "ignored", "run_id": None}) == ((found := hooked.deliver({})).status, found.json)


@pytest.mark.parametrize(
    "how,status,code",
    [
        ({"secret": "another secret of 16"}, 403, "signature-refused"),
        ({"path": "/v1/webhooks/pull"}, 404, "not-found"),
        ({"path": "/v1/webhooks/" + "x" * 200}, 400, "bad-request"),
        ({"payload": {"repo": "a"}}, 422, "invalid"),
        ({"payload": {"repo": "a", "head": 7}}, 422, "invalid"),
        ({"body": b"{"}, 422, "invalid"),
        ({"body": b"x" * 3000}, 413, "too-large"),
        ({"body": b"x" * 1_100_000}, 413, "too-large"),
    ],
)
def test_a_delivery_that_is_not_right_is_refused_and_writes_nothing(hooked, how, status, code):
    refused = hooked.deliver(**{"payload": {"repo": "a", "head": "1"}} | how)

    assert (status, code) == (refused.status, refused.code)
    with hooked.runs.ledger.database.read() as conn:
        assert 0 == conn.exec_driver_sql("SELECT COUNT(*) FROM runclaim_runs").scalar_one()


def test_an_api_without_an_application_has_no_webhooks(desk_office):
    assert (404, "not-found") == ((found := desk_office.client.post("/v1/webhooks/push", {})).status, found.code)


def test_an_api_with_an_application_knows_its_flows_without_a_worker_and_rings_at_once(hooked):
    """The broker of the test is in memory: what was published lies there."""
    from tests.api.served import token

    client = hooked.served.client(token(hooked.runs.ledger.database, "admin"))
    made = client.post("/v1/runs", {"flow": "build", "input": {"repo": "a", "head": "1"}})
    with hooked.runs.app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        # The broker in memory is one for the whole process.
        messages = [queue.get(timeout=5).payload[0] for _ in range(queue.qsize())]
        queue.close()

    assert (201, ["build"]) == (made.status, [flow["name"] for flow in client.get("/v1/flows").json["flows"]])
    assert [made.json["id"], 0] in messages
