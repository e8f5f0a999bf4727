"""Functions for one image, video or file: `txt2img` and others. `StableDiffusion` keeps a model loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyllama import models
from cyllama._cancel import Cancel
from cyllama._native.memory import return_memory
from cyllama.media.image import ImageSource, Pixels, fitted, to_pixels
from cyllama.sd import _tools
from cyllama.sd._fill import check_request
from cyllama.sd._model_files import model_files
from cyllama.sd._option_types import (
    EditCallDict,
    Img2ImgCallDict,
    Img2VidCallDict,
    InpaintCallDict,
    Txt2ImgCallDict,
    Txt2VidCallDict,
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
from cyllama.sd._upscaler import Upscaler
from cyllama.sd.callbacks import Hooks
from cyllama.sd.options import MODEL_OPTIONS
from cyllama.sd.pipeline import StableDiffusion, lora_folder
from cyllama.sd.results import GeneratedImage, ImageResult, VideoResult

__all__ = ["canny", "convert", "edit", "img2img", "img2vid", "inpaint", "txt2img", "txt2vid", "upscale"]

Model = str | os.PathLike[str] | StableDiffusion | None

UPSCALER = "realesrgan-x4plus"
OF_THE_MODEL = (*MODEL_OPTIONS, "lora_dir")


def txt2img(prompt: str, model: Model = None, **options: Unpack[Txt2ImgCallDict]) -> ImageResult:
    """Generate images from a text.

    Parameters
    ----------
    prompt : str
        What to show. ``(word:1.2)`` weights words, ``<lora:name:0.8>`` adds a LoRA.
    model : str, path or StableDiffusion
        As of `StableDiffusion`. For many calls, pass a `StableDiffusion`: the model is loaded once.
    on_step : callable, optional
        Called with (step, total, seconds for each). Default: a line on stderr if that is a terminal.
    on_preview : callable, optional
        Called with (image, step).
    cancel : object with ``is_set()``, optional
        Such as ``threading.Event``; polled within a step.
    progress : bool, optional
        Whether to show the line on stderr.
    **options
        The fields of `ImageOptions`: ``negative_prompt``, ``width``, ``height``, ``steps``, ``cfg_scale``, ``sampler``,
        ``scheduler``, ``seed``, ``batch_size``, ``loras``, ``hires``, ``output_type``, ...; the names of diffusers,
        AUTOMATIC1111 and stable-diffusion.cpp are accepted as well. Also the components and parameters of the model,
        as of `StableDiffusion`: ``vae``, ``t5xxl``, ``n_threads``, ...

    Returns
    -------
    ImageResult
        A list of Pillow images (or arrays) with ``seeds`` and ``parameters``. PNG files contain the parameters.

    Raises
    ------
    TypeError
        An option is unknown; the nearest is named.
    ValueError
        A value is out of range.
    FileNotFoundError, ModelLoadError, ImageGenerationError, OutOfMemoryError, UnsupportedError, CancelledError

    Notes
    -----
    An exception in a callback stops the call and is raised; a callback that returns False cancels it. Releases the GIL.
    Source: ``generate_image``, stable-diffusion.h.

    >>> from cyllama.sd import txt2img
    >>> txt2img("a lighthouse", "model.safetensors", seed=1)[0].save("lighthouse.png")     # doctest: +SKIP
    """
    of_model, rest = _split(options)
    return _images(model, of_model, txt2img_request(prompt, rest))


def img2img(
    prompt: str, image: ImageSource | None = None, model: Model = None, **options: Unpack[Img2ImgCallDict]
) -> ImageResult:
    """Generate images from an image and a text.

    Parameters
    ----------
    prompt : str
    image : PIL.Image.Image, path, bytes, binary file object or array
        Resized to the size of the result. Without a size, the result has that of the image, rounded to the model's
        multiple; an image with more than twice the family's number of pixels is reduced.
    model, **options
        As of `txt2img`. ``strength`` is how much the image may change: 0 keeps it, 1 ignores it; default 0.75.

    Returns
    -------
    ImageResult

    Raises
    ------
    MediaError
        The image cannot be read.
    Exception
        As of `txt2img`.
    """
    of_model, rest = _split(options)
    return _images(model, of_model, img2img_request(prompt, image, rest))


def inpaint(
    prompt: str,
    image: ImageSource | None = None,
    mask_image: ImageSource | None = None,
    model: Model = None,
    **options: Unpack[InpaintCallDict],
) -> ImageResult:
    """Replace a part of an image.

    Parameters
    ----------
    prompt : str
    image : image
        As of `img2img`.
    mask_image : image
        Of the same size: white where to inpaint. Where it is black, the result has the pixels of `image`; gray blends.
        An image or array of the values 0 and 1 only is black and white.
    model, **options
        As of `img2img`. For inpainting models the default of ``strength`` is 1. Without a size, or with that of the
        image, the result has the size of the image; with another size, the image is resized.

    Returns
    -------
    ImageResult
    """
    of_model, rest = _split(options)
    return _images(model, of_model, inpaint_request(prompt, image, mask_image, rest))


def edit(
    prompt: str,
    images: ImageSource | Sequence[ImageSource] | None = None,
    model: Model = None,
    **options: Unpack[EditCallDict],
) -> ImageResult:
    """Change images as a text says, with an edit model (FLUX Kontext, Qwen-Image-Edit, ...).

    Parameters
    ----------
    prompt : str
    images : image or list of images
        Reference images of any size.
    model, **options
        As of `txt2img`.

    Returns
    -------
    ImageResult
    """
    of_model, rest = _split(options)
    return _images(model, of_model, edit_request(prompt, images, rest))


def txt2vid(prompt: str, model: Model = None, **options: Unpack[Txt2VidCallDict]) -> VideoResult:
    """Generate a video from a text.

    Parameters
    ----------
    prompt : str
    model : str, path or StableDiffusion
    **options
        The fields of `VideoOptions`: ``frames``, ``fps``, ``width``, ``steps``, ...; the rest as of `txt2img`.
        ``on_preview`` is called with (list of images, step).

    Returns
    -------
    VideoResult
        A list of Pillow images (or arrays) with ``fps``, ``seed`` and ``save("video.mp4")``.

    Notes
    -----
    Source: ``generate_video``, stable-diffusion.h.
    """
    of_model, rest = _split(options)
    return _video(model, of_model, txt2vid_request(prompt, rest))


def img2vid(
    prompt: str, image: ImageSource | None = None, model: Model = None, **options: Unpack[Img2VidCallDict]
) -> VideoResult:
    """Generate a video from its first frame and a text; ``end_image`` is its last one.

    Parameters
    ----------
    prompt : str
    image : image
    model, **options
        As of `txt2vid`.

    Returns
    -------
    VideoResult
    """
    of_model, rest = _split(options)
    return _video(model, of_model, img2vid_request(prompt, image, rest))


@overload
def upscale(
    image: ImageSource,
    model: str | os.PathLike[str] | Upscaler = ...,
    *,
    factor: float | None = ...,
    tile_size: int = ...,
    n_threads: int | None = ...,
    on_step: Callable[[int, int, float], object] | None = ...,
    cancel: Cancel | None = ...,
    progress: bool | None = ...,
    output_type: Literal["pil"] = ...,
) -> Image.Image: ...
@overload
def upscale(
    image: ImageSource,
    model: str | os.PathLike[str] | Upscaler = ...,
    *,
    factor: float | None = ...,
    tile_size: int = ...,
    n_threads: int | None = ...,
    on_step: Callable[[int, int, float], object] | None = ...,
    cancel: Cancel | None = ...,
    progress: bool | None = ...,
    output_type: Literal["np"],
) -> npt.NDArray[np.uint8]: ...
def upscale(
    image: ImageSource,
    model: str | os.PathLike[str] | Upscaler = UPSCALER,
    *,
    factor: float | None = None,
    tile_size: int = 128,
    n_threads: int | None = None,
    on_step: Callable[[int, int, float], object] | None = None,
    cancel: Cancel | None = None,
    progress: bool | None = None,
    output_type: Literal["pil", "np"] = "pil",
) -> Image.Image | npt.NDArray[np.uint8]:
    """Enlarge an image with an ESRGAN network.

    Parameters
    ----------
    image : image
        As of `img2img`.
    model : str, path or Upscaler
        A name of `cyllama.models`, a file, or a loaded network, which has its own tile size and threads.
    factor : float, optional
        Scale; default: the network's. For another one, the network's result is resized (Lanczos).
    tile_size : int
        Side of a tile in pixels; 0 computes the whole image at once.
    n_threads : int, optional
    on_step : callable, optional
        Called with (tile, tiles, seconds for each).
    cancel : object with ``is_set()``, optional
    progress : bool, optional
        As of `txt2img`.
    output_type : str
        ``"pil"`` or ``"np"``.

    Returns
    -------
    PIL.Image.Image or ndarray

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, MediaError, ModelLoadError, ImageGenerationError, CancelledError

    Notes
    -----
    Source: ``upscale``, stable-diffusion.h.
    """
    if output_type not in ("pil", "np"):
        raise ValueError(f"output_type is {output_type!r}, expected 'pil' or 'np'")
    if factor is not None and (isinstance(factor, bool) or not isinstance(factor, int | float)):
        raise TypeError(f"factor is {factor!r}, expected a number")
    if factor is not None and not 0.125 <= factor <= 16:
        raise ValueError(f"factor is {factor}, expected 0.125 to 16")
    pixels = to_pixels(image)
    hooks = Hooks(on_step=on_step, cancel=cancel, progress=progress)
    large: Any
    try:
        if isinstance(model, Upscaler):
            large = model.upscale(pixels, progress=hooks.step, cancel=cancel)
        else:
            path = models.resolve(model)
            with models.load_errors(path, "sd"):
                loaded = Upscaler(path, tile_size=tile_size, n_threads=n_threads, cancel=cancel)
            with loaded as upscaler:
                large = upscaler.upscale(pixels, progress=hooks.step, cancel=cancel)
            return_memory()
    finally:
        hooks.close()
    if factor is not None:
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        large = fitted(large, width, height)
    return large if output_type == "np" else GeneratedImage.from_pixels(large)


def convert(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    *,
    output_type: int | str | None = None,
    vae_path: str | os.PathLike[str] | None = None,
    tensor_type_rules: str | None = None,
    convert_name: bool = True,
    progress: Callable[[int, int, float], object] | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Write a model as another file, atomically.

    Parameters
    ----------
    input_path : str or path
        A name of `cyllama.models`, a model file, or a folder in the diffusers layout.
    output_path : path
        ``.safetensors``, or GGUF for any other name.
    output_type : SDType, number or name, optional
        ``"q8_0"``, ``"f16"``, ...; None keeps each tensor's type. Embeddings and sensitive tensors keep theirs.
    vae_path : str or path, optional
        An auto-encoder to include.
    tensor_type_rules : str, optional
        Types by tensor name: ``'regex=type,...'``.
    convert_name : bool
        Use the engine's own tensor names.
    progress : callable, optional
        Called with (tensors done, tensors in total, seconds for each); False cancels.
    cancel : object with ``is_set()``, optional

    Returns
    -------
    pathlib.Path
        `output_path`.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, CancelledError
    ModelLoadError
        The input is a pickle that exceeds a limit.
    EngineError
        The input is not a model, or cannot be written; `output_path` does not exist then.

    Notes
    -----
    Releases the GIL. Source: ``convert``, stable-diffusion.h.
    """
    _tools.convert(
        models.resolve(input_path),
        output_path,
        output_type=output_type,
        vae_path=None if vae_path is None else models.resolve(vae_path),
        tensor_type_rules=tensor_type_rules,
        convert_name=convert_name,
        progress=progress,
        cancel=cancel,
    )
    return Path(output_path)


