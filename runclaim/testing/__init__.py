"""
For the tests of applications: run a phase's body with a context of your own, with nothing recorded.

    ctx = context(review, PullRequest("acme/app", 7, "a1", "b2"), results={plan: ["app.py"]})
    assert deliver(ctx) == 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from runclaim.errors import SecretUnavailable
from runclaim.flows.body.context import AttemptDescription, Context, Sources
from runclaim.flows.body.drafts import Drafts
from runclaim.flows.declare.secret_references import parts
from runclaim.testing.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.flow import Flow

InputT = TypeVar("InputT")
_RUN_ID: Final = "00000000-0000-7000-8000-000000000000"


def context(
    flow: Flow[InputT],
    value: InputT,
    *,
    phase: str | None = None,
    results: Mapping[Phase[InputT, Any], Any] | None = None,
    signals: Mapping[str, Any] | None = None,
    attempt: int = 1,
    secrets: Mapping[str, str] | None = None,
) -> Context[InputT]:
    """
    A context as the worker would give it; `phase` defaults to the flow's first.

    `signals` maps the names of received signals to what they carried. `secrets` are what `ctx.secret` gives, by
    reference: `{"secret:env:TOKEN": "value"}`; nothing else is resolved. What a body hands to `in_completion` is kept
    in `ctx.completions`, what it finds and plans in `ctx.records.findings` and `ctx.records.actions`; sessions and acts
    are kept in memory. `ctx.check()` never raises. Raises: InputError when the input does not fit the flow.
    """
    current = phase or next(iter(flow.phases))
    checked = flow.input_type.check(value)
    recorded = {each.name: each.result_type.plain(result) for each, result in (results or {}).items()}
    heard = dict(signals or {})

    def secret(reference: str) -> str:
        parts(reference)
        if reference not in (secrets or {}):
            raise SecretUnavailable(reference, "is not among the secrets= of this test's context")
        return (secrets or {})[reference]

    attempted = AttemptDescription(
        run_id=_RUN_ID,
        identity=_RUN_ID,
        key=flow.key_of(checked).text,
        subject=flow.subject_of(checked),
        phase=current,
        attempt=attempt,
        waits_for=flow.phases[current].options.on,
    )
    sources = Sources(
        results=lambda: recorded,
        signal=lambda name: (heard[name],) if name in heard else None,
        secret=secret,
        check=lambda: None,
    )
    drafts = Drafts(_RUN_ID, current, flow.actions)
    return Context(attempted, checked, sources, writes=Memory(_RUN_ID, current), records=drafts)
