"""What models are told, and how one model's words become another's: all of it is here, to be read and replaced."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cyllama import models

__all__ = ["DESCRIBE", "SUMMARIZE", "WRITE_PROMPT", "drawable", "grammar_for", "spoken_prompt"]

DESCRIBE = "Describe this picture."
SUMMARIZE = "Summarize this text in one or two short sentences:\n\n{text}"
WRITE_PROMPT = (
    "Describe in a few words one picture that illustrates this text. Answer with the description alone.\n\n{text}"
)

REMARKS = re.compile(r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*|♪")  # whisper writes [BLANK_AUDIO], (music), *laughs*
ENDS = " \t\n.!?,;:…\"'"


def spoken_prompt(text: str) -> str:
    """Make a prompt for a diffusion model of a spoken sentence.

    Remarks on sounds (``[BLANK_AUDIO]``, ``(music)``) go, as do the marks and quotes around the sentence; white space
    becomes single blanks; the capital that only begins the sentence becomes small. Nothing else is changed, so
    ``"A red circle."`` becomes ``"a red circle"``.

    Parameters
    ----------
    text : str
        As whisper wrote it.

    Returns
    -------
    str
        Empty if nothing was said.
    """
    plain = " ".join(REMARKS.sub(" ", text).split()).strip(ENDS)
    first = plain.split(" ", 1)[0]
    if first[1:].islower() or first == "A":
        plain = plain[0].lower() + plain[1:]
    return plain


def drawable(caption: str, sd_model: object) -> str:
    """Make a prompt for a diffusion model of the description of a picture.

    For the registry's ``tiny-shapes``, which knows but a few words, these are all that is kept of the first clause:
    ``"This picture shows a small red circle on a white background, in the middle."`` becomes
    ``"a small red circle on white"``. Other models get the description as `spoken_prompt` leaves it.

    Parameters
    ----------
    caption : str
    sd_model : str, path or StableDiffusion

    Returns
    -------
    str
        Empty if there is nothing to draw.
    """
    plain = spoken_prompt(caption)
    if not _knows_shapes_only(sd_model):
        return plain
    from cyllama.models.tiny_shapes import WORDS

    clause = re.split(r"[,.;]", plain.casefold())[0]
    known = " ".join(word for word in re.findall(r"[a-z]+", clause) if word in WORDS)
    return re.sub(r"\bon (?:an?|the)\b", "on", known)


def grammar_for(sd_model: object) -> str | None:
    """Return the grammar (GBNF) of all prompts that a diffusion model of the registry knows; None if it knows any."""
    return _shapes_grammar() if _knows_shapes_only(sd_model) else None


def _knows_shapes_only(sd_model: object) -> bool:
    if not isinstance(sd_model, str):
        return False
    try:
        return models.find(sd_model).name == "tiny-shapes"
    except ValueError:
        return False


def _shapes_grammar() -> str:
    from cyllama.models.tiny_shapes import COLOURS, SHAPES, SIZES

    def either(words: Iterable[str]) -> str:
        return " | ".join(f'"{word}"' for word in words)

    return f"""
root    ::= ("a " ({either(SIZES)}) " " colour | "a " plain | "an orange") " " ({either(SHAPES)})
colour  ::= plain | "orange"
plain   ::= {either(colour for colour in COLOURS if colour != "orange")}
"""
