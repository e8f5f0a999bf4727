"""Metrics for Prometheus: those of the server, and llama-server's of each loaded language model."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cyllama.server.http.errors import error_response, http_error, log, to_http_error
from cyllama.server.http.response_stream import ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.state import ServerState

__all__ = ["MetricsMiddleware", "metrics_route"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)  # seconds
QUIET = ("/health", "/v1/health", "/metrics")  # requested again and again by monitors
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)$")


class MetricsMiddleware:
    """Count and time requests, and turn unhandled exceptions into responses (the outermost ASGI middleware).

    `wrap` must be called before the first request.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.buckets: Counter[tuple[str, float]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.running = 0
        self.began = int(time.time())

    def wrap(self, app: ASGIApp, routes: Iterable[Route]) -> None:
        """Set the application and its routes."""
        self._app = app
        self._paths: dict[Callable[..., object] | None, str] = {route.endpoint: route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and record its status and duration."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def recording_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.monotonic()
        self.running += 1
        try:
            await self._app(scope, receive, recording_send)
        except Exception as error:
            if status:
                raise
            await error_response(to_http_error(error))(scope, receive, recording_send)
        finally:
            self.running -= 1
            self._record(scope, status, time.monotonic() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # the route's path, not the request's, so that clients cannot create labels
        route = self._paths.get(scope.get("endpoint"), "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.requests[route, method, status] += 1
        self.seconds[route] += seconds
        for limit in BUCKETS:
            if seconds <= limit:
                self.buckets[route, limit] += 1
        level = logging.DEBUG if route in QUIET else logging.INFO
        log.log(level, "%s %s %s %.3f s", method, route, status, seconds)

    def lines(self) -> list[str]:
        """Return the metrics in Prometheus' text format."""
        found = ["# HELP cyllama_requests_total Number of requests.", "# TYPE cyllama_requests_total counter"]
        for (route, method, status), count in sorted(self.requests.items()):
            found.append(f'cyllama_requests_total{{route="{route}",method="{method}",status="{status}"}} {count}')
        name = "cyllama_request_seconds"
        found += [f"# HELP {name} Duration of requests.", f"# TYPE {name} histogram"]
        totals: Counter[str] = Counter()
        for (route, _, _), count in self.requests.items():
            totals[route] += count
        for route, count in sorted(totals.items()):
            for limit in BUCKETS:
                found.append(f'{name}_bucket{{route="{route}",le="{limit:g}"}} {self.buckets[route, limit]}')
            found.append(f'{name}_bucket{{route="{route}",le="+Inf"}} {count}')
            found.append(f'{name}_sum{{route="{route}"}} {self.seconds[route]:.6f}')
            found.append(f'{name}_count{{route="{route}"}} {count}')
        return [
            *found,
            *_metric("cyllama_requests_running", "gauge", "Number of running requests.", {"": self.running}),
        ]


def _metric(name: str, kind: str, help_text: str, values: Mapping[str, float]) -> list[str]:
    samples = (f"{name}{labels} {value}" for labels, value in values.items())
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *samples]


def metrics_route(state: ServerState, metrics: MetricsMiddleware) -> Route:
    """Return the route ``/metrics``."""
    return Route("/metrics", partial(_metrics, state, metrics), methods=["GET"])


async def _metrics(state: ServerState, metrics: MetricsMiddleware, request: Request) -> TaskResponse:
    if not state.config.metrics:
        raise http_error(501, "/metrics is disabled: metrics is false (--no-metrics)")
    lines = metrics.lines()  # in the event loop, which changes the counters
    sizes = {f'{{engine="{kind}"}}': queue.size for kind, queue in state.queues.items()}
    rejected = {f'{{engine="{kind}"}}': queue.rejected for kind, queue in state.queues.items()}
    lines += _metric("cyllama_engine_requests", "gauge", "Requests of an engine, running and waiting.", sizes)
    live = {"": state.live_queue.size}
    lines += _metric("cyllama_live_sessions", "gauge", "Open sessions of live transcription.", live)
    lines += _metric("cyllama_engine_rejected_total", "counter", "Requests rejected by a full queue.", rejected)
    lines += _metric("process_start_time_seconds", "gauge", "Time of the server's start.", {"": metrics.began})
    headers = {"process-start-time-unix": str(metrics.began)}  # as llama-server
    return state.tasks.respond(state.status_queue, partial(_write_metrics, state, lines, headers))


def _write_metrics(
    state: ServerState, lines: list[str], headers: Mapping[str, str], stream: ResponseStream, cancel: threading.Event
) -> None:
    sizes = {f'{{kind="{model.kind}",model="{_escape(str(model.name))}"}}': model.size for model in state.pool.loaded}
    lines = lines + _metric("cyllama_model_bytes", "gauge", "Estimated memory of a loaded model.", sizes)
    families: dict[str, list[str]] = {}
    configured = [entry for entry in state.config.models if entry.kind == "llm"]
    for entry in state.entries:
        if entry.kind == "llm" and state.is_loaded(entry):
            with (
                state.use_llm(entry, cancel, is_request=False) as llm,
                llm.request("metrics", cancel=cancel) as response,
            ):
                # a single model has no label, so that queries for llama-server find the same series
                model = None if configured == [entry] else entry.name
                _add_samples(response.data.decode(), model, families)
    lines += [line for family in families.values() for line in family]
    stream.send(200, TEXT, ("\n".join(lines) + "\n").encode(), headers)


def _add_samples(text: str, model: str | None, families: dict[str, list[str]]) -> None:
    """Add llama-server's samples to `families` (name: lines), with the model as a label if it is given."""
    for line in text.splitlines():
        if line.startswith("# "):
            name = line.split()[2]
            family = families.setdefault(name, [])
            if line not in family:
                family.append(line)
        elif model is None:
            families.setdefault(re.split("[ {]", line, maxsplit=1)[0], []).append(line)
        elif match := SAMPLE.match(line):
            labels = f'model="{_escape(model)}"' + (f",{match[2]}" if match[2] else "")
            families.setdefault(match[1], []).append(f"{match[1]}{{{labels}}} {match[3]}")


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
