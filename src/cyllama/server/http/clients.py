"""Names of clients, by which connections and requests are limited, and image jobs belong to their callers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

__all__ = ["KEY", "account_name", "basic_credentials", "caller_name", "client_address", "client_name"]

KEY = "cyllama.key"
"""Name of the number of a request's API key in the ASGI scope."""
NETWORK_V6 = 64  # bits of an IPv6 address that the provider assigns; the client chooses the rest
BASIC = "basic "


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


def account_name(scope: Scope) -> str:
    """Return the account of a request, as a digest: its client, and the user of Basic authentication.

    Limits do not depend on the user, because without keys a client can choose it for each request.
    """
    return _digest(client_name(scope), _user(Headers(scope=scope)))


def caller_name(scope: Scope) -> str:
    """Return the caller of a request, as a digest: its account, and the program that sent it (``User-Agent``)."""
    headers = Headers(scope=scope)
    return _digest(client_name(scope), _user(headers), headers.get("user-agent", ""))


def basic_credentials(value: str) -> tuple[str, str] | None:
    """Return the user and the password of an ``Authorization`` header; None if it has no valid Basic credentials."""
    if value[: len(BASIC)].casefold() != BASIC:
        return None
    try:
        data = base64.b64decode(value[len(BASIC) :].strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:  # clients of before RFC 7617
        text = data.decode("latin-1")
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def _user(headers: Headers) -> str:
    found = basic_credentials(headers.get("authorization", ""))
    return "" if found is None else found[0]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
