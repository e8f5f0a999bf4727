"""What all requests share: the pool of models, the doors to the engines, the threads, what is being computed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cyllama import models
from cyllama.pipelines import ModelPool
from cyllama.server.config import ModelEntry, ServerConfig
from cyllama.server.gates import BodyBudget, Gate
from cyllama.server.jobs import Jobs
from cyllama.server.problems import log, problem
from cyllama.server.work import Task, Work

__all__ = ["Hub"]

KIND_OF = {"chat": "llm", "embeddings": "llm", "rerank": "llm", "speech": "whisper", "images": "sd"}
FIGURES = 64  # questions about the server at the same time


class Hub:
    """The server's state; it is closed when the server ends."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        limits = config.limits
        self.pool = ModelPool(config.memory)
        self.gates = {
            "llm": Gate("text", limits.text_queue),
            "whisper": Gate("speech", limits.audio_queue, limits.audio_parallel),
            "sd": Gate("pictures", limits.image_queue, 1),
            "self": Gate("figures", FIGURES),  # what is asked about the server is told while an engine is full
        }
        self.bodies = BodyBudget(limits.bodies)
        places = sum(gate.places for gate in self.gates.values())
        self.threads = ThreadPoolExecutor(places, thread_name_prefix="cyllama-server")
        self.works: set[Work] = set()
        self.jobs = Jobs()
        self.stopping = False
        self._by_name = {name: entry for entry in config.models for name in (entry.name, *entry.aliases)}

    def entry(self, name: Any, task: str) -> ModelEntry:
        """The model that a request means.

        Parameters
        ----------
        name : object
            What stands under ``model``; None: the first one for the task.
        task : str
            As of `ModelEntry.task`; a request may name any model of the same engine.

        Raises
        ------
        HTTPException
        """
        if name is not None and not isinstance(name, str):
            raise problem(400, f"model is {name!r:.100}, expected a text", param="model")
        found = self._by_name.get(name or "")
        if found is not None and found.kind == KIND_OF[task]:
            return found
        first = next((entry for entry in self.config.models if entry.task == task), None)
        if first is None:
            first = next((entry for entry in self.config.models if entry.kind == KIND_OF[task]), None)
        if first is None:
            raise problem(404, f"the server has no model for {task}", param="model", code="model_not_found")
        if name and not self.config.any_name:
            known = ", ".join(entry.name for entry in self.config.models if entry.kind == KIND_OF[task])
            message = f"there is no model {name!r:.200} for {task}; there are {known}"
            raise problem(404, message, param="model", code="model_not_found")
        return first

    @contextlib.contextmanager
    def use(self, entry: ModelEntry, cancel: Any) -> Iterator[Any]:
        """The loaded model, for the length of a block in a working thread."""
        broken = False
        with self.pool.use(entry.kind, entry.model, cancel=cancel, **entry.settings) as model:
            try:
                yield model
            finally:
                broken = entry.kind == "llm" and model.failure is not None
        if broken:  # the next request loads it anew, once nobody waits for the old one
            log.error("the scheduler of %s has ended; it is loaded anew", entry.name)
            self.pool.unload(entry.kind, entry.model)

    def work(self, kind: str, task: Task, on_end: Callable[[], None] | None = None) -> Work:
        """A task of an engine as an answer."""
        if self.stopping:
            raise problem(503, "the server stops")
        return Work(self, self.gates[kind], task, on_end)

    def preload(self) -> None:
        """Load what is to be there from the beginning, once all models are known to be there."""
        for entry in self.config.models:
            for name in (entry.model, entry.settings.get("mmproj")):
                if name is not None:
                    models.check(name)
        never = threading.Event()
        for entry in self.config.models:
            if entry.preload:
                with self.use(entry, never):
                    log.info("loaded %s", entry.name)

    def is_loaded(self, entry: ModelEntry) -> bool:
        """Whether the model is in memory."""
        return any(
            model.kind == entry.kind
            and model.name == entry.model
            and dict(model.settings) == dict(entry.settings)
            and model.ready
            for model in self.pool.loaded
        )

    def stop_works(self) -> None:
        """Cancel all that runs, because the server stops."""
        for work in list(self.works):
            work.stop("shutdown")

    async def close(self) -> None:
        """End the threads and free the models."""
        self.stopping = True
        self.stop_works()
        await asyncio.to_thread(self.threads.shutdown)
        await asyncio.to_thread(self.pool.close)
