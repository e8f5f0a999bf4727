"""Server state that all requests share: the model pool, the queues, the running tasks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cyllama import models
from cyllama._cancel import Cancel
from cyllama.pipelines import LoadedModel, ModelPool
from cyllama.server.config import EngineKind, ModelEntry, ModelTask, ServerConfig
from cyllama.server.http.current_job import JobList
from cyllama.server.http.errors import http_error, log
from cyllama.server.http.queues import BodyBudget, EngineQueue
from cyllama.server.http.request_body import RequestBody
from cyllama.server.http.task import TaskResponse, TaskRunner, Work
from cyllama.server.image_links import ImageLinks
from cyllama.server.lifetimes import ModelLifetimes

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
FILE_REQUESTS = 32  # capacity of the queue for images that need no engine


class ServerState:
    """The state of one server.

    Parameters
    ----------
    config : ServerConfig

    Attributes
    ----------
    pool : ModelPool
    lifetimes : ModelLifetimes
    entries : list of ModelEntry
        The models of the configuration, and those that clients have added.
    queues : dict
        The queue of each engine.
    status_queue : EngineQueue
        For requests about the server itself, which get a response even if an engine's queue is full.
    file_queue : EngineQueue
        For images that are read or resized without an engine.
    live_queue : EngineQueue
        Of the sessions of live transcription, which have slots of their own: long recordings must not delay them.
    body_budget : BodyBudget
    tasks : TaskRunner
    image_links : ImageLinks
    image_jobs : JobList
    model_meta : dict
        Sizes of the language models that have been loaded, by name; as of `LLM.meta`.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        limits = config.limits
        self.pool = ModelPool(config.memory)
        self.lifetimes = ModelLifetimes(self.pool)
        self.entries = list(config.models)

        def queue(name: str, capacity: int, concurrency: int | None) -> EngineQueue:
            share = min(limits.client_requests, (capacity + 1) // 2)
            return EngineQueue(name, capacity, concurrency, share)

        self.queues: dict[EngineKind, EngineQueue] = {
            "llm": queue("text", limits.text_queue, None),
            "whisper": queue("speech", limits.audio_queue, limits.audio_parallel),
            "sd": queue("images", limits.image_queue, 1),
        }
        self.status_queue = EngineQueue("server status", STATUS_REQUESTS)
        self.file_queue = queue("image files", FILE_REQUESTS, 2)
        self.live_queue = queue("live transcription", limits.live_sessions, limits.live_parallel)
        self.body_budget = BodyBudget(limits.bodies)
        others = (self.status_queue, self.file_queue, self.live_queue)
        threads = sum(queue.capacity for queue in (*self.queues.values(), *others))
        self.tasks = TaskRunner(threads, limits.request_seconds)
        self.image_links = ImageLinks(config.image_link_seconds)
        self.image_jobs = JobList()
        self.model_meta: dict[str, Mapping[str, Any]] = {}

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
        found = self.find_entry(name) if name else None
        if found is not None and found.kind == kind:
            return found
        candidates = [entry for entry in self.entries if entry.kind == kind]
        if not candidates:
            raise http_error(404, f"the server has no model for {task}", param="model", code="model_not_found")
        if name and not self.config.any_name:
            known = ", ".join(entry.name for entry in candidates)
            message = f"model is {name!r:.200}, expected one of the models for {task}: {known}"
            raise http_error(404, message, param="model", code="model_not_found")
        return next((entry for entry in candidates if entry.task == task), candidates[0])

    def find_entry(self, name: str) -> ModelEntry | None:
        """Return the model with a name or an alias, of any engine."""
        return next((entry for entry in self.entries if name in (entry.name, *entry.aliases)), None)

    @contextlib.contextmanager
    def use_llm(self, entry: ModelEntry, cancel: Cancel, *, is_request: bool = True) -> Iterator[LLM]:
        """Lend a loaded language model to a working thread for the length of a block.

        Without `is_request` the idle time of the model continues.
        """
        failed = False
        settings = entry.settings
        use = (
            self.lifetimes.use(entry, cancel)
            if is_request
            else self.pool.use("llm", entry.model, cancel=cancel, **settings)
        )
        with use as llm:
            self.model_meta[entry.name] = llm.meta
            try:
                yield llm
            finally:
                failed = llm.failure is not None
        if failed:  # the next request loads it again
            log.error("the scheduler of %s has failed; unloading the model", entry.name)
            self.lifetimes.end_pin(entry)
            self.pool.unload("llm", entry.model)

    @contextlib.contextmanager
    def use_whisper(self, entry: ModelEntry, cancel: Cancel) -> Iterator[Whisper]:
        """Lend a loaded speech model to a working thread for the length of a block."""
        with self.lifetimes.use(entry, cancel) as model:
            yield model

    @contextlib.contextmanager
    def use_sd(self, entry: ModelEntry, cancel: Cancel) -> Iterator[StableDiffusion]:
        """Lend a loaded diffusion model to a working thread for the length of a block."""
        with self.lifetimes.use(entry, cancel) as model:
            yield model

    def load(self, entry: ModelEntry, cancel: Cancel) -> None:
        """Load a model, unless it is loaded."""
        with self.lifetimes.use(entry, cancel):
            pass

    def request_body(self) -> RequestBody:
        """Return a reader for the body of a request."""
        return RequestBody(self.body_budget, self.config.limits)

    def respond(self, kind: EngineKind, work: Work, on_end: Callable[[], None] | None = None) -> TaskResponse:
        """Return a response that an engine computes; see `TaskRunner.respond`."""
        return self.tasks.respond(self.queues[kind], work, on_end, self.image_jobs if kind == "sd" else None)

    def preload(self) -> None:
        """Check that all models exist, then load those with ``preload`` or ``pin``."""
        for entry in self.config.models:
            for name in (entry.model, entry.settings.get("mmproj")):
                if name is not None:
                    models.check(name)
        for network in self.config.upscalers.values():
            models.check(network)
        for entry in self.config.models:
            if entry.preload or entry.pin:
                self.load(entry, threading.Event())

    def is_loaded(self, entry: ModelEntry) -> bool:
        """Return whether the model is in memory."""
        loaded = self.find_loaded(entry)
        return loaded is not None and loaded.ready

    def find_loaded(self, entry: ModelEntry) -> LoadedModel | None:
        """Return the state of the model in the pool; None if it is neither loaded nor loading."""
        for model in self.pool.loaded:
            if (model.kind, model.name, dict(model.settings)) == (entry.kind, entry.model, dict(entry.settings)):
                return model
        return None

    async def close(self) -> None:
        """Cancel all tasks, wait for their threads, and free the models."""
        self.tasks.stopping = True
        self.tasks.cancel_all()
        await asyncio.to_thread(self.tasks.close)
        await asyncio.to_thread(self.free)

    def free(self) -> None:
        """Free the models; the tasks must have ended."""
        self.lifetimes.close()
        if not self.pool.closed:
            self.pool.close()
