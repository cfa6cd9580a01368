"""The inputs of live runs, read as a release would read them, page by page; no value of them is shown."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import InputError
from runclaim.ledger.doors import live_runs
from runclaim.service.release import Kind, Misfit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.doors.live_runs import RecordedInput
    from runclaim.service.release import Release

#: How many runs a misfit names.
_NAMED: Final = 3


class RecordedInputs:
    """Reads recorded inputs as the release would, page by page."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._declared = [name for name in release.flows if release.declares(name) and name not in release.others]
        self._last: RecordedInput | None = None
        self._refused: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.checked = 0

    def check(self, database: Database, *, limit: int) -> bool:
        """Check the next ones; false when there are no more."""
        page = database.ask(
            partial(
                live_runs.recorded_inputs,
                project=self._release.project,
                flows=self._declared,
                after=self._last,
                limit=limit,
            )
        )
        for each in page:
            if (its_field := _refused_field(self._release.flows[each.flow], each.input)) is not None:
                self._refused[each.flow, its_field].append(each.run_id)
        if page:
            self._last = page[-1]
        self.checked += len(page)
        return bool(page)

    def misfits(self) -> Iterator[Misfit]:
        """What was refused, by flow and field."""
        for (flow, its_field), run_ids in self._refused.items():
            runs = "1 live run has" if len(run_ids) == 1 else f"{len(run_ids)} live runs have"
            yield Misfit(
                kind=Kind.INPUT,
                flow=flow,
                name=its_field,
                many=len(run_ids),
                problem=f"flow {flow}: {runs} an input that its type no longer takes: field {its_field}",
                remedies=["accept what was recorded: give a new field a default, keep a wider type"],
                run_ids=run_ids[:_NAMED],
            )


def _refused_field(flow: DeclaredFlow[Any], recorded: Any) -> str | None:
    """The field that does not fit, `input` where none can be named; `None` where all fit."""
    try:
        flow.input_type.load(recorded)
    except InputError as refused:
        # A place inside a field may hold the recorded key of a mapping.
        name = re.split(r"[.\[]", refused.field, maxsplit=1)[0]
        return name if name in flow.input_type.fields else "input"
    except Exception:  # noqa: BLE001 - code of the application's type
        return "input"
    return None
