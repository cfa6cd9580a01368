"""
Every interleaving of two or three scripts, statement by statement, on a real PostgreSQL.

A script is any function that works through `Database.run`. Its thread stops before each statement and each COMMIT, and
goes on when it is chosen. A statement that waits for a lock is seen by `pg_blocking_pids` and left waiting; its
script can be chosen again once another one has let it through.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text

from tests.ledger.concurrency import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from runclaim.database import Database

    Script = Callable[[], Any]
    #: Chooses one of the scripts that can go on; the second argument counts the choices before.
    Choose = Callable[[list[int], int], int]


@dataclass
class Played:
    """How one interleaving went: what each script gave, the choices made, and the errors that the database repeated."""

    answers: list[Any]
    choices: list[tuple[int, list[int]]] = field(default_factory=list)
    sqlstates: list[str] = field(default_factory=list)
    somebody_waited: bool = False


class _Led:
    """A script in its thread."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.granted = threading.Semaphore(0)
        self.at_gate = self.ended = False
        self.pid = 0
        self.answer: Any = None
        self.error: BaseException | None = None


class Stage:
    """Plays scripts on one database."""

    def __init__(self, database: Database, watcher: Connection) -> None:
        self._database, self._watcher = database, watcher
        self._changed = threading.Condition()
        self._led: dict[int, _Led] = {}
        self._sqlstates: list[str] = []

    def play(self, scripts: Sequence[Script], choose: Choose) -> Played:
        """Lead the scripts to their ends. What one of them raises is its answer."""
        led = [_Led(script) for script in scripts]
        self._sqlstates = []
        threads = [threading.Thread(target=self._run, args=(each,), daemon=True) for each in led]
        for thread in threads:
            thread.start()
        played = Played([])
        while not all(each.ended for each in led):
            played.somebody_waited |= self._settle(led)
            ready = [number for number, each in enumerate(led) if each.at_gate]
            if ready:
                chosen = choose(ready, len(played.choices))
                played.choices.append((chosen, ready))
                self._grant(led[chosen])
        for thread in threads:
            thread.join(PATIENCE)
        played.answers = [each.error or each.answer for each in led]
        played.sqlstates = self._sqlstates
        return played

    def _run(self, led: _Led) -> None:
        self._led[threading.get_ident()] = led
        try:
            led.answer = led.script()
        except Exception as error:  # noqa: BLE001 - told as the script's answer
            led.error = error
        with self._changed:
            led.ended = True
            self._changed.notify_all()

    def _grant(self, led: _Led) -> None:
        with self._changed:
            led.at_gate = False
        led.granted.release()

    def _settle(self, led: list[_Led]) -> bool:
        """Wait until each script has ended, stands at its gate, or waits for a lock; tells whether one does."""
        ends = time.monotonic() + PATIENCE
        while True:
            with self._changed:
                moving = [each for each in led if not (each.at_gate or each.ended)]
                if not moving:
                    return False
                stuck = all(self._is_blocked(each) for each in moving)
                if stuck and any(each.at_gate for each in led):
                    return True
                self._changed.wait(0.001)
            assert time.monotonic() < ends, "the scripts hang"

    def _is_blocked(self, led: _Led) -> bool:
        asked = text("SELECT cardinality(pg_blocking_pids(:pid)) > 0")
        return bool(led.pid and self._watcher.execute(asked, {"pid": led.pid}).scalar())

    def gate(self, conn: Connection, *_: Any) -> None:
        led = self._led.get(threading.get_ident())
        if led is None:
            return
        led.pid = conn.connection.dbapi_connection.info.backend_pid
        with self._changed:
            led.at_gate = True
            self._changed.notify_all()
        assert led.granted.acquire(timeout=PATIENCE), "nobody lets this script go on"

    def note(self, context: Any) -> None:
        self._sqlstates.append(getattr(context.original_exception, "sqlstate", None) or "?")


@contextmanager
def stage(database: Database) -> Iterator[Stage]:
    """A stage whose scripts use `database`."""
    with database.engine.connect() as conn:
        found = Stage(database, conn.execution_options(isolation_level="AUTOCOMMIT"))
        hooks = [("before_cursor_execute", found.gate), ("commit", found.gate), ("handle_error", found.note)]
        for name, hook in hooks:
            event.listen(database.engine, name, hook)
        try:
            yield found
        finally:
            for name, hook in hooks:
                event.remove(database.engine, name, hook)


def interleavings(
    database: Database, scripts: Callable[[], Sequence[Script]], *, at_most: int = 60, seed: int = 1
) -> Iterator[Played]:
    """
    Play every interleaving of what `scripts()` makes anew for each; `at_most`, then random ones, if there are more.

    The first half of the budget goes through the tree of choices in order. The rest jumps about in it, each with a
    favourite, so that a long script also gets ahead of a short one.
    """
    rng = random.Random(seed)
    prefix: list[int] | None = []
    with stage(database) as found:
        for number in range(at_most):
            in_order = number < at_most // 2
            played = found.play(scripts(), _in_order(prefix or []) if in_order else _favouring(rng))
            yield played
            if in_order:
                prefix = _after(played.choices)
                if prefix is None:
                    return


def _in_order(prefix: list[int]) -> Choose:
    def choose(ready: list[int], step: int) -> int:
        return prefix[step] if step < len(prefix) and prefix[step] in ready else ready[0]

    return choose


def _favouring(rng: random.Random) -> Choose:
    favourite = rng.randrange(3)

    def choose(ready: list[int], _step: int) -> int:
        return favourite if favourite in ready and rng.random() < 0.7 else rng.choice(ready)

    return choose


def _after(choices: list[tuple[int, list[int]]]) -> list[int] | None:
    """The choices of the next interleaving in order, or `None` after the last."""
    while choices:
        chosen, ready = choices.pop()
        if chosen != ready[-1]:
            return [each for each, _ in choices] + [ready[ready.index(chosen) + 1]]
    return None
