"""Pictures that are being made, as other requests may see and stop them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from PIL import Image

__all__ = ["Job", "Jobs"]


@dataclass
class Job:
    """Pictures that are being made, as other requests may see them; its fields are replaced, never changed."""

    cancel: threading.Event
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    preview: Image.Image | None = None
    interrupted: bool = False

    def on_step(self, step: int, total: int, seconds: float) -> None:
        """A step is done."""
        self.step, self.steps = step, total

    def on_preview(self, picture: Image.Image, step: int) -> None:
        """What it looks like by now."""
        self.preview = picture


class Jobs:
    """The job that runs, if one does."""

    def __init__(self) -> None:
        self.current: Job | None = None
