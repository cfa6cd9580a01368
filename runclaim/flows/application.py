"""What an application declares: flows, webhooks, actions and resolvers of secrets, each under a name of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from runclaim.errors import InputError, KeyNotFound
from runclaim.flows.actions.action import Action, ActionOptions
from runclaim.flows.application_listeners import Hearing
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.handle import Run
from runclaim.flows.client.signal import flow_for
from runclaim.flows.declare.declared_flow import FlowOptions, OnPhase
from runclaim.flows.declare.place import Places
from runclaim.flows.declare.retention import Retention
from runclaim.flows.declare.secret_references import BUILT_IN, Resolver, Secrets
from runclaim.flows.flow import Flow
from runclaim.flows.inbound.webhook import MAX_BODY_BYTES, Delivery, Mapped, Webhook
from runclaim.keys import check_name
from runclaim.retries import Backoff
from runclaim.signatures import check_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runclaim.config import Config
    from runclaim.flows.actions.action import Handler
    from runclaim.flows.messages.publisher import Publisher

InputT = TypeVar("InputT")


class _Named(dict[str, Any]):
    """What the app declared, by name; a name that comes from outside is an input like any other."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise InputError(self._what, f"{name!r:.100} is not declared; this app has {', '.join(self) or 'none'}")


class Declarations(Hearing):
    """The flows of one application and what goes with them; reaches the ledger when it is asked, not before."""

    def __init__(self, config: Callable[[], Config], publisher: Callable[[], Publisher], on_phase: OnPhase) -> None:
        self.flows: dict[str, Flow[Any]] = _Named("flow")
        self.webhooks: dict[str, Webhook[Any]] = _Named("trigger")
        self.ledger = LedgerAccess(config, publisher, self.flows)
        self._resolvers: dict[str, Resolver] = dict(BUILT_IN)
        self._on_phase = on_phase
        self._places = Places()

    def flow(
        self,
        name: str,
        input_type: type[InputT],
        *,
        key: str | Callable[[InputT], str],
        subject: str | Callable[[InputT], str] | None = None,
        keep_succeeded: timedelta | None = None,
        keep_failed: timedelta | None = None,
        keep_canceled: timedelta | None = None,
        keep_superseded: timedelta | None = None,
        fail_open: bool = False,
        allow_secrets: bool | Sequence[str] = False,
        secrets: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Flow[InputT]:
        """
        Declare a flow. Its phases follow with `@flow.phase`.

        `input_type` is a dataclass, a TypedDict or a pydantic model. `key` is a template of its fields, or a
        function of the input, and names a run for good: the same key is the same run. `subject` names what
        successive runs are about; a newer run of a subject supersedes the older ones. `keep_…` says how long its runs
        are kept once they have ended, else the settings do. What looks like a secret is refused in an input, but in the
        fields that `allow_secrets` names (`("title", "pull.body")`; True for all). `secrets` names the fields that may
        hold a reference to a secret, and which: `{"token": "secret:env:FORGE_*"}`. `fail_open` lets its idempotent
        phases run while the ledger cannot be reached; see docs/fail-open.md. Raises: DeclarationError.
        """
        if name in self.flows or name in self.ledger.plain_names:
            self._places.refuse("flow", name)
        retention = Retention(
            keep_succeeded=keep_succeeded,
            keep_failed=keep_failed,
            keep_canceled=keep_canceled,
            keep_superseded=keep_superseded,
        )
        options = FlowOptions(
            key=key,
            subject=subject,
            retention=retention,
            fail_open=fail_open,
            allow_secrets=allow_secrets,
            secrets=secrets or {},
        )
        flow = Flow(name, input_type, options, access=self.ledger, resolvers=self._resolvers, on_phase=self._on_phase)
        self.flows[name] = flow
        self._places.note("flow", name)
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
        Declare a webhook: the decorated function maps a verified delivery to the input, an `OutsideEvent`, or `None`.

        `scheme` is `github` or `standard` (Standard Webhooks). Several secrets may be given while one replaces the
        other; a function is asked at each delivery. Raises: DeclarationError, and ConfigError for a weak secret.
        """
        if name in self.webhooks:
            self._places.refuse("webhook", name)

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
                access=self.ledger,
                max_body_bytes=max_body_bytes,
            )
            if not callable(secret):
                check_secrets(secrets(), standard=scheme == "standard")
            self.webhooks[name] = made
            self._places.note("webhook", name)
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
                self._places.refuse("action", kind)
            made = self.ledger.actions[kind] = Action(kind, handler, options)
            self._places.note("action", kind)
            return made

        return declare

    def secret(self, reference: str) -> str:
        """
        The value that a reference such as `secret:env:NAME` leads to, for handlers of actions and webhooks.

        A body asks `ctx.secret`, which also redacts the value from its error. Raises: SecretUnavailable.
        """
        return Secrets(self._resolvers).get(reference)

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

    def secret_resolver(self, name: str) -> Callable[[Resolver], Resolver]:
        """
        Declare where references `secret:name:…` lead: the decorated function takes the rest and returns the value.

        It raises LookupError for what it does not have. Raises: DeclarationError for a name that is taken.
        """
        if check_name("secret resolver", name) in self._resolvers:
            self._places.refuse("secret resolver", name)

        def declare(resolve: Resolver) -> Resolver:
            self._resolvers[name] = resolve
            self._places.note("secret resolver", name)
            return resolve

        return declare

    def get(self, run_id: str) -> Run:
        """A handle on an existing run; nothing is read yet. Raises: LedgerClosed."""
        return Run(self.ledger, run_id)
