"""Authentication middleware: API keys, host names, origins, and security headers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cyllama.server.http.errors import error_response, http_error

__all__ = ["ApiKeys", "AuthMiddleware"]

PUBLIC_PATHS = frozenset({"/health", "/v1/health"})
MAX_HEADERS = 100
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
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

    def allow(self, headers: Headers) -> bool:
        """Return whether the headers contain one of the keys; True if there are no keys."""
        if not self._digests:
            return True
        given = headers.get("authorization") or headers.get("x-api-key") or ""
        if given[:7].casefold() == "bearer ":
            given = given[7:].strip()
        digest = _digest(given)
        fits = False
        for known in self._digests:  # no early exit: the time must not depend on the key
            fits |= hmac.compare_digest(digest, known)
        return fits


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
        Host names of this server; empty: any. This protects against DNS rebinding.
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
        self._origins = {origin.casefold().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on, and add the security headers to the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
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
        if self._hosts and _hostname(host) not in self._hosts:
            return http_error(403, f"host {host!r:.100} is not allowed; see allowed_hosts")
        origin = headers.get("origin", "").casefold()
        is_safe = scope["method"] in SAFE_METHODS
        if origin and not is_safe and not self._is_allowed_origin(origin, host):
            return http_error(403, f"origin {origin!r:.100} is not allowed; see cors_origins")
        is_public = scope["method"] == "OPTIONS" or (is_safe and scope["path"] in self._public)
        if not is_public and not self._keys.allow(headers):
            return http_error(401, "the API key is missing or invalid", headers={"WWW-Authenticate": "Bearer"})
        return None

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        return "*" in self._origins or origin in self._origins or urlsplit(origin).netloc == host.casefold()


def _hostname(text: str) -> str:
    """Return a host without its port."""
    text = text.casefold()
    if text.startswith("["):
        return text[: text.find("]") + 1]
    return text.rsplit(":", 1)[0] if text.count(":") == 1 else (f"[{text}]" if ":" in text else text)
