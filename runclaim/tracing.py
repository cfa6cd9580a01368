"""
Spans by the OpenTelemetry API, where it is installed; nothing where it is not, or no SDK is set up.

Tracing never fails a run: whatever a tracer raises is swallowed here. A span of a run is linked to the span that
enqueued it and no child of it, since a run may live for days (OpenTelemetry, semantic conventions for messaging).
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Self

from runclaim.secrets import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

#: What the ledger keeps of a caller's context: the headers of W3C Trace Context.
HEADERS: Final = ("traceparent", "tracestate")
_LONGEST: Final = 512
#: Version, trace id, parent id and flags (W3C Trace Context, 3.2): what else a caller sends is not kept.
_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@cache
def _api() -> Any:
    """The API's module `opentelemetry.trace`, or `None`."""
    try:
        return import_module("opentelemetry.trace")
    except ImportError:
        return None


@cache
def _propagator() -> Any:
    # The format of the ledger, whatever formats the application sends over its wires.
    return import_module("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator()


@cache
def _context() -> Any:
    """The API's module `opentelemetry.context`."""
    return import_module("opentelemetry.context")


def _is_set_up() -> bool:
    """Whether the API has a tracer to report to; without one a span costs time in every body and records nothing."""
    api = _api()
    return not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)


def _quietly(work: Callable[[], Any], otherwise: Any = None) -> Any:
    """What `work` returns; `otherwise` when there is no API or it raises."""
    if _api() is None:
        return otherwise
    try:
        return work()
    except Exception:  # noqa: BLE001 - tracing never fails a run
        return otherwise


def carrier() -> dict[str, str] | None:
    """The current span as the headers that the ledger keeps with a run; `None` when there is none."""

    def inject() -> dict[str, str]:
        headers: dict[str, str] = {}
        _propagator().inject(headers)
        return headers

    return carried(_quietly(inject, {}))


def carried(headers: Mapping[str, str]) -> dict[str, str] | None:
    """What of a request's headers (lower-case names) the ledger keeps with a run; `None` without a traceparent."""
    parent, state = headers.get("traceparent", ""), headers.get("tracestate", "")
    if not _PARENT.fullmatch(parent):
        return None
    has_state = 0 < len(state) <= _LONGEST and state.isascii() and state.isprintable()
    return {"traceparent": parent} | ({"tracestate": state} if has_state else {})


def current_ids() -> dict[str, str]:
    """The ids of the current trace and span, for logs; empty when there is none."""

    def ids() -> dict[str, str]:
        context = _api().get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    return dict(_quietly(ids, {}))


def flush(seconds: float = 2.0) -> None:
    """Export what is buffered: a pool child that ends would lose it."""

    def force() -> None:
        provider = _api().get_tracer_provider()
        if (found := getattr(provider, "force_flush", None)) is not None:
            found(int(seconds * 1000))

    _quietly(force)


class Span:
    """
    A span around a block, current inside it; `kind` is `PRODUCER`, `CONSUMER` or `INTERNAL`.

    `linked` is what a run carries from its enqueuer. With it the span begins a trace of its own.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: str = "INTERNAL",
        linked: Mapping[str, str] | None = None,
        is_root: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self._name, self._kind, self._linked, self._is_root = name, kind, linked, is_root
        self._attributes = dict(attributes or {})
        self._span: Any = None
        self._token: Any = None

    def __enter__(self) -> Self:
        if _quietly(_is_set_up, otherwise=False):
            _quietly(self._start)
        return self

    def _start(self) -> None:
        api, context = _api(), _context()
        around = context.Context() if self._is_root else context.get_current()
        self._span = api.get_tracer("runclaim").start_span(
            self._name,
            context=around,
            kind=api.SpanKind[self._kind],
            links=self._links(api),
            attributes={key: value for key, value in self._attributes.items() if value is not None},
        )
        self._token = context.attach(api.set_span_in_context(self._span))

    def _links(self, api: Any) -> list[Any]:
        if not self._linked:
            return []
        found = api.get_current_span(_propagator().extract(dict(self._linked))).get_span_context()
        return [api.Link(found)] if found.is_valid else []

    def tell(self, *, failed: BaseException | None = None, **attributes: Any) -> None:
        """Add attributes; `failed` makes it an error. Of the exception only the type is told, never its text."""

        def add() -> None:
            for key, value in attributes.items():
                if value is not None:
                    self._span.set_attribute(f"runclaim.{key}", value)
            if failed is not None:
                self._span.set_attribute("error.type", kind_of(failed))
                self._span.set_status(_api().StatusCode.ERROR, kind_of(failed))

        if self._span is not None:
            _quietly(add)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.tell(failed=error)
        if self._token is not None:
            _quietly(lambda: _context().detach(self._token))
        if self._span is not None:
            _quietly(self._span.end)
