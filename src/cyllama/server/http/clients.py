"""Names of clients, by which connections and requests are limited."""

from __future__ import annotations

import ipaddress
from typing import Any

from starlette.types import Scope

__all__ = ["KEY", "client_address", "client_name"]

KEY = "cyllama.key"
"""Name of the number of a request's API key in the ASGI scope."""
NETWORK_V6 = 64  # bits of an IPv6 address that the provider assigns; the client chooses the rest


def client_address(client: Any) -> str:
    """Return the address of a connection's client, given as (host, port); of IPv6 the network.

    A client without an address, as of a Unix socket, has the empty name.
    """
    host = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((int(address), NETWORK_V6), strict=False))


def client_name(scope: Scope) -> str:
    """Return the client of a request: its address and the number of its API key."""
    return f"{client_address(scope.get('client'))} {scope.get(KEY, '')}"
