"""The process of a `ProcessWorker`: requests on the standard input, responses on the standard output."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pickle
import sys
import threading
from typing import Any

from cyllama.server.batches.workers import LocalWorker

__all__ = ["main"]


def main() -> int:
    """Run the requests until the input ends."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # messages of libraries are no responses
    config, parallel = pickle.loads(base64.b64decode(sys.stdin.buffer.readline()))
    try:
        worker = LocalWorker(config, parallel)
    except Exception as error:
        out.write(json.dumps({"failure": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return 1
    out.write(b'{"ready": true}\n')
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_serve(worker, out))
    return 0


async def _serve(worker: LocalWorker, out: Any) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    running: set[asyncio.Task[None]] = set()

    async def answer(item: dict[str, Any]) -> None:
        reply = await worker.request(item["url"], item["body"].encode())
        found = {"n": item["n"], "status": reply.status, "content_type": reply.content_type}
        data = memoryview(json.dumps({**found, "body": reply.body.decode("utf-8", "replace")}).encode() + b"\n")
        while data:  # a pipe takes a part of a long line
            data = data[out.write(data) :]

    def start(item: dict[str, Any]) -> None:
        task = loop.create_task(answer(item))
        running.add(task)
        task.add_done_callback(running.discard)

    def read() -> None:
        for line in sys.stdin.buffer:
            loop.call_soon_threadsafe(start, json.loads(line))
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, name="cyllama-requests", daemon=True).start()
    await ended.wait()
    for task in list(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await worker.close()


if __name__ == "__main__":
    sys.exit(main())
