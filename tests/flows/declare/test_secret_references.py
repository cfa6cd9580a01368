"""References to secrets: where they lead, what they may look like, and how what they gave is redacted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from runclaim import Backoff, Runclaim, RunState
from runclaim.errors import DeclarationError, SecretUnavailable
from runclaim.flows.declare.secret_references import Secrets
from runclaim.testing import context

if TYPE_CHECKING:
    from runclaim import Context
    from tests.harness.bench import Bench

AT_ONCE = Backoff(first=timedelta(0), jitter=False)
PLAIN = "swordfish and more"
REFERENCE = "secret:env:CANARY"


@dataclass(frozen=True)
class Job:
    name: str


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", PLAIN)
    monkeypatch.setenv("EMPTY", "")


@pytest.mark.parametrize(
    "reference, said",
    [
        ("secret:env:MISSING", "secret:env:MISSING: env has no MISSING"),
        ("secret:env:EMPTY", "secret:env:EMPTY: EMPTY is empty"),
        ("secret:safe:x", "secret:safe:x: there is no resolver safe; this application has env"),
        ("secret:env:", "secret:env:: is not a reference; write secret:env:NAME"),
        (PLAIN, "this str is not a reference; write secret:env:NAME"),
        ("secret:env:\udc80", "secret:env:?: is not a reference; write secret:env:NAME"),
        (None, "this NoneType is not a reference; write secret:env:NAME"),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error_that_is_tried_again(laptop: Bench, reference: Any, said: str):
    """A secret may be put right while the run waits; what is no reference may be the secret, and is not repeated."""
    flow = laptop.flow("job", Job, key="{name}")

    @flow.phase(max_attempts=2, backoff=AT_ONCE)
    def plan(ctx: Context[Job]) -> None:
        ctx.secret(reference)

    run = flow.enqueue(name="a")
    laptop.deliver(flow)
    assert (RunState.QUEUED, "SecretUnavailable", said) == (
        run.state,
        run.view.error["type"],
        run.view.error["message"],
    )

    laptop.finish(flow, run)
    assert RunState.FAILED is run.state
    assert PLAIN not in str(run.view.error)


def test_a_value_is_asked_for_anew_and_every_one_of_them_is_redacted():
    values = iter(["first value", "second value"])
    secrets = Secrets({"rotating": lambda name: next(values)})

    assert ["first value", "second value"] == [secrets.get("secret:rotating:x") for _ in range(2)]
    assert "[redacted: secret:rotating:x]" * 2 == secrets.redact("first valuesecond value")


def test_a_value_inside_another_leaves_nothing_of_the_longer_one():
    values = {"short": "abcd", "long": "xxabcdyy", "mark": "redacted"}
    secrets = Secrets({"of": values.__getitem__})
    for name in values:
        secrets.get(f"secret:of:{name}")

    assert "[redacted: secret:of:long] [redacted: secret:of:short]" == secrets.redact("xxabcdyy abcd")


def test_a_value_of_a_few_letters_does_not_make_every_text_unreadable():
    secrets = Secrets({"of": lambda name: name})
    secrets.get("secret:of:1")

    assert "line 1 of 11" == secrets.redact("line 1 of 11")


def test_an_application_says_where_its_references_lead(sqlite_url: str):
    runs = Runclaim(Celery("app", broker="memory://", set_as_current=False), database_url=sqlite_url)

    @runs.secret_resolver("vault")
    def vault(name: str) -> str:
        return {"kv/app#token": "from the vault"}[name]

    flow = runs.flow("job", Job, key="{name}")
    secrets = Secrets(flow.resolvers)

    assert "from the vault" == secrets.get("secret:vault:kv/app#token")
    assert PLAIN == secrets.get(REFERENCE)
    with pytest.raises(SecretUnavailable, match="vault has no kv/other"):
        secrets.get("secret:vault:kv/other")
    for taken in ("vault", "env"):
        with pytest.raises(DeclarationError, match="already"):
            runs.secret_resolver(taken)
    with pytest.raises(DeclarationError, match="use letters"):
        runs.secret_resolver("a:b")


def test_a_resolver_that_returns_no_text_is_named():
    with pytest.raises(SecretUnavailable, match="the resolver of returned a bytes, not text"):
        Secrets({"of": lambda name: b"x"}).get("secret:of:x")  # type: ignore[dict-item, return-value]


def test_an_application_gives_the_secrets_of_its_tests(laptop: Bench):
    flow = laptop.flow("job", Job, key="{name}")

    @flow.phase
    def plan(ctx: Context[Job]) -> str:
        return ctx.secret("secret:vault:token")

    assert "value" == plan(context(flow, Job("a"), secrets={"secret:vault:token": "value"}))
    with pytest.raises(SecretUnavailable, match="is not among the secrets= of this test's context"):
        plan(context(flow, Job("a")))
    with pytest.raises(SecretUnavailable, match="not a reference"):
        context(flow, Job("a")).secret("token")
