"""Instructions for language models, and image prompts made of transcriptions and captions."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cyllama import models

__all__ = [
    "CAPTION_INSTRUCTION",
    "PROMPT_INSTRUCTION",
    "SUMMARY_INSTRUCTION",
    "prompt_from_caption",
    "prompt_from_speech",
    "prompt_grammar",
]

CAPTION_INSTRUCTION = "Describe this picture."
SUMMARY_INSTRUCTION = "Summarize this text in one or two short sentences:\n\n{text}"
PROMPT_INSTRUCTION = (
    "Describe in a few words one picture that illustrates this text. Answer with the description alone.\n\n{text}"
)

ANNOTATIONS = {"[": "]", "(": ")", "*": "*"}  # whisper writes [BLANK_AUDIO], (music), *laughs*
OPENING = re.compile(r"[\[(*♪]")
EDGES = " \t\n.!?,;:…\"'"


def prompt_from_speech(text: str) -> str:
    """Make an image prompt of a transcription.

    Removes annotations of sounds (``[BLANK_AUDIO]``, ``(music)``) and the punctuation around the sentence, replaces
    white space by single spaces, and lowers the capital that begins the sentence: ``"A red circle."`` becomes
    ``"a red circle"``.

    Parameters
    ----------
    text : str
        The text of a transcription.

    Returns
    -------
    str
        Empty for a transcription without speech.
    """
    plain = " ".join(_without_annotations(text).split()).strip(EDGES)
    first = plain.split(" ", 1)[0]
    if first[1:].islower() or first == "A":
        plain = plain[0].lower() + plain[1:]
    return plain


def _without_annotations(text: str) -> str:
    """Return the text with a space for each annotation; the time is linear also with marks that are never closed."""
    last = {mark: text.rfind(end) for mark, end in ANNOTATIONS.items()}
    parts, position = [], 0
    for found in OPENING.finditer(text):
        mark, start = found[0], found.start()
        if start < position or (mark in last and start >= last[mark]):
            continue
        parts.append(text[position:start])
        position = text.index(ANNOTATIONS[mark], start + 1) + 1 if mark in last else start + 1
    return " ".join([*parts, text[position:]])


def prompt_from_caption(caption: str, sd_model: object) -> str:
    """Make an image prompt of the description of an image.

    For the registry's ``tiny-shapes``, only words of its vocabulary in the first clause are kept:
    ``"This picture shows a small red circle on a white background, in the middle."`` becomes
    ``"a small red circle on white"``. Other models get the result of `prompt_from_speech`.

    Parameters
    ----------
    caption : str
    sd_model : str, path or StableDiffusion

    Returns
    -------
    str
        Empty if no word is left.
    """
    plain = prompt_from_speech(caption)
    if not _is_tiny_shapes(sd_model):
        return plain
    from cyllama.models.generated.tiny_shapes import WORDS

    clause = re.split(r"[,.;]", plain.casefold())[0]
    known = " ".join(word for word in re.findall(r"[a-z]+", clause) if word in WORDS)
    return re.sub(r"\bon (?:an?|the)\b", "on", known)


def prompt_grammar(sd_model: object) -> str | None:
    """Return a GBNF grammar of the prompts that ``tiny-shapes`` supports; None for any other model."""
    return _shapes_grammar() if _is_tiny_shapes(sd_model) else None


def _is_tiny_shapes(sd_model: object) -> bool:
    if not isinstance(sd_model, str):
        return False
    try:
        return models.find(sd_model).name == "tiny-shapes"
    except ValueError:
        return False


def _shapes_grammar() -> str:
    from cyllama.models.generated.tiny_shapes import COLOURS, SHAPES, SIZES

    def either(words: Iterable[str]) -> str:
        return " | ".join(f'"{word}"' for word in words)

    return f"""
root    ::= ("a " ({either(SIZES)}) " " colour | "a " plain | "an orange") " " ({either(SHAPES)})
colour  ::= plain | "orange"
plain   ::= {either(colour for colour in COLOURS if colour != "orange")}
"""
