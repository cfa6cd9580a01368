"""What an application puts into the ledger is encoded at rest, on both databases."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from celery import Celery
from sqlalchemy import select

from runclaim import ActionRejected, KeyConflict, Runclaim, RunState, Skip, codec
from runclaim.errors import ConfigError, DeclarationError, InputError
from runclaim.flows.client.new_run import Options
from runclaim.ledger.listeners import tail
from runclaim.ledger.listeners.untold import Aside, set_aside
from runclaim.models import metadata, untold
from tests.ledger.factories import claim_again

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim import Run
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

CANARY = "canary of Ann"
URL = "https://example.com/Ann"


class Scrambled:
    """As an encryption: no two encodings of a text are alike, and none shows it."""

    def encode(self, plain: bytes) -> bytes:
        key = os.urandom(1)[0] | 1
        return bytes([key, *(each ^ key for each in plain)])

    def decode(self, encoded: bytes) -> bytes:
        key, *rest = encoded
        return bytes(each ^ key for each in rest)


@pytest.fixture
def scrambled(monkeypatch: pytest.MonkeyPatch) -> Scrambled:
    """The codec of this process, for one test."""
    monkeypatch.setattr(codec._InUse, "codec", None)
    made = Scrambled()
    codec.use(made)
    return made


@pytest.fixture
def flow(bench: Bench) -> Iterator[Flow[Any]]:
    """It hands a text to the ledger by every way that there is."""

    @bench.action("mail", max_attempts=1)
    def mail(payload: Any, idempotency_key: str) -> str:
        raise ActionRejected(f"not {payload}")

    bench.ledger.headers_of = lambda _new: {"who": CANARY}
    made = bench.flow()

    @made.phase(name="plan")
    def plan(ctx: Any) -> list[str]:
        ctx.finding(severity="major", title=CANARY, body=CANARY, path=CANARY)
        with ctx.session("reviewer", artifact_path=CANARY) as session:
            session.started(CANARY)
            session.finding(severity="minor", title=CANARY)
        ctx.named_session("ann").keep(CANARY)
        ctx.plan_action("mail", {"to": CANARY})
        ctx.output_ref(URL)
        return [ctx.act("ask", lambda _key: CANARY), ctx.input.head]

    @made.phase(name="wait", on="approved")
    def wait(ctx: Any) -> Any:
        return ctx.signal

    @made.phase(name="leave")
    def leave(ctx: Any) -> None:
        raise Skip(CANARY)

    @made.phase(name="deliver", max_attempts=1)
    def deliver(ctx: Any) -> None:
        assert [CANARY, CANARY] == ctx.result(plan)
        raise ValueError(CANARY)

    @made.on_failed
    def tell(event: Any) -> None:
        raise ActionRejected(event.error["message"])

    yield made
    bench.ledger.headers_of = lambda _new: None


def ended(bench: Bench, flow: Flow[Any]) -> Run:
    """A run that has failed, its actions too, and an event of which a listener has failed."""
    run = flow.enqueue(repo="acme", number=7, head=CANARY).signal("approved", {"by": CANARY})
    bench.finish(flow, run)
    bench.send()

    def aside(conn: Any) -> None:
        line = tail.after(conn, 0, 2**60, limit=1)[0]
        set_aside(conn, "mailer", [Aside(line, 1, timedelta(0), {"type": "Oh", "message": CANARY})])

    bench.database.run(aside)
    return run


def tables_with(bench: Bench, text: str) -> set[str]:
    """Read as they are, past the types of the columns."""
    with bench.database.read() as conn:
        return {
            name.removeprefix("runclaim_")
            for name in metadata.tables
            if text in str(conn.exec_driver_sql(f"SELECT * FROM {name}").all())
        }


def everything(bench: Bench, run: Run) -> dict[str, Any]:
    view = run.view
    with bench.database.read() as conn:
        aside = conn.execute(select(untold.c.error)).scalar_one()
    return {
        "input": view.input["head"],
        "headers": view.headers,
        "error": view.error and view.error["message"],
        "results": [run.results["plan"], run.results["wait"]],
        "findings": {(each.title, each.body, each.path) for each in run.findings},
        "sessions": [(each.provider_session_id, each.artifact_path) for each in run.sessions],
        "actions": [(each.kind, each.error and each.error["message"]) for each in run.actions],
        "payload": run.actions[0].payload,
        "failed": [each.data["message"] for each in run.events if each.type == "phase.failed"],
        "aside": aside,
        "outputs": (run.output_ref, run.output_refs),
    }


WHOLE = {
    "input": CANARY,
    "headers": {"who": CANARY},
    "error": CANARY,
    "results": [[CANARY, CANARY], {"by": CANARY}],
    "findings": {(CANARY, CANARY, CANARY), (CANARY, None, None)},
    "sessions": [(CANARY, CANARY)],
    "payload": {"to": CANARY},
    "failed": [CANARY],
    "aside": {"type": "Oh", "message": CANARY},
    "outputs": (URL, {"plan": URL}),
}


def test_without_a_codec_every_table_of_runs_has_the_text(bench, flow):
    """The other test of this flow shows something only if this one holds."""
    ended(bench, flow)
    places = {"runs", "phase_results", "events", "actions", "findings", "sessions", "named_sessions", "acts", "signals"}

    assert {*places, "untold"} == tables_with(bench, CANARY)


def test_no_plain_text_is_left_in_any_table_and_all_of_it_is_read_back(bench, flow, scrambled):
    """
    INVARIANT: with a codec, nothing that an application hands over is at rest as it is.

    Breaks if a verb writes a value without sealing it, or reads one without opening it.
    """
    run = ended(bench, flow)
    shown = everything(bench, run)
    actions = dict(shown.pop("actions"))

    assert RunState.FAILED is run.state
    assert set() == tables_with(bench, CANARY) | tables_with(bench, URL)
    assert WHOLE == shown
    assert f"not {{'to': '{CANARY}'}}" == actions["mail"]


def test_what_was_written_before_there_was_a_codec_stays_readable(bench, flow, monkeypatch):
    run = ended(bench, flow)
    monkeypatch.setattr(codec._InUse, "codec", Scrambled())
    shown = everything(bench, run)
    shown.pop("actions")

    assert WHOLE == shown


def test_a_process_without_the_codec_shows_what_is_encoded_and_claims_nothing(bench, flow, scrambled, monkeypatch):
    """
    INVARIANT: no body starts with an input that its process cannot decode.

    Breaks if a claim hands over what it has read as it stands: the run would fail for good.
    """
    run = flow.enqueue(repo="acme", number=7, head=CANARY)
    monkeypatch.setattr(codec._InUse, "codec", None)

    assert ["runclaim.codec"] == list(run.view.input)
    with pytest.raises(ConfigError, match="codec="):
        bench.database.run(lambda conn: claim_again(conn, run.id, flow="review"))
    assert (RunState.QUEUED, 0) == (run.state, run.view.attempts)


def test_a_process_without_the_codec_sends_no_action_whose_payload_is_encoded(bench, flow, scrambled, monkeypatch):
    run = flow.enqueue(repo="acme", number=7, head=CANARY)
    bench.deliver(flow)
    monkeypatch.setattr(codec._InUse, "codec", None)

    with pytest.raises(ConfigError, match="codec="):
        bench.send()
    assert ["planned"] == [each.state for each in run.actions]


def test_a_conflict_with_an_encoded_input_shows_nothing_of_its_envelope(bench, flow, scrambled, monkeypatch):
    flow.enqueue(repo="acme", number=7, head=CANARY)
    monkeypatch.setattr(codec._InUse, "codec", None)

    with pytest.raises(KeyConflict) as refused:
        flow.enqueue(repo="acme", number=7, head="another")
    assert {} == refused.value.differs


def test_keys_are_compared_by_their_inputs_and_not_by_what_is_encoded(bench, flow, scrambled):
    run = flow.enqueue(repo="acme", number=7, head=CANARY)
    again = flow.enqueue(repo="acme", number=7, head=CANARY)

    assert (run.id, False) == (again.id, again.created)
    with pytest.raises(KeyConflict) as refused:
        flow.enqueue(repo="acme", number=7, head="another")
    assert {"head": (CANARY, "another")} == refused.value.differs


def test_a_rerun_has_the_input_that_was_recorded(bench, flow, scrambled):
    run = ended(bench, flow)
    rerun = run.rerun()

    assert CANARY == rerun.view.input["head"]
    assert set() == tables_with(bench, CANARY)


def test_a_value_that_the_codec_cannot_decode_is_refused_without_a_word_of_it(bench, flow, scrambled, monkeypatch):
    class Another(Scrambled):
        def decode(self, encoded: bytes) -> bytes:
            raise ValueError(encoded)

    run = flow.enqueue(repo="acme", number=7, head=CANARY)
    monkeypatch.setattr(codec._InUse, "codec", Another())

    with pytest.raises(codec.CodecFailed, match=r"cannot decode a value of the ledger \(ValueError\)"):
        _ = run.view


def test_a_door_without_the_application_takes_no_input_of_a_flow_whose_data_is_encoded(bench, flow, scrambled):
    with pytest.raises(InputError, match="only the application has the codec"):
        bench.outside(flow).new_run({"repo": "acme", "number": 7}, Options())


def test_a_flow_that_fails_open_has_no_codec(bench, scrambled):
    with pytest.raises(DeclarationError, match="leave out fail_open, or the codec"):
        bench.flow(fail_open=True)


def test_a_process_has_one_codec(scrambled):
    codec.use(scrambled)

    with pytest.raises(DeclarationError, match="another codec already"):
        Runclaim(Celery("orders", set_as_current=False), codec=Scrambled())


@pytest.mark.parametrize("name", ["runclaim.codec", "runclaim.erased"])
def test_no_value_of_an_application_can_stand_for_an_encoded_or_erased_one(bench, name):
    flow = bench.flow("free", TypedDict("Free", {name: str}), key=lambda _given: "one")
    flow.phase(name="plan")(lambda ctx: None)

    with pytest.raises(InputError, match="reserved"):
        flow.enqueue({name: "x"})
