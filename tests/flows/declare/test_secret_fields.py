"""Who enqueues chooses no secret: references only where the flow declares them, at every door and again in the body."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Context, InputError, RunState
from runclaim.errors import DeclarationError
from runclaim.flows.client.new_run import Options
from runclaim.flows.client.run_source import RunSource
from runclaim.flows.declare.secret_fields import SecretFields
from runclaim.flows.inbound.route import OutsideEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.bench import Bench

CANARY = "ghp_" + "Can4ry" * 6


@dataclass(frozen=True)
class Job:
    name: str
    token: str = ""
    title: str = ""
    more: dict[str, Any] | None = None


def forge(bench: Bench, **how: Any) -> Any:
    return bench.flow("forge", Job, **{"key": "{name}", "secrets": {"token": "secret:env:FORGE_*"}} | how)


def enqueue_outside(flow: Any, bench: Bench, fields: dict[str, Any]) -> Any:
    return bench.outside(flow).new_run(fields, Options(), project="default")


DOORS: dict[str, Callable[[Any, Any, dict[str, Any]], Any]] = {
    "fields": lambda flow, bench, fields: flow.enqueue(**fields),
    "a value": lambda flow, bench, fields: flow.enqueue(Job(**fields)),
    "many": lambda flow, bench, fields: flow.enqueue_many([Job("other"), fields]),
    "an event": lambda flow, bench, fields: flow.route(OutsideEvent(fields)),
    "outside": enqueue_outside,
}
NOT_DECLARED = [
    ({"token": "secret:env:DEPLOY_KEY"}, "token"),
    ({"token": "secret:env:RUNCLAIM_DATABASE_URL"}, "token"),
    ({"token": "secret:vault:FORGE_TOKEN"}, "token"),
    ({"token": "secret:env:forge_token"}, "token"),
    ({"title": "secret:env:FORGE_TOKEN"}, "title"),
    ({"more": {"token": ["secret:env:FORGE_TOKEN"]}}, "more.token"),
    ({"more": {"a": {"secret:env:FORGE_TOKEN": 1}}}, "more.a"),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fields, field", NOT_DECLARED)
def test_a_reference_that_is_not_declared_is_refused_before_anything_is_written(
    laptop: Bench, door: str, fields: dict[str, Any], field: str
):
    """
    INVARIANT: the caller of a run chooses no secret of the worker.

    Breaks if a door does not ask `SecretFields.check`.
    """
    flow = forge(laptop)
    flow.phase(name="plan", on="go")(lambda ctx: None)
    with pytest.raises(InputError) as refused:
        DOORS[door](flow, laptop, {"name": "a"} | fields)

    assert field == refused.value.field
    assert f'declare it: runs.flow(…, secrets={{"{field}": "secret:env:NAME"}})' in str(refused.value)
    assert [0, 0] == [laptop.count(f"runclaim_{table}") for table in ("runs", "run_keys")]


@pytest.mark.parametrize("door", [door for door in DOORS if door != "outside"])
def test_a_reference_that_is_declared_gives_the_body_its_value(
    laptop: Bench, monkeypatch: pytest.MonkeyPatch, door: str
):
    monkeypatch.setenv("FORGE_TOKEN", "swordfish and more")
    flow = forge(laptop)

    @flow.phase
    def plan(ctx: Context[Job]) -> str:
        return ctx.secret(ctx.input.token).upper() if ctx.input.token else ""

    DOORS[door](flow, laptop, {"name": "a", "token": "secret:env:FORGE_TOKEN"})
    run = flow.find("a")
    laptop.finish(flow, run)

    assert "SWORDFISH AND MORE" == run.result


def test_a_run_from_before_the_declaration_was_narrowed_resolves_nothing(
    laptop: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Breaks if the body resolves what the door let pass: a run may be older than the rule, or recovered."""
    monkeypatch.setenv("DEPLOY_KEY", "swordfish and more")
    flow = forge(laptop, secrets={"token": "secret:env:*_KEY"})

    @flow.phase(max_attempts=1)
    def plan(ctx: Context[Job]) -> str:
        return ctx.secret(ctx.input.token)

    run = flow.enqueue(name="a", token="secret:env:DEPLOY_KEY")
    flow.secret_fields = SecretFields()
    laptop.deliver(flow)

    assert RunState.FAILED is run.state
    assert "a field of the input that the flow does not declare for secrets" in run.view.error["message"]


