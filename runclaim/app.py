"""
`Runclaim`: attaches durable runs to the Celery app that people already have.

It adds tasks, a few beat entries and bootsteps, all through Celery's own doors. The app's own tasks,
schedule, routes and signals stay as they are.
"""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from runclaim import beat, local_folder, worker
from runclaim.broker import Broker
from runclaim.codec import use as use_codec
from runclaim.config import Config, resolve, sources
from runclaim.errors import DeclarationError
from runclaim.flows.application import Declarations
from runclaim.flows.declare.phase import PhaseOptions
from runclaim.flows.plain_calls import Claimed, PlainCalls
from runclaim.retries import Backoff
from runclaim.tasks import phase_task, upkeep
from runclaim.tasks.headers import headers_of
from runclaim.tasks.runtime import Runtime

if TYPE_CHECKING:
    from datetime import timedelta

    from celery import Celery

    from runclaim.codec import Codec
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase

#: Of two on one app only the first would have its rescue and dispatch.
_ATTACHED: Final[weakref.WeakSet[Celery]] = weakref.WeakSet()


class Runclaim(Declarations):
    """
    Durable runs on a Celery app. `settings` are the fields of `runclaim.config.Config`; `codec` encodes what it keeps.

    Nothing connects before the first use. Settings not given here come from RUNCLAIM_* variables, then from the
    app's `runclaim_*` configuration, then from the defaults: a SQLite file in the folder `.runclaim`.
    Where `runclaim dev` runs in this project, its ledger and its broker stand for variables that are not set.
    """

    def __init__(self, app: Celery, *, codec: Codec | None = None, **settings: Any) -> None:
        # `celery.current_app` stands for the application that is current now.
        app = cast("Celery", getattr(app, "_get_current_object", lambda: app)())
        if app in _ATTACHED:
            raise DeclarationError(
                f"the Celery app {app.main or 'here'} already has a Runclaim; use that one everywhere"
            )
        use_codec(codec)
        _ATTACHED.add(app)
        local_folder.join(os.environ)
        self.app = app
        # The way back from the app to here, for code that only gets an app: `celery -A app runclaim …`.
        app.runclaim = self  # type: ignore[attr-defined]
        self._settings = settings
        self._config: Config | None = None
        self._broker = Broker(app, lambda: self.config, lambda: self.flows)
        super().__init__(lambda: self.config, lambda: self._broker, self._make_task)
        self.ledger.headers_of = partial(headers_of, app)
        self._runtime = Runtime(app, self.ledger, self._broker, self.flows)
        self._plain = PlainCalls(self.ledger, lambda: self._runtime.keeper, lambda: self._runtime.role.is_stopping)
        upkeep.register(app, self._runtime)
        beat.attach(app, self._runtime)
        worker.attach(app, self._runtime)

    @property
    def config(self) -> Config:
        """The settings in force. Raises: ConfigError that names the setting."""
        if self._config is None:
            self._config = resolve(self._settings, os.environ, self.app.conf)
        return self._config

    @property
    def sources(self) -> dict[str, str]:
        """Where each setting in force comes from: `argument`, the name of a variable or of a key, `default`."""
        return sources(self._settings, os.environ, self.app.conf)

    def check_and_claim(
        self,
        name: str,
        *,
        key: str,
        subject: str | None = None,
        lease: timedelta | None = None,
        max_duration: timedelta | None = None,
        max_attempts: int = 5,
        backoff: Backoff | None = None,
        project: str | None = None,
    ) -> Claimed | None:
        """
        The right to do the work of a key, here and now, or `None` if it is done, claimed by another caller, or not due.

        For code that uses no flows: `with claimed:` does the work and completes it. `name` must not be a declared
        flow's; `subject`, `lease` and the others are as for flows and phases. Raises: DeclarationError, InputError,
        LedgerUnavailable.
        """
        options = PhaseOptions(
            lease=lease, max_duration=max_duration, max_attempts=max_attempts, backoff=backoff or Backoff()
        )
        return self._plain.check_and_claim(name, key, subject=subject, project=project, options=options)

    def complete(self, claimed: Claimed, result: Any = None) -> None:
        """Complete claimed work with a result, at most 256 kB of JSON. Raises: ClaimLost, InputError."""
        self._plain.complete(claimed, result)

    def purge(self) -> int:
        """Delete finished history past its retention, as beat does; returns how many runs went."""
        return upkeep.purge_history(self._runtime)

    def close(self) -> None:
        """
        End this process's use of the ledger: threads, connections to the database and to the broker.

        Every later call raises LedgerClosed, reads too; closing twice is fine. Claims that this process still holds
        are rescued when their leases lapse, so a worker is stopped and not closed.
        """
        self.ledger.close()
        self._runtime.close(for_good=True)
        self._broker.close()

    def _make_task(self, flow: DeclaredFlow[Any], phase: Phase[Any, Any]) -> None:
        phase_task.register(self.app, self._runtime, flow, phase)
