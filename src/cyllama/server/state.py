"""Server state that all requests share: the model pool, the queues, the running tasks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cyllama import models
from cyllama._cancel import Cancel
from cyllama.pipelines import ModelPool
from cyllama.server.config import EngineKind, ModelEntry, ModelTask, ServerConfig
from cyllama.server.http.current_job import CurrentJob
from cyllama.server.http.errors import http_error, log
from cyllama.server.http.queues import BodyBudget, EngineQueue
from cyllama.server.http.request_body import RequestBody
from cyllama.server.http.task import TaskResponse, TaskRunner, Work

if TYPE_CHECKING:
    from cyllama.llama import LLM
    from cyllama.sd import StableDiffusion
    from cyllama.whisper import Whisper

__all__ = ["ServerState"]

KIND_OF_TASK: dict[ModelTask, EngineKind] = {
    "chat": "llm",
    "embeddings": "llm",
    "rerank": "llm",
    "speech": "whisper",
    "images": "sd",
}
STATUS_REQUESTS = 64  # capacity of the queue for requests about the server itself


class ServerState:
    """The state of one server.

    Parameters
    ----------
    config : ServerConfig

    Attributes
    ----------
    pool : ModelPool
    queues : dict
        The queue of each engine.
    status_queue : EngineQueue
        For requests about the server itself, which get a response even if an engine's queue is full.
    body_budget : BodyBudget
    tasks : TaskRunner
    image_job : CurrentJob
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        limits = config.limits
        self.pool = ModelPool(config.memory)
        self.queues: dict[EngineKind, EngineQueue] = {
            "llm": EngineQueue("text", limits.text_queue),
            "whisper": EngineQueue("speech", limits.audio_queue, limits.audio_parallel),
            "sd": EngineQueue("images", limits.image_queue, 1),
        }
        self.status_queue = EngineQueue("server status", STATUS_REQUESTS)
        self.body_budget = BodyBudget(limits.bodies)
        threads = sum(queue.capacity for queue in (*self.queues.values(), self.status_queue))
        self.tasks = TaskRunner(threads, limits.request_seconds)
        self.image_job = CurrentJob()
        self._by_name = {name: entry for entry in config.models for name in (entry.name, *entry.aliases)}

    def find_model(self, name: object, task: ModelTask) -> ModelEntry:
        """Return the model for a request.

        Parameters
        ----------
        name : object
            The request's ``model``; None: the first model for the task.
        task : str
            As of `ModelEntry.task`; a request may name any model of the same engine.

        Raises
        ------
        HTTPException
            400 if `name` is not a string, 404 if there is no such model.
        """
        if name is not None and not isinstance(name, str):
            raise http_error(400, f"model is {name!r:.100}, expected a string", param="model")
        kind = KIND_OF_TASK[task]
        found = self._by_name.get(name or "")
        if found is not None and found.kind == kind:
            return found
        candidates = [entry for entry in self.config.models if entry.kind == kind]
        if not candidates:
            raise http_error(404, f"the server has no model for {task}", param="model", code="model_not_found")
        if name and not self.config.any_name:
            known = ", ".join(entry.name for entry in candidates)
            message = f"model is {name!r:.200}, expected one of the models for {task}: {known}"
            raise http_error(404, message, param="model", code="model_not_found")
        return next((entry for entry in candidates if entry.task == task), candidates[0])

    @contextlib.contextmanager
    def use_llm(self, entry: ModelEntry, cancel: Cancel) -> Iterator[LLM]:
        """Lend a loaded language model to a working thread for the length of a block."""
        failed = False
        with self.pool.use("llm", entry.model, cancel=cancel, **entry.settings) as llm:
            try:
                yield llm
            finally:
                failed = llm.failure is not None
        if failed:  # the next request loads it again
            log.error("the scheduler of %s has failed; unloading the model", entry.name)
            self.pool.unload("llm", entry.model)

    @contextlib.contextmanager
    def use_whisper(self, entry: ModelEntry, cancel: Cancel) -> Iterator[Whisper]:
        """Lend a loaded speech model to a working thread for the length of a block."""
        with self.pool.use("whisper", entry.model, cancel=cancel, **entry.settings) as model:
            yield model

    @contextlib.contextmanager
    def use_sd(self, entry: ModelEntry, cancel: Cancel) -> Iterator[StableDiffusion]:
        """Lend a loaded diffusion model to a working thread for the length of a block."""
        with self.pool.use("sd", entry.model, cancel=cancel, **entry.settings) as model:
            yield model

    def request_body(self) -> RequestBody:
        """Return a reader for the body of a request."""
        return RequestBody(self.body_budget, self.config.limits)

    def respond(self, kind: EngineKind, work: Work, on_end: Callable[[], None] | None = None) -> TaskResponse:
        """Return a response that an engine computes; see `TaskRunner.respond`."""
        return self.tasks.respond(self.queues[kind], work, on_end)

    def preload(self) -> None:
        """Check that all models exist, then load those with ``preload``."""
        for entry in self.config.models:
            for name in (entry.model, entry.settings.get("mmproj")):
                if name is not None:
                    models.check(name)
        use = {"llm": self.use_llm, "whisper": self.use_whisper, "sd": self.use_sd}
        for entry in self.config.models:
            if entry.preload:
                with use[entry.kind](entry, threading.Event()):
                    log.info("loaded %s", entry.name)

    def is_loaded(self, entry: ModelEntry) -> bool:
        """Return whether the model is in memory."""
        return any(
            model.kind == entry.kind
            and model.name == entry.model
            and dict(model.settings) == dict(entry.settings)
            and model.ready
            for model in self.pool.loaded
        )

    async def close(self) -> None:
        """Cancel all tasks, wait for their threads, and free the models."""
        self.tasks.stopping = True
        self.tasks.cancel_all()
        await asyncio.to_thread(self.tasks.close)
        await asyncio.to_thread(self.pool.close)
