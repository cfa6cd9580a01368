"""
A message of a run: made here for every sender, and read here when it comes in.

It names the run and the fence it was sent at. Exactly where the run's flow fails open it also carries the run's input,
so that a worker can continue while the ledger is away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from runclaim.errors import InputError, RunclaimError
from runclaim.flows.messages.payload import carried_input, check_carried
from runclaim.flows.messages.publisher import MOST_NAMED
from runclaim.keys import check_id, is_key_id
from runclaim.ledger import read
from runclaim.ledger.dispatch import Due
from runclaim.sql.rowset import as_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.ledger.completion import NextPhase
    from runclaim.ledger.fence import Claim
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView

#: Both databases keep fences in 64 bits.
_HIGHEST_FENCE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Message:
    """
    What a message says: the run, the fence it was sent at, and, for a flow that fails open, the run's input.

    `more` are the other runs that share it, each with its fence; a message that carries an input has none.
    """

    run_id: str
    fence: int
    carried: dict[str, Any] | None = None
    more: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, named: object, fence: object, carried: object) -> Self:
        """
        The message that a broker's arguments spell; its ids are UUIDs in their canonical form.

        Everyone who can write to the broker may have chosen its texts, so nothing is used before it was checked here.
        Raises: InputError, whose text holds no control character.
        """
        runs = [(named, fence)] if isinstance(named, str) else named
        if not isinstance(runs, list) or not 0 < len(runs) <= MOST_NAMED:
            raise InputError("message", f"is {named!r:.60}; it must name one run, or list at most {MOST_NAMED}")
        first_run, *more = [_named(each) for each in runs]
        if carried is not None and (more or isinstance(named, list)):
            raise InputError(
                "carried", f"names {len(runs)} runs; a message that carries an input must name exactly one"
            )
        return cls(*first_run, None if carried is None else check_carried(carried), tuple(more))

    @property
    def is_only_trace(self) -> bool:
        """Whether its run was enqueued without the ledger, which may not have it yet."""
        return self.carried is not None and self.fence == 0 and is_key_id(self.run_id)

    @property
    def named(self) -> list[tuple[str, int]]:
        """Every run that it names."""
        return [(self.run_id, self.fence), *self.more]


def _named(pair: object) -> tuple[str, int]:
    """A run's id and its fence. Raises: InputError."""
    if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004 - a pair
        raise InputError("message", f"names {pair!r:.60}; each run must be a pair of its id and its fence")
    run_id, fence = pair
    if not isinstance(fence, int) or isinstance(fence, bool) or not 0 <= fence <= _HIGHEST_FENCE:
        raise InputError("fence", f"is {fence!r:.60}; it must be a whole number from 0")
    return as_id(check_id("run_id", run_id)), fence


def first(*, new: NewRun, flow: DeclaredFlow[Any] | None) -> Due:
    """
    The first message of a run of a key that had none; for any other new run see `with_inputs`.

    `flow` is the run's, `None` where no declaration of it is at hand.
    """
    carried = carried_input(
        flow,
        project=new.project,
        key=new.key.text,
        subject=new.subject,
        priority=new.priority,
        value=new.input,
        headers=new.headers,
    )
    return Due(new.run_id, 0, new.flow, new.phases[0], new.queue, new.key.text, new.priority, carried)


def of_claim(*, claim: Claim, flow: DeclaredFlow[Any] | None, fence: int, next_phase: NextPhase | None = None) -> Due:
    """
    The message of a run whose claim has ended with this fence: at `next_phase`, or at the claim's own once more.

    `flow` is the run's, `None` where no declaration of it is at hand.
    """
    carried = _carried(claim, flow)
    phase, queue = (claim.phase, claim.queue) if next_phase is None else (next_phase.phase, next_phase.queue)
    alone = next_phase is None and claim.attempt > 1
    return Due(claim.run_id, fence, claim.flow, phase, queue, claim.key, claim.priority, carried, alone=alone)


def of_view(*, view: RunView, flow: DeclaredFlow[Any] | None) -> Due:
    """The message of a run in its current state. `flow` is the run's, `None` where no declaration of it is at hand."""
    carried = _carried(view, flow)
    alone = view.attempts > 0 or view.losses > 0
    return Due(view.id, view.fence, view.flow, view.phase, view.queue, view.key, view.priority, carried, alone=alone)


def _carried(run: Claim | RunView, flow: DeclaredFlow[Any] | None) -> dict[str, Any] | None:
    return carried_input(
        flow,
        project=run.project,
        key=run.key,
        subject=run.subject,
        priority=run.priority,
        value=run.input,
        headers=run.headers,
        rerun=run.rerun,
    )


def of_message(*, message: Message, phase: Phase[Any, Any]) -> Due:
    """The same message once more, for the broker to keep. It carries its run's input."""
    carried = message.carried or {}
    queue, key, priority = phase.options.queue, carried["key"], carried["priority"]
    return Due(message.run_id, message.fence, phase.flow, phase.name, queue, key, priority, carried)


def passed_on(*, like: Claim, named: Collection[tuple[str, int]]) -> list[Due]:
    """
    The messages of runs that came in one message with a claimed run, and were not claimed.

    They carry no input, as a message of several runs has none. Their keys are not at hand: the ledger is asked for
    nothing between a claim and its body.
    """
    return [Due(run_id, fence, like.flow, like.phase, like.queue, None, like.priority, None) for run_id, fence in named]


def with_inputs(
    database: Callable[[], Database], *, flows: Mapping[str, DeclaredFlow[Any]], due: Collection[Due]
) -> list[Due]:
    """
    Messages whose runs' inputs are in the ledger only, each with its input where its flow fails open.

    For other flows nothing is read, nor `database` called. A ledger that does not answer at once is not waited for:
    then none of them carries an input.
    """
    ids = [each.run_id for each in due if (flow := flows.get(each.flow)) is not None and flow.fail_open]
    if not ids:
        return list(due)
    try:
        known = database().ask(lambda conn: read.inputs(conn, ids), patience=0)
    except RunclaimError:
        return list(due)
    return [_with_input(each, flows.get(each.flow), known.get(each.run_id)) for each in due]


def _with_input(due: Due, flow: DeclaredFlow[Any] | None, recorded: dict[str, Any] | None) -> Due:
    if recorded is None or due.key is None:
        return due
    return replace(due, carried=carried_input(flow, key=due.key, priority=due.priority, **recorded))
