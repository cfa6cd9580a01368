"""A span per run and phase, linked to the enqueuer's; never a failure of the run, and nothing without an SDK."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runclaim import RunState, tracing
from runclaim.retries import Backoff
from tests.harness.bench import NO_WAIT, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    made = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer", made.get_tracer)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made)
    yield made
    made.shutdown()


@pytest.fixture
def spans(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


def review(bench: Bench, **options: Any) -> Any:
    flow = bench.flow()
    flow.phase(name="plan", **options)(lambda ctx: 1)
    flow.phase(name="deliver", **options)(lambda ctx: 2)
    return flow


def test_a_run_has_a_span_with_one_for_each_phase_linked_to_who_enqueued_it(bench: Bench, spans: InMemorySpanExporter):
    flow = review(bench)
    with trace.get_tracer("web").start_as_current_span("POST /reviews") as request:
        run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    enqueued, whole = named(spans, "enqueue review"), named(spans, "run review")
    assert request.get_span_context().trace_id == enqueued.context.trace_id
    assert [enqueued.context.span_id] == [link.context.span_id for link in whole.links]
    assert [enqueued.context.trace_id] == [link.context.trace_id for link in whole.links]
    assert whole.parent is None
    for phase in ("plan", "deliver"):
        span = named(spans, f"review.{phase}")
        assert (whole.context.trace_id, whole.context.span_id) == (span.context.trace_id, span.parent.span_id)
        assert (run.id, phase, 1) == tuple(span.attributes[f"runclaim.{name}"] for name in ("run", "phase", "attempt"))
    assert trace.SpanKind.PRODUCER is enqueued.kind
    assert trace.SpanKind.CONSUMER is whole.kind


def test_what_a_body_calls_is_inside_the_span_of_its_phase(bench: Bench, spans: InMemorySpanExporter):
    flow = bench.flow()

    @flow.phase
    def plan(ctx: Any) -> int:
        with trace.get_tracer("forge").start_as_current_span("GET /pulls"):
            return 1

    flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert named(spans, "review.plan").context.span_id == named(spans, "GET /pulls").parent.span_id


def test_each_delivery_of_a_run_is_linked_to_the_same_enqueue(bench: Bench, spans: InMemorySpanExporter):
    flow = review(bench)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow, inline=lambda before, after: False)
    bench.finish(flow, run)

    enqueued = named(spans, "enqueue review").context.span_id
    deliveries = [span for span in spans.get_finished_spans() if span.name == "run review"]
    assert [[enqueued], [enqueued]] == [[link.context.span_id for link in span.links] for span in deliveries]


def test_an_error_is_told_by_its_type_and_never_by_its_text(bench: Bench, spans: InMemorySpanExporter):
    flow = bench.flow()

    @flow.phase(max_attempts=2, backoff=Backoff(first=NO_WAIT))
    def plan(ctx: Any) -> int:
        raise ValueError("canary-of-the-input")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    told = [span for span in spans.get_finished_spans() if span.name == "review.plan"]
    assert ["retry", "failure"] == [span.attributes["runclaim.ending"] for span in told]
    assert ["ValueError"] * 2 == [span.attributes["error.type"] for span in told]
    assert [False] * 2 == [span.status.is_ok for span in told]
    assert "canary" not in "".join(span.to_json() for span in spans.get_finished_spans())


class Broken(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("the exporter is broken")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("the exporter is broken")


def test_a_broken_tracer_fails_no_run(bench: Bench, provider: TracerProvider):
    provider.add_span_processor(Broken())
    flow = review(bench)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert RunState.SUCCEEDED is run.state


@pytest.mark.parametrize(
    "carried",
    [{"traceparent": "no such thing"}, {"traceparent": ""}, {"tracestate": "a=b"}, {"traceparent": "00-" + "0" * 600}],
    ids=["malformed", "empty", "without a traceparent", "too long"],
)
def test_a_malformed_trace_of_the_enqueuer_is_no_link_and_no_failure(spans: InMemorySpanExporter, carried: Any):
    with tracing.Span("run", linked=tracing.carried(carried), is_root=True):
        pass

    assert () == named(spans, "run").links


def test_without_a_span_around_it_nothing_is_carried(bench: Bench):
    flow = review(bench)
    run = flow.enqueue(repo="acme/app", number=7)

    assert [None] == list(bench.execute("SELECT trace_context FROM runclaim_runs WHERE id = :id", id=run.id).scalars())


def test_without_an_sdk_the_context_of_the_caller_is_carried_all_the_same(bench: Bench):
    flow = review(bench)
    sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    remote = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=True, trace_flags=1)
    with trace.use_span(trace.NonRecordingSpan(remote)):
        flow.enqueue(repo="acme/app", number=7)
    (due,) = bench.rung
    bench.deliver(flow, due)

    assert sent in str(bench.execute("SELECT trace_context FROM runclaim_runs").scalar_one())


def test_without_opentelemetry_nothing_is_carried_and_every_span_is_nothing():
    code = (
        "import sys; sys.modules['opentelemetry'] = sys.modules['opentelemetry.trace'] = None\n"
        "from runclaim import tracing\n"
        "with tracing.Span('run', linked={'traceparent': 'x'}) as span: span.tell(failed=ValueError(), ending='x')\n"
        "tracing.flush(); print(tracing.carrier(), tracing.current_ids())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "None {}\n" == told.stdout


@pytest.mark.parametrize("state", ["", "a=" + "b" * 511, "a=\u00e9", "a=b\nc=d"])
def test_a_state_of_a_trace_that_no_program_sends_is_not_kept(state: str):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    assert {"traceparent": parent} == tracing.carried({"traceparent": parent, "tracestate": state})
    assert {"traceparent": parent, "tracestate": "a=b"} == tracing.carried({"traceparent": parent, "tracestate": "a=b"})
