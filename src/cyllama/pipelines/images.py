"""Pipelines for images: illustrate a text, caption an image, create a variation of an image."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from cyllama._cancel import Cancel
from cyllama.media.message_parts import check_images
from cyllama.pipelines._runner import Steps, generate_images, stream_reply
from cyllama.pipelines.model_pool import ModelPool
from cyllama.pipelines.prompts import (
    CAPTION_INSTRUCTION,
    PROMPT_INSTRUCTION,
    prompt_from_caption,
    prompt_from_speech,
    prompt_grammar,
)
from cyllama.pipelines.results import Caption, Illustration, ImageVariation

if TYPE_CHECKING:
    from cyllama.pipelines._types import (
        DiffusionModel,
        ImageInput,
        LLMModel,
        ModelName,
        OnPreview,
        OnStep,
        OnText,
        Options,
        VisionModel,
    )

__all__ = ["caption", "create_variation", "illustrate"]

PROMPT_TOKENS = 60  # the text encoder of a diffusion model takes 75
CAPTION_TOKENS = 64


def illustrate(
    text: str,
    *,
    llm_model: LLMModel,
    sd_model: DiffusionModel,
    instruction: str = PROMPT_INSTRUCTION,
    grammar: str | None = None,
    llm_options: Options | None = None,
    sd_options: Options | None = None,
    on_text: OnText | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    pool: ModelPool | None = None,
    cancel: Cancel | None = None,
) -> Illustration:
    """Write an image prompt for a text with a language model, and generate the image.

    Parameters
    ----------
    text : str
    llm_model : str, path or LLM
        The model that writes the prompt.
    sd_model : str, path or StableDiffusion
        The model that generates the image.
    instruction : str
        The instruction for the language model; ``{text}`` is replaced by the text.
    grammar : str, optional
        A GBNF grammar for the prompt. By default, the vocabulary of ``tiny-shapes`` for that model, and no grammar for
        other models.
    llm_options, sd_options : mapping, optional
        Options of `LLM.chat` and of `cyllama.sd.txt2img`.
    on_text : callable, optional
        Called with each part of the prompt while it is written.
    on_step, on_preview : callable, optional
        Called with (step, total, seconds for each step), and with (image, step).
    pool : ModelPool, optional
        The pool for models that are given by name; by default `default_pool`.
    cancel : object with ``is_set()``, optional
        Checked during each step and between steps.

    Returns
    -------
    Illustration

    Raises
    ------
    ValueError
        `text` is empty, `instruction` has no ``{text}``, or the model wrote no prompt.
    Exception
        See `LLM.chat`, `cyllama.sd.txt2img` and `ModelPool.use`.

    >>> from cyllama.pipelines import illustrate
    >>> illustrate("A red ball.", llm_model="smollm2", sd_model="tiny-shapes").image  # doctest: +SKIP
    """
    if not isinstance(text, str) or not text.strip():
        raise (ValueError if isinstance(text, str) else TypeError)(f"text is {text!r}, expected a non-empty string")
    check_instruction(instruction)
    steps = Steps(pool, cancel)
    options: Options = {
        "temperature": 0.0,
        "max_tokens": PROMPT_TOKENS,
        "grammar": grammar or prompt_grammar(sd_model),
        **(llm_options or {}),
    }
    with steps.model("llm", llm_model) as llm, steps("write prompt"):
        reply = stream_reply(llm, instruction.replace("{text}", text), options, on_text, cancel)
    prompt = prompt_from_speech(reply.text)
    if not prompt:
        raise ValueError("prompt is '', expected the language model to write one")
    with steps.model("sd", sd_model) as sd, steps("generate"):
        images = generate_images(sd, prompt, sd_options, on_step, on_preview, cancel)
    return Illustration(image=images[0], prompt=prompt, images=images, seconds=steps.seconds())


def caption(
    image: ImageInput,
    *,
    llm_model: VisionModel,
    mmproj: ModelName | None = None,
    instruction: str = CAPTION_INSTRUCTION,
    llava_options: Options | None = None,
    on_text: OnText | None = None,
    pool: ModelPool | None = None,
    cancel: Cancel | None = None,
) -> Caption:
    """Describe an image with a multimodal model.

    Parameters
    ----------
    image : PIL.Image.Image, path, bytes, binary file object or array
    llm_model : str, path or Llava
        The language model, or a loaded `Llava`, which has a projector.
    mmproj : str or path
        The projector of the language model; not with a loaded `Llava`.
    instruction : str
        The text of the request.
    llava_options : mapping, optional
        Options of `Llava.ask`: ``{"max_tokens": 100, "temperature": 0.7}``.
    on_text : callable, optional
        Called with each part of the description while it is written.
    pool, cancel
        See `illustrate`.

    Returns
    -------
    Caption

    Raises
    ------
    TypeError
        `mmproj` is missing, or given with a loaded `Llava`.
    Exception
        See `cyllama.llava.Llava.ask` and `ModelPool.use`.
    """
    steps = Steps(pool, cancel)
    text = _caption_text(steps, image, llm_model, mmproj, instruction, llava_options, on_text, cancel)
    return Caption(text=text, seconds=steps.seconds())


def create_variation(
    image: ImageInput,
    *,
    llm_model: VisionModel,
    mmproj: ModelName | None = None,
    sd_model: DiffusionModel,
    instruction: str = CAPTION_INSTRUCTION,
    make_prompt: Callable[[str], str] | None = None,
    strength: float | None = None,
    llava_options: Options | None = None,
    sd_options: Options | None = None,
    on_text: OnText | None = None,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    pool: ModelPool | None = None,
    cancel: Cancel | None = None,
) -> ImageVariation:
    """Describe an image, and generate a new image of the description.

    Parameters
    ----------
    image, llm_model, mmproj, instruction, llava_options, on_text
        See `caption`.
    sd_model : str, path or StableDiffusion
        The model that generates the image.
    make_prompt : callable, optional
        Makes the prompt of the description; by default `prompt_from_caption`.
    strength : float, optional
        Use `image` as the initial image: 0 keeps it, 1 ignores it. By default only the description is used.
    sd_options : mapping, optional
        Options of `cyllama.sd.txt2img`; with `strength`, of `cyllama.sd.img2img`.
    on_step, on_preview, pool, cancel
        See `illustrate`.

    Returns
    -------
    ImageVariation

    Raises
    ------
    ValueError
        The description gives no prompt.
    Exception
        See `caption`, `cyllama.sd.txt2img` and `ModelPool.use`.
    """
    steps = Steps(pool, cancel)
    text = _caption_text(steps, image, llm_model, mmproj, instruction, llava_options, on_text, cancel)
    prompt = prompt_from_caption(text, sd_model) if make_prompt is None else make_prompt(text)
    if not prompt:
        raise ValueError(f"caption is {text!r}, expected a description that gives a prompt")
    start = {} if strength is None else {"image": image, "strength": strength}
    with steps.model("sd", sd_model) as sd, steps("generate"):
        images = generate_images(sd, prompt, sd_options, on_step, on_preview, cancel, **start)
    return ImageVariation(image=images[0], caption=text, prompt=prompt, images=images, seconds=steps.seconds())


def check_instruction(instruction: str) -> None:
    """Raise ValueError if an instruction has no ``{text}``."""
    if "{text}" not in instruction:
        raise ValueError(f"instruction is {instruction!r}, expected {{text}} in it")


def _caption_text(
    steps: Steps,
    image: ImageInput,
    llm_model: VisionModel,
    mmproj: ModelName | None,
    instruction: str,
    options: Options | None,
    on_text: OnText | None,
    cancel: Cancel | None,
) -> str:
    check_images(image)
    is_loaded = not isinstance(llm_model, str | os.PathLike)
    if is_loaded != (mmproj is None):
        expected = "None with a loaded model" if is_loaded else f"the projector of {llm_model!r}"
        raise TypeError(f"mmproj is {mmproj!r}, expected {expected}")
    limits: Options = {"max_tokens": CAPTION_TOKENS, **(options or {})}
    with (
        steps.model("llava", llm_model, mmproj=mmproj) as llava,
        steps("caption"),
        llava.ask(instruction, images=image, stream=True, cancel=cancel, **limits) as stream,
    ):
        for chunk in stream:
            if on_text is not None and chunk.text:
                on_text(chunk.text)
        return str(stream.result().text).strip()
