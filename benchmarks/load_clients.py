"""Many clients of a server for some seconds; prints the counts and times of responses as JSON.

usage: python -m benchmarks.load_clients URL mixed|chat [--clients N] [--seconds N] [--sound FILE] [--tokens N]

In `mixed` each client asks the routes of all engines in turn; in `chat` language models alone, half of it streamed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOPICS = ("the sea", "a castle", "old trains", "the moon", "bread", "a garden", "winter", "music")
BOUNDARY = "a-boundary-of-the-clients"
LONGEST_PAUSE = 1.0  # seconds; upper limit for Retry-After
PROBES = 20  # requests to /health per second
RIGHT = (200, 429)


@dataclass
class Figures:
    """Counts and times of the responses."""

    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: list[str] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        ordered = sorted(self.health) or [0.0]
        return {
            "statuses": dict(sorted(self.statuses.items())),
            "errors": self.errors[:20],
            "n_errors": len(self.errors),
            "health_ms": {
                name: 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]
                for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
            "n_health": len(self.health),
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens per second": self.tokens / self.seconds if self.seconds else 0.0,
        }


class Client:
    """One persistent connection, from an address of this machine."""

    def __init__(self, url: str, address: str = "127.0.0.1") -> None:
        place = urllib.parse.urlsplit(url)
        self.host, self.port = place.hostname or "", place.port or 80
        self.address = address
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return status, headers and body of the response."""
        kept = self.writer is not None
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, local_addr=(self.address, 0))
        try:
            return await self._ask(method, path, body, kind)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            if not kept or getattr(error, "partial", b""):
                raise
        return await self.ask(method, path, body, kind)  # the server may close idle connections

    async def _ask(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, dict[str, str], bytes]:
        assert self.reader is not None and self.writer is not None
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.casefold(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        data = await self._body(headers)
        if headers.get("connection", "").casefold() == "close":
            self.close()
        return int(lines[0].split()[1]), headers, data

    async def _body(self, headers: dict[str, str]) -> bytes:
        assert self.reader is not None
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        parts = []
        while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        await self.reader.readuntil(b"\r\n")
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def posts(sound: bytes | None, tokens: int) -> list[tuple[str, Any]]:
    """Return the requests to all engines: path and body; expensive ones are rarer."""
    messages = [{"role": "user", "content": "Tell me about bread."}]
    chat = {"messages": messages, "max_tokens": tokens, "temperature": 0.8}
    text: list[tuple[str, Any]] = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True}),
        ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": tokens}),
        ("/v1/responses", {"input": "Tell me about the sea.", "max_output_tokens": tokens}),
        ("/v1/messages", {"messages": messages, "max_tokens": tokens, "stream": True}),
        ("/v1/embeddings", {"input": ["a cat", "a dog"]}),
        ("/v1/rerank", {"query": "cat", "documents": ["a cat", "a dog"]}),
        ("/tokenize", {"content": "Hello world"}),
        ("/detokenize", {"tokens": [1, 2, 3]}),
        ("/apply-template", {"messages": messages}),
    ]
    picture = ("/v1/images/generations", {"prompt": "a red circle", "steps": 2, "size": "64x64"})
    shown = ("/sdapi/v1/txt2img", {"prompt": "a blue square", "steps": 2, "width": 64, "height": 64})
    heard = [] if sound is None else [("/v1/audio/transcriptions", sound)]
    return text * 4 + [picture, shown] + heard


GETS = ("/v1/models", "/metrics", "/props", "/slots", "/sdapi/v1/progress?skip_current_image=true")


def encoded(body: Any) -> tuple[bytes, str]:
    """Return the body and its content type."""
    if not isinstance(body, bytes):
        return json.dumps(body).encode(), "application/json"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return head.encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def tokens_of(path: str, data: bytes) -> int:
    """Return the number of tokens of a chat response."""
    if data.startswith(b"data: "):
        lines = [line for line in data.split(b"\n\n") if line.startswith(b"data: {")]
        return int(json.loads(lines[-1][6:]).get("timings", {}).get("predicted_n", 0))
    return int(json.loads(data)["usage"]["completion_tokens"])


async def mixed(i: int, url: str, end: float, found: Figures, sound: bytes | None, tokens: int) -> None:
    """Run one client of all engines."""
    choice, client = random.Random(i), Client(url)
    every = posts(sound, tokens)
    while time.monotonic() < end:
        path, body = choice.choice(every) if choice.random() < 0.8 else (choice.choice(GETS), None)
        raw, kind = encoded({} if body is None else body)
        await once(client, "GET" if body is None else "POST", path, b"" if body is None else raw, kind, found)
    client.close()


async def chat(i: int, url: str, end: float, found: Figures, sound: bytes | None, tokens: int) -> None:
    """Run one client that chats."""
    choice, client = random.Random(i), Client(url)
    while time.monotonic() < end:
        messages = [{"role": "user", "content": f"Tell me about {choice.choice(TOPICS)}."}]
        body = {"messages": messages, "max_tokens": tokens, "ignore_eos": True, "temperature": 0.8, "seed": i}
        body |= {"stream": bool(choice.getrandbits(1)), "cache_prompt": False}
        path = "/v1/chat/completions"
        data = await once(client, "POST", path, json.dumps(body).encode(), "application/json", found)
        if data is not None:
            found.tokens += tokens_of(path, data)
    client.close()


async def once(client: Client, method: str, path: str, raw: bytes, kind: str, found: Figures) -> bytes | None:
    """Send one request; return the body of a successful response."""
    route = path.split("?")[0]
    try:
        status, headers, data = await client.ask(method, path, raw, kind)
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        found.errors.append(f"{route}: {type(error).__name__}: {error}")
        client.close()
        return None
    found.statuses[f"{route} {status}"] += 1
    if status == 429:
        await asyncio.sleep(min(LONGEST_PAUSE, float(headers["retry-after"])))
        return None
    if status not in RIGHT or b'{"error"' in data:
        found.errors.append(f"{route}: {status}: {data[:200]!r}")
        return None
    return data


async def probe(url: str, end: float, found: Figures) -> None:
    """Poll the server's health on a separate connection."""
    client = Client(url)
    while time.monotonic() < end:
        began = time.perf_counter()
        if await once(client, "GET", "/health", b"", "text/plain", found) is not None:
            found.health.append(time.perf_counter() - began)
        await asyncio.sleep(1 / PROBES)
    client.close()


async def run(options: argparse.Namespace) -> Figures:
    """Run all clients."""
    found = Figures()
    sound = options.sound.read_bytes() if options.sound else None
    kind = {"mixed": mixed, "chat": chat}[options.kind]
    began = time.monotonic()
    end = began + options.seconds
    clients = [kind(i, options.url, end, found, sound, options.tokens) for i in range(options.clients)]
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*clients, probe(options.url, end, found))
    found.seconds = time.monotonic() - began  # started requests are counted
    return found


def main() -> None:
    """Measure one server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("kind", choices=("mixed", "chat"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--sound", type=Path)
    print(json.dumps(asyncio.run(run(parser.parse_args())).to_dict()))


if __name__ == "__main__":
    main()