def test_what_the_code_asks_for_by_name_needs_no_declaration(laptop: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEPLOY_KEY", "swordfish and more")
    flow = forge(laptop)
    flow.phase(name="plan")(lambda ctx: len(ctx.secret("secret:env:DEPLOY_KEY")))
    run = flow.enqueue(name="a")
    laptop.finish(flow, run)

    assert len("swordfish and more") == run.result


@pytest.mark.parametrize("name", ["RUNCLAIM_DATABASE_URL", "RUNCLAIM_TOKEN", "runclaim_token"])
def test_no_reference_leads_to_a_setting_of_runclaim(laptop: Bench, monkeypatch: pytest.MonkeyPatch, name: str):
    """INVARIANT: not even code that is handed a name gives away the ledger. Breaks if `env` reads every variable."""
    monkeypatch.setenv(name, "postgresql://app:swordfish@db/app")
    flow = forge(laptop)

    @flow.phase(max_attempts=1)
    def plan(ctx: Context[Job]) -> str:
        return ctx.secret(f"secret:env:{name}")

    run = flow.enqueue(name="a")
    laptop.deliver(flow)

    assert f"secret:env:{name}: env has no {name}" == run.view.error["message"]


def test_a_signal_carries_no_reference_whatever_its_flow_declares(laptop: Bench):
    flow = forge(laptop, allow_secrets=True)
    flow.phase(name="wait", on="approved")(lambda ctx: None)
    run = flow.enqueue(name="a")
    with pytest.raises(InputError, match="only a flow's input may hold one"):
        run.signal("approved", {"token": "secret:env:FORGE_TOKEN"})

    assert run.signal("approved", {"token": "x"}) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"nothing": "secret:env:X"},
        {"token": "FORGE_TOKEN"},
        {"token": "secret:*:X"},
        {"token": "secret:env:*"},
        {"token": "secret:env:RUNCLAIM_*"},
        {"token": "secret:env:"},
        {"token": ["secret:env:A", "env:B"]},
        {"token": 7},
    ],
)
def test_a_declaration_that_would_open_too_much_or_nothing_is_refused(laptop: Bench, wrong: Any):
    with pytest.raises(DeclarationError):
        forge(laptop, secrets=wrong)


def test_a_field_may_hold_what_looks_like_a_secret_and_the_others_may_not(laptop: Bench):
    flow = forge(laptop, allow_secrets=("title", "more.body"))
    flow.phase(name="plan")(lambda ctx: None)
    flow.enqueue(name="a", title=CANARY, more={"body": [{"x": CANARY}]})

    for fields, field in (({"token": CANARY}, "token"), ({"more": {"other": CANARY}}, "more.other")):
        with pytest.raises(InputError) as refused:
            flow.enqueue(name="b", **fields)
        assert field == refused.value.field


def test_the_door_without_the_application_knows_the_same_fields(laptop: Bench):
    flow = forge(laptop, allow_secrets=("title",))
    flow.phase(name="plan")(lambda ctx: None)
    known, given = laptop.outside(flow), {"name": "a", "title": CANARY, "token": "secret:env:FORGE_TOKEN"}
    secrets = known.description.secrets

    assert CANARY == known.new_run(given, Options(), project="default").input["title"]
    for narrower in (replace(secrets, allowed=False), replace(secrets, references={})):
        door = RunSource.registered(replace(known.description, secrets=narrower), known.access)
        with pytest.raises(InputError):
            door.new_run(given, Options(), project="default")


@pytest.mark.parametrize("made", ["key", "subject"])
def test_what_names_a_run_shows_no_secret_of_the_input_to_any_door(laptop: Bench, made: str):
    """
    INVARIANT: a secret in an input is refused before anything is made of it.

    Breaks if a door makes the key or the subject first: what cannot be a part of one is shown in the error.
    """
    how = {"key": "{name}", "secrets": {}} | {made: "{more}"}
    flow = forge(laptop, **how)
    flow.phase(name="plan")(lambda ctx: None)
    given = {"name": "a", "more": {"token": CANARY}}

    for door in (RunSource.declared(flow, laptop.ledger), laptop.outside(flow)):
        with pytest.raises(InputError, match="allow_secrets") as refused:
            door.new_run(given, Options(), project="default")
        assert CANARY[:12] not in str(refused.value)


def test_a_field_that_is_none_cannot_be_allowed(laptop: Bench):
    with pytest.raises(DeclarationError, match="nothing is not a field of the input; it has name, token, title, more"):
        forge(laptop, allow_secrets=("nothing",))
