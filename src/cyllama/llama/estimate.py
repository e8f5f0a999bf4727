"""How much memory a model needs, before it is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cyllama import models
from cyllama._native.memory import free_memory
from cyllama.errors import OutOfMemoryError
from cyllama.llama._engine import engine_memory
from cyllama.llama.settings import llm_options, model_arguments
from cyllama.log import logger

__all__ = ["DeviceMemory", "MemoryEstimate", "estimate_memory", "fitted_context", "need_of"]

MEBIBYTE = 1 << 20
SMALLEST_CONTEXT, CONTEXT_STEP = 4096, 256
SPARE = 64 * MEBIBYTE  # for Python and all else


@dataclass(frozen=True)
class DeviceMemory:
    """What is needed of one device, in bytes.

    Attributes
    ----------
    name : str
    is_host : bool
        Whether it is the machine's own memory.
    weights, context, compute, projector : int
        Of the model; of the KV cache and what else belongs to the context; of the buffers that a batch needs; of the
        projector with its buffers.
    free, total : int
    """

    name: str
    is_host: bool
    weights: int
    context: int
    compute: int
    projector: int
    free: int
    total: int

    @property
    def needed(self) -> int:
        """All of it."""
        return self.weights + self.context + self.compute + self.projector

    @property
    def fits(self) -> bool:
        """Whether as much is free."""
        return self.needed <= self.free


@dataclass(frozen=True)
class MemoryEstimate:
    """What a model needs.

    Attributes
    ----------
    n_ctx, n_ctx_train : int
        Tokens: of the context that was asked for, and as trained.
    devices : tuple of DeviceMemory
        Those that are used; the host is the last one.
    """

    n_ctx: int
    n_ctx_train: int
    devices: tuple[DeviceMemory, ...]

    @property
    def weights(self) -> int:
        """Bytes of the model."""
        return sum(device.weights for device in self.devices)

    @property
    def context(self) -> int:
        """Bytes of the context."""
        return sum(device.context for device in self.devices)

    @property
    def compute(self) -> int:
        """Bytes of the buffers for batches."""
        return sum(device.compute for device in self.devices)

    @property
    def projector(self) -> int:
        """Bytes of the projector for pictures and sound."""
        return sum(device.projector for device in self.devices)

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(device.needed for device in self.devices)

    @property
    def fits(self) -> bool:
        """Whether every device has as much free."""
        return all(device.fits for device in self.devices)


def estimate_memory(
    model: str | os.PathLike[str],
    *,
    n_ctx: int | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> MemoryEstimate:
    """Tell how much memory a model needs, from the header of its file.

    Parameters
    ----------
    model : str or path
        A GGUF file, or a name of `cyllama.models`.
    n_ctx : int, optional
        Tokens of context; by default as trained.
    options, **settings
        As of `cyllama.LLM`: ``n_parallel``, ``cache_type_k``, ``n_gpu_layers``, ``mmproj``, ...

    Returns
    -------
    MemoryEstimate
        In bytes, as the engine would allocate them.

    Raises
    ------
    TypeError, ValueError
        There is no such option, or a value does not fit.
    FileNotFoundError, ModelLoadError

    Notes
    -----
    Releases the GIL; takes about as long as reading the vocabulary.
    Source: ``llama_get_memory_breakdown``, src/llama-ext.h.

    >>> from cyllama.llama import estimate_memory
    >>> estimate_memory("smollm2-135m-instruct", n_ctx=4096).total // 2**20        # doctest: +SKIP
    280
    """
    return need_of(model_arguments(models.resolve(model), llm_options({"n_ctx": n_ctx, **settings}), options))


def need_of(arguments: Sequence[str]) -> MemoryEstimate:
    """What a model needs with these options of upstream's parser."""
    found: Any = engine_memory(arguments)
    devices = []
    for item in found["devices"]:
        free = free_memory(item["total"]) if item["host"] else item["free"]
        sizes = (item["model"], item["context"], item["compute"], item["projector"])
        devices.append(DeviceMemory(item["name"], item["host"], *sizes, free=free, total=item["total"]))
    return MemoryEstimate(found["n_ctx"], found["n_ctx_train"], tuple(devices))


def fitted_context(arguments: Sequence[str], *, given: bool) -> int | None:
    """See that a model fits, before it is loaded.

    Parameters
    ----------
    arguments : sequence of str
        The options of upstream's parser.
    given : bool
        Whether they say how long the context is: else it may be made shorter than the model was trained for.

    Returns
    -------
    int or None
        The length to which the context is shortened.

    Raises
    ------
    OutOfMemoryError
    """
    need = need_of(arguments)
    shorter = None
    while not need.devices[-1].fits and not given and need.n_ctx > SMALLEST_CONTEXT:
        host = need.devices[-1]
        room = max(0, host.free - host.weights - host.compute - host.projector - SPARE)
        enough = min(need.n_ctx // 2, need.n_ctx * room // max(1, host.context))
        shorter = max(SMALLEST_CONTEXT, enough // CONTEXT_STEP * CONTEXT_STEP)
        need = need_of([*arguments, "--ctx-size", str(shorter)])
    host = need.devices[-1]  # what does not fit on a GPU, upstream leaves on the host
    if not host.fits:
        raise OutOfMemoryError(
            f"the model needs {host.needed // MEBIBYTE:,} MiB of memory: weights {host.weights // MEBIBYTE:,}, context "
            f"{host.context // MEBIBYTE:,} for {need.n_ctx:,} tokens, buffers {host.compute // MEBIBYTE:,}, "
            f"projector {host.projector // MEBIBYTE:,}; "
            f"{host.free // MEBIBYTE:,} MiB are free. A smaller n_ctx, or cache_type_k and cache_type_v 'q8_0', need "
            "less; check_memory=False loads it all the same",
            engine="llama",
        )
    if shorter is not None:
        logger.warning("the context has %d tokens, not %d as trained: memory ends", shorter, need.n_ctx_train)
    return shorter
