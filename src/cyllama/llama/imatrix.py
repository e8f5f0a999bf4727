"""Importance matrices: the importance of each column of the weights, as llama-imatrix measures it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama._native._gguf import GGUFContext

__all__ = ["read_imatrix"]

SUMS, COUNTS = ".in_sum2", ".counts"


def read_imatrix(
    path: str | os.PathLike[str], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, npt.NDArray[np.float32]]:
    """Read an importance matrix for ``LlamaQuantizeParams(imatrix=...)``.

    Parameters
    ----------
    path : str or path
        A GGUF file of llama-imatrix.
    include, exclude : sequence of str
        Parts of names: only these tensors, or all but these.

    Returns
    -------
    dict of str to ndarray
        float32, for each tensor the mean square of the inputs of its columns; 1 where nothing was measured.

    Raises
    ------
    ValueError
        The file contains no importance matrix.
    FileNotFoundError, ModelLoadError

    Notes
    -----
    Source: ``load_imatrix``, tools/quantize/quantize.cpp.
    """
    found: dict[str, npt.NDArray[np.float32]] = {}
    with GGUFContext.from_file(path) as file:
        infos = {info.name: info for info in file.tensors()}

        def values(name: str) -> Any:
            info = infos[name]
            if info.type.name != "F32":
                raise ValueError(f"{os.fspath(path)}: {name} is {info.type.name}, expected F32")
            return np.array(file.tensor_data(name), np.float32).reshape(-1)

        for name in infos:
            tensor = name.removesuffix(SUMS)
            chosen = not include or any(part in tensor for part in include)
            if tensor == name or not chosen or any(part in tensor for part in exclude):
                continue
            if tensor + COUNTS not in infos:
                raise ValueError(f"{os.fspath(path)} has {name}, but no {tensor + COUNTS}")
            counts = values(tensor + COUNTS)[:, None]  # one for each expert
            sums = values(name).reshape(len(counts), -1)
            means = np.divide(sums, counts, out=np.ones_like(sums), where=counts > 0)
            found[tensor] = means.reshape(-1)
    if not found:
        raise ValueError(f"{os.fspath(path)} contains no importance matrix for these tensors")
    return found
