"""Pictures and videos: `StableDiffusion` to keep a model loaded."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from cyllama.errors import CancelledError, InUseError, UnsupportedError
from cyllama.media.image import Pixels, fitted, to_mask, to_pil, to_pixels, to_pixels_list
from cyllama.sd._context import SDContext
from cyllama.sd.effects import refuse_idle_image, refuse_idle_parts, refuse_idle_video, warn_of_idle_prompt
from cyllama.sd.family import Family
from cyllama.sd.hooks import Cancel, Hooks, split_hooks
from cyllama.sd.loading import model_files
from cyllama.sd.loras import refuse_tags, split_prompt
from cyllama.sd.options import ImageOptions, VideoOptions, options_from
from cyllama.sd.png import infotext
from cyllama.sd.record import recorded
from cyllama.sd.requests import Inputs, image_request, in_our_names, video_request
from cyllama.sd.results import ImageResult, Picture, VideoResult
from cyllama.sd.video import checked_fps

__all__ = ["StableDiffusion"]

WAIT = 0.05  # seconds between two looks at `cancel` while another thread has the model


class StableDiffusion:
    """A loaded model that makes pictures or videos.

    Parameters
    ----------
    model : str, path or None
        A name of `cyllama.models`, or a file (safetensors, GGUF, checkpoint) or a folder of the diffusers layout: a
        whole model, or a diffusion model alone, which needs its encoders and its auto-encoder by name.
    lora_dir : path, optional
        Where ``<lora:name:weight>`` in prompts finds its files; default: the model's folder.
    on_progress : callable, optional
        Called with (tensors done, tensors in total, seconds for each) while it loads.
    cancel : object with ``is_set()``, optional
        Stops the loading.
    **params
        The other parts (``vae``, ``taesd``, ``clip_l``, ``clip_g``, ``t5xxl``, ``llm``, ``diffusion_model``,
        ``control_net``, ..., each a path or a name) and ``n_threads``, ``type``, ``flash_attn``, ``embeddings`` (a
        mapping of words to files) and so on: the fields of `SDContextParams`, with ``_path`` or without.

    Raises
    ------
    TypeError
        There is no such parameter; the nearest is named.
    FileNotFoundError
        No such file, and no such name.
    ModelLoadError
        It is no model, is damaged, or lacks a part.
    CancelledError

    Notes
    -----
    Thread safety: may be called from many threads; calls queue, in the whole process, as the engine has one set of
    callbacks. The GIL is released while it loads and computes.

    >>> from cyllama.sd import StableDiffusion
    >>> with StableDiffusion("model.safetensors") as sd:      # doctest: +SKIP
    ...     sd.txt2img("a lighthouse", steps=20, seed=1)[0].save("lighthouse.png")
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        lora_dir: str | os.PathLike[str] | None = None,
        on_progress: Callable[[int, int, float], object] | None = None,
        cancel: Cancel | None = None,
        **params: Any,
    ) -> None:
        self._files = model_files(model, params)
        detected = self._files.detected()
        if detected is not None:
            refuse_idle_parts(self._files.params, detected)
        if lora_dir is not None and not os.path.isdir(lora_dir):
            raise FileNotFoundError(f"lora_dir is {os.fspath(lora_dir)!r}: no such folder")
        main = self._files.params.model_path or self._files.params.diffusion_model_path
        self._lora_dir = os.path.dirname(os.path.abspath(os.fsdecode(main or ""))) if lora_dir is None else lora_dir
        self._turn_lock = threading.Lock()
        self._owner = 0
        self._context = SDContext(self._files.params, progress=on_progress, cancel=cancel)
        self._family = self._files.family(self._context.version_name)

    @property
    def family(self) -> Family:
        """The model's family and its defaults."""
        return self._family

    @property
    def name(self) -> str:
        """The model's name: that of its file."""
        return self._files.name

    @property
    def context(self) -> SDContext:
        """The low-level context; not to be used while a call runs."""
        return self._context

    def txt2img(self, prompt: str, **options: Any) -> ImageResult:
        """Make pictures from a text; see `cyllama.sd.txt2img`."""
        return self._pictures(prompt, options, Inputs())

    def img2img(self, prompt: str, image: Any = None, **options: Any) -> ImageResult:
        """Make pictures from a picture and a text; see `cyllama.sd.img2img`."""
        pixels = to_pixels(_one(image, options, "image", "init_image", "init_images"))
        return self._pictures(prompt, options, Inputs(pixels))

    def inpaint(self, prompt: str, image: Any = None, mask_image: Any = None, **options: Any) -> ImageResult:
        """Paint a part of a picture anew; see `cyllama.sd.inpaint`."""
        pixels = to_pixels(_one(image, options, "image", "init_image", "init_images"))
        mask = to_mask(_one(mask_image, options, "mask_image", "mask"))
        if mask.shape != pixels.shape[:2]:
            raise ValueError(
                f"mask_image has {mask.shape[1]}x{mask.shape[0]} pixels, expected those of image: "
                f"{pixels.shape[1]}x{pixels.shape[0]}"
            )
        if self._family.inpaints:
            options = {"strength": 1.0, **options}
        return self._pictures(prompt, options, Inputs(pixels, mask))

    def edit(self, prompt: str, images: Any = None, **options: Any) -> ImageResult:
        """Change pictures as the text says, with an edit model; see `cyllama.sd.edit`."""
        references = to_pixels_list(_one(images, options, "images", "image", "ref_images"), "images")
        if not references:
            raise ValueError("images is empty, expected at least one picture")
        return self._pictures(prompt, options, Inputs(references=references))

    def txt2vid(self, prompt: str, **options: Any) -> VideoResult:
        """Make a video from a text; see `cyllama.sd.txt2vid`."""
        return self._video(prompt, options, Inputs())

    def img2vid(self, prompt: str, image: Any = None, **options: Any) -> VideoResult:
        """Make a video from its first frame and a text; see `cyllama.sd.img2vid`."""
        pixels = to_pixels(_one(image, options, "image", "init_image"))
        return self._video(prompt, options, Inputs(pixels))

    def close(self) -> None:
        """Free the model.

        Raises
        ------
        InUseError
            A call is running.
        """
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._context.closed else self._family.name
        return f"<StableDiffusion {self.name} ({state})>"

    @contextlib.contextmanager
    def _turn(self, cancel: Cancel | None) -> Iterator[None]:
        """Wait until no other thread uses the model."""
        if self._owner == threading.get_ident():
            raise InUseError("the model was called from a callback of its own running call")
        while not self._turn_lock.acquire(timeout=WAIT):
            if cancel is not None and cancel.is_set():
                raise CancelledError("cancelled while another call of the model ran")
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = 0
            self._turn_lock.release()

    def _begin(self, kind: type[Any], given: Mapping[str, Any], prompt: str) -> tuple[Hooks, Any, str, list[Any]]:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt is {prompt!r}, expected a string")
        hooks, rest = split_hooks(given)
        options = options_from(kind, rest, distilled=self._family.guidance is not None)
        refuse_tags(options.negative_prompt)
        return hooks, options, *split_prompt(prompt, self._lora_dir)

    def _pictures(self, prompt: str, given: Mapping[str, Any], inputs: Inputs) -> ImageResult:
        if not self._context.supports_image_generation:
            raise UnsupportedError(f"the model ({self._family.name}) makes videos, not pictures")
        hooks, options, text, tagged = self._begin(ImageOptions, given, prompt)
        refuse_idle_image(
            options, self._family, self._files.params,
            image=inputs.image is not None, references=bool(inputs.references),
        )  # fmt: skip
        request = image_request(text, options, self._family, inputs, tagged)
        arguments = hooks.arguments(options.preview, options.preview_interval)
        warn_of_idle_prompt(request)
        try:
            with self._turn(hooks.cancel), in_our_names():
                made = self._context.generate_image(request, **arguments)
        finally:
            hooks.close()
        if inputs.mask is not None and inputs.image is not None:
            made = [_blended(pixels, inputs.image, inputs.mask) for pixels in made]
        parameters = recorded(request, self._context, self._files, image=inputs.image is not None)
        seeds = [parameters["seed"] + i for i in range(len(made))]
        texts = [infotext({**parameters, "seed": seed}) for seed in seeds]
        images = made if options.output_type == "np" else list(map(Picture.of, made, texts))
        return ImageResult(images, seeds, parameters, texts)

    def _video(self, prompt: str, given: Mapping[str, Any], inputs: Inputs) -> VideoResult:
        if not self._context.supports_video_generation:
            raise UnsupportedError(f"the model ({self._family.name}) does not make videos")
        hooks, options, text, tagged = self._begin(VideoOptions, given, prompt)
        refuse_idle_video(options, self._family, self._files.params, image=inputs.image is not None)
        fps = checked_fps(self._family.fps if options.fps is None else options.fps)
        request = video_request(text, options, self._family, inputs, tagged)
        arguments = hooks.arguments(options.preview, options.preview_interval, video=True)
        warn_of_idle_prompt(request)
        try:
            with self._turn(hooks.cancel), in_our_names():
                made = self._context.generate_video(request, **arguments)
        finally:
            hooks.close()
        parameters = recorded(request, self._context, self._files, image=inputs.image is not None)
        parameters |= {"frames": len(made)}
        frames = made if options.output_type == "np" else list(map(to_pil, made))
        return VideoResult(frames, fps, parameters)


def _one(value: Any, options: dict[str, Any], name: str, *others: str) -> Any:
    """An argument that may have been given under another name; taken out of `options`."""
    for other in others:
        if other in options:
            if value is not None:
                raise TypeError(f"{name} was given twice, once as {other}")
            value = options.pop(other)
            if other == "init_images":  # a list of one, as web interfaces send it
                pictures = to_pixels_list(value, other)
                if len(pictures) != 1:
                    raise ValueError(f"{other} has {len(pictures)} pictures, expected one")
                (value,) = pictures
    if value is None:
        raise TypeError(f"{name} is missing")
    return value


def _blended(made: Pixels, image: Pixels, mask: Pixels) -> Pixels:
    """The new pixels where the mask is white, the old ones where it is black."""
    height, width = made.shape[:2]
    weight = fitted(mask, width, height)[:, :, None].astype(np.uint16)
    old = fitted(image, width, height)
    return ((made * weight + old * (255 - weight) + 127) // 255).astype(np.uint8)
