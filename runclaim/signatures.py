"""
Signatures of webhooks: of incoming ones checked on the raw bytes and in constant time, of outgoing ones made.

GitHub: `X-Hub-Signature-256`, HMAC-SHA256 of the body in hex (docs.github.com, "Validating webhook deliveries").
Standard Webhooks 1.0.0: `webhook-id`, `webhook-timestamp`, `webhook-signature`, HMAC-SHA256 in base64 of
`id.timestamp.body`. Several secrets are tried, so that one can be replaced while the other still signs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runclaim.errors import ConfigError, SignatureRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Names in lower case.
GITHUB_HEADERS: Final = ("x-hub-signature-256", "x-github-delivery", "x-github-event")
STANDARD_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-event")
#: Seconds that a Standard Webhooks timestamp may lie in the past or in the future.
TOLERANCE_SECONDS: Final = 300
_SHORTEST_SECRET: Final = 16
#: Seconds since 1970 have ten digits until 2286; a number with many more digits is not a time, and is costly to read.
_STAMP: Final = re.compile(r"[0-9]{1,12}")
#: No sender signs with more secrets than it is replacing.
_MOST_SIGNATURES: Final = 16


@dataclass(frozen=True, slots=True)
class Signed:
    """A delivery whose signature holds: its own id, and the event it names, where the scheme has one."""

    delivery_id: str
    event: str


def check_github(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Signed:
    """Check a delivery as GitHub signs it; `headers` have lower-case names. Raises: SignatureRefused."""
    given = _header(headers, "x-hub-signature-256")
    delivery_id = _header(headers, "x-github-delivery")
    algorithm, _, digest = given.partition("=")
    if algorithm != "sha256":
        raise SignatureRefused("x-hub-signature-256", "is not a sha256 signature")
    expected = [hmac.new(secret.encode(), body, hashlib.sha256).hexdigest() for secret in secrets]
    if not _any_equal([digest], expected):
        raise SignatureRefused("x-hub-signature-256", "does not match the body and the secret")
    return Signed(delivery_id, headers.get("x-github-event", ""))


def check_standard(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Signed:
    """Check a delivery by Standard Webhooks; `headers` have lower-case names. Raises: SignatureRefused."""
    delivery_id, stamp = _header(headers, "webhook-id"), _header(headers, "webhook-timestamp")
    given = [found.removeprefix("v1,") for found in _header(headers, "webhook-signature").split() if found[:3] == "v1,"]
    if not _STAMP.fullmatch(stamp):
        raise SignatureRefused("webhook-timestamp", "is not a time in seconds")
    if len(given) > _MOST_SIGNATURES:
        raise SignatureRefused("webhook-signature", f"has more than {_MOST_SIGNATURES} signatures")
    if abs(time.time() - int(stamp)) > TOLERANCE_SECONDS:
        raise SignatureRefused("webhook-timestamp", f"is more than {TOLERANCE_SECONDS} s away from now")
    signed = f"{delivery_id}.{stamp}.".encode() + body
    expected = _standard_digests(signed, secrets)
    if not _any_equal(given, expected):
        raise SignatureRefused("webhook-signature", "does not match the body and the secret")
    return Signed(delivery_id, headers.get("webhook-event", ""))


def sign_standard(body: bytes, delivery_id: str, stamp: int, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of a delivery by Standard Webhooks, one signature per secret; `stamp` is in seconds since 1970."""
    digests = _standard_digests(f"{delivery_id}.{stamp}.".encode() + body, secrets)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": " ".join(f"v1,{digest}" for digest in digests),
    }


def _standard_digests(signed: bytes, secrets: Sequence[str]) -> list[str]:
    keys = [_standard_key(secret) for secret in secrets]
    return [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]


def check_secrets(secrets: Sequence[str], *, standard: bool) -> None:
    """Refuse secrets that protect nothing. Raises: ConfigError; the secret itself is never shown."""
    if not secrets:
        raise ConfigError("a webhook needs a secret; without one, anyone could enqueue runs")
    for secret in secrets:
        size = len(_standard_key(secret) if standard else secret.encode())
        if size < _SHORTEST_SECRET:
            raise ConfigError(f"a webhook secret has only {size} bytes; use at least {_SHORTEST_SECRET} random ones")


def _standard_key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ConfigError("a Standard Webhooks secret must be base64 after `whsec_`") from error


def _header(headers: Mapping[str, str], name: str) -> str:
    if not (found := headers.get(name, "")):
        raise SignatureRefused(name, "is missing")
    if not found.isprintable():
        raise SignatureRefused(name, "contains characters that are not allowed in a header")
    return found


def _any_equal(given: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether one of `given` is one of `expected`; every pair is compared, in constant time."""
    equal = [hmac.compare_digest(one.encode(), other.encode()) for one in given for other in expected]
    return any(equal)
