"""The private broker of `runclaim dev`: the same address each time, so what was started earlier still finds it."""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from runclaim.cli.exits import Refused
from runclaim.local_folder import BROKER_URL
from runclaim.servers import ServerMissing, valkey
from runclaim.servers.machine import is_free

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.servers import Server

#: Below those that the kernel gives to clients, and nobody's by convention.
DEFAULT_PORT: Final = 16389
#: The broker of a `runclaim dev` that was killed ends a moment after it.
_PATIENCE_SECONDS: Final = 3.0


@contextmanager
def dev_broker(last: str, port: int | None) -> Iterator[Server]:
    """
    The broker, up, at the address of the last one if there was one; `port` is another for it.

    Raises: Refused when its port is taken, its program is missing or it does not start.
    """
    last_port, password = _of(last)
    port = port or last_port or DEFAULT_PORT
    _require_free(port, patience=_PATIENCE_SECONDS if port == last_port else 0)
    try:
        server = valkey(port=port, password=password or secrets.token_urlsafe(24)).start()
    except ServerMissing as missing:
        raise Refused(f"{missing}\nOr use a broker of your own: export {BROKER_URL}=redis://…") from missing
    except RuntimeError as error:
        raise Refused(f"{error}\nTo try another port: runclaim dev --port {port + 1} …") from error
    with server:
        yield server


def _of(url: str) -> tuple[int | None, str | None]:
    """Port and password of a private broker; nothing where there was none, or of a damaged URL."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.port, parts.password
    return None, None


def _require_free(port: int, *, patience: float) -> None:
    ends = time.monotonic() + patience
    while not is_free(port):
        if time.monotonic() > ends:
            raise Refused(
                f"the port {port} for the private broker is taken, perhaps by a runclaim dev of another project."
                f" Choose another, which this project then keeps: runclaim dev --port {port + 1} …"
            )
        time.sleep(0.05)
