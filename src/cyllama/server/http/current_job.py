"""The image job that runs, for the routes that report its progress and interrupt it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from cyllama.sd import StableDiffusion

__all__ = ["CurrentJob", "Job"]


@dataclass
class Job:
    """Progress of an image job.

    The working thread replaces the fields and never changes their values, so that other threads may read them.

    Attributes
    ----------
    cancel : threading.Event
    began : float
        Start, in seconds of `time.monotonic`.
    step, steps : int
        Steps that are done, and all steps.
    preview : PIL.Image.Image or None
        The image after the last step.
    interrupted : bool
        Whether another request has cancelled it.
    """

    cancel: threading.Event
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    preview: Image.Image | None = None
    interrupted: bool = False

    def on_model(self, model: StableDiffusion) -> None:
        """Record the loaded model, before the first step."""

    def on_step(self, step: int, total: int, seconds: float) -> None:
        """Record a finished step."""
        self.step, self.steps = step, total

    def on_preview(self, image: Image.Image, step: int) -> None:
        """Record a preview."""
        self.preview = image


class CurrentJob:
    """Holder of the running job; `job` is None when there is none."""

    def __init__(self) -> None:
        self.job: Job | None = None
