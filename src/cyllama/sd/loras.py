"""LoRAs given as a list, and as ``<lora:name:weight>`` in prompts."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cyllama._paths import expanded
from cyllama.sd.params import Lora

__all__ = ["lora_files", "lora_list", "lora_names", "prompt_with_loras", "reject_lora_tags", "split_prompt"]

TAG = re.compile(r"<lora:([^:<>]+)(?::([^<>]*))?>", re.IGNORECASE)
HIGH_NOISE = "|high_noise|"  # prefix of the name: for the high-noise model (Wan 2.2)
SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")


def split_prompt(prompt: str, folder: str | os.PathLike[str] | None) -> tuple[str, list[Lora]]:
    """Separate a prompt from its LoRA tags.

    Parameters
    ----------
    prompt : str
    folder : path or None
        The folder with the LoRA files.

    Returns
    -------
    str
        The prompt without tags.
    list of Lora

    Raises
    ------
    FileNotFoundError
        The folder has no such LoRA; the message has the closest names.
    ValueError
        A weight is not a number, or `folder` is None.
    """
    tags = TAG.findall(prompt)
    if tags and folder is None:
        raise ValueError(f"the prompt asks for the LoRA {tags[0][0]!r}, expected a lora_dir with its file")
    files = lora_files(Path(folder)) if tags and folder is not None else {}
    found = []
    for name, weight in tags:
        high = name.startswith(HIGH_NOISE)
        try:
            multiplier = float(weight) if weight.strip() else 1.0
        except ValueError:
            raise ValueError(f"<lora:{name}:{weight}> has the weight {weight!r}, expected a number") from None
        path = _find(name.removeprefix(HIGH_NOISE).strip(), files, folder)
        found.append(Lora(path=path, multiplier=multiplier, is_high_noise=high))
    text = TAG.sub("", prompt)
    return (re.sub(r"[ \t]{2,}", " ", text).strip() if found else prompt), found


def reject_lora_tags(negative_prompt: str | None) -> None:
    """Raise if a negative prompt has LoRA tags, which the engine would read as text.

    Raises
    ------
    ValueError
    """
    if isinstance(negative_prompt, str) and (tag := TAG.search(negative_prompt)):
        raise ValueError(f"negative_prompt has {tag[0]!r}, expected LoRAs in the prompt")


def lora_names(prompt: str) -> list[str]:
    """Return the names in the LoRA tags of a prompt."""
    return [name for name, _ in TAG.findall(prompt)]


def lora_files(root: Path) -> dict[str, Path]:
    """Return the LoRA files of a folder and its subfolders by each of their names, with and without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.casefold() in SUFFIXES and path.is_file():
            inside = path.relative_to(root).as_posix()
            for name in (inside, os.path.splitext(inside)[0], path.name, path.stem):
                found.setdefault(name, path)
    return found


def _find(name: str, files: Mapping[str, Path], folder: object) -> Path:
    if name in files:
        return files[name]
    near = difflib.get_close_matches(name, sorted({path.stem for path in files.values()}), 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise FileNotFoundError(f"there is no LoRA {name!r} in {folder}{hint}")


def lora_list(loras: Any) -> list[Lora]:
    """Return the LoRAs of a ``loras`` option as a list.

    Parameters
    ----------
    loras : path, Lora, sequence or mapping
        Paths, pairs of path and weight, or `Lora` objects; a mapping has the path as key and the weight as value.

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
    file = expanded(os.fsdecode(path))
    if not file.is_file():
        raise FileNotFoundError(f"loras[{i}] is {os.fspath(path)!r}: no such file")
    return Lora(path=file, multiplier=weight)


def prompt_with_loras(prompt: str, loras: Sequence[Lora]) -> str:
    """Append ``<lora:name:weight>`` for each LoRA to a prompt."""
    tags = []
    for lora in loras:
        name = os.path.splitext(os.path.basename(os.fsdecode(lora.path or "")))[0]
        weight = 1.0 if lora.multiplier is None else lora.multiplier
        tags.append(f"<lora:{HIGH_NOISE if lora.is_high_noise else ''}{name}:{weight:g}>")
    return " ".join(filter(None, [prompt, *tags]))
