"""
Which addresses of the network may be called by whoever configures a URL.

A name is resolved once, all its addresses are checked, and the connection goes to a checked one: what the name means a
moment later does not matter (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from runclaim.errors import ConfigError

_PORTS: Final = frozenset({443, 8443})
#: Of clouds; asked without a password, they hand out credentials. Refused also where internal addresses are not.
_METADATA: Final = frozenset(
    ipaddress.ip_address(each)
    for each in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "168.63.129.16")
)
#: Carries an IPv4 address in its last four bytes (RFC 6052); the other is for translation inside a network (RFC 8215).
_NAT64, _LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(Exception):
    """The URL leads where no webhook is sent; nothing was sent."""


class Target:
    """A URL that was looked at: where to connect, and what to ask for there."""

    def __init__(self, url: str, *, is_internal: bool = False) -> None:
        try:
            found = urlsplit(url)
            port = found.port
        except ValueError as error:
            raise ConfigError(f"a webhook's URL is malformed: {error}") from None
        self.is_tls, self.is_internal = found.scheme == "https", is_internal
        if found.scheme != "https" and not (is_internal and found.scheme == "http"):
            raise ConfigError("a webhook's URL begins with https://")
        if not found.hostname or found.username is not None or found.password is not None:
            raise ConfigError("a webhook's URL has a host and neither user nor password; the signature says who sends")
        if any(not 0x20 < ord(character) < 0x7F for character in url):  # noqa: PLR2004 - visible ASCII
            raise ConfigError("a webhook's URL has characters that have to be percent-encoded")
        self.host, self.port = found.hostname, (443 if self.is_tls else 80) if port is None else port
        if not is_internal and self.port not in _PORTS:
            raise ConfigError(f"a webhook's URL has port {self.port}; only 443 and 8443 are called")
        self.path = (found.path or "/") + (f"?{found.query}" if found.query else "")
        self.authority = found.netloc

    def addresses(self) -> list[str]:
        """The checked addresses of the host. Raises: AddressRefused when any of them is none to call, and OSError."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        # The zone of a link-local address is no part of what is compared.
        plain = list(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
        for address in plain:
            check(address, is_internal=self.is_internal)
        return plain


def check(address: str, *, is_internal: bool) -> None:
    """Return when the address may be called. Raises: AddressRefused."""
    for its in _meanings(ipaddress.ip_address(address)):
        if its in _METADATA:
            raise AddressRefused(f"{its} hands out a cloud's credentials")
        if not is_internal and (not its.is_global or its.is_multicast or its in _LOCAL_NAT64):
            raise AddressRefused(f"{its} is not a public address")
        if its.is_multicast or its.is_unspecified:
            raise AddressRefused(f"{its} is no single machine")


def _meanings(address: _Address) -> list[_Address]:
    """The address and every IPv4 address that it stands for."""
    found: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        found += [each for each in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if each]
        if address in _NAT64:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if int(address) >> 32 == 0:
            found.append(ipaddress.IPv4Address(int(address)))
        # The mapped form is the IPv4 address itself, not an address of the reserved network around it.
        return found[1:] if address.ipv4_mapped else found
    return found
