"""Video jobs: they run in the background, belong to the client that created them, and are kept for a limited time."""

from __future__ import annotations

import asyncio
import base64
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyllama.server.config import ModelEntry
from cyllama.server.http.errors import error_body, http_error, to_http_error
from cyllama.server.http.response_stream import ResponseStream
from cyllama.server.http.task import CancelReason
from cyllama.server.image_jobs import Pixels, check_loras, encode_image
from cyllama.server.limits import Limits

if TYPE_CHECKING:
    from PIL import Image

    from cyllama.sd import StableDiffusion, VideoResult
    from cyllama.server.state import ServerState

__all__ = ["VideoJob", "VideoJobs", "VideoRequest"]

Status = Literal["queued", "in_progress", "completed", "failed"]
THUMBNAIL_SIDE = 512


@dataclass(frozen=True)
class VideoRequest:
    """A request for a video.

    Attributes
    ----------
    prompt : str
    options : mapping
        Fields of `cyllama.sd.VideoOptions`.
    seconds : int or None
        Duration; None: that of the options, else of the model.
    image : callable or None
        Returns the pixels of the first frame.
    """

    prompt: str
    options: Mapping[str, Any]
    seconds: int | None = None
    image: Callable[[], Pixels] | None = None


@dataclass(eq=False)
class VideoJob:
    """A video that is generated in a thread.

    Attributes
    ----------
    id, client : str
    entry : ModelEntry
    request : VideoRequest
    size : str
        WIDTHxHEIGHT; ``"auto"`` until the model has loaded.
    status : str
    progress : int
        Percentage of the steps.
    seconds : float
        Duration, once it is known.
    error : mapping or None
        Code and message of a failed job.
    video, thumbnail : bytes
        Files in MP4 and WebP, once the job has completed.
    ended : float or None
        In seconds of `time.time`.
    """

    client: str
    entry: ModelEntry
    request: VideoRequest
    size: str = "auto"
    id: str = field(default_factory=lambda: f"video_{secrets.token_hex(16)}")
    created: float = field(default_factory=time.time)
    status: Status = "queued"
    progress: int = 0
    seconds: float = 0
    error: Mapping[str, Any] | None = None
    video: bytes = b""
    thumbnail: bytes = b""
    ended: float | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def to_dict(self, keep_seconds: float) -> dict[str, Any]:
        """Return the job in OpenAI's form."""
        end = self.ended
        return {
            "id": self.id,
            "object": "video",
            "model": self.entry.name,
            "prompt": self.request.prompt,
            "status": self.status,
            "progress": self.progress,
            "created_at": int(self.created),
            "completed_at": int(end) if end is not None and self.status == "completed" else None,
            "expires_at": None if end is None else int(end + keep_seconds),
            "seconds": f"{self.seconds or self.request.seconds or 0:g}",
            "size": self.size,
            "error": self.error,
            "remixed_from_video_id": None,
        }

    def on_step(self, step: int, total: int, seconds: float) -> None:
        """Record a finished step."""
        self.progress = min(99, 100 * step // max(1, total))

    def generate(self, model: StableDiffusion, limits: Limits) -> None:
        """Generate the video, in a thread that holds the slot of the engine."""
        request = self.request
        options = {**request.options, "on_step": self.on_step, "cancel": self.cancelled}
        fps = options.get("fps") or model.family.fps
        if request.seconds is not None:
            options["frames"] = request.seconds * fps + 1
        frames = options.get("frames") or model.family.frames
        if frames > limits.video_frames:
            message = f"the video has {frames} frames, at most {limits.video_frames} are allowed (limits.video_frames)"
            raise http_error(400, message, param="seconds")
        if request.image is None:
            result = model.txt2vid(request.prompt, **options)
        else:
            result = model.img2vid(request.prompt, request.image(), **options)
        self._finish(result)

    def _finish(self, result: VideoResult) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.video = result.save(Path(folder) / "video.mp4").read_bytes()
        first: Image.Image = result[0].copy()
        first.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        self.thumbnail = base64.b64decode(encode_image(first, "webp"))
        self.size = "{}x{}".format(*result[0].size)
        self.seconds = len(result) / result.fps


class _Task:
    """The thread of a job."""

    def __init__(self, state: ServerState, job: VideoJob) -> None:
        self._state, self._job = state, job

    def cancel(self, reason: CancelReason) -> None:
        """Cancel the work."""
        self._job.cancelled.set()

    def run(self, stream: ResponseStream) -> None:
        """Do the work, in a thread."""
        state, job = self._state, self._job
        try:
            with state.queues["sd"].slot(job.cancelled):
                job.status = "in_progress"
                check_loras(job.request.prompt, job.entry, state.config.limits)
                with state.use_sd(job.entry, job.cancelled) as model:
                    job.generate(model, state.config.limits)
        except BaseException as error:
            body = error_body(to_http_error(error))
            job.error = {"code": str(body["code"] or body["type"]), "message": body["message"]}
        job.request = replace(job.request, image=None)  # frees the file
        job.ended = time.time()
        job.progress = 100 if job.error is None else job.progress
        job.status = "completed" if job.error is None else "failed"


class VideoJobs:
    """The video jobs of a server. Only the event loop calls its methods.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: dict[str, VideoJob] = {}

    def start(self, state: ServerState, job: VideoJob, on_end: Callable[[], None]) -> None:
        """Run a job in the background; `on_end` is called when its thread has ended.

        Raises
        ------
        HTTPException
            429 if there are too many jobs, 503 if the server is shutting down.
        """
        state.tasks.check()
        self._remove_old()
        own = sum(other.client == job.client for other in self._jobs.values())
        if len(self._jobs) >= self._limits.videos or own >= (self._limits.videos + 1) // 2:
            message = f"there are {own} video jobs of this client, and {len(self._jobs)} in all"
            raise http_error(429, f"{message} (limits.videos: {self._limits.videos}); delete some, or try again later")
        queue, began = state.queues["sd"], time.monotonic()
        queue.enter(job.client)
        self._jobs[job.id] = job
        task = _Task(state, job)
        future = state.tasks.start(task, ResponseStream(job.cancelled))
        timer = asyncio.get_running_loop().call_later(state.tasks.timeout, task.cancel, "timeout")

        def end(_: object) -> None:
            timer.cancel()
            state.tasks.remove(task)
            queue.leave(time.monotonic() - began, job.client)
            on_end()

        future.add_done_callback(end)

    def describe(self, job: VideoJob) -> dict[str, Any]:
        """Return a job in OpenAI's form."""
        return job.to_dict(self._limits.video_keep_seconds)

    def find(self, id: str, client: str) -> VideoJob:
        """Return a job of a client.

        Raises
        ------
        HTTPException
            404.
        """
        self._remove_old()
        job = self._jobs.get(id)
        if job is None or job.client != client:
            raise http_error(404, f"there is no video {id!r:.100}, or its time is over", param="video_id")
        return job

    def of_client(self, client: str) -> list[VideoJob]:
        """Return the jobs of a client, the oldest first."""
        self._remove_old()
        return [job for job in self._jobs.values() if job.client == client]

    def delete(self, id: str, client: str) -> None:
        """Cancel a job and remove it; errors as of `find`."""
        self.find(id, client).cancelled.set()
        del self._jobs[id]

    def _remove_old(self) -> None:
        oldest = time.time() - self._limits.video_keep_seconds
        for job in [job for job in self._jobs.values() if job.ended is not None and job.ended < oldest]:
            del self._jobs[job.id]
