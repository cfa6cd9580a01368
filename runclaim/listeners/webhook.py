"""
Webhooks out: an event as a signed CloudEvent, POSTed to a URL of the application's choice.

Any 2xx is taken. 410 says that it is no longer wanted; anything else, even a redirect, is tried again later under the
same `webhook-id`, by which the other side knows what it has had already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from runclaim.errors import GiveUp, Retry
from runclaim.listeners.addresses import Target
from runclaim.listeners.cloudevents import CONTENT_TYPE, body
from runclaim.listeners.http_post import post
from runclaim.retries import LONGEST
from runclaim.signatures import check_secrets, sign_standard

if TYPE_CHECKING:
    import ssl

    from runclaim.listeners.listener import Event

#: Asked at each send: one secret, or several while one replaces the other.
Secrets = Callable[[], str | Sequence[str]]

_SECONDS: Final = 20.0


class NotTaken(Exception):
    """The other side answered, and did not take it."""


class Outgoing:
    """A URL and the secret that signs what is sent there. Declaring it looks at the URL and connects to nothing."""

    def __init__(
        self, url: str, *, secrets: Secrets, is_internal: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self._target, self._secrets, self._tls = Target(url, is_internal=is_internal), secrets, tls

    def send(self, event: Event) -> None:
        """Send it once. Raises: GiveUp for 410, Retry for what asks to wait, and whatever went wrong."""
        sent = body(event)
        signed = sign_standard(sent, event.id, int(time.time()), self._signing())
        headers = {"content-type": CONTENT_TYPE, "user-agent": "runclaim", "accept": "*/*", **signed}
        answer = post(self._target, sent, headers, seconds=_SECONDS, tls=self._tls)
        if answer.status // 100 == HTTPStatus.OK // 100:
            return
        said = f"{self._target.host} answered {answer.status}"
        if answer.status == HTTPStatus.GONE:
            raise GiveUp(said)
        if answer.retry_after is not None:
            raise Retry(said, after=min(timedelta(seconds=answer.retry_after), LONGEST))
        raise NotTaken(said)

    def _signing(self) -> Sequence[str]:
        found = self._secrets()
        secrets = [found] if isinstance(found, str) else list(found)
        check_secrets(secrets, standard=True)
        return secrets
