"""
`Runclaim`: attaches durable runs to the Celery app that people already have.

It adds tasks, three beat entries and two bootsteps, all through Celery's own doors. The app's own tasks,
schedule, routes and signals stay as they are.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runclaim import beat, worker
from runclaim.broker import Broker
from runclaim.config import Config, resolve
from runclaim.errors import DeclarationError, InputError
from runclaim.flows.flow import Flow
from runclaim.flows.ledgering import Ledger
from runclaim.flows.resolving import BUILT_IN, Resolver
from runclaim.flows.webhooks import MAX_BODY_BYTES, Delivery, Webhook
from runclaim.keys import check_name
from runclaim.signatures import check_secrets
from runclaim.tasks import phase_task, upkeep
from runclaim.tasks.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery import Celery

    from runclaim.flows.handle import Run
    from runclaim.flows.phase import Phase

InputT = TypeVar("InputT")

#: Of two on one app only the first would have its rescue and dispatch.
_ATTACHED: Final[weakref.WeakSet[Celery]] = weakref.WeakSet()


class _Named(dict[str, Any]):
    """What the app declared, by name; a name that somebody outside made up is an input like any other."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise InputError(self._what, f"there is no {name!r:.100}; this app has {', '.join(self) or 'none'}")


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
        self.flows: dict[str, Flow[Any]] = _Named("flow")
        self.webhooks: dict[str, Webhook[Any]] = _Named("trigger")
        self._resolvers: dict[str, Resolver] = dict(BUILT_IN)
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

    def flow(
        self,
        name: str,
        input_type: type[InputT],
        *,
        key: str | Callable[[InputT], str],
        subject: str | Callable[[InputT], str] | None = None,
        allow_secrets: bool = False,
    ) -> Flow[InputT]:
        """
        Declare a flow. Its phases follow with `@flow.phase`.

        `input_type` is a dataclass, a TypedDict or a pydantic model. `key` is a template of its fields, or a
        function of the input, and names a run for good: the same key is the same run. `subject` names what
        successive runs are about; a newer run of a subject supersedes the older ones. An input with what looks
        like a secret is refused unless `allow_secrets`. Raises: DeclarationError.
        """
        if name in self.flows:
            raise DeclarationError(f"this app already has a flow {name}; give the second another name")
        flow = Flow(
            name,
            input_type,
            key=key,
            subject=subject,
            ledger=self.ledger,
            on_phase=self._on_phase,
            allow_secrets=allow_secrets,
            resolvers=self._resolvers,
        )
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
    ) -> Callable[[Callable[[Delivery], InputT | Mapping[str, Any] | None]], Webhook[InputT]]:
        """
        Declare a webhook: the decorated function maps a verified delivery to the flow's input, or to `None`.

        `scheme` is `github` or `standard` (Standard Webhooks). Several secrets may be given while one replaces the
        other; a function is asked at each delivery. Raises: DeclarationError, and ConfigError for a weak secret.
        """
        if name in self.webhooks:
            raise DeclarationError(f"this app already has a webhook {name}; give the second another name")

        def secrets() -> Sequence[str]:
            found = secret() if callable(secret) else secret
            return [found] if isinstance(found, str) else found

        def declare(to_input: Callable[[Delivery], InputT | Mapping[str, Any] | None]) -> Webhook[InputT]:
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

    def secret_resolver(self, name: str) -> Callable[[Resolver], Resolver]:
        """
        Declare where references `secret:name:…` lead: the decorated function takes the rest and returns the value.

        It raises LookupError for what it does not have. Raises: DeclarationError for a name that is taken.
        """
        if check_name("secret resolver", name) in self._resolvers:
            raise DeclarationError(f"there already is a secret resolver {name}; give the second another name")

        def declare(resolve: Resolver) -> Resolver:
            self._resolvers[name] = resolve
            return resolve

        return declare

    def get(self, run_id: str) -> Run:
        """A handle on an existing run; nothing is read yet."""
        return self.ledger.handle(run_id)

    def _on_phase(self, flow: Flow[Any], phase: Phase[Any, Any]) -> None:
        phase_task.register(self.app, self._runtime, flow, phase)
