"""Webhooks in: from a signed delivery to one run, on both databases, with nothing written for what is refused."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from celery import Celery
from sqlalchemy import text
from starlette.datastructures import Headers

from runclaim import Context, InputError, KeyConflict, Runclaim
from runclaim.errors import ConfigError, DeclarationError, SignatureRefused
from runclaim.flows.inbound.webhook import MAX_BODY_BYTES, Delivery, DeliveryOutcome, Webhook
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "a secret of thirty-two characters"


@dataclass(frozen=True)
class PullRequest:
    repo: str
    number: int
    base: str
    head: str


class Hooked:
    """An application with one webhook, whose broker is in memory."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.app = Celery("hooked", broker="memory://", set_as_current=False)
        self.runs = Runclaim(self.app, database_url=url, **settings)
        review = self.runs.flow(
            "review", PullRequest, key="{repo}:pr-{number}:{base}:{head}", subject="{repo}:pr-{number}"
        )

        @review.phase
        def plan(ctx: Context[PullRequest]) -> str:
            return ctx.input.head

        @self.runs.webhook("github", flow=review, secret=SECRET)
        def pull_request(delivery: Delivery) -> PullRequest | None:
            if delivery.event != "pull_request":
                return None
            found = delivery.payload["pull_request"]
            return PullRequest(
                delivery.payload["repository"]["full_name"], found["number"], found["base"]["sha"], found["head"]["sha"]
            )

        self.hook: Webhook[PullRequest] = pull_request

    def counts(self) -> dict[str, int]:
        tables = ("runs", "run_keys", "dedup_keys", "events", "subjects")
        with self.runs.ledger.database.read() as conn:
            return {name: conn.execute(text(f"SELECT count(*) FROM runclaim_{name}")).scalar_one() for name in tables}


@pytest.fixture
def hooked(ledger_url: str) -> Iterator[Hooked]:
    made = Hooked(ledger_url)
    yield made
    made.runs.ledger.database.close()
    made.app.close()


def delivery(head: str = "b2", *, number: int = 7, note: str = "") -> bytes:
    pull = {"number": number, "base": {"sha": "a1"}, "head": {"sha": head}}
    payload = {"action": "synchronize", "repository": {"full_name": "acme/app"}, "pull_request": pull, "note": note}
    return json.dumps(payload).encode()


def headers(body: bytes, *, of: str = "delivery-1", event: str = "pull_request") -> dict[str, str]:
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": of, "X-GitHub-Event": event}


def test_a_delivery_makes_a_run_of_the_pair_of_commits(hooked: Hooked):
    body = delivery()
    received = hooked.hook.receive(body, headers(body))

    assert DeliveryOutcome.ENQUEUED == received.outcome
    assert received.run is not None
    assert ("acme/app:pr-7:a1:b2", "acme/app:pr-7") == (received.run.view.key, received.run.view.subject)


@pytest.mark.parametrize("again", ["same id, same payload", "same id, other payload", "other id, same payload"])
def test_the_same_delivery_or_payload_is_dropped_and_names_the_first_run(hooked: Hooked, again: str):
    """
    INVARIANT: a delivery id counts once, and a payload once within the window.

    Breaks if one of the two sightings is not written with the run.
    """
    body = delivery()
    first = hooked.hook.receive(body, headers(body)).run
    other = delivery(note="changed") if "other payload" in again else body
    second = hooked.hook.receive(other, headers(other, of="delivery-2" if "other id" in again else "delivery-1"))

    assert first is not None
    assert second.run is not None
    assert (DeliveryOutcome.DUPLICATE, first.id) == (second.outcome, second.run.id)
    assert {"runs": 1, "run_keys": 1, "dedup_keys": 2, "events": 1, "subjects": 1} == hooked.counts()


def test_another_delivery_of_the_same_pair_finds_its_run(hooked: Hooked):
    """The key is the pair of commits, never the delivery: a relabelled pull request is not reviewed again."""
    body, other = delivery(), delivery(note="relabelled")
    first = hooked.hook.receive(body, headers(body)).run
    second = hooked.hook.receive(other, headers(other, of="delivery-2"))

    assert first is not None
    assert second.run is not None
    assert (DeliveryOutcome.EXISTING, first.id) == (second.outcome, second.run.id)


