"""Events of OpenAI's streamed images: previews of each image while it is generated, then the images."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image

from cyllama.sd.options import ImageOptions
from cyllama.sd.sizes import result_size
from cyllama.server.http.current_job import Job
from cyllama.server.http.response_stream import ResponseStream
from cyllama.server.image_jobs import ImageRequest, encode_image
from cyllama.server.routes._image_fields import Output

if TYPE_CHECKING:
    from cyllama.sd import StableDiffusion

__all__ = ["StreamedJob", "due_steps"]


def due_steps(count: int, steps: int) -> set[int]:
    """Return the steps after which a preview is sent: as many as wanted, evenly, and at most one for each step."""
    if count >= steps:
        return set(range(1, steps + 1))
    return {round(steps * (i + 1) / (count + 1)) for i in range(count)}


class StreamedJob(Job):
    """A job that sends previews as events.

    Parameters
    ----------
    cancel : threading.Event
    stream : ResponseStream
    request : ImageRequest
    output : Output
    """

    def __init__(self, cancel: threading.Event, stream: ResponseStream, request: ImageRequest, output: Output) -> None:
        super().__init__(cancel)
        self._stream, self._request, self._output = stream, request, output
        self._size: tuple[int, int] | None = None
        self._started = False
        self._image = self._sent = 0

    def on_model(self, model: StableDiffusion) -> None:
        """Record the size of the images, which previews get as well."""
        options, request = self._request.options, self._request
        size = ImageOptions(width=options.get("width"), height=options.get("height"))
        self._size = result_size(size, model.family, request.image, is_inpainting=request.mask is not None)

    def start(self) -> None:
        """Start the response; a second call does nothing."""
        if not self._started:
            self._started = True
            self._stream.start_events()

    def on_preview(self, image: Image.Image, step: int) -> None:
        """Send the preview if the next partial image is due."""
        super().on_preview(image, step)
        if self.image != self._image:
            self._image, self._sent = self.image, 0
        if step not in due_steps(self._output.partial_images, self.steps):
            return
        self.start()
        if self._size is not None:
            image = image.resize(self._size, Image.Resampling.BICUBIC)
        size = "{}x{}".format(*image.size)
        file = encode_image(image, self._output.format, self._output.quality)
        content = {"b64_json": file, "size": size, "image_index": self._image, "partial_image_index": self._sent}
        self.send("partial_image", content)
        self._sent += 1

    def send(self, kind: str, content: Mapping[str, Any]) -> None:
        """Send an event."""
        name = f"{self._output.event}.{kind}"
        common = {"type": name, "created_at": int(time.time()), "output_format": self._output.format}
        data = {**common, "background": "opaque", "quality": "auto", **content}
        if self._output.warnings:
            data["warnings"] = self._output.warnings
        self._stream.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
