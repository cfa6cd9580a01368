"""Who an application has told of events: receivers, and webhooks out; see `runclaim.listeners`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.flows.declare.secret_references import parts
from runclaim.listeners.listener import SCHEDULE, Listener, chosen_flows
from runclaim.listeners.webhook import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.listeners.listener import Receiver
    from runclaim.listeners.webhook import Secrets


class Hearing:
    """The listeners of one application."""

    ledger: LedgerAccess

    def secret(self, reference: str) -> str:
        """The value that a reference leads to. Raises: SecretUnavailable."""
        raise NotImplementedError

    def on(
        self,
        *types: str,
        flow: str | Sequence[str] | None = None,
        name: str | None = None,
        schedule: Sequence[timedelta] = SCHEDULE,
    ) -> Callable[[Receiver], Receiver]:
        """
        Declare a receiver: `function(event)` is called for each event of these types (`run.failed`, `run.*`).

        After the commit, at least once, in the order of each run; an exception has it called again after the next wait
        of `schedule`, `GiveUp` not any more. `name` is its place in the journal: a receiver under a new name hears
        what happens from then on. Raises: DeclarationError.
        """

        def declare(receiver: Receiver) -> Receiver:
            its = name or f"{receiver.__module__}.{receiver.__qualname__}"
            flows, waits = chosen_flows(flow), tuple(schedule)
            self.ledger.listeners.add(Listener(name=its, types=types, flows=flows, tell=receiver, schedule=waits))
            return receiver

        return declare

    def send_events(
        self,
        name: str,
        *,
        url: str,
        secret: str | Secrets,
        types: Sequence[str] = ("run.*",),
        flow: str | Sequence[str] | None = None,
        schedule: Sequence[timedelta] = SCHEDULE,
        is_internal: bool = False,
    ) -> None:
        """
        Declare a webhook out: events are POSTed to `url` as CloudEvents 1.0, signed by Standard Webhooks.

        `secret` is a reference such as `secret:env:NAME`, or a function that returns one secret or several (while one
        replaces the other); either is asked at each send. Only https to public addresses, unless `is_internal`. Raises:
        DeclarationError, ConfigError for the URL, SecretUnavailable for what is not a reference.
        """
        secrets = self._by_reference(secret) if isinstance(secret, str) else secret
        out = Outgoing(url, secrets=secrets, is_internal=is_internal)
        flows, waits = chosen_flows(flow), tuple(schedule)
        self.ledger.listeners.add(Listener(name=name, types=tuple(types), flows=flows, tell=out.send, schedule=waits))

    def _by_reference(self, reference: str) -> Secrets:
        parts(reference)
        return lambda: self.secret(reference)