def test_a_force_push_supersedes_the_older_run(hooked: Hooked):
    body, pushed = delivery("b2"), delivery("c3")
    old = hooked.hook.receive(body, headers(body)).run
    new = hooked.hook.receive(pushed, headers(pushed, of="delivery-2")).run

    assert old is not None
    assert new is not None
    assert ["superseded", "queued"] == [old.state, new.state]


def test_32_simultaneous_identical_deliveries_give_one_run(hooked: Hooked):
    body = delivery()
    outcomes = [each.outcome for each in together(32, lambda _: hooked.hook.receive(body, headers(body)))]

    assert [DeliveryOutcome.ENQUEUED] == [outcome for outcome in outcomes if outcome is not DeliveryOutcome.DUPLICATE]
    assert 1 == hooked.counts()["runs"]


def test_an_event_that_concerns_no_run_writes_nothing(hooked: Hooked):
    body = delivery()
    received = hooked.hook.receive(body, headers(body, event="ping"))

    assert (DeliveryOutcome.IGNORED, None) == (received.outcome, received.run)
    assert 0 == sum(hooked.counts().values())


def _signed(body: bytes) -> tuple[bytes, dict[str, str]]:
    return body, headers(body)


@pytest.mark.parametrize(
    "given,refused,field",
    [
        ((delivery(), headers(b"something else")), SignatureRefused, "x-hub-signature-256"),
        ((delivery(), {"X-GitHub-Delivery": "1"}), SignatureRefused, "x-hub-signature-256"),
        (_signed(b"x" * (MAX_BODY_BYTES + 1)), InputError, "body"),
        (_signed(b"not json"), InputError, "body"),
        (_signed(b'{"a": NaN}'), InputError, "body"),
        (_signed(b'{"a": 1, "a": 2}'), InputError, "a"),
        (_signed(b"[" * 100_000), InputError, "body"),
        (_signed(delivery(number="seven")), InputError, "number"),  # type: ignore[arg-type]
        (_signed(delivery("b\x00")), InputError, "input.head"),
        (_signed(delivery("b\ud800")), InputError, "input.head"),
    ],
    ids=[
        "tampered",
        "unsigned",
        "too large",
        "no json",
        "nan",
        "field twice",
        "too deep",
        "wrong type",
        "nul",
        "surrogate",
    ],
)
def test_what_is_refused_names_the_field_and_writes_nothing(hooked: Hooked, given: Any, refused: type, field: str):
    with pytest.raises(refused) as error:
        hooked.hook.receive(*given)

    assert field == getattr(error.value, "field", getattr(error.value, "header", None))
    assert 0 == sum(hooked.counts().values())


def test_a_payload_without_the_fields_that_the_mapping_reads_is_refused(hooked: Hooked):
    body = b'{"repository": {"full_name": "acme/app"}}'
    with pytest.raises(InputError, match="pull_request: is missing"):
        hooked.hook.receive(body, headers(body))

    assert 0 == sum(hooked.counts().values())


@pytest.mark.parametrize("name", ["X-Hub-Signature-256", "X-GitHub-Delivery", "X-GitHub-Event", "Content-Type"])
def test_a_header_that_decides_and_is_given_twice_is_refused(hooked: Hooked, name: str):
    body = delivery()
    once = headers(body) | {"Content-Type": "application/json"}
    twice = Headers(raw=[(key.encode(), value.encode()) for key, value in [*once.items(), (name, "another")]])
    with pytest.raises(SignatureRefused, match=f"{name.lower()}: is sent twice"):
        hooked.hook.receive(body, twice)

    assert 0 == sum(hooked.counts().values())


def test_a_form_as_github_sends_it_by_default_makes_the_run_of_its_payload(hooked: Hooked):
    body = urlencode({"payload": delivery().decode()}).encode()
    received = hooked.hook.receive(body, headers(body) | {"Content-Type": "application/x-www-form-urlencoded"})

    assert DeliveryOutcome.ENQUEUED == received.outcome


@pytest.mark.parametrize("pull", [None, [], "b2", {"number": 7, "base": None}])
def test_null_where_an_object_was_expected_is_an_input_error_and_writes_nothing(hooked: Hooked, pull: Any):
    body = json.dumps({"repository": {"full_name": "acme/app"}, "pull_request": pull}).encode()
    with pytest.raises(InputError):
        hooked.hook.receive(body, headers(body))

    assert 0 == sum(hooked.counts().values())


