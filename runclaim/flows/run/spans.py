"""
The spans of a delivery: one of the run, inside it one of each phase; and whose the log lines are.

A delivery's span begins a trace of its own, linked to the enqueue of the run: a run may wait for days.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Self

from runclaim import logs
from runclaim.flows.run.ending import Ended, Ending
from runclaim.tracing import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from runclaim.ledger.fence import Claim

_ERRORS: Final = frozenset({Ending.RETRY, Ending.FAILURE})


class DeliverySpan:
    """Around one delivery; its span starts with the first phase, so that a duplicate has none."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._span: Span | None = None

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def phase(self, claim: Claim) -> Iterator[Callable[[Ended], None]]:
        """Around one attempt and its settling; what the body calls is inside. Yields what to call with its end."""
        run = self._span = self._span or self._stack.enter_context(_of_run(claim))
        with logs.about(claim), _of_phase(claim) as span:

            def end(ended: Ended) -> None:
                # Only an error of the attempt makes the spans errors; a run is how its last phase was.
                failed = ended.exception if ended.ending in _ERRORS else None
                for each in (span, run):
                    each.tell(failed=failed, ending=str(ended.ending))

            yield end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _of_run(claim: Claim) -> Span:
    of_run = {"runclaim.run": claim.run_id, "runclaim.flow": claim.flow, "runclaim.key": claim.key}
    return Span(f"run {claim.flow}", kind="CONSUMER", linked=claim.trace_context, is_root=True, attributes=of_run)


def _of_phase(claim: Claim) -> Span:
    of_phase = {f"runclaim.{name}": value for name, value in logs.of(claim).items()}
    return Span(f"{claim.flow}.{claim.phase}", attributes=of_phase | {"runclaim.flow": claim.flow})
