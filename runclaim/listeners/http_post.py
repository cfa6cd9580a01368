"""
One POST over HTTP/1.1 to a checked address: no redirect, no proxy, no cookie, one deadline for all of it.

Not a client for everything: the answer is its status and its Retry-After, and the rest is not read.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runclaim.listeners.addresses import Target

_LONGEST_HEAD: Final = 16_384
_PARTS: Final = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """The status of the answer, and how many seconds it asks to wait, if it does."""

    status: int
    retry_after: float | None


def post(
    target: Target, body: bytes, headers: Mapping[str, str], *, seconds: float, tls: ssl.SSLContext | None = None
) -> Answer:
    """
    Send it, and wait `seconds` at most for the end of the answer's head; the look-up of the name has limits of its own.

    Raises: OSError (TimeoutError, ConnectionError, ssl.SSLError and their like) and AddressRefused.
    """
    ends = time.monotonic() + seconds
    with closing(_connect(target, ends, tls)) as connection:
        sent = {"host": target.authority, "content-length": str(len(body)), "connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        connection.settimeout(_left(ends))
        connection.sendall(f"POST {target.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body)
        return _answer(_head(connection, ends))


def _connect(target: Target, ends: float, tls: ssl.SSLContext | None) -> socket.socket:
    error: OSError = ConnectionError(f"{target.host} has no address")
    for address in target.addresses():
        try:
            raw = socket.create_connection((address, target.port), timeout=_left(ends))
        except OSError as refused:
            error = refused
            continue
        if not target.is_tls:
            return raw
        try:
            # The certificate has to be the name's, whatever address it led to.
            return (tls or ssl.create_default_context()).wrap_socket(raw, server_hostname=target.host)
        except BaseException:
            raw.close()
            raise
    raise error


def _head(connection: socket.socket, ends: float) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        connection.settimeout(_left(ends))
        more = connection.recv(4096)
        if not more or len(found) > _LONGEST_HEAD:
            raise ConnectionError("the answer has an incomplete head")
        found += more
    return found.partition(b"\r\n\r\n")[0]


def _answer(head: bytes) -> Answer:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(maxsplit=_PARTS)
    if len(parts) < _PARTS or not parts[0].startswith("HTTP/1.") or not parts[1].isascii() or not parts[1].isdigit():
        raise ConnectionError("the answer is not HTTP")
    named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    wait = named.get("retry-after", "")
    return Answer(int(parts[1]), float(wait) if wait.isascii() and wait.isdigit() else None)


def _left(ends: float) -> float:
    if (left := ends - time.monotonic()) <= 0:
        raise TimeoutError("no answer in time")
    return left
