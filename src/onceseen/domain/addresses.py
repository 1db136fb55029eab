"""Which addresses of the network a server may be sent to by a stranger: public ones, and those that its owner allows."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOT_PUBLIC: list[tuple[str, Network]] = [
    (words, ip_network(network))
    for words, networks in {
        "a loopback address": "127.0.0.0/8 ::1/128",
        "a private address": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10",
        "a link-local address": "169.254.0.0/16 fe80::/10",
        "a provider's own address": "100.64.0.0/10 168.63.129.16/32",  # shared by its customers; a cloud's platform
        "a multicast address": "224.0.0.0/4 ff00::/8",
        "no address of a machine": "0.0.0.0/8 240.0.0.0/4 ::/128",
        "an address for documentation or tests": (
            "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 198.18.0.0/15 2001:db8::/32 3fff::/20"
        ),
        "a reserved address": "192.0.0.0/24 192.88.99.0/24 192.31.196.0/24 192.52.193.0/24 192.175.48.0/24",
        "an IPv4 address in another form": "::ffff:0:0/96 ::/96 2002::/16 2001::/32 64:ff9b:1::/48",
        "a reserved address of IPv6": "2001::/23",
    }.items()
    for network in networks.split()
]
GLOBAL_IPV6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
"""Where networks without IPv4 find the rest of the world; such an address is judged by the IPv4 address at its end."""
HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*", re.IGNORECASE)
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


def why_not_public(address: Address) -> str:
    """What an address is instead of a public one, in words; empty when it is public."""
    if address in NAT64:
        return why_not_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    for words, network in NOT_PUBLIC:
        if address in network:
            return words
    if isinstance(address, IPv6Address) and address not in GLOBAL_IPV6:
        return "a reserved address of IPv6"
    return "" if address.is_global else "a reserved address"


def literal(host: str) -> Address | None:
    """The address that a URL's host is; None for a name.

    Raises:
        ValueError: it is an address in a form that programs read in different ways (127.1, 0x7f000001, 2130706433, fe80::1%eth0),
            or neither an address nor a name.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("it has a zone")
        return IPv6Address(host)
    if NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        return IPv4Address(host)
    if not HOST.fullmatch(host.removesuffix(".")):
        raise ValueError("it is no name of a host")
    return None


class Allowance:
    """Hosts and networks that may be reached although they are not public.

    Args:
        entries: names of hosts, addresses, networks (10.0.0.0/8).

    Raises:
        ValueError: an entry is none of these.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        for entry in entries:
            try:
                self._networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if not HOST.fullmatch(entry) or NUMBER.fullmatch(entry.rpartition(".")[2]):
                    raise ValueError(f"{entry!r} is no host name, address or network") from None
                self._hosts.add(entry.lower())

    def host(self, host: str) -> bool:
        """Whether a host may be reached by this name, wherever it leads."""
        return host.lower().removesuffix(".") in self._hosts

    def refuses(self, address: Address) -> str:
        """Why an address may not be reached, in words; empty when it may."""
        if any(address in network for network in self._networks):
            return ""
        return why_not_public(address)
