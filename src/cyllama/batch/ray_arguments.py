"""Arguments of Ray Data for the workers of a model. Ray is not imported."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from cyllama._native.memory import total_memory

__all__ = ["RayArguments", "ray_arguments"]

MEBIBYTE = 1 << 20
PROCESS = 512 * MEBIBYTE  # a worker without its model: Python, Ray, the buffers of a batch
MEMORY_SHARE = 0.7  # of a node's memory that Ray offers to workers
SPARE_CPUS = 1.0  # of a node for tasks that read and write; half of the CPUs of a smaller node


class RayArguments(TypedDict):
    """Keyword arguments of ``ray.data.Dataset.map_batches``.

    Attributes
    ----------
    num_cpus, num_gpus : float
        Of a worker.
    memory : int
        Bytes of a worker.
    batch_size : int
        Rows of a batch.
    concurrency : int
        Number of workers.
    fn_constructor_args, fn_constructor_kwargs : tuple, dict
        Arguments of the class.
    """

    num_cpus: float
    num_gpus: float
    memory: int
    batch_size: int
    concurrency: int
    fn_constructor_args: tuple[Any, ...]
    fn_constructor_kwargs: dict[str, Any]


def ray_arguments(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    need: int,
    nodes: Iterable[Mapping[str, float]] | None,
    batch_size: int,
    gpus: float | None,
) -> RayArguments:
    """Return the arguments for a model that needs `need` bytes; see `BatchCall.ray_arguments`.

    Raises
    ------
    ValueError
        No node has enough memory, or `nodes` is empty.
    """
    given = [_this_machine()] if nodes is None else [dict(node) for node in nodes if node.get("CPU", 0) > 0]
    if not given:
        raise ValueError("nodes is empty, expected the resources of at least one node with CPUs")
    if gpus is None:
        gpus = 1.0 if all(node.get("GPU", 0) >= 1 for node in given) else 0.0
    memory = need + PROCESS
    workers = {i: _workers(node, memory, gpus) for i, node in enumerate(given)}
    used = [(given[i], count) for i, count in workers.items() if count]
    if not used:
        largest = max(node.get("memory", 0.0) for node in given)
        raise ValueError(
            f"the model needs {memory // MEBIBYTE:,} MiB, the largest node has {int(largest) // MEBIBYTE:,} MiB and "
            f"{gpus:g} GPUs are expected; a smaller n_ctx needs less memory"
        )
    return RayArguments(
        num_cpus=min(_cpus(node["CPU"], count) for node, count in used),
        num_gpus=gpus,
        memory=memory,
        batch_size=batch_size,
        concurrency=sum(count for _, count in used),
        fn_constructor_args=args,
        fn_constructor_kwargs=kwargs,
    )


def _this_machine() -> dict[str, float]:
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {"CPU": float(len(cpus)), "memory": MEMORY_SHARE * total_memory()}


def _workers(node: Mapping[str, float], memory: int, gpus: float) -> int:
    """Return the number of workers of a node: one, which computes with all its CPUs, or as many as its GPUs serve."""
    fitting = int(node.get("memory", 0.0) // memory)
    return min(fitting, int(node.get("GPU", 0.0) // gpus) if gpus else 1)


def _cpus(cpus: float, workers: int) -> float:
    """Return the CPUs of each of a node's workers; Ray takes whole numbers above 1."""
    share = (cpus - min(SPARE_CPUS, cpus / 2)) / workers
    return float(math.floor(share)) if share >= 1 else math.floor(share * 100) / 100
