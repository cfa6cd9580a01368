"""
Webhooks in: from a verified delivery to a run, once, in one transaction.

The signature is checked on the raw bytes before anything else. The delivery id, the payload within the dedup
window, the run and its signal are written together, so a delivery is never remembered without its run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from runclaim.errors import DeclarationError, InputError, KeyConflict, SignatureRefused
from runclaim.flows.client.enqueuer import Enqueuer
from runclaim.flows.client.handle import Run
from runclaim.flows.client.new_run import Options
from runclaim.flows.inbound.payload import mapped, payload_of
from runclaim.flows.inbound.route import Landed, OutsideEvent, Route
from runclaim.keys import MAX_KEY_BYTES, check_name, clip, nonce
from runclaim.ledger.doors.dedup_windows import Sighting, first_sighting, seen_run, sighted
from runclaim.secrets import redact
from runclaim.signatures import GITHUB_HEADERS, STANDARD_HEADERS, check_github, check_secrets, check_standard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow

InputT = TypeVar("InputT")
#: What a mapping function returns: the flow's input, its fields, an event of it, or that it concerns no run.
Mapped: TypeAlias = InputT | Mapping[str, Any] | OutsideEvent[InputT] | None

#: GitHub caps its payloads at 25 MB; a pull request's is some 30 kB.
MAX_BODY_BYTES: Final = 1024 * 1024
#: Headers that decide what a delivery is.
_READ: Final = frozenset({*GITHUB_HEADERS, *STANDARD_HEADERS, "content-type"})
_SCHEMES: Final = {"github": check_github, "standard": check_standard}


class DeliveryOutcome(StrEnum):
    """What became of a delivery."""

    ENQUEUED = "enqueued"  #: it made a run
    STARTED = "started"  #: it started a phase of the run that its key had already
    EXISTING = "existing"  #: its run key had a run already, and nothing of it was started
    DUPLICATE = "duplicate"  #: the same delivery, or the same payload within the window
    IGNORED = "ignored"  #: it concerns no run


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified delivery, as the mapping function sees it."""

    id: str
    event: str
    payload: Any

    @property
    def action(self) -> str:
        """The event, and what of it the payload calls `action`: `pull_request.synchronize`."""
        action = self.payload.get("action") if isinstance(self.payload, Mapping) else None
        return f"{self.event}.{action}" if isinstance(action, str) and action else self.event


@dataclass(frozen=True, slots=True)
class Received:
    """The answer to a delivery; `run` is `None` when it was ignored."""

    outcome: DeliveryOutcome
    run: Run | None


class Webhook(Generic[InputT]):
    """A trigger: who signs, and how a payload becomes a flow's input or an event of it. Made by `Runclaim.webhook`."""

    def __init__(
        self,
        name: str,
        *,
        flow: DeclaredFlow[InputT],
        secrets: Callable[[], Sequence[str]],
        scheme: str,
        to_input: Callable[[Delivery], Mapped[InputT]],
        access: LedgerAccess,
        max_body_bytes: int,
    ) -> None:
        if scheme not in _SCHEMES:
            raise DeclarationError(f"webhook {name}: scheme must be one of {', '.join(_SCHEMES)}, not {scheme!r}")
        self.name, self.flow, self.scheme = check_name("webhook", name), flow, scheme
        self._secrets, self._to_input, self._access, self.max_body_bytes = secrets, to_input, access, max_body_bytes

    def receive(self, body: bytes, headers: Mapping[str, str]) -> Received:
        """
        Take one delivery: its raw body and its HTTP headers (names in any case).

        Raises: SignatureRefused, InputError (with the field that does not fit), KeyConflict, LedgerUnavailable,
        LedgerClosed; nothing is written then, and the sender may deliver again.
        """
        self._access.require_open()
        if len(body) > self.max_body_bytes:
            raise InputError("body", f"has {len(body):,} bytes; at most {self.max_body_bytes:,} are accepted")
        secrets = list(self._secrets())
        check_secrets(secrets, standard=self.scheme == "standard")
        given = _lower(headers)
        signed = _SCHEMES[self.scheme](body, given, secrets)
        payload = payload_of(body, given.get("content-type", ""))
        sightings = self._sightings(signed.delivery_id, body)
        delivery = Delivery(signed.delivery_id, signed.event, payload)
        try:
            found = mapped(self._to_input, delivery)
            return (
                Received(DeliveryOutcome.IGNORED, None)
                if found is None
                else self._take(self._route(found, delivery), sightings)
            )
        except (InputError, KeyConflict):
            # A delivery id counts once, even if the mapping is not the same twice: it may read the clock.
            earlier = self._earlier(sightings[:1])
            if earlier is None:
                raise
            return Received(DeliveryOutcome.DUPLICATE, earlier)

    def _route(self, found: Any, delivery: Delivery) -> Route:
        if isinstance(found, OutsideEvent):
            route = Route.of(self._access, self.flow, found, id=delivery.id)
        else:
            route = Route(Enqueuer(self.flow, self._access, Options()).new_run(found), None, None)
        new = replace(route.new, delivery_id=_shown(delivery.id), delivery_action=_shown(delivery.action))
        return replace(route, new=new)

    def _earlier(self, sightings: list[Sighting]) -> Run | None:
        run_id = self._access.database.ask(lambda conn: seen_run(conn, sightings))
        return None if run_id is None else Run(self._access, run_id, self.flow)

    def _sightings(self, delivery_id: str, body: bytes) -> list[Sighting]:
        config = self._access.config
        place = f"{config.project}/{self.name}"
        return [
            _sighting(f"{place}/delivery", delivery_id.encode(), config.keep_deliveries),
            _sighting(f"{place}/payload", body, config.dedup_window),
        ]

    def _take(self, route: Route, sightings: list[Sighting]) -> Received:
        database, mine = self._access.database, nonce()

        def work(conn: Connection) -> Landed | None:
            landed = route.work(conn)
            if not first_sighting(conn, sightings, landed.made.run_id, nonce=mine):
                # Nothing of this one is to stay: a repetition makes no run, sends no signal and lengthens no window.
                conn.rollback()
                return None
            return landed

        def read_back(conn: Connection) -> Landed | None:
            # The windows commit with all the rest: one that this call opened tells that it was not refused.
            return route.written(conn) if sighted(conn, sightings, nonce=mine) else None

        landed = database.run(work, read_back=read_back)
        if landed is None:
            return Received(DeliveryOutcome.DUPLICATE, self._earlier(sightings))
        route.publish(self._access, landed)
        run = Run(self._access, landed.made.run_id, self.flow, created=landed.made.created)
        if landed.made.created:
            return Received(DeliveryOutcome.ENQUEUED, run)
        return Received(DeliveryOutcome.STARTED if landed.started else DeliveryOutcome.EXISTING, run)


def _shown(text: str) -> str:
    """What a sender has written, as it is kept with the run for people to read."""
    return redact(clip(text, MAX_KEY_BYTES))


def _sighting(namespace: str, what: bytes, window: timedelta) -> Sighting:
    return Sighting(namespace, hashlib.sha256(what).hexdigest(), window)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with lower-case names. Raises: SignatureRefused for one that is given twice, with two values."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if found.setdefault(lower, value) != value and lower in _READ:
            raise SignatureRefused(lower, "is sent twice, with different values")
    return found
