"""One call for one picture, video or file: `txt2img` and its kin. `StableDiffusion` keeps the model for many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from cyllama import models
from cyllama.media.image import Pixels, fitted, to_pixels
from cyllama.sd import _tools
from cyllama.sd._fill import check_request
from cyllama.sd._upscaler import Upscaler
from cyllama.sd.hooks import Cancel, Hooks, split_hooks
from cyllama.sd.loading import ModelFiles, model_files
from cyllama.sd.options import MODEL_OPTIONS, PICTURES, ImageOptions, VideoOptions, options_from
from cyllama.sd.pipeline import StableDiffusion
from cyllama.sd.requests import Inputs, image_request, in_our_names, video_request
from cyllama.sd.results import ImageResult, Picture, VideoResult

__all__ = ["canny", "convert", "edit", "img2img", "img2vid", "inpaint", "txt2img", "txt2vid", "upscale"]

Result = TypeVar("Result")
Model = str | os.PathLike[str] | StableDiffusion | None

UPSCALER = "realesrgan-x4plus"
OF_THE_MODEL = (*MODEL_OPTIONS, "lora_dir")


def txt2img(prompt: str, model: Model = None, **options: Any) -> ImageResult:
    """Make pictures from a text.

    Parameters
    ----------
    prompt : str
        What is to be seen. ``(word:1.2)`` weighs words, ``<lora:name:0.8>`` adds a LoRA.
    model : str, path or StableDiffusion
        As of `StableDiffusion`, which should be used for many calls: the model is loaded once then.
    on_step : callable, optional
        Called with (step, total, seconds for each). By default, a line on stderr if that is a terminal.
    on_preview : callable, optional
        Called with (picture, step).
    cancel : object with ``is_set()``, optional
        Such as ``threading.Event``; obeyed within a step.
    progress : bool, optional
        Whether to show the line on stderr.
    **options
        The fields of `ImageOptions`: ``negative_prompt``, ``width``, ``height``, ``steps``, ``cfg_scale``, ``sampler``,
        ``scheduler``, ``seed``, ``batch_size``, ``loras``, ``hires``, ``output_type``, ...; other names that diffusers,
        AUTOMATIC1111 and stable-diffusion.cpp use for them are understood. Also the parts and parameters of the model,
        as of `StableDiffusion`: ``vae``, ``t5xxl``, ``n_threads``, ...

    Returns
    -------
    ImageResult
        A list of Pillow images (or arrays) with ``seeds`` and ``parameters``. Saved as PNG they carry their parameters.

    Raises
    ------
    TypeError
        There is no such option; the nearest is named.
    ValueError
        A value is out of range.
    FileNotFoundError, ModelLoadError, ImageGenerationError, OutOfMemoryError, UnsupportedError, CancelledError

    Notes
    -----
    An exception in a callback stops the call and is raised, and a callback that gives False cancels it. The GIL is
    released while it computes. Source: ``generate_image``, stable-diffusion.h.

    >>> from cyllama.sd import txt2img
    >>> txt2img("a lighthouse", "model.safetensors", seed=1)[0].save("lighthouse.png")     # doctest: +SKIP
    """
    return _with_model(model, options, ImageOptions, lambda sd, rest: sd.txt2img(prompt, **rest))


def img2img(prompt: str, image: Any = None, model: Model = None, **options: Any) -> ImageResult:
    """Make pictures from a picture and a text.

    Parameters
    ----------
    prompt : str
    image : PIL.Image.Image, path, bytes, binary file object or array
        Fitted to the size of the result. If no size is given, that is the picture's own as near as the model allows,
        reduced to the family's number of pixels if it has more than twice as many.
    model, **options
        As of `txt2img`. ``strength`` says how much the picture may change: 0 keeps it, 1 forgets it; default 0.75.

    Returns
    -------
    ImageResult

    Raises
    ------
    MediaError
        The picture cannot be read.
    Exception
        As of `txt2img`.
    """
    return _with_model(model, options, ImageOptions, lambda sd, rest: sd.img2img(prompt, image, **rest))


def inpaint(prompt: str, image: Any = None, mask_image: Any = None, model: Model = None, **options: Any) -> ImageResult:
    """Paint a part of a picture anew.

    Parameters
    ----------
    prompt : str
    image : picture
        As of `img2img`.
    mask_image : picture
        Of the same size: white where to paint. Where it is black, the result has the pixels of `image`; gray blends.
    model, **options
        As of `img2img`. Models that were trained for it take ``strength=1.0`` by default.

    Returns
    -------
    ImageResult
    """
    return _with_model(model, options, ImageOptions, lambda sd, rest: sd.inpaint(prompt, image, mask_image, **rest))


def edit(prompt: str, images: Any = None, model: Model = None, **options: Any) -> ImageResult:
    """Change pictures as the text says, with an edit model (FLUX Kontext, Qwen-Image-Edit, ...).

    Parameters
    ----------
    prompt : str
    images : picture or list of pictures
        References, of any size.
    model, **options
        As of `txt2img`.

    Returns
    -------
    ImageResult
    """
    return _with_model(model, options, ImageOptions, lambda sd, rest: sd.edit(prompt, images, **rest))


def txt2vid(prompt: str, model: Model = None, **options: Any) -> VideoResult:
    """Make a video from a text.

    Parameters
    ----------
    prompt : str
    model : str, path or StableDiffusion
    **options
        The fields of `VideoOptions`: ``frames``, ``fps``, ``width``, ``steps``, ...; the rest as of `txt2img`.
        ``on_preview`` is called with (list of pictures, step).

    Returns
    -------
    VideoResult
        A list of Pillow images (or arrays) with ``fps``, ``seed`` and ``save("video.mp4")``.

    Notes
    -----
    Source: ``generate_video``, stable-diffusion.h.
    """
    return _with_model(model, options, VideoOptions, lambda sd, rest: sd.txt2vid(prompt, **rest))


def img2vid(prompt: str, image: Any = None, model: Model = None, **options: Any) -> VideoResult:
    """Make a video from its first frame and a text; ``end_image`` is its last one.

    Parameters
    ----------
    prompt : str
    image : picture
    model, **options
        As of `txt2vid`.

    Returns
    -------
    VideoResult
    """
    return _with_model(model, options, VideoOptions, lambda sd, rest: sd.img2vid(prompt, image, **rest))


def upscale(
    image: Any,
    model: str | os.PathLike[str] | Upscaler = UPSCALER,
    *,
    factor: float | None = None,
    tile_size: int = 128,
    n_threads: int | None = None,
    on_step: Callable[[int, int, float], object] | None = None,
    cancel: Cancel | None = None,
    progress: bool | None = None,
    output_type: str = "pil",
) -> Any:
    """Enlarge a picture with an ESRGAN network.

    Parameters
    ----------
    image : picture
        As of `img2img`.
    model : str, path or Upscaler
        A name of `cyllama.models`, a file, or a loaded network (whose own tiles and threads count then).
    factor : float, optional
        How many times larger; default: the network's. Another one is reached by scaling its result (Lanczos).
    tile_size : int
        Side of a tile in pixels; 0 computes the whole picture at once.
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
            with Upscaler(path, tile_size=tile_size, n_threads=n_threads, cancel=cancel) as upscaler:
                large = upscaler.upscale(pixels, progress=hooks.step, cancel=cancel)
    finally:
        hooks.close()
    if factor is not None:
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        large = fitted(large, width, height)
    return large if output_type == "np" else Picture.of(large)


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
        A name of `cyllama.models`, a model file, or a folder of the diffusers layout.
    output_path : path
        ``.safetensors``, or GGUF for any other name.
    output_type : SDType, number or name, optional
        ``"q8_0"``, ``"f16"``, ...; None keeps each tensor's type. Embeddings and what needs precision are kept.
    vae_path : str or path, optional
        An auto-encoder to put into it.
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
    EngineError
        Not a model, or it cannot be written; nothing is left at `output_path`.

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
    image: Any,
    *,
    high_threshold: float = 0.08,
    low_threshold: float = 0.08,
    weak: float = 0.8,
    strong: float = 1.0,
    inverse: bool = False,
) -> Image.Image:
    """Edges of a picture, as a `control_image` for ControlNet; parameters as of `preprocess_canny`.

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
    return Picture.of(edges)


def _with_model(
    model: Model,
    given: Mapping[str, Any],
    kind: type[ImageOptions] | type[VideoOptions],
    call: Callable[[StableDiffusion, dict[str, Any]], Result],
) -> Result:
    """Call with a loaded model, or load it for this call; what can be refused is refused before."""
    of_model = {name: value for name, value in given.items() if name in OF_THE_MODEL}
    rest = {name: value for name, value in given.items() if name not in OF_THE_MODEL}
    if isinstance(model, StableDiffusion):
        if of_model:
            raise TypeError(f"{', '.join(of_model)} was given, but the model is loaded already")
        return call(model, rest)
    hooks, options = split_hooks(rest)
    options = {name: value for name, value in options.items() if name not in PICTURES}
    options_from(kind, options, others=OF_THE_MODEL)
    _check_before_loading(kind, options, model_files(model, {k: v for k, v in of_model.items() if k != "lora_dir"}))
    with StableDiffusion(model, cancel=hooks.cancel, **of_model) as sd:
        return call(sd, rest)


def _check_before_loading(
    kind: type[ImageOptions] | type[VideoOptions], given: Mapping[str, Any], files: ModelFiles
) -> None:
    """Refuse values that no model takes, where the file tells what it is: loading may take minutes."""
    family = files.detected()
    if family is None:
        return
    options = options_from(kind, given, distilled=family.guidance is not None)
    with in_our_names():
        if isinstance(options, ImageOptions):
            check_request(image_request("", options, family, Inputs(), []))
        else:
            check_request(video_request("", options, family, Inputs(), []))
