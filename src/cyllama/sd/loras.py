"""LoRAs as lists and as ``<lora:name:weight>`` in prompts."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cyllama.sd.params import Lora

__all__ = ["find_lora", "lora_list", "prompt_with_loras", "refuse_tags", "split_prompt"]

TAG = re.compile(r"<lora:([^:<>]+)(?::([^<>]*))?>", re.IGNORECASE)
HIGH_NOISE = "|high_noise|"  # before the name: for the model of the noisy steps (Wan 2.2)
ENDINGS = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")


def split_prompt(prompt: str, folder: str | os.PathLike[str] | None) -> tuple[str, list[Lora]]:
    """A prompt without its LoRAs, and these.

    Parameters
    ----------
    prompt : str
    folder : path or None
        Where their files are.

    Returns
    -------
    str
    list of Lora

    Raises
    ------
    FileNotFoundError
        There is no such LoRA; the nearest are named.
    ValueError
        A weight is no number, or there is no folder to look into.
    """
    found = []
    for name, weight in TAG.findall(prompt):
        high = name.startswith(HIGH_NOISE)
        try:
            multiplier = float(weight) if weight.strip() else 1.0
        except ValueError:
            raise ValueError(f"<lora:{name}:{weight}> has the weight {weight!r}, expected a number") from None
        path = find_lora(name.removeprefix(HIGH_NOISE).strip(), folder)
        found.append(Lora(path=path, multiplier=multiplier, is_high_noise=high))
    text = TAG.sub("", prompt)
    return (re.sub(r"[ \t]{2,}", " ", text).strip() if found else prompt), found


def refuse_tags(negative_prompt: Any) -> None:
    """Refuse LoRAs where they would be read as words.

    Raises
    ------
    ValueError
    """
    if isinstance(negative_prompt, str) and (tag := TAG.search(negative_prompt)):
        raise ValueError(f"negative_prompt has {tag[0]!r}, expected LoRAs in the prompt, with a negative weight maybe")


def find_lora(name: str, folder: str | os.PathLike[str] | None) -> Path:
    """The file of a LoRA, by its name without ending, in a folder or below it.

    Raises
    ------
    FileNotFoundError, ValueError
    """
    if folder is None:
        raise ValueError(f"the prompt asks for the LoRA {name!r}, expected a lora_dir to look for it")
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.suffix.casefold() in ENDINGS and path.is_file())
    for path in files:
        inside = path.relative_to(root).as_posix()
        if name in (inside, os.path.splitext(inside)[0], path.name, path.stem):
            return path
    near = difflib.get_close_matches(name, [path.stem for path in files], 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(f"no LoRA is called {name!r} in {root}{hint}")


def lora_list(loras: Any) -> list[Lora]:
    """LoRAs in any of the forms that `loras` takes: paths, pairs of path and weight, a mapping, `Lora` objects.

    Raises
    ------
    TypeError, FileNotFoundError
    """
    if isinstance(loras, Mapping):
        loras = list(loras.items())
    if isinstance(loras, str | bytes | os.PathLike | Lora):
        loras = [loras]
    if not isinstance(loras, Sequence):
        raise TypeError(f"loras is {loras!r}, expected a list of (path, weight)")
    return [_lora(entry, i) for i, entry in enumerate(loras)]


def _lora(entry: Any, i: int) -> Lora:
    if isinstance(entry, Lora):
        return entry
    path, weight = (entry, 1.0) if isinstance(entry, str | bytes | os.PathLike) else (None, None)
    if isinstance(entry, Sequence) and not isinstance(entry, str | bytes) and len(entry) == 2:
        path, weight = entry
    if path is None:
        raise TypeError(f"loras[{i}] is {entry!r}, expected a path or (path, weight)")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"loras[{i}] is {os.fspath(path)!r}: no such file")
    return Lora(path=path, multiplier=weight)


def prompt_with_loras(prompt: str, loras: Sequence[Lora]) -> str:
    """The prompt as the community writes it down: with ``<lora:name:weight>`` for each LoRA."""
    tags = []
    for lora in loras:
        name = os.path.splitext(os.path.basename(os.fsdecode(lora.path or "")))[0]
        weight = 1.0 if lora.multiplier is None else lora.multiplier
        tags.append(f"<lora:{HIGH_NOISE if lora.is_high_noise else ''}{name}:{weight:g}>")
    return " ".join(filter(None, [prompt, *tags]))
