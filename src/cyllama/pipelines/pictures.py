"""Pipelines that draw what a text says, say what a picture shows, and do both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cyllama.media.parts import check_pictures
from cyllama.pipelines.pool import ModelPool
from cyllama.pipelines.prompts import DESCRIBE, WRITE_PROMPT, drawable, grammar_for, spoken_prompt
from cyllama.pipelines.results import Caption, Illustration, Redrawing
from cyllama.pipelines.steps import LLM_MODEL, MMPROJ, SD_MODEL, Steps, ask_llm

__all__ = ["caption", "describe_and_redraw", "illustrate"]

PROMPT_TOKENS = 60  # a diffusion model's text encoder takes 75
CAPTION_TOKENS = 64


def illustrate(
    text: str,
    *,
    llm_model: Any = LLM_MODEL,
    sd_model: Any = SD_MODEL,
    instruction: str = WRITE_PROMPT,
    grammar: str | None = None,
    llm_options: Mapping[str, Any] | None = None,
    sd_options: Mapping[str, Any] | None = None,
    on_text: Callable[[str], object] | None = None,
    on_step: Callable[[int, int, float], object] | None = None,
    on_preview: Callable[[Any, int], object] | None = None,
    pool: ModelPool | None = None,
    cancel: Any = None,
) -> Illustration:
    """Have a language model write a prompt for a text, and a diffusion model draw it.

    Parameters
    ----------
    text : str
    llm_model : str, path or LLM
        Writes the prompt.
    sd_model : str, path or StableDiffusion
        Draws it.
    instruction : str
        What the language model is told, with ``{text}`` for the text.
    grammar : str, optional
        Which prompts it may write (GBNF). By default those that the diffusion model knows, if it is one of the
        registry that knows but a few words (``tiny-shapes``), and any text for other models.
    llm_options, sd_options : mapping, optional
        Of `LLM.chat` and of `cyllama.sd.txt2img`.
    on_text, on_step, on_preview : callable, optional
        Called with pieces of the prompt, and with the steps and the previews of the picture.
    pool : ModelPool, optional
        Where models come from that are given by name; by default `default_pool`.
    cancel : object with ``is_set()``, optional
        Obeyed by each step, and between them.

    Returns
    -------
    Illustration

    Raises
    ------
    ValueError
        There is no text, `instruction` has no ``{text}``, or the model wrote nothing.
    Exception
        As of `LLM.chat`, `cyllama.sd.txt2img` and `ModelPool.use`.
    """
    if not isinstance(text, str) or not text.strip():
        raise (ValueError if isinstance(text, str) else TypeError)(f"text is {text!r}, expected a text")
    if "{text}" not in instruction:
        raise ValueError(f"instruction is {instruction!r}, expected {{text}} in it")
    steps = Steps(pool, cancel)
    fields: dict[str, Any] = {
        "temperature": 0.0,
        "max_tokens": PROMPT_TOKENS,
        "grammar": grammar or grammar_for(sd_model),
        **(llm_options or {}),
    }
    with steps.model("llm", llm_model) as llm, steps("write prompt"):
        prompt = spoken_prompt(ask_llm(llm, instruction.replace("{text}", text), fields, on_text, cancel).text)
    if not prompt:
        raise ValueError("the language model wrote no prompt")
    with steps.model("sd", sd_model) as sd, steps("draw"):
        hooks: dict[str, Any] = {"on_step": on_step, "on_preview": on_preview, "cancel": cancel}
        images = sd.txt2img(prompt, progress=False, **hooks, **(sd_options or {}))
    return Illustration(image=images[0], prompt=prompt, images=images, seconds=steps.seconds())


def caption(
    image: Any,
    *,
    llm_model: Any = LLM_MODEL,
    mmproj: Any = MMPROJ,
    question: str = DESCRIBE,
    llava_options: Mapping[str, Any] | None = None,
    on_text: Callable[[str], object] | None = None,
    pool: ModelPool | None = None,
    cancel: Any = None,
) -> Caption:
    """Tell what is in a picture.

    Parameters
    ----------
    image : PIL.Image.Image, path, bytes, binary file object or array
    llm_model : str, path or Llava
        The language model, or a `Llava` that is loaded, whose own projector counts then.
    mmproj : str or path
        Its projector. The default pair knows coloured shapes and no more.
    question : str
        What the model is asked.
    llava_options : mapping, optional
        Of `Llava.ask`: ``{"max_tokens": 100, "temperature": 0.7}``.
    on_text : callable, optional
        Called with the description, piece by piece.
    pool, cancel
        As of `illustrate`.

    Returns
    -------
    Caption

    Raises
    ------
    Exception
        As of `cyllama.llava.Llava.ask` and `ModelPool.use`.
    """
    steps = Steps(pool, cancel)
    text = _described(steps, image, llm_model, mmproj, question, llava_options, on_text, cancel)
    return Caption(text=text, seconds=steps.seconds())


def describe_and_redraw(
    image: Any,
    *,
    llm_model: Any = LLM_MODEL,
    mmproj: Any = MMPROJ,
    sd_model: Any = SD_MODEL,
    question: str = DESCRIBE,
    prompt_of: Callable[[str], str] | None = None,
    strength: float | None = None,
    llava_options: Mapping[str, Any] | None = None,
    sd_options: Mapping[str, Any] | None = None,
    on_text: Callable[[str], object] | None = None,
    on_step: Callable[[int, int, float], object] | None = None,
    on_preview: Callable[[Any, int], object] | None = None,
    pool: ModelPool | None = None,
    cancel: Any = None,
) -> Redrawing:
    """Describe a picture, and draw it anew from the description.

    Parameters
    ----------
    image, llm_model, mmproj, question, llava_options, on_text
        As of `caption`.
    sd_model : str, path or StableDiffusion
        Draws it.
    prompt_of : callable, optional
        Makes the prompt of the description; by default `drawable`.
    strength : float, optional
        Start from the picture itself: 0 keeps it, 1 forgets it. By default the new one knows the description alone.
    sd_options : mapping, optional
        Of `cyllama.sd.txt2img`, or of `cyllama.sd.img2img` with `strength`.
    on_step, on_preview, pool, cancel
        As of `illustrate`.

    Returns
    -------
    Redrawing

    Raises
    ------
    ValueError
        The description has nothing that could be drawn.
    Exception
        As of `cyllama.llava.Llava.ask`, `cyllama.sd.txt2img` and `ModelPool.use`.
    """
    steps = Steps(pool, cancel)
    text = _described(steps, image, llm_model, mmproj, question, llava_options, on_text, cancel)
    prompt = drawable(text, sd_model) if prompt_of is None else prompt_of(text)
    if not prompt:
        raise ValueError(f"the description has nothing that could be drawn: {text!r}")
    with steps.model("sd", sd_model) as sd, steps("draw"):
        options: dict[str, Any] = {"on_step": on_step, "on_preview": on_preview, "cancel": cancel, **(sd_options or {})}
        if strength is None:
            images = sd.txt2img(prompt, progress=False, **options)
        else:
            images = sd.img2img(prompt, image, strength=strength, progress=False, **options)
    return Redrawing(image=images[0], caption=text, prompt=prompt, images=images, seconds=steps.seconds())


def _described(
    steps: Steps,
    image: Any,
    llm_model: Any,
    mmproj: Any,
    question: str,
    options: Mapping[str, Any] | None,
    on_text: Callable[[str], object] | None,
    cancel: Any,
) -> str:
    check_pictures(image)
    fields: dict[str, Any] = {"max_tokens": CAPTION_TOKENS, **(options or {})}
    with steps.model("llava", llm_model, mmproj=mmproj) as llava, steps("describe"):
        return str(llava.ask(question, images=image, on_text=on_text, cancel=cancel, **fields)).strip()