@pytest.mark.parametrize("second", ["another input of the key", "an input that is refused"])
def test_a_delivery_id_counts_once_where_the_mapping_is_not_the_same_twice(hooked: Hooked, second: str):
    """INVARIANT: the sender of a repetition is told so. Breaks if the run's key or the mapping has the last word."""
    numbers = iter([7, 8 if "another" in second else "eight"])
    hooked.runs.flows["review"].naming.key = lambda _: "one key"  # type: ignore[assignment]

    @hooked.runs.webhook("clock", flow=hooked.runs.flows["review"], secret=SECRET)
    def clock(_: Delivery) -> Any:
        return {"repo": "acme/app", "number": next(numbers), "base": "a1", "head": "b2"}

    body, other = delivery(), delivery(note="later")
    first = clock.receive(body, headers(body))
    again = clock.receive(other, headers(other))

    assert (DeliveryOutcome.ENQUEUED, DeliveryOutcome.DUPLICATE) == (first.outcome, again.outcome)
    assert first.run is not None
    assert again.run is not None
    assert first.run.id == again.run.id


def test_a_key_conflict_leaves_no_window_behind(hooked: Hooked):
    """The sender may deliver again after the conflict is mended: the delivery was not taken."""
    hooked.runs.flows["review"].enqueue(repo="acme/app", number=7, base="a1", head="b2")
    hooked.runs.flows["review"].naming.key = lambda _: "acme/app:pr-7:a1:b2"  # type: ignore[assignment]
    body = delivery("other")
    before = hooked.counts()
    first = hooked.hook.receive(body, headers(body))
    changed = delivery("another")
    with pytest.raises(KeyConflict):
        hooked.hook.receive(changed, headers(changed, of="delivery-2"))

    assert DeliveryOutcome.ENQUEUED == first.outcome
    assert before["dedup_keys"] + 2 == hooked.counts()["dedup_keys"]


def test_windows_survive_a_restart(hooked: Hooked, ledger_url: str):
    body = delivery()
    hooked.hook.receive(body, headers(body))
    restarted = Hooked(ledger_url)

    assert DeliveryOutcome.DUPLICATE == restarted.hook.receive(body, headers(body)).outcome
    restarted.runs.ledger.database.close()


def test_mistakes_in_a_declaration_fail_at_once(hooked: Hooked):
    flow = hooked.runs.flows["review"]
    with pytest.raises(DeclarationError, match="already has a webhook github"):
        hooked.runs.webhook("github", flow=flow, secret=SECRET)
    with pytest.raises(DeclarationError, match="scheme must be one of github, standard"):
        hooked.runs.webhook("other", flow=flow, secret=SECRET, scheme="svix")(lambda _: None)
    with pytest.raises(ConfigError, match="at least 16"):
        hooked.runs.webhook("weak", flow=flow, secret="short")(lambda _: None)


@pytest.mark.parametrize("name", ["nobody", "", "a\x00b"])
def test_an_unknown_trigger_or_flow_is_an_input_that_is_refused(hooked: Hooked, name: str):
    with pytest.raises(InputError, match=r".* is not declared; this app has github") as trigger:
        hooked.runs.webhooks[name]
    with pytest.raises(InputError, match=r".* is not declared; this app has review") as flow:
        hooked.runs.flows[name]

    assert ("trigger", "flow") == (trigger.value.field, flow.value.field)
    assert (None, None) == (hooked.runs.webhooks.get(name), hooked.runs.flows.get(name))


def test_a_run_says_which_delivery_made_it(hooked: Hooked):
    body = delivery()
    made = hooked.hook.receive(body, headers(body)).run
    other = delivery(note="edited")
    hooked.hook.receive(other, headers(other, of="delivery-2"))

    assert made is not None
    assert ("delivery-1", "pull_request.synchronize") == (made.view.delivery_id, made.view.delivery_action)


def test_what_a_sender_calls_its_delivery_is_kept_short_and_without_a_secret(hooked: Hooked):
    body, token = delivery(), "ghp_" + "a1B2c3D4e5" * 4
    made = hooked.hook.receive(body, headers(body, of=token + "x" * 5000)).run

    assert made is not None
    assert made.view.delivery_id is not None
    assert "ghp_" not in made.view.delivery_id
    assert 512 >= len(made.view.delivery_id.encode())
