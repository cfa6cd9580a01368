"""Origins: whose limits a connection or a wrong token counts against."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: One household or one server has all of it.
_PREFIX: Final = 64


def origin(host: str | None) -> str:
    """An IPv4 address as it is, of an IPv6 address its /64; `?` for whatever is neither."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return "?"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _PREFIX), strict=False))


def shown_address(scope: Mapping[str, Any]) -> str:
    """The client's address for a log line; `?` for what a proxy made up."""
    try:
        return str(ipaddress.ip_address((scope.get("client") or ("",))[0]))
    except ValueError:
        return "?"
