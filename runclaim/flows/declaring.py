"""What an application declares: its flows, webhooks and actions, once each, when its module is imported."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from runclaim.errors import DeclarationError
from runclaim.flows.action import Action, ActionOptions
from runclaim.flows.flow import Flow
from runclaim.flows.retention import Retention
from runclaim.flows.webhooks import MAX_BODY_BYTES, Delivery, Mapped, Webhook
from runclaim.retries import Backoff
from runclaim.signatures import check_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runclaim.flows.action import Handler
    from runclaim.flows.ledgering import Ledger
    from runclaim.flows.phase import Phase

InputT = TypeVar("InputT")


class Declaring:
    """The declarations of one application; `Runclaim` is one."""

    ledger: Ledger
    flows: dict[str, Flow[Any]]
    webhooks: dict[str, Webhook[Any]]

    def _on_phase(self, flow: Flow[Any], phase: Phase[Any, Any]) -> None:
        raise NotImplementedError

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
    ) -> Flow[InputT]:
        """
        Declare a flow. Its phases follow with `@flow.phase`.

        `input_type` is a dataclass, a TypedDict or a pydantic model. `key` is a template of its fields, or a
        function of the input, and names a run for good: the same key is the same run. `subject` names what
        successive runs are about; a newer run of a subject supersedes the older ones. `keep_…` says how long its runs
        are kept once they have ended, else the settings do. `fail_open` lets its idempotent phases run while the
        ledger cannot be reached; see docs/fail-open.md. Raises: DeclarationError.
        """
        if name in self.flows or name in self.ledger.plain_names:
            raise DeclarationError(f"this app already has a flow {name}; give the second another name")
        retention = Retention(
            keep_succeeded=keep_succeeded,
            keep_failed=keep_failed,
            keep_canceled=keep_canceled,
            keep_superseded=keep_superseded,
        )
        flow = Flow(
            name,
            input_type,
            key=key,
            subject=subject,
            ledger=self.ledger,
            on_phase=self._on_phase,
            retention=retention,
            fail_open=fail_open,
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
