"""Honest clients of a server without and with a mixed attack; prints latencies, memory and shutdown as JSON.

usage: python -m benchmarks.attacked [--seconds N] [--model NAME]

Each client has an address of its own, as the limits on one client need. The attacker sends oversized and deeply nested
bodies, bodies of many small chunks, requests that it never reads, bodies and headers that never end, and invalid
requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.load import resident
from benchmarks.load_clients import Client
from benchmarks.measure import ROOT

CONFIG = """
[models.chat]
model = "{model}"
n_ctx = 8192
n_parallel = 8
n_threads = 1
preload = true
options = {{ "cache-ram" = 16 }}

[models.embed]
model = "minilm-l6"
embedding = true
preload = true

[limits]
client_requests = 1
client_connections = 300
send_seconds = 5
header_seconds = 5
body_seconds = 10
grace_seconds = 10
"""
ATTACKER, HONEST = "127.0.0.2", "127.0.1.{}"  # addresses; each honest client has its own
HONEST_CLIENTS = 4
THINK_SECONDS = 0.2
START_SECONDS = 120.0
BEFORE = 0.2  # part of the time before the attack
LOOKS = (0.2, 0.5, 1.0)  # parts of the attack after which memory is measured
MIB = 1 << 20
COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
USER = {"role": "user", "content": "Tell me about bread."}

HONEST_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"model": "chat", "messages": [USER], "max_tokens": 8, "temperature": 0}),
    "stream": (CHAT, {"model": "chat", "messages": [USER], "max_tokens": 8, "temperature": 0, "stream": True}),
    "embeddings": ("/v1/embeddings", {"model": "embed", "input": ["a cat", "a dog"]}),
    "tokenize": ("/tokenize", {"model": "chat", "content": "Hello world"}),
}


def chain(n: int) -> dict[str, Any]:
    """Return a JSON schema in which each definition refers to the next."""
    links: dict[str, Any] = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": links | {f"a{n}": {"type": "null"}}}


def raw_bodies() -> list[tuple[str, bytes]]:
    """Return paths and bodies that a limit rejects."""
    lists = b'{"prompt":[' + b"[]," * 10_000_000 + b"[]]}"
    bodies: list[tuple[str, Any]] = [
        (COMPLETION, {"prompt": ["a"] * 300_000, "max_tokens": 1}),
        (COMPLETION, {"prompt": "a", "samplers": "t" * 1_000_000}),
        (COMPLETION, {"prompt": "a", "logit_bias": [[5, 0.0]] * 500_000}),
        (COMPLETION, {"prompt": "a", "grammar_triggers": [{"type": 2, "value": r"^((.|\s)+)+QQQQ$"}]}),
        (COMPLETION, {"prompt": "a", "repeat_last_n": 2**31 - 1, "repeat_penalty": 1.1}),
        (CHAT, {"messages": [USER] * 100_000}),
        (CHAT, {"messages": [USER], "json_schema": chain(5000)}),
        ("/tokenize", {"content": "a" * 8_000_000}),
        ("/v1/embeddings", {"model": "embed", "input": ["a"] * 100_000}),
        ("/v1/nothing", {}),
    ]
    nested = b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    return [(path, json.dumps(body).encode()) for path, body in bodies] + [(COMPLETION, lists), (CHAT, nested)]


def head_of(path: str, size: int, more: str = "") -> bytes:
    """Return the head of a request."""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n{more}\r\n".encode()


class Attack:
    """The attacker: coroutines that run until they are cancelled."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.counts: Counter[str] = Counter()
        self.bodies = itertools.cycle(raw_bodies())

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(ATTACKER, 0))

    def kinds(self) -> list[tuple[int, Callable[[], Coroutine[Any, Any, None]]]]:
        """Return the kinds of attacks with the number of their coroutines."""
        return [
            (40, self.unread_stream),
            (4, self.body_above_limit),
            (4, self.disconnect),
            (10, self.slow_body),
            (10, self.slow_head),
            (60, self.idle),
            (2, self.small_chunks),
            (2, self.foreign_page),
        ]

    async def unread_stream(self) -> None:
        """Start a stream without end and read nothing until the server closes it."""
        body = json.dumps({"prompt": "Once", "max_tokens": 100_000, "ignore_eos": True, "stream": True}).encode()
        reader, writer = await self.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(head_of(COMPLETION, len(body)) + body)
        await asyncio.sleep(random.uniform(5, 15))
        writer.transport.abort()

    async def body_above_limit(self) -> None:
        path, body = next(self.bodies)
        reader, writer = await self.connect()
        writer.write(head_of(path, len(body), "Connection: close\r\n") + body)
        found = await reader.read()
        self.counts[found[9:12].decode() or "closed"] += 1
        writer.close()

    async def disconnect(self) -> None:
        """Leave in the middle of a response."""
        body = json.dumps({"prompt": "Once", "max_tokens": 1000, "ignore_eos": True, "stream": True}).encode()
        reader, writer = await self.connect()
        writer.write(head_of(COMPLETION, len(body)) + body)
        await reader.read(1000)
        writer.transport.abort()

    async def slow_body(self) -> None:
        reader, writer = await self.connect()
        writer.write(head_of(COMPLETION, 1_000_000) + b'{"prompt":"')
        await self.trickle(reader, writer, b"a")

    async def slow_head(self) -> None:
        reader, writer = await self.connect()
        writer.write(b"POST /v1/completions HTTP/1.1\r\n")
        await self.trickle(reader, writer, b"X-A: b\r\n")

    async def trickle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, part: bytes) -> None:
        closed = asyncio.ensure_future(reader.read())
        while not closed.done():
            writer.write(part)
            await asyncio.wait([closed], timeout=0.5)
        writer.close()
        await closed

    async def idle(self) -> None:
        reader, writer = await self.connect()
        await reader.read()
        writer.close()

    async def small_chunks(self) -> None:
        reader, writer = await self.connect()
        head = f"POST {COMPLETION} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode() + b"1\r\n \r\n" * 200_000)
        await reader.read()
        writer.close()

    async def foreign_page(self) -> None:
        for header in ("Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"):
            reader, writer = await self.connect()
            writer.write(head_of(COMPLETION, 2, f"{header}Connection: close\r\n") + b"{}")
            await reader.read()
            writer.close()

    async def run(self) -> None:
        """Run all kinds until this is cancelled."""

        async def repeat(one: Callable[[], Coroutine[Any, Any, None]]) -> None:
            await asyncio.sleep(random.random())
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the server closed the connection
                    await one()
                self.counts[one.__name__] += 1
                await asyncio.sleep(0.5)

        await asyncio.gather(*(repeat(one) for count, one in self.kinds() for _ in range(count)))


