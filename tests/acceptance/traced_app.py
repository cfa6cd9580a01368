"""The tests' application with an OpenTelemetry SDK in its pool children, which exports to a file when it is flushed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tests.harness import Stage, build

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan


class ToFile(SpanExporter):
    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            file.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def traced(told: dict[str, Any]) -> Stage:
    """The application; nothing is exported for an hour, unless somebody flushes."""
    made = build(told)

    @worker_process_init.connect(weak=False)
    def set_up(**_: Any) -> None:
        provider = TracerProvider()
        exporter = ToFile(Path(told["folder"]) / "spans")
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
        trace.set_tracer_provider(provider)

    return made


if "HARNESS" in os.environ:
    stage = traced(json.loads(os.environ["HARNESS"]))
    app = stage.app
