"""Image and video generation with a model that stays loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, Unpack

from cyllama import models
from cyllama._cancel import POLL_SECONDS, Cancel, raise_if_cancelled
from cyllama._native import has_gpu
from cyllama._native.memory import return_memory
from cyllama._paths import expanded
from cyllama.errors import InUseError, UnsupportedError
from cyllama.media.image import ImageSource, to_pil
from cyllama.sd._context import SDContext
from cyllama.sd._diffusers import Adapters, Call, calls_of, joined, load_options, pretrained_name, single_file_name
from cyllama.sd._model_files import ModelFiles, model_files
from cyllama.sd._option_types import (
    EditOptionsDict,
    ImageOptionsDict,
    Img2ImgOptionsDict,
    Img2VidOptionsDict,
    InpaintOptionsDict,
    ModelOptionsDict,
    VideoOptionsDict,
)
from cyllama.sd._request import (
    Request,
    edit_request,
    img2img_request,
    img2vid_request,
    inpaint_request,
    txt2img_request,
    txt2vid_request,
)
from cyllama.sd._validation import reject_unused_components, warn_unused_negative_prompt
from cyllama.sd.families import Family
from cyllama.sd.loras import lora_list
from cyllama.sd.metadata import infotext, used_parameters
from cyllama.sd.options import VideoOptions
from cyllama.sd.results import GeneratedImage, ImageResult, VideoResult
from cyllama.sd.sizes import inpaint_frame
from cyllama.sd.video import checked_fps

__all__ = ["StableDiffusion", "lora_folder"]


class StableDiffusion:
    """A loaded model that generates images or videos.

    Parameters
    ----------
    model : str, path or None
        A name of `cyllama.models`, or a file (safetensors, GGUF, checkpoint), or a folder in the diffusers layout: a
        complete model, or a diffusion model, which needs its encoders and its auto-encoder as options.
    lora_dir : path, optional
        Folder of the files of ``<lora:name:weight>`` in prompts; default: the model's folder.
    on_progress : callable, optional
        Called with (loaded tensors, all tensors, seconds for each) while it loads.
    cancel : object with ``is_set()``, optional
        Cancels loading.
    **params
        The other components (``vae``, ``taesd``, ``clip_l``, ``clip_g``, ``t5xxl``, ``llm``, ``diffusion_model``,
        ``control_net``, ..., each a path or a name) and ``n_threads``, ``type``, ``flash_attn``, ``embeddings`` (a
        mapping of words to files) and so on: the fields of `SDContextParams`, with ``_path`` or without.

    Raises
    ------
    TypeError
        An option is unknown; the nearest is named.
    FileNotFoundError
        Neither a file nor a model has this name.
    ModelLoadError
        The file is not a model, is damaged, or lacks a component.
    CancelledError

    Notes
    -----
    Thread safety: may be called from many threads; calls of all models in the process queue, as the engine has one
    set of callbacks. The GIL is released while it loads and computes.

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
        **params: Unpack[ModelOptionsDict],
    ) -> None:
        self._open(model_files(model, params), lora_dir, on_progress, cancel)

    @classmethod
    def _from_files(
        cls, files: ModelFiles, lora_dir: str | os.PathLike[str] | None, cancel: Cancel | None
    ) -> StableDiffusion:
        """Load files that were found before."""
        self = cls.__new__(cls)
        self._open(files, lora_dir, None, cancel)
        return self

    def _open(
        self,
        files: ModelFiles,
        lora_dir: str | os.PathLike[str] | None,
        on_progress: Callable[[int, int, float], object] | None,
        cancel: Cancel | None,
    ) -> None:
        self._files = files
        detected = files.detected()
        if detected is not None:
            reject_unused_components(files.params, detected)
        self._lora_dir = lora_folder(files, lora_dir)
        self._turn_lock = threading.Lock()
        self._owner = 0
        main = files.params.model_path or files.params.diffusion_model_path
        with models.load_errors(None if main is None else os.fsdecode(main), "sd"):
            self._context = SDContext(files.params, progress=on_progress, cancel=cancel)
        self._family = files.family(self._context.version_name)
        self._adapters = Adapters()

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
        """The low-level context; must not be used while a call runs."""
        return self._context

    def txt2img(self, prompt: str, **options: Unpack[ImageOptionsDict]) -> ImageResult:
        """Generate images from a text; see `cyllama.sd.txt2img`."""
        return self._images(txt2img_request(prompt, options))

    def img2img(
        self, prompt: str, image: ImageSource | None = None, **options: Unpack[Img2ImgOptionsDict]
    ) -> ImageResult:
        """Generate images from an image and a text; see `cyllama.sd.img2img`."""
        return self._images(img2img_request(prompt, image, options))

    def inpaint(
        self,
        prompt: str,
        image: ImageSource | None = None,
        mask_image: ImageSource | None = None,
        **options: Unpack[InpaintOptionsDict],
    ) -> ImageResult:
        """Replace a part of an image; see `cyllama.sd.inpaint`."""
        return self._images(inpaint_request(prompt, image, mask_image, options))

    def edit(
        self,
        prompt: str,
        images: ImageSource | Sequence[ImageSource] | None = None,
        **options: Unpack[EditOptionsDict],
    ) -> ImageResult:
        """Change images as a text says, with an edit model; see `cyllama.sd.edit`."""
        return self._images(edit_request(prompt, images, options))

    def txt2vid(self, prompt: str, **options: Unpack[VideoOptionsDict]) -> VideoResult:
        """Generate a video from a text; see `cyllama.sd.txt2vid`."""
        return self._video(txt2vid_request(prompt, options))

    def img2vid(
        self, prompt: str, image: ImageSource | None = None, **options: Unpack[Img2VidOptionsDict]
    ) -> VideoResult:
        """Generate a video from its first frame and a text; see `cyllama.sd.img2vid`."""
        return self._video(img2vid_request(prompt, image, options))

    # ------------------------------------------------------------------------------- as diffusers has it

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **options: Any) -> Self:
        """Load a model as diffusers does.

        Parameters
        ----------
        name : str or path
            A folder in the diffusers layout, ``organisation/repository``, or what `StableDiffusion` takes.
        **options
            ``torch_dtype`` (float16, bfloat16, float32), ``revision``, ``local_files_only``, and the options of
            `StableDiffusion`.

        Raises
        ------
        UnsupportedError
            An argument of diffusers has no counterpart.
        Exception
            As of `StableDiffusion`.
        """
        chosen = load_options(options)
        return cls(pretrained_name(name, chosen), **chosen)

    @classmethod
    def from_single_file(cls, source: str | os.PathLike[str], **options: Any) -> Self:
        """Load a model from one file: a path, a name, or a URL of a file of the Hugging Face hub.

        Options and errors as of `from_pretrained`.
        """
        return cls.from_pretrained(single_file_name(source), **options)

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: ImageSource | Sequence[ImageSource] | None = None,
        mask_image: ImageSource | Sequence[ImageSource] | None = None,
        **options: Any,
    ) -> ImageResult | VideoResult:
        """Generate images as a pipeline of diffusers: `txt2img`, `img2img` with an image, `inpaint` with a mask.

        Parameters
        ----------
        prompt : str or list of str
            The images of a list come in the order of its prompts.
        image, mask_image : image, or list of one for each prompt, optional
            An edit model takes its images with `edit` instead.
        **options
            As of `txt2img`; ``negative_prompt`` may be a list, and ``generator`` a seed, a generator of torch or
            NumPy, or a list of one for each image.

        Returns
        -------
        ImageResult or VideoResult
            Its ``images`` is a list; a video has ``frames``.
        """
        calls = calls_of(prompt, image, mask_image, options)
        if self._context.supports_video_generation and not self._context.supports_image_generation:
            if len(calls) != 1:
                raise ValueError(f"prompt has {len(calls)} items, expected one for a video")
            (call,) = calls
            if call.mask_image is not None:
                raise UnsupportedError("mask_image was given, which video models do not use")
            return self._video(img2vid_request(call.prompt, call.image, call.options)
                               if call.image is not None else txt2vid_request(call.prompt, call.options))  # fmt: skip
        return joined([self._images(self._image_request(call)) for call in calls])

    def _image_request(self, call: Call) -> Request:
        if call.mask_image is not None:
            return inpaint_request(call.prompt, call.image, call.mask_image, call.options)
        if call.image is not None:
            return img2img_request(call.prompt, call.image, call.options)
        return txt2img_request(call.prompt, call.options)

    def load_lora_weights(
        self, source: str | os.PathLike[str], *, weight_name: str | None = None, adapter_name: str | None = None
    ) -> None:
        """Add a LoRA to all following calls.

        Parameters
        ----------
        source : str or path
            A file, a folder, or ``organisation/repository``.
        weight_name : str, optional
            The file in the folder or in the repository.
        adapter_name : str, optional
            Its name for `set_adapters`.

        Raises
        ------
        FileNotFoundError, DownloadError
        ValueError
            The name is in use.
        """
        self._adapters.load(source, weight_name, adapter_name)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] | None = None
    ) -> None:
        """Use only these of the loaded LoRAs, with these weights.

        Raises
        ------
        ValueError
            A name is not loaded, or the numbers of names and weights differ.
        """
        self._adapters.select(adapter_names, adapter_weights)

    def get_active_adapters(self) -> list[str]:
        """Return the names of the LoRAs of the next call."""
        return self._adapters.names

    def unload_lora_weights(self) -> None:
        """Remove the LoRAs of `load_lora_weights`."""
        self._adapters.clear()

    def to(self, device: str) -> Self:
        """Check that the model computes on a device, and return it; the device is chosen when the model loads.

        Raises
        ------
        UnsupportedError
            It computes on another device.
        """
        kind = str(device).partition(":")[0]
        if (kind == "cpu") == has_gpu():
            where = "a GPU" if has_gpu() else "the CPU, as this build has no usable GPU"
            raise UnsupportedError(f"device is {device!r}, and models compute on {where}; see cyllama.devices()")
        return self

    def close(self) -> None:
        """Free the model.

        Raises
        ------
        InUseError
            A call is running.
        """
        self._context.close()
        return_memory()

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
        while not self._turn_lock.acquire(timeout=POLL_SECONDS):
            raise_if_cancelled(cancel, "the wait for another call of the model")
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = 0
            self._turn_lock.release()

    def _with_adapters(self, request: Request) -> Request:
        """Return the request with the LoRAs that stay loaded."""
        active = self._adapters.active
        if not active:
            return request
        loras: Any = [*lora_list(request.options.loras or ()), *active]
        return dataclasses.replace(request, options=dataclasses.replace(request.options, loras=loras), _built=None)

    def _images(self, request: Request) -> ImageResult:
        if not self._context.supports_image_generation:
            raise UnsupportedError(f"the model ({self._family.name}) generates videos, not images")
        request = self._with_adapters(request)
        inputs, hooks, size = request.inputs, request.hooks, None
        params = request.params(self._family, self._files.params, self._lora_dir)
        arguments = hooks.arguments(request.options.preview, request.options.preview_interval)
        warn_unused_negative_prompt(params)
        try:
            with self._turn(hooks.cancel):
                images = self._context.generate_image(params, **arguments)
        finally:
            hooks.close()
        if inputs.mask is not None and inputs.image is not None:
            frame = inpaint_frame(request.options, self._family, inputs.image)
            images = [frame.leave(pixels, inputs.image, inputs.mask) for pixels in images]
            size = frame.result
        parameters = used_parameters(params, self._context, self._files, has_image=inputs.image is not None)
        if size is not None:
            parameters["width"], parameters["height"] = size
        seeds = [parameters["seed"] + i for i in range(len(images))]
        texts = [infotext({**parameters, "seed": seed}) for seed in seeds]
        out = images if request.options.output_type == "np" else list(map(GeneratedImage.from_pixels, images, texts))
        return ImageResult(out, seeds, parameters, texts)

    def _video(self, request: Request) -> VideoResult:
        if not self._context.supports_video_generation:
            raise UnsupportedError(f"the model ({self._family.name}) does not generate videos")
        request = self._with_adapters(request)
        options, hooks = request.options, request.hooks
        assert isinstance(options, VideoOptions)
        params = request.params(self._family, self._files.params, self._lora_dir)
        fps = checked_fps(self._family.fps if options.fps is None else options.fps)
        arguments = hooks.arguments(options.preview, options.preview_interval, video=True)
        warn_unused_negative_prompt(params)
        try:
            with self._turn(hooks.cancel):
                images = self._context.generate_video(params, **arguments)
        finally:
            hooks.close()
        parameters = used_parameters(params, self._context, self._files, has_image=request.inputs.image is not None)
        parameters |= {"frames": len(images)}
        frames = images if options.output_type == "np" else list(map(to_pil, images))
        return VideoResult(frames, fps, parameters)


def lora_folder(files: ModelFiles, lora_dir: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """Return the folder of LoRAs: `lora_dir`, or that of the model.

    Raises
    ------
    FileNotFoundError
    """
    if lora_dir is None:
        main = files.params.model_path or files.params.diffusion_model_path
        return os.path.dirname(os.path.abspath(os.fsdecode(main or "")))
    folder = expanded(lora_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"lora_dir is {os.fspath(lora_dir)!r}: no such folder")
    return folder
