"""What all engines share: backends and devices, the log, handles, callbacks, the thread budget."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cyllama._native._core import (
    backends,
    build_record,
    cpu_features,
    cpu_kernels,
    cpu_variant,
    devices,
    get_threads,
    set_threads,
    threads_available,
)
from cyllama._native._threadpool import ThreadPool
from cyllama._native.threads import default_threads

__all__ = [
    "ThreadPool",
    "backends",
    "build_info",
    "cpu_features",
    "cpu_kernels",
    "cpu_variant",
    "default_threads",
    "devices",
    "engine_label",
    "get_threads",
    "has_gpu",
    "set_threads",
    "threads_available",
]


def build_info() -> dict[str, Any]:
    """Return versions, devices and build options of this installation, for bug reports.

    Returns
    -------
    dict
        ``version``, ``python``, ``platform``; ``engines`` (of each, upstream's ``version`` and ``commit``, and the
        ``source`` that it was built from);
        ``ggml`` (version, size of a tensor in bytes, ``GGML_MAX_NAME``); ``cpu`` (``variant`` in use,
        ``features``, and the types of weights that this package's ``kernels`` multiply);
        ``backends`` (each with ``loaded``, and ``reason`` where it is not); ``devices``; ``threads``.
    """
    import cyllama
    from cyllama._native import _core

    record = build_record()
    ggml_version, tensor_size, max_name = _core.abi()
    return {
        "version": cyllama.__version__,
        "python": sys.version.split()[0],
        "platform": record["platform"],
        "engines": record["engines"],
        "ggml": {"version": ggml_version, "sizeof_tensor": tensor_size, "max_name": max_name},
        "cpu": {"variant": cpu_variant(), "features": cpu_features(), "kernels": cpu_kernels()},
        "backends": backends(),
        "devices": devices(),
        "threads": get_threads(),
    }


def has_gpu() -> bool:
    """Return whether models can compute on a GPU."""
    return any(device["type"] in ("gpu", "igpu") for device in devices())


def engine_label(engine: Mapping[str, str]) -> str:
    """Return the version and the short commit of an engine in :func:`build_info`, such as ``1.8.5 (f24588a27)``."""
    commit = engine.get("commit", "unknown")
    return engine["version"] if commit == "unknown" else f"{engine['version']} ({commit[:9]})"