def canny(
    image: ImageSource,
    *,
    high_threshold: float = 0.08,
    low_threshold: float = 0.08,
    weak: float = 0.8,
    strong: float = 1.0,
    inverse: bool = False,
) -> Image.Image:
    """Find the edges of an image, for ControlNet's `control_image`; parameters as of `preprocess_canny`.

    Returns
    -------
    PIL.Image.Image
        RGB, of the same size.
    """
    edges: Pixels = _tools.preprocess_canny(
        to_pixels(image),
        high_threshold=high_threshold,
        low_threshold=low_threshold,
        weak=weak,
        strong=strong,
        inverse=inverse,
    )
    return GeneratedImage.from_pixels(edges)


def _split(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the model, and the others."""
    of_model = {name: value for name, value in given.items() if name in OF_THE_MODEL}
    return of_model, {name: value for name, value in given.items() if name not in OF_THE_MODEL}


def _images(model: Model, of_model: dict[str, Any], request: Request) -> ImageResult:
    if isinstance(model, StableDiffusion):
        return _loaded(model, of_model)._images(request)
    with _load(model, of_model, request) as sd:
        return sd._images(request)


def _video(model: Model, of_model: dict[str, Any], request: Request) -> VideoResult:
    if isinstance(model, StableDiffusion):
        return _loaded(model, of_model)._video(request)
    with _load(model, of_model, request) as sd:
        return sd._video(request)


def _loaded(model: StableDiffusion, of_model: Mapping[str, Any]) -> StableDiffusion:
    if of_model:
        raise TypeError(f"{', '.join(of_model)} was given, but the model is loaded already")
    return model


def _load(model: str | os.PathLike[str] | None, of_model: dict[str, Any], request: Request) -> StableDiffusion:
    """Load a model for one request, which is checked first if the file tells the family: loading may take minutes."""
    lora_dir = of_model.pop("lora_dir", None)
    files = model_files(model, of_model)
    family = files.detected()
    if family is not None:
        check_request(request.params(family, files.params, lora_folder(files, lora_dir)))
    return StableDiffusion._from_files(files, lora_dir, request.hooks.cancel)