async def honest(url: str, seconds: float, found: dict[str, list[float]], errors: list[str], first: int) -> None:
    """Send each request in turn, as a user with pauses does."""
    client, end = Client(url, HONEST.format(first + 1)), time.monotonic() + seconds
    for name, (path, body) in itertools.islice(itertools.cycle(HONEST_REQUESTS.items()), first, None):
        if time.monotonic() >= end:
            break
        began = time.perf_counter()
        try:
            status, _, data = await client.ask("POST", path, json.dumps(body).encode(), "application/json")
        except (OSError, asyncio.IncompleteReadError) as error:
            errors.append(f"{name}: {error!r}")
            client.close()
            continue
        found.setdefault(name, []).append(time.perf_counter() - began)
        if status != 200 or b'{"error"' in data:
            errors.append(f"{name}: {status}: {data[:200]!r}")
        await asyncio.sleep(THINK_SECONDS)
    client.close()


async def health(url: str, seconds: float, found: dict[str, list[float]]) -> None:
    client, end = Client(url), time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        await client.ask("GET", "/health", b"", "text/plain")
        found.setdefault("health", []).append(time.perf_counter() - began)
        await asyncio.sleep(0.1)
    client.close()


async def clients(url: str, seconds: float) -> dict[str, Any]:
    """Run the honest clients; return their latencies in milliseconds."""
    found: dict[str, list[float]] = {}
    errors: list[str] = []
    await asyncio.gather(
        *(honest(url, seconds, found, errors, i) for i in range(HONEST_CLIENTS)), health(url, seconds, found)
    )
    latencies = {
        name: {
            "n": len(times),
            "p50": 1000 * statistics.median(times),
            "p99": 1000 * sorted(times)[int(0.99 * (len(times) - 1))],
            "max": 1000 * max(times),
        }
        for name, times in sorted(found.items())
    }
    return {"ms": latencies, "errors": errors[:10], "n_errors": len(errors)}


async def measure(url: str, pid: int, seconds: float) -> dict[str, Any]:
    """Measure without the attack, then with it; end the server during the attack."""
    await clients(url, min(5.0, seconds))  # warm
    before = await clients(url, max(3.0, BEFORE * seconds))
    words = ["nice", "-n", "19", sys.executable, "-m", "benchmarks.attacked", "--attack", url]
    pipe = asyncio.subprocess.PIPE
    attack = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdin=pipe, stdout=pipe)
    sizes = {"before": resident(pid) / MIB}

    async def look() -> None:
        began = time.monotonic()
        for part in LOOKS:
            await asyncio.sleep(began + part * seconds - time.monotonic())
            sizes[f"{part * seconds:.0f} s"] = resident(pid) / MIB

    during, _ = await asyncio.gather(clients(url, seconds), look())
    stopped = await stop(pid)
    output, _ = await attack.communicate(b"")
    return {
        "without": before,
        "with": during,
        "rss_mib": sizes,
        "attacks": json.loads(output),
        "stop_seconds": stopped,
    }


async def attack(url: str) -> None:
    """Attack until the standard input ends, then print the number of attacks of each kind."""
    found = Attack(int(url.rsplit(":", 1)[1]))
    running = asyncio.create_task(found.run())
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    print(json.dumps(found.counts))


async def stop(pid: int) -> float:
    """End the server with SIGTERM during the attack; return the seconds that it took."""
    began = time.monotonic()
    subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(pid)], check=True)
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def main() -> None:
    """Start a server, measure, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--attack", metavar="URL", help="be the attacker, in a process of its own")
    options = parser.parse_args()
    if options.attack:
        asyncio.run(attack(options.attack))
        return
    with tempfile.TemporaryDirectory() as folder:
        file, errors = Path(folder) / "models.toml", Path(folder) / "errors"
        file.write_text(CONFIG.format(model=options.model))
        words = [sys.executable, "-m", "cyllama", "serve", "--config", str(file), "--port", "0"]
        with errors.open("wb") as output, subprocess.Popen(words, cwd=ROOT, stderr=output) as process:
            try:
                found = asyncio.run(measure(url_of(errors), process.pid, options.seconds))
                found["exit"] = process.wait()
            finally:
                process.kill()
        found["tracebacks"] = errors.read_text().count("Traceback")
    print(json.dumps(found, indent=1))


def url_of(errors: Path) -> str:
    """Wait for the address that the server prints."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        for line in errors.read_text().splitlines():
            if line.startswith("http://"):
                return line.split()[0]
        time.sleep(0.1)
    raise TimeoutError(f"the server did not start:\n{errors.read_text()}")


if __name__ == "__main__":
    main()
