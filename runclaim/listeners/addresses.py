"""
Which network addresses a configured URL may lead to.

A name is resolved once, all its addresses are checked, and the connection goes to a checked one: what the name means a
moment later does not matter (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from runclaim.errors import ConfigError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORTS: Final = frozenset({443, 8443})
_LONGEST_HOST, _LONGEST_LABEL = 253, 63


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(each) for each in texts)


#: Where clouds hand out credentials without a password. Refused even where internal addresses are allowed.
_METADATA: Final = _networks(
    "169.254.0.0/16",  # AWS, Azure, GCP, Oracle, OpenStack, DigitalOcean, Tencent, Scaleway, and their containers
    "fe80::/10",  # OpenStack
    "fd00:ec2::/64",  # AWS
    "fd20:ce::254",  # GCP
    "fd00:42::42",  # Scaleway
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "168.63.129.16",  # Azure
)
#: IPv4 that is not the internet's: IANA IPv4 Special-Purpose Address Registry (RFC 6890), multicast and class E.
_SPECIAL_IPV4: Final = _networks(
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
#: IPv6 has one block for the internet (RFC 4291); all else is reserved, local, or not assigned yet.
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
#: Of that block what is not the internet's: IANA IPv6 Special-Purpose Address Registry, and tunnels (6to4, Teredo).
_SPECIAL_IPV6: Final = _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
#: An IPv4 address in the last four bytes: mapped, translated (RFC 2765), NAT64 (RFC 6052), compatible (RFC 4291).
_WRAPPED: Final = _networks("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "::/96")
#: These stand for an address of the internet where what they wrap is one: names lead here on networks with DNS64.
_TRANSLATED: Final = _networks("::ffff:0:0/96", "64:ff9b::/96")
#: For translation inside a network (RFC 8215): the IPv4 address is at one of four places (RFC 6052, 2.2).
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


class AddressRefused(Exception):
    """The URL leads where no webhook is sent; nothing was sent."""


class Target:
    """A URL that was looked at: where to connect, and what to ask for there."""

    def __init__(self, url: str, *, is_internal: bool = False) -> None:
        try:
            found = urlsplit(url)
            port = found.port
        except ValueError as error:
            raise ConfigError(f"the webhook URL is malformed: {error}") from None
        self.is_tls, self.is_internal = found.scheme == "https", is_internal
        if found.scheme != "https" and not (is_internal and found.scheme == "http"):
            raise ConfigError("a webhook URL must begin with https://")
        if not found.hostname or found.username is not None or found.password is not None:
            raise ConfigError("a webhook URL needs a host, and neither user nor password; the signature says who sends")
        if any(not 0x20 < ord(character) < 0x7F for character in url):  # noqa: PLR2004 - visible ASCII
            raise ConfigError("the webhook URL has characters that must be percent-encoded")
        self.host, self.port = found.hostname, (443 if self.is_tls else 80) if port is None else port
        if not _is_name(found.hostname):
            raise ConfigError(
                "the webhook URL has an invalid host; each label must have 1 to 63 characters, the whole at most 253"
            )
        if not is_internal and self.port not in _PORTS:
            raise ConfigError(f"the webhook URL has port {self.port}; only 443 and 8443 are allowed")
        self.path = (found.path or "/") + (f"?{found.query}" if found.query else "")
        self.authority = found.netloc

    def addresses(self) -> list[str]:
        """The checked addresses of the host. Raises: AddressRefused if any of them must not be called, and OSError."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        # The zone of a link-local address is not compared.
        plain = list(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
        for address in plain:
            check(address, is_internal=self.is_internal)
        return plain


def _is_name(host: str) -> bool:
    """Whether the host is an address, or a name as the DNS has them (RFC 1035)."""
    labels = host.removesuffix(".").split(".")
    return ":" in host or (len(host) <= _LONGEST_HOST and all(0 < len(each) <= _LONGEST_LABEL for each in labels))


def check(address: str, *, is_internal: bool) -> None:
    """Return when the address may be called. Raises: AddressRefused."""
    outer = ipaddress.ip_address(address)
    inner = _wrapped(outer)
    for each in (outer, *inner):
        if _is_in(each, _METADATA):
            raise AddressRefused(f"{outer} is where clouds hand out credentials")
        if each.is_multicast or each.is_unspecified:
            raise AddressRefused(f"{outer} is not the address of a single machine")
    compared = inner if _is_in(outer, _TRANSLATED) else [outer, *inner]
    if not is_internal and not all(_is_public(each) for each in compared):
        raise AddressRefused(f"{outer} is not a public address")


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not _is_in(address, _SPECIAL_IPV4)
    return address in _GLOBAL_IPV6 and not _is_in(address, _SPECIAL_IPV6)


def _is_in(address: _Address, networks: tuple[_Network, ...]) -> bool:
    return any(address in each for each in networks if each.version == address.version)


def _wrapped(address: _Address) -> list[_Address]:
    """Every IPv4 address that an IPv6 address stands for, by whichever way of writing one inside the other."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    number = int(address)
    last = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    found: list[_Address] = [each for each in (address.sixtofour, *(address.teredo or ())) if each]
    if _is_in(address, _WRAPPED) or (number >> 32 & 0xFFFFFFFF) in _ISATAP:
        found.append(last)
    if address in _LOCAL_NAT64:
        # The eighth byte is skipped.
        whole = number >> 64 << 56 | number & (1 << 56) - 1
        found += [last, *(ipaddress.IPv4Address(whole >> shift & 0xFFFFFFFF) for shift in (40, 32, 24))]
    return found
