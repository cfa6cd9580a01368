"""Which addresses webhooks are sent to: each row of the registries, and each way to write one address in another."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from runclaim.errors import ConfigError
from runclaim.listeners.addresses import AddressRefused, Target, check

if TYPE_CHECKING:
    from collections.abc import Callable

#: The registries of IANA, read on 2026-11-28: what is not globally reachable, with multicast and what is unassigned.
NOT_PUBLIC = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
    "::/128", "::1/128", "::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32",
    "2001:2::/48", "2001:10::/28", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
    "fec0::/10", "ff00::/8", "200::/7", "400::/6", "800::/5", "1000::/4", "4000::/3", "6000::/3", "8000::/3",
    "a000::/3", "c000::/3", "e000::/4", "f000::/5", "f800::/6",
]  # fmt: skip
#: Ways to write an IPv4 address inside an IPv6 one.
WRAPPED: dict[str, Callable[[int], int]] = {
    "mapped": lambda v4: 0xFFFF << 32 | v4,
    "translated (RFC 2765)": lambda v4: 0xFFFF << 48 | v4,
    "compatible": lambda v4: v4,
    "NAT64": lambda v4: 0x64FF9B << 96 | v4,
    "local NAT64 of 96 bits": lambda v4: 0x64FF9B0001 << 80 | v4,
    "local NAT64 of 48 bits": lambda v4: 0x64FF9B0001 << 80 | v4 >> 16 << 64 | (v4 & 0xFFFF) << 40,
    "local NAT64 of 56 bits": lambda v4: 0x64FF9B0001 << 80 | v4 >> 24 << 64 | (v4 & 0xFFFFFF) << 32,
    "local NAT64 of 64 bits": lambda v4: 0x64FF9B0001 << 80 | v4 << 24,
    "6to4": lambda v4: 0x2002 << 112 | v4 << 80,
    "Teredo's server": lambda v4: 0x20010000 << 96 | v4 << 64,
    "Teredo's client": lambda v4: 0x20010000 << 96 | v4 ^ 0xFFFFFFFF,
    "ISATAP": lambda v4: 0x26062800 << 96 | 0x5EFE << 32 | v4,
    "ISATAP, link-local": lambda v4: 0xFE80 << 112 | 0x02005EFE << 32 | v4,
}


def wrapped(address: str, way: str) -> str:
    return str(ipaddress.IPv6Address(WRAPPED[way](int(ipaddress.IPv4Address(address)))))


@pytest.mark.parametrize("network", NOT_PUBLIC)
def test_no_address_that_is_not_public_is_called(network: str):
    """
    INVARIANT: who may configure a URL cannot reach what only this machine's network can.

    Breaks if a network is missing from the registries in `addresses.py`.
    """
    first, last = (ipaddress.ip_network(network)[at] for at in (0, -1))

    for address in (first, last, type(first)((int(first) + int(last)) // 2)):
        with pytest.raises(AddressRefused):
            check(str(address), is_internal=False)


@pytest.mark.parametrize(
    "inner", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "224.0.0.1"]
)
@pytest.mark.parametrize("way", WRAPPED)
def test_an_address_inside_another_is_found(way: str, inner: str):
    with pytest.raises(AddressRefused):
        check(wrapped(inner, way), is_internal=False)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34", "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255",
        "172.32.0.0", "192.0.1.0", "223.255.255.255", "2606:2800:220:1:248:1893:25c8:1946", "2000::1", "2001:200::1",
        "2620:fe::fe", "3ffe:ffff::1", "3fff:1000::1", "::ffff:1.1.1.1", "64:ff9b::101:101",
    ],
)  # fmt: skip
def test_public_addresses_are_called(address: str):
    check(address, is_internal=False)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "::1", "fd00::1", "fec0::1", "100.64.0.1", "::ffff:10.0.0.1"]
)
def test_an_internal_webhook_may_be_called_where_it_is(address: str):
    check(address, is_internal=True)


METADATA_IPV4 = [
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.42.42", "169.254.0.23", "100.100.100.200",
    "192.0.0.192", "168.63.129.16",
]  # fmt: skip


@pytest.mark.parametrize("is_internal", [True, False])
@pytest.mark.parametrize(
    "address",
    [
        *METADATA_IPV4, "fe80::a9fe:a9fe", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42",
        *(wrapped(each, way) for way in WRAPPED for each in METADATA_IPV4),
    ],
)  # fmt: skip
def test_a_clouds_credentials_are_out_of_reach_of_an_internal_webhook_too(address: str, *, is_internal: bool):
    with pytest.raises(AddressRefused):
        check(address, is_internal=is_internal)


@pytest.mark.parametrize(
    "host,fits",
    [
        (".".join(["a" * 63] * 3 + ["b" * 61]), True),
        (".".join(["a" * 63] * 3 + ["b" * 62]), False),
        (f"{'a' * 63}.example", True),
        (f"{'a' * 64}.example", False),
        ("a..example", False),
    ],
)
def test_a_host_is_as_long_as_the_dns_lets_a_name_be(host, fits):
    if fits:
        assert host == Target(f"https://{host}/hook", is_internal=False).host
    else:
        with pytest.raises(ConfigError):
            Target(f"https://{host}/hook", is_internal=False)
