"""Estimate the memory of a model before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from cyllama._native.memory import free_memory
from cyllama.errors import OutOfMemoryError
from cyllama.llama._engine import engine_memory
from cyllama.llama._message_types import Paths
from cyllama.llama._request_types import LLMOptionsDict
from cyllama.llama.options import found_model, model_arguments
from cyllama.log import logger
from cyllama.models import load_errors

__all__ = ["DeviceMemory", "MemoryEstimate", "estimate_memory", "fit_context"]

MEBIBYTE = 1 << 20
SMALLEST_CONTEXT, CONTEXT_STEP = 4096, 256
SPARE = 64 * MEBIBYTE  # for the rest of the process


@dataclass(frozen=True)
class DeviceMemory:
    """The memory that a model needs on one device, in bytes.

    Attributes
    ----------
    name : str
    is_host : bool
        Whether it is the memory of the host.
    weights, context, compute, projector : int
        Memory of the model, of the context (KV cache), of the buffers for a batch, and of the projector with its
        buffers.
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
        """The sum of all parts."""
        return self.weights + self.context + self.compute + self.projector

    @property
    def fits(self) -> bool:
        """Whether the device has as much free memory."""
        return self.needed <= self.free


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that a model needs, in bytes.

    Attributes
    ----------
    n_ctx, n_ctx_train : int
        Tokens of the context, and of the context that the model was trained with.
    devices : tuple of DeviceMemory
        The devices in use; the host is the last one.
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
        """Bytes of the projector for images and audio."""
        return sum(device.projector for device in self.devices)

    @property
    def total(self) -> int:
        """Bytes of all devices."""
        return sum(device.needed for device in self.devices)

    @property
    def fits(self) -> bool:
        """Whether every device has enough free memory."""
        return all(device.fits for device in self.devices)


def estimate_memory(
    model: Paths,
    *,
    options: Mapping[str, Any] | None = None,
    **settings: Unpack[LLMOptionsDict],
) -> MemoryEstimate:
    """Estimate the memory that a model needs, from the header of its file.

    Parameters
    ----------
    model : str or path
        As of `cyllama.LLM`.
    options : mapping, optional
        Options of ``llama-server`` by name, as of `cyllama.LLM`.
    **settings
        The fields of `LLMOptionsDict`: ``n_ctx`` (by default as trained), ``n_parallel``, ``cache_type_k``,
        ``n_gpu_layers``, ``mmproj``, ...

    Returns
    -------
    MemoryEstimate
        In bytes, as the engine would allocate them.

    Raises
    ------
    TypeError, ValueError
        An option does not exist, or a value is invalid.
    FileNotFoundError, ModelLoadError

    Notes
    -----
    Releases the GIL. It takes about as long as reading the vocabulary.
    Source: ``llama_get_memory_breakdown``, src/llama-ext.h.

    >>> from cyllama.llama import estimate_memory
    >>> estimate_memory("smollm2-135m-instruct", n_ctx=4096).total // 2**20        # doctest: +SKIP
    280
    """
    path, chosen = found_model(model, settings, options)
    with load_errors(path, "llama"):
        found = _estimate(model_arguments(path, chosen, options))
    return found


def _estimate(arguments: Sequence[str]) -> MemoryEstimate:
    """Estimate the memory of a model with these arguments of upstream's parser."""
    found: Any = engine_memory(arguments)
    devices = []
    for item in found["devices"]:
        free = free_memory(item["total"]) if item["host"] else item["free"]
        sizes = (item["model"], item["context"], item["compute"], item["projector"])
        devices.append(DeviceMemory(item["name"], item["host"], *sizes, free=free, total=item["total"]))
    return MemoryEstimate(found["n_ctx"], found["n_ctx_train"], tuple(devices))


def fit_context(arguments: Sequence[str], *, given: bool) -> int | None:
    """Check that a model fits in memory, and shorten its context if it does not.

    Parameters
    ----------
    arguments : sequence of str
        Arguments of upstream's parser.
    given : bool
        Whether they contain the length of the context; only otherwise it is shortened.

    Returns
    -------
    int or None
        The shortened length.

    Raises
    ------
    OutOfMemoryError
    """
    need = _estimate(arguments)
    shorter = None
    while not need.devices[-1].fits and not given and need.n_ctx > SMALLEST_CONTEXT:
        host = need.devices[-1]
        room = max(0, host.free - host.weights - host.compute - host.projector - SPARE)
        enough = min(need.n_ctx // 2, need.n_ctx * room // max(1, host.context))
        shorter = max(SMALLEST_CONTEXT, enough // CONTEXT_STEP * CONTEXT_STEP)
        need = _estimate([*arguments, "--ctx-size", str(shorter)])
    host = need.devices[-1]  # upstream leaves on the host what does not fit on a GPU
    if not host.fits:
        raise OutOfMemoryError(
            f"the model needs {host.needed // MEBIBYTE:,} MiB of memory: weights {host.weights // MEBIBYTE:,}, context "
            f"{host.context // MEBIBYTE:,} for {need.n_ctx:,} tokens, buffers {host.compute // MEBIBYTE:,}, "
            f"projector {host.projector // MEBIBYTE:,}; "
            f"{host.free // MEBIBYTE:,} MiB are free. A smaller n_ctx, or cache_type_k and cache_type_v 'q8_0', need "
            "less; check_memory=False loads it nevertheless",
            engine="llama",
        )
    if shorter is not None:
        logger.warning(
            "the context is limited to %d tokens by the free memory, the model was trained with %d",
            shorter,
            need.n_ctx_train,
        )
    return shorter
