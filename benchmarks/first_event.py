"""Time to the first token through the server, compared with llama-server."""

from __future__ import annotations

import http.client
import json
import select
import statistics
import sys
import time
import urllib.parse
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import Figures, Rounds, Spread, digits, in_turn, model, threads
from benchmarks.serving import cyllama_server
from benchmarks.serving import server as native_server

TITLE = "Time to the first token, through the server"
CONFIG = """
[models.smol]
model = "{smol}"
n_ctx = 512
n_parallel = 1
n_threads = {threads}
preload = true
"""
BODY = json.dumps(
    {
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 2,
        "temperature": 0,
        "stream": True,
    }
)


def first_token(connection: http.client.HTTPConnection) -> float:
    """Send a chat and return the milliseconds to the first text.

    The connection stays open if the server lets it, as those of the official clients; llama-server closes it.
    """
    found = None
    start = time.perf_counter()
    if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
        connection.close()  # the server has closed it
    connection.request("POST", "/v1/chat/completions", BODY, {"Content-Type": "application/json"})
    response = connection.getresponse()
    while line := response.readline():  # to the end, so that the connection can be used again
        if found is None and line.startswith(b"data: {"):
            choices = json.loads(line[6:])["choices"]
            if choices and choices[0]["delta"].get("content"):
                found = 1000 * (time.perf_counter() - start)
    assert found is not None
    return found


def measure(rounds: Rounds) -> Figures:
    """Send chats to both servers in turn, one at a time; the prompt is in the prompt cache of both."""
    each = rounds.pick(50, 10)
    with (
        native_server(1, model()) as native,
        cyllama_server(CONFIG.format(smol=model(), threads=threads())) as (ours, _),
    ):
        urls = {"cyllama": ours, "llama-server": native}
        clients = {
            name: http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
            for name, url in urls.items()
        }

        def both() -> dict[str, float]:
            times: dict[str, list[float]] = {name: [] for name in urls}
            for _ in range(each):
                for name, client in clients.items():
                    times[name].append(first_token(client))
            differences = [a - b for a, b in zip(times["cyllama"], times["llama-server"], strict=True)]
            return {
                **{name: statistics.median(values) for name, values in times.items()},
                "difference": statistics.median(differences),
            }

        return {"chats": each, **in_turn(rounds.count, {"times": both})}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    times: dict[str, Spread] = figures["times"]
    row = ("first text of a chat", times["cyllama"], times["llama-server"], times["difference"])
    return [
        f"Streamed chats, one at a time, to both servers in turn: medians of {figures['chats']}, in milliseconds. "
        "The prompt is in the prompt cache of both, so one token is computed. The client keeps its connection where "
        "the server lets it, as the official clients do; llama-server closes it. The difference is the median of "
        "pairs: "
        f"{digits(times['difference'].median)} ms.",
        "",
        *show.table(("", "cyllama serve", "llama-server", "difference"), [row]),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["first_event", *sys.argv[1:]]))
