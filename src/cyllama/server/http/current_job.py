"""The requests for images, waiting and running: their callers, their progress, and how they are interrupted."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image
from starlette.types import Scope

from cyllama.server.http.clients import account_name, caller_name
from cyllama.server.http.errors import http_error

if TYPE_CHECKING:
    from cyllama.sd import ImageResult, StableDiffusion

__all__ = ["JOB_ID", "Job", "JobEntry", "JobList", "check_job_id"]

JOB_ID = "cyllama.job_id"
"""Name of a job's id in the ASGI scope, set by routes whose body has it."""
JOB_HEADER = b"x-job-id"
MAX_ID = 200  # characters
FINISHED = 256  # ids that are remembered


@dataclass
class Job:
    """Progress of an image job.

    The working thread replaces the fields and never changes their values, so that other threads may read them.

    Attributes
    ----------
    cancel : threading.Event
        Cancels the whole job.
    began : float
        Start, in seconds of `time.monotonic`.
    step, steps : int
        Steps of the running pass that are done, and all its steps.
    preview : PIL.Image.Image or None
        The image after the last step.
    interrupted : bool
        Whether its caller has interrupted it.
    images : int
        Number of images of the job.
    image : int
        Number of the running image, from 0.
    passes : int
        Passes of an image: two with a second pass in a larger size.
    skipped : bool
        Whether its caller has skipped the running image.
    results : list of ImageResult
        The finished images.
    """

    cancel: threading.Event
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    preview: Image.Image | None = None
    interrupted: bool = False
    images: int = 1
    image: int = 0
    passes: int = 1
    skipped: bool = False
    results: list[ImageResult] = field(default_factory=list)
    _pass: int = 0

    def is_set(self) -> bool:
        """Return whether the running image has to stop; a job is the `cancel` of the engine's call."""
        return self.skipped or self.cancel.is_set()

    def begin_image(self, number: int) -> None:
        """Record that the next image begins."""
        self.image, self.step, self._pass, self.skipped = number, 0, 0, False

    def on_model(self, model: StableDiffusion) -> None:
        """Record the loaded model, before the first step."""

    def on_step(self, step: int, total: int, seconds: float) -> None:
        """Record a finished step."""
        if step < self.step:
            self._pass = min(self._pass + 1, self.passes - 1)
        self.step, self.steps = step, total

    def on_preview(self, image: Image.Image, step: int) -> None:
        """Record a preview."""
        self.preview = image

    @property
    def fraction(self) -> float:
        """The part of the job that is done, 0 to 1."""
        part = self.step / self.steps if self.steps else 0.0
        return min(1.0, (self.image + (self._pass + part) / self.passes) / self.images)


@dataclass(eq=False)
class JobEntry:
    """A request for images.

    Attributes
    ----------
    id : str
        Chosen by the client or by the server.
    account, caller : str
        As of `account_name` and `caller_name`.
    cancel : threading.Event
        Cancels the request; the job that runs it has the same.
    stop : callable
        Cancels the request because its caller has interrupted it.
    job : Job or None
        None while the request waits.
    interrupted : bool
    """

    id: str
    account: str
    caller: str
    cancel: threading.Event
    stop: Callable[[], None]
    job: Job | None = None
    interrupted: bool = False

    def interrupt(self) -> None:
        """Stop the job; the images that are finished remain."""
        self.interrupted = True
        if self.job is not None:
            self.job.interrupted = True
        self.stop()

    def skip(self) -> None:
        """Stop the running image, and continue with the next one."""
        if self.job is not None:
            self.job.skipped = True


class JobList:
    """All requests for images; a caller finds its own only. Only the event loop adds and removes them."""

    def __init__(self) -> None:
        self._entries: list[JobEntry] = []
        self._finished: deque[tuple[str, str]] = deque(maxlen=FINISHED)

    def add(self, scope: Scope, cancel: threading.Event, stop: Callable[[], None]) -> JobEntry:
        """Add a request.

        Raises
        ------
        HTTPException
            400 if its id is invalid, 409 if a job of this account has the id.
        """
        account = account_name(scope)
        given = scope.get(JOB_ID) or _header(scope)
        job_id = check_job_id(given, "x-job-id") if given else f"task({secrets.token_hex(8)})"
        if self.find(account, job_id) is not None:
            raise http_error(409, f"a job with the id {job_id!r} is running or waiting", param="id_task")
        entry = JobEntry(job_id, account, caller_name(scope), cancel, stop)
        self._entries.append(entry)
        return entry

    def remove(self, entry: JobEntry) -> None:
        """Remove a request that has ended."""
        self._entries.remove(entry)
        self._finished.append((entry.account, entry.id))

    def begin(self, job: Job) -> None:
        """Record that a request runs; `job` has its `cancel`."""
        for entry in list(self._entries):
            if entry.cancel is job.cancel:
                entry.job = job
                job.interrupted = entry.interrupted

    def find(self, account: str, job_id: str) -> JobEntry | None:
        """Return the request of an account with an id; None if there is none."""
        return next((entry for entry in self._entries if (entry.account, entry.id) == (account, job_id)), None)

    def only(self, caller: str) -> JobEntry | None:
        """Return the only request of a caller; None if it has none, or several: these are known by their ids only."""
        found = [entry for entry in self._entries if entry.caller == caller]
        return found[0] if len(found) == 1 else None

    def of_account(self, account: str) -> list[JobEntry]:
        """Return the requests of an account."""
        return [entry for entry in self._entries if entry.account == account]

    def is_finished(self, account: str, job_id: str) -> bool:
        """Return whether one of the last requests of an account had an id."""
        return (account, job_id) in self._finished


def check_job_id(value: object, name: str) -> str:
    """Check the id that a client gave to a job.

    Raises
    ------
    HTTPException
        400.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise http_error(400, f"{name} is {value!r:.100}, expected a text of 1 to {MAX_ID} characters", param=name)
    return value


def _header(scope: Scope) -> str:
    found = [value for name, value in scope["headers"] if name == JOB_HEADER]
    return found[0].decode("latin-1") if found else ""
