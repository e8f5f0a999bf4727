"""Authentication middleware: API keys, host names, origins, and security headers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cyllama.server.config import ANY_ADDRESS
from cyllama.server.http.clients import KEY, basic_credentials
from cyllama.server.http.errors import error_response, http_error

__all__ = ["MAX_HEADERS", "ApiKeys", "AuthMiddleware"]

PUBLIC_PATHS = frozenset({"/health", "/v1/health"})
MAX_HEADERS = 100
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SUBPROTOCOLS = "sec-websocket-protocol"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""Beginning of a WebSocket's subprotocol that has the key: a page can set no other header of a WebSocket."""
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class ApiKeys:
    """API keys, compared in constant time."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def find(self, headers: Headers) -> int | None:
        """Return the number of the key in the headers; None if they contain none of the keys.

        The password of Basic authentication is a key; its user may have any name.
        """
        given = headers.get("authorization") or headers.get("x-api-key") or _subprotocol_key(headers)
        basic = basic_credentials(given)
        if basic is not None:
            given = basic[1]
        elif given[:7].casefold() == "bearer ":
            given = given[7:].strip()
        digest = _digest(given)
        found = None
        for i, known in enumerate(self._digests):  # no early exit: the time must not depend on the key
            found = i if hmac.compare_digest(digest, known) else found
        return found


def _subprotocol_key(headers: Headers) -> str:
    """Return the key among the subprotocols of a WebSocket; characters that these may not have are percent-encoded."""
    names = (name.strip() for name in headers.get(SUBPROTOCOLS, "").split(","))
    return next((unquote(name[len(KEY_SUBPROTOCOL) :]) for name in names if name.startswith(KEY_SUBPROTOCOL)), "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class AuthMiddleware:
    """Check the host, the origin and the API key of each request (ASGI middleware).

    Parameters
    ----------
    app : ASGI application
    keys : ApiKeys
    public_paths : collection of str
        Paths that can be read without a key, beside the health check.
    hosts : collection of str
        As of `ServerConfig.hosts`. This protects against DNS rebinding.
    origins : collection of str
        Origins that may send requests from a browser; ``"*"``: any.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys,
        public_paths: Collection[str],
        hosts: Collection[str],
        origins: Collection[str],
    ) -> None:
        self._app, self._keys = app, keys
        self._public = frozenset(public_paths) | PUBLIC_PATHS
        self._hosts = {_hostname(name) for name in hosts}
        self._any_host, self._any_address = "*" in hosts, ANY_ADDRESS in hosts
        self._origins = {origin.casefold().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on, and add the security headers to the response."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        rejection = self._rejection(scope, Headers(scope=scope))
        if rejection is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await error_response(rejection)(scope, receive, send_with_headers)

    def _rejection(self, scope: Scope, headers: Headers) -> HTTPException | None:
        if len(headers.raw) > MAX_HEADERS:
            return http_error(431, f"the request has {len(headers.raw):,} headers, at most {MAX_HEADERS} are allowed")
        host = headers.get("host", "")
        if not self._is_allowed_host(_hostname(host)):
            return http_error(403, f"host {host!r:.100} is not allowed; see allowed_hosts")
        method = scope.get("method")  # a WebSocket has none
        is_public = method == "OPTIONS" or (method in SAFE_METHODS and scope["path"] in self._public)
        if is_public:
            return None
        origin = _origin(headers)
        if origin and not self._is_allowed_origin(origin, host):
            return http_error(403, f"origin {origin!r:.100} is not allowed; see cors_origins")
        if self._keys:
            key = self._keys.find(headers)
            if key is None:
                return http_error(401, "the API key is missing or invalid", headers={"WWW-Authenticate": "Bearer"})
            scope[KEY] = key
        return None

    def _is_allowed_host(self, name: str) -> bool:
        return self._any_host or name in self._hosts or (self._any_address and _is_address(name))

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        return "*" in self._origins or origin in self._origins or urlsplit(origin).netloc == host.casefold()


def _origin(headers: Headers) -> str:
    """Return the origin of the page that sent a request; empty without one, and for the user's own input.

    Browsers send no ``Origin`` with the GET of an image or a script, but they send ``Sec-Fetch-Site``.
    """
    origin = headers.get("origin", "").casefold()
    site = headers.get("sec-fetch-site", "none").casefold()
    return origin or ("" if site in ("same-origin", "none") else site)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _hostname(text: str) -> str:
    """Return a host without its port."""
    text = text.casefold()
    if text.startswith("["):
        return text[: text.find("]") + 1]
    return text.rsplit(":", 1)[0] if text.count(":") == 1 else (f"[{text}]" if ":" in text else text)
