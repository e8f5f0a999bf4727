"""Figures for Prometheus: the server's own, and upstream's of each loaded language model."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cyllama.server.hub import Hub
from cyllama.server.outbox import Outbox
from cyllama.server.problems import answer, log, problem_of
from cyllama.server.work import Work

__all__ = ["Observer", "metrics_route"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)$")


class Observer:
    """Counts and times requests, and answers for what nobody caught (the outermost ASGI middleware)."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.buckets: Counter[tuple[str, float]] = Counter()
        self.seconds: Counter[str] = Counter()
        self.running = 0

    def watch(self, app: ASGIApp, router: Router) -> None:
        """Stand before an application with these routes."""
        self._app = app
        self._paths: dict[Any, str] = {
            route.endpoint: route.path for route in router.routes if isinstance(route, Route)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.monotonic()
        self.running += 1
        try:
            await self._app(scope, receive, noting)
        except Exception as error:  # becomes an answer, not the server's end
            if status:
                raise
            await answer(problem_of(error))(scope, receive, noting)
        finally:
            self.running -= 1
            self._note(scope, status, time.monotonic() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._route(scope)
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        self.requests[route, method, status] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]
        for limit in BUCKETS:
            if seconds <= limit:
                self.buckets[route, limit] += 1
        log.debug("%s %s %s %.3f s", scope["method"], route, status, seconds)

    def _route(self, scope: Scope) -> str:
        """The path of the route: no name that a client could make up."""
        return self._paths.get(scope.get("endpoint"), "other")

    def lines(self) -> list[str]:
        """The figures as Prometheus reads them."""
        found = ["# HELP cyllama_requests_total Requests that were answered.", "# TYPE cyllama_requests_total counter"]
        for (route, method, status), count in sorted(self.requests.items()):
            found.append(f'cyllama_requests_total{{route="{route}",method="{method}",status="{status}"}} {count}')
        name = "cyllama_request_seconds"
        found += [f"# HELP {name} How long answers took.", f"# TYPE {name} histogram"]
        totals: Counter[str] = Counter()
        for (route, _, _), count in self.requests.items():
            totals[route] += count
        for route, count in sorted(totals.items()):
            for limit in BUCKETS:
                found.append(f'{name}_bucket{{route="{route}",le="{limit:g}"}} {self.buckets[route, limit]}')
            found.append(f'{name}_bucket{{route="{route}",le="+Inf"}} {count}')
            found.append(f'{name}_sum{{route="{route}"}} {self.seconds[route]:.6f}')
            found.append(f'{name}_count{{route="{route}"}} {count}')
        return [*found, *_gauge("cyllama_requests_running", "Requests that run now.", {"": self.running})]


def _gauge(name: str, about: str, values: dict[str, float], kind: str = "gauge") -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *(f"{name}{k} {v}" for k, v in values.items())]


def metrics_route(hub: Hub, observer: Observer) -> Route:
    """The route ``/metrics``."""
    return Route("/metrics", partial(_metrics, hub, observer), methods=["GET"])


async def _metrics(hub: Hub, observer: Observer, request: Request) -> Work:
    lines = observer.lines()  # in the event loop, which changes them
    gates = [(kind, gate) for kind, gate in hub.gates.items() if kind != "self"]
    inside: dict[str, float] = {f'{{engine="{kind}"}}': gate.inside for kind, gate in gates}
    refused: dict[str, float] = {f'{{engine="{kind}"}}': gate.refused for kind, gate in gates}
    lines += _gauge("cyllama_engine_requests", "Requests at an engine, those that wait included.", inside)
    lines += _gauge("cyllama_engine_refused_total", "Requests that were told to come again.", refused, "counter")
    return hub.work("self", partial(_write, hub, lines))


def _write(hub: Hub, lines: list[str], out: Outbox, cancel: threading.Event) -> None:
    loaded = {entry.name: entry for entry in hub.config.models if hub.is_loaded(entry)}
    sizes: dict[str, float] = {
        f'{{kind="{model.kind}",model="{_label(str(model.name))}"}}': model.size for model in hub.pool.loaded
    }
    lines = lines + _gauge("cyllama_model_bytes", "Memory that a loaded model is counted with.", sizes)
    families: dict[str, list[str]] = {}
    for name, entry in loaded.items():
        if entry.kind == "llm":
            with hub.use(entry, cancel) as llm, llm.request("metrics", cancel=cancel) as found:
                _labelled(found.data.decode(), name, families)
    lines += [line for family in families.values() for line in family]
    out.answer(200, TEXT, ("\n".join(lines) + "\n").encode())


def _labelled(text: str, model: str, families: dict[str, list[str]]) -> None:
    """Upstream's lines with the model as a label, one family after the other."""
    for line in text.splitlines():
        if line.startswith("# "):
            name = line.split()[2]
            family = families.setdefault(name, [])
            if line not in family:
                family.append(line)
        elif match := SAMPLE.match(line):
            labels = f'model="{_label(model)}"' + (f",{match[2]}" if match[2] else "")
            families.setdefault(match[1], []).append(f"{match[1]}{{{labels}}} {match[3]}")


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
