"""Who may use the server: keys, names of the host, origins of pages; and headers that every answer has."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cyllama.server.problems import answer, problem

__all__ = ["Guard", "Keys"]

OPEN_PATHS = frozenset({"/health", "/v1/health"})
MOST_HEADERS = 100
READING = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Keys:
    """API keys, compared in constant time."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, headers: Headers) -> bool:
        """Whether a request shows one of them."""
        if not self._digests:
            return True
        given = headers.get("authorization") or headers.get("x-api-key") or ""
        if given[:7].casefold() == "bearer ":
            given = given[7:].strip()
        digest = _digest(given)
        fits = False
        for known in self._digests:  # all of them: the time says nothing
            fits |= hmac.compare_digest(digest, known)
        return fits


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """Lets requests through that may come in (ASGI middleware).

    Parameters
    ----------
    app : ASGI application
    keys : Keys
    open_paths : collection of str
        Paths of the page, which need no key to be read.
    hosts : collection of str
        Names of this server; empty: any. A page of another name that points to this machine is kept out.
    origins : collection of str
        Pages elsewhere that may use it.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Keys, open_paths: Collection[str], hosts: Collection[str], origins: Collection[str]
    ) -> None:
        self._app, self._keys = app, keys
        self._open = frozenset(open_paths) | OPEN_PATHS
        self._hosts = {_host(name) for name in hosts}
        self._origins = {origin.casefold().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse it, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await answer(refusal)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> HTTPException | None:
        if len(headers.raw) > MOST_HEADERS:
            return problem(431, f"there are {len(headers.raw):,} headers, at most {MOST_HEADERS} are allowed")
        host = headers.get("host", "")
        if self._hosts and _host(host) not in self._hosts:
            return problem(403, f"the server is not called {host!r:.100}; see allowed_hosts")
        origin = headers.get("origin", "").casefold()
        reads = scope["method"] in READING
        if origin and not reads and not self._is_welcome(origin, host):
            return problem(403, f"pages of {origin!r:.100} may not use this server; see cors_origins")
        is_open = scope["method"] == "OPTIONS" or (reads and scope["path"] in self._open)
        if not is_open and not self._keys.allow(headers):
            refused = {"WWW-Authenticate": "Bearer"}
            return problem(401, "there is no API key, or it is not right", headers=refused)
        return None

    def _is_welcome(self, origin: str, host: str) -> bool:
        return "*" in self._origins or origin in self._origins or urlsplit(origin).netloc == host.casefold()


def _host(text: str) -> str:
    """A name without the port."""
    text = text.casefold()
    if text.startswith("["):
        return text[: text.find("]") + 1]
    return text.rsplit(":", 1)[0] if text.count(":") == 1 else (f"[{text}]" if ":" in text else text)
