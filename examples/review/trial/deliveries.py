"""
Webhook deliveries as GitHub sends them: signed, and more of them than anybody would like.

A double click is one delivery twice at once. A redelivery comes later and has an id of its own, though it is about the
same two commits. A forged one is signed by somebody who does not know the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random


@dataclass(frozen=True)
class Delivery:
    """One delivery as it comes over the wire."""

    body: bytes
    headers: Mapping[str, str]


class Sender:
    """Signs payloads with the webhook's secret; ids are those of `rng`, so a seed gives the same ones again."""

    def __init__(self, *, secret: str, rng: Random) -> None:
        self._secret, self._rng = secret, rng

    def delivery(self, payload: Mapping[str, Any]) -> Delivery:
        """The payload under a new delivery id."""
        return self._signed(payload, self._secret)

    def forged(self, payload: Mapping[str, Any]) -> Delivery:
        """The payload, signed with another secret."""
        return self._signed(payload, f"not {self._secret}")

    def _signed(self, payload: Mapping[str, Any], secret: str) -> Delivery:
        body = json.dumps(payload, separators=(",", ":")).encode()
        return Delivery(
            body,
            {
                "Accept": "*/*",
                "Content-Type": "application/json",
                "User-Agent": "GitHub-Hookshot/0000000",
                "X-GitHub-Delivery": str(UUID(int=self._rng.getrandbits(128), version=4)),
                "X-GitHub-Event": "pull_request",
                "X-GitHub-Hook-ID": "1",
                "X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}",
            },
        )


def tampered(delivery: Delivery) -> Delivery:
    """The delivery with one byte of its body changed on the way."""
    return Delivery(delivery.body.replace(b'"action":"', b'"action": "', 1), delivery.headers)


def at_once(receive: Callable[[bytes, Mapping[str, str]], Any], *deliveries: Delivery) -> list[Any]:
    """What `receive` answered to each, delivered at the same time; an error it raised stands in for its answer."""

    def attempt(delivery: Delivery) -> Any:
        try:
            return receive(delivery.body, delivery.headers)
        except Exception as error:  # noqa: BLE001 - the sender gets it as a status
            return error

    with ThreadPoolExecutor(len(deliveries)) as callers:
        return list(callers.map(attempt, deliveries))
