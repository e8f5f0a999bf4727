"""Which peers may connect to a server whose protocol has no authentication."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

__all__ = ["Admission", "is_loopback"]


class Admission:
    """The addresses that may connect: loopback, and those that are named.

    Parameters
    ----------
    host : str
        Address that the server listens on.
    port : int
        Its port; 0: any free one.
    allow : sequence of str
        Addresses and networks, such as ``"192.168.1.0/24"``.
    max_clients : int
        Connections at the same time.

    Raises
    ------
    ValueError
        An argument is invalid, or `host` is not loopback and `allow` is empty.
    """

    def __init__(self, host: str, port: int, allow: Sequence[str], max_clients: int) -> None:
        if not 0 <= port < 65536:
            raise ValueError(f"port is {port}, expected 0 to 65535")
        if max_clients < 1:
            raise ValueError(f"max_clients is {max_clients}, expected 1 or more")
        self.max_clients = max_clients
        self._networks = [_network(text) for text in allow]
        if not is_loopback(host) and not self._networks:
            raise ValueError(
                f"host is {host!r}, which other machines can reach: name those that may connect with allow=, "
                "such as 192.168.1.0/24"
            )

    def admits(self, peer: str) -> bool:
        """Return whether an address may connect."""
        address = ipaddress.ip_address(peer)
        return address.is_loopback or any(address in network for network in self._networks)


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address, or ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"allow contains {text!r}, expected an address or a network such as 192.168.1.0/24") from None
