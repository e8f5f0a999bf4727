"""Processes that compute with one CPU variant, for the tests of kernels: each variant is a library of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ggml_graphs
import numpy as np

import cyllama

FOLDER = Path(cyllama.__file__).parent / "lib"
VARIANTS = sorted(path.stem.removeprefix("libggml-cpu-") for path in FOLDER.glob("libggml-cpu-*"))
OURS = "CPU_CYLLAMA"  # the buffer type of the kernels
Arrays = dict[str, np.ndarray[Any, Any]]


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("memory", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def refuse_tiles() -> ctypes.Array[ctypes.c_char]:
    """Let Linux refuse the tiles of AMX, as it does where a thread has a small stack for signals; return the stack."""
    memory = ctypes.create_string_buffer(8192)
    stack = SignalStack(ctypes.addressof(memory), 0, len(memory))
    if ctypes.CDLL(None, use_errno=True).sigaltstack(ctypes.byref(stack), None):
        raise OSError(ctypes.get_errno(), "sigaltstack")
    return memory


def results(
    script: str, variant: str, threads: int, kernels: str, folder: Path, tiles: str = "allowed"
) -> Arrays | None:
    """Return what a script of this folder computes; None if this machine does not run the variant."""
    target = folder / f"{variant}-{threads}-{kernels}-{tiles}.npz"
    environment = {"PYTHONPATH": str(Path(ggml_graphs.__file__).parent), "CYLLAMA_KERNELS": kernels, "TILES": tiles}
    words = [sys.executable, str(Path(__file__).parent / script), variant, str(threads), str(target)]
    subprocess.run(words, check=True, env=os.environ | environment)
    return dict(np.load(target)) if target.exists() else None


def save_results(compute: Callable[[ggml_graphs.Graphs, int], Mapping[str, Any]]) -> None:
    """Call `compute` with the variant and the threads of the command line, and save what it returns."""
    variant, threads, target = sys.argv[1:]
    stack = refuse_tiles() if os.environ.get("TILES") == "refused" else None
    graphs = ggml_graphs.Graphs.load(FOLDER, variant)
    if graphs is not None:
        np.savez(target, **compute(graphs, int(threads)))
    del stack


def differing(values: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Return the names of results that have other bits."""
    return [name for name, array in values.items() if array.tobytes() != others[name].tobytes()]
