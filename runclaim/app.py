"""
`Runclaim`: attaches durable runs to the Celery app that people already have.

It adds tasks, three beat entries and two bootsteps, all through Celery's own doors. The app's own tasks,
schedule, routes and signals stay as they are.
"""

from __future__ import annotations

import os
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runclaim import beat, worker
from runclaim.broker import Broker
from runclaim.config import Config, resolve, sources
from runclaim.errors import DeclarationError, KeyNotFound
from runclaim.flows.action import Action, ActionOptions
from runclaim.flows.flow import Flow
from runclaim.flows.ledgering import Ledger
from runclaim.flows.signaling import flow_for
from runclaim.flows.webhooks import MAX_BODY_BYTES, Delivery, Mapped, Webhook
from runclaim.retries import Backoff
from runclaim.signatures import check_secrets
from runclaim.tasks import phase_task, upkeep
from runclaim.tasks.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from runclaim.flows.action import Handler
    from runclaim.flows.handle import Run
    from runclaim.flows.phase import Phase

InputT = TypeVar("InputT")

#: Of two on one app only the first would have its rescue and dispatch.
_ATTACHED: Final[weakref.WeakSet[Celery]] = weakref.WeakSet()


class Runclaim:
    """
    Durable runs on a Celery app. `settings` are the fields of `runclaim.config.Config`.

    Nothing connects before the first use. Settings not given here come from RUNCLAIM_* variables, then from the
    app's `runclaim_*` configuration, then from the defaults: a SQLite file in the working directory.
    """

    def __init__(self, app: Celery, **settings: Any) -> None:
        if app in _ATTACHED:
            raise DeclarationError(
                f"the Celery app {app.main or 'here'} already has a Runclaim; use that one everywhere"
            )
        _ATTACHED.add(app)
        self.app = app
        # The way back from the app to here, for what is given an app and no more: `celery -A app runclaim …`.
        app.runclaim = self  # type: ignore[attr-defined]
        self.flows: dict[str, Flow[Any]] = {}
        self.webhooks: dict[str, Webhook[Any]] = {}
        self._settings = settings
        self._config: Config | None = None
        broker = Broker(app, lambda: self.config)
        self.ledger = Ledger(lambda: self.config, lambda: broker)
        self._runtime = Runtime(app, self.ledger, broker, self.flows)
        upkeep.register(app, self._runtime)
        beat.schedule(app, lambda: self.config)
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

    def flow(
        self,
        name: str,
        input_type: type[InputT],
        *,
        key: str | Callable[[InputT], str],
        subject: str | Callable[[InputT], str] | None = None,
    ) -> Flow[InputT]:
        """
        Declare a flow. Its phases follow with `@flow.phase`.

        `input_type` is a dataclass, a TypedDict or a pydantic model. `key` is a template of its fields, or a
        function of the input, and names a run for good: the same key is the same run. `subject` names what
        successive runs are about; a newer run of a subject supersedes the older ones. Raises: DeclarationError.
        """
        if name in self.flows:
            raise DeclarationError(f"this app already has a flow {name}; give the second another name")
        flow = Flow(name, input_type, key=key, subject=subject, ledger=self.ledger, on_phase=self._on_phase)
        self.flows[name] = flow
        return flow

    def webhook(
        self,
        name: str,
        *,
        flow: Flow[InputT],
        secret: str | Sequence[str] | Callable[[], str | Sequence[str]],
        scheme: str = "github",
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> Callable[[Callable[[Delivery], Mapped[InputT]]], Webhook[InputT]]:
        """
        Declare a webhook: the decorated function maps a verified delivery to the flow's input, an `Event`, or `None`.

        `scheme` is `github` or `standard` (Standard Webhooks). Several secrets may be given while one replaces the
        other; a function is asked at each delivery. Raises: DeclarationError, and ConfigError for a weak secret.
        """
        if name in self.webhooks:
            raise DeclarationError(f"this app already has a webhook {name}; give the second another name")

        def secrets() -> Sequence[str]:
            found = secret() if callable(secret) else secret
            return [found] if isinstance(found, str) else found

        def declare(to_input: Callable[[Delivery], Mapped[InputT]]) -> Webhook[InputT]:
            made = Webhook(
                name,
                flow=flow,
                secrets=secrets,
                scheme=scheme,
                to_input=to_input,
                ledger=self.ledger,
                max_body_bytes=max_body_bytes,
            )
            if not callable(secret):
                check_secrets(secrets(), standard=scheme == "standard")
            self.webhooks[name] = made
            return made

        return declare

    def action(
        self,
        kind: str,
        *,
        max_attempts: int = 8,
        backoff: Backoff | None = None,
        max_duration: timedelta = timedelta(minutes=1),
        idempotent: bool = False,
    ) -> Callable[[Handler], Action]:
        """
        Declare how a planned action of this kind is sent: `handler(payload, idempotency_key)` returns the upstream id.

        `max_duration` is how long a send may take; `idempotent` says that the other side does nothing twice for one
        key. Raises: DeclarationError.
        """
        options = ActionOptions(
            max_attempts=max_attempts, backoff=backoff or Backoff(), max_duration=max_duration, idempotent=idempotent
        )

        def declare(handler: Handler) -> Action:
            if kind in self.ledger.actions:
                raise DeclarationError(f"this app already has an action {kind}; give the second another name")
            made = self.ledger.actions[kind] = Action(kind, handler, options)
            return made

        return declare

    def signal(
        self,
        key: str,
        name: str,
        payload: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - as in events
        flow: Flow[Any] | str | None = None,
    ) -> Run:
        """
        Tell the run of a key of an outside event, as `Run.signal` does; `flow` when several wait for that name.

        Raises: KeyNotFound when there is no run of that key, InputError, StateConflict when the run has ended.
        """
        found = flow_for(self.flows, name, flow)
        run = found.find(key)
        if run is None:
            raise KeyNotFound(found.name, key)
        return run.signal(name, payload, id=id)

    def get(self, run_id: str) -> Run:
        """A handle on an existing run; nothing is read yet."""
        return self.ledger.handle(run_id)

    def _on_phase(self, flow: Flow[Any], phase: Phase[Any, Any]) -> None:
        phase_task.register(self.app, self._runtime, flow, phase)
