"""Split a GGUF file into parts, and merge the parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cyllama._native._gguf import GGUFContext, TensorInfo
from cyllama.llama._quantize import llama_split_path, llama_split_prefix

__all__ = ["gguf_merge", "gguf_split"]

Paths = str | os.PathLike[str]
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"


def gguf_split(
    path: Paths, prefix: Paths, *, max_tensors: int | None = None, max_size: int | None = None
) -> list[Path]:
    """Split a model into several files.

    Parameters
    ----------
    path : str or path
        A GGUF file.
    prefix : str or path
        The files are named ``prefix-00001-of-00003.gguf`` and so on; loading the first one loads all.
    max_tensors : int, optional
        The most tensors of a file; 128 by default.
    max_size : int, optional
        The most bytes of the tensors of a file, instead of `max_tensors`; a larger tensor has its own file.

    Returns
    -------
    list of Path

    Raises
    ------
    ValueError
        The file is already a part, or a limit is not positive.
    FileNotFoundError, ModelLoadError, OSError

    Notes
    -----
    The data is not read into memory. Source: tools/gguf-split/gguf-split.cpp, the same parts.
    """
    if max_tensors is not None and max_size is not None:
        raise ValueError(f"max_tensors is {max_tensors} and max_size {max_size}, expected one of them")
    for name, limit in (("max_tensors", max_tensors), ("max_size", max_size)):
        if limit is not None and limit <= 0:
            raise ValueError(f"{name} is {limit}, expected 1 or more")
    with GGUFContext.from_file(path) as source:
        if source.get(COUNT, 0):
            raise ValueError(f"{os.fspath(path)} is already a part")
        groups = _groups(source.tensors(), max_tensors or 128, max_size, source.alignment)
        written = []
        for i, group in enumerate(groups):
            with GGUFContext.empty(source.alignment) as part:
                if i == 0:
                    part.copy_from(source)
                part.set(NUMBER, i, "u16")
                part.set(COUNT, len(groups), "u16")
                part.set(TENSORS, source.n_tensors, "i32")
                for info in group:
                    _put(part, source, info, path)
                target = llama_split_path(os.fspath(prefix), i, len(groups))
                part.write(target)
                written.append(Path(target))
    return written


def _groups(tensors: list[TensorInfo], count: int, size: int | None, alignment: int) -> list[list[TensorInfo]]:
    groups: list[list[TensorInfo]] = [[]]
    total = 0
    for info in tensors:
        padded = -(-info.size // alignment) * alignment
        full = len(groups[-1]) >= count if size is None else total + padded > size
        if full and groups[-1]:
            groups.append([])
            total = 0
        groups[-1].append(info)
        total += padded
    return groups


def gguf_merge(first: Paths, output: Paths) -> Path:
    """Merge the parts of a model into one file.

    Parameters
    ----------
    first : str or path
        The first part; the others are in the same folder.
    output : str or path
        The file to write.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        The file is not the first of several parts.
    FileNotFoundError
        A part is missing.
    ModelLoadError
        The parts do not belong together.

    Notes
    -----
    The data is not read into memory. Source: tools/gguf-split/gguf-split.cpp.
    """
    with GGUFContext.from_file(first) as head:
        count: Any = head.get(COUNT, 0)
        if not count or head.get(NUMBER) != 0:
            raise ValueError(f"{os.fspath(first)} is not the first part of a model in several files")
        prefix = llama_split_prefix(os.fspath(first), 0, count)
        if prefix is None:
            raise ValueError(f"{os.fspath(first)} is not named ...-00001-of-{count:05}.gguf")
        with GGUFContext.empty(head.alignment) as whole:
            whole.copy_from(head)
            for key in (NUMBER, COUNT, TENSORS):
                if key in whole:
                    whole.remove(key)
            for i in range(count):
                path = llama_split_path(prefix, i, count)
                with GGUFContext.from_file(path) as part:
                    if (part.get(NUMBER), part.get(COUNT)) != (i, count):
                        raise ValueError(f"{path} is not part {i + 1} of {count}")
                    for info in part.tensors():
                        _put(whole, part, info, path)
            if head.get(TENSORS, whole.n_tensors) != whole.n_tensors:
                raise ValueError(f"the parts have {whole.n_tensors} tensors, expected {head.get(TENSORS)}")
            whole.write(output)
    return Path(output)


def _put(target: GGUFContext, source: GGUFContext, info: TensorInfo, path: Paths) -> None:
    """Add a tensor whose data stays in the source file."""
    rows = int(np.prod(info.shape[:-1], dtype=np.int64))
    at = source.data_offset + info.offset
    data = np.memmap(path, np.uint8, "r", at, (*info.shape[:-1], info.size // rows))
    target.add_tensor(info.name, data, info.type, copy=False)
