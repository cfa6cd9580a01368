"""Each verb on ledgers of every size in turn: neighbours in time differ in nothing but how much history there is."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.growth_live import Ledger
    from benchmarks.growth_verbs import Verb

#: Until the driver has prepared the statement, and the server has settled on a plan for it.
_WARM: Final = 12

#: Verb → for each ledger, in their order, the milliseconds of each call.
Times = dict[str, list[list[float]]]


def timed(ledgers: Sequence[Ledger], verbs: Iterable[Verb], *, repetitions: int, say: Callable[[str], None]) -> Times:
    """Call each verb so often on each ledger. Raises: AssertionError when one did not do what it should."""
    found: Times = {}
    for verb in verbs:
        took: list[list[float]] = [[] for _ in ledgers]
        for turn in range(-_WARM, repetitions):
            for place in range(len(ledgers)):
                # Who begins changes from turn to turn.
                which = (place + turn) % len(ledgers)
                milliseconds = _once(ledgers[which], verb)
                if turn >= 0:
                    took[which].append(milliseconds)
        found[verb.name] = took
        say(f"{verb.name}: {', '.join(f'{statistics.median(each):.2f}' for each in took)} ms")
    return found


def _once(ledger: Ledger, verb: Verb) -> float:
    database = ledger.database
    given = database.run(lambda conn: verb.prepare(conn, ledger))
    began = time.perf_counter()
    answer = database.run(lambda conn: verb.act(conn, ledger, given))
    took = time.perf_counter() - began
    if not verb.check(ledger, given, answer):
        raise AssertionError(f"{verb.name} on {ledger.history.many:,} runs gave {answer!r:.300}")
    if (restore := verb.restore) is not None:
        database.run(lambda conn: restore(conn, ledger, answer))
    return took * 1000


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
