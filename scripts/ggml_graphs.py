"""Graphs of single operations, computed by the CPU backend of a build through its C interface."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

F32, F16 = 0, 1
Pointer = int | None


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def _library(folder: Path, name: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(next(folder.glob(f"libcyllama-{name}.*"))), ctypes.RTLD_GLOBAL)


class Graphs:
    """The CPU backend of one variant.

    Parameters
    ----------
    folder
        The folder of the shared libraries.
    variant
        The name of the CPU variant, such as ``haswell``.
    """

    def __init__(self, folder: Path, variant: str) -> None:
        self._base, self._ggml = _library(folder, "ggml-base"), _library(folder, "ggml")
        path = next(folder.glob(f"libggml-cpu-{variant}.*"))
        self.registry = self.call("ggml_backend_load", str(path).encode())
        if not self.registry:
            raise ImportError(f"this machine does not run the CPU variant {variant}")
        self.device = self.call("ggml_backend_reg_dev_get", self.registry, 0)
        self.backend = self.call("ggml_backend_dev_init", self.device, None)
        self._set_threads = self.registry_function("ggml_backend_set_n_threads", None, ctypes.c_void_p, ctypes.c_int)

    @classmethod
    def load(cls, folder: Path, variant: str) -> Graphs | None:
        """Return the backend, or None if this machine does not run the variant."""
        try:
            return cls(folder, variant)
        except ImportError:
            return None

    def call(self, name: str, *arguments: Any, result: Any = ctypes.c_void_p) -> Any:
        """Call a function of ggml; integers above 32 bits are passed as pointers."""
        library = self._ggml if name in ("ggml_backend_load",) else self._base
        function = getattr(library, name)
        function.restype = result
        return function(*(_argument(value) for value in arguments))

    def registry_function(self, name: str, result: Any, *types: Any) -> Callable[..., Any]:
        """Return a function that the backend offers by name."""
        address = self.call("ggml_backend_reg_get_proc_address", self.registry, name.encode())
        return ctypes.CFUNCTYPE(result, *types)(address)

    def extra_buffer_types(self) -> dict[str, int]:
        """Return the extra buffer types by name, in ggml's order of preference."""
        find = self.registry_function(
            "ggml_backend_dev_get_extra_bufts", ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p
        )
        found, types = {}, find(self.device)
        for address in iter(_walk(types).__next__, None):
            found[self.call("ggml_backend_buft_name", address, result=ctypes.c_char_p).decode()] = address
        return found

    @contextmanager
    def context(self) -> Iterator[int]:
        """Create a context for the tensors of a graph."""
        init = self._base.ggml_init
        init.restype, init.argtypes = ctypes.c_void_p, [_InitParams]
        context = init(_InitParams(1 << 20, None, True))
        try:
            yield context
        finally:
            self.call("ggml_free", context, result=None)

    def tensor(self, context: int, kind: int, *shape: int) -> int:
        """Create a tensor; `shape` is in ggml's order, the contiguous dimension first."""
        sizes = (ctypes.c_int64 * len(shape))(*shape)
        return int(self.call("ggml_new_tensor", context, kind, len(shape), sizes))

    def allocate(self, tensor: int, buffer_type: int | None = None) -> int:
        """Allocate memory for one tensor; return the buffer."""
        kind = buffer_type or self.call("ggml_backend_dev_buffer_type", self.device)
        size = self.call("ggml_backend_buft_get_alloc_size", kind, tensor, result=ctypes.c_size_t)
        buffer = self.call("ggml_backend_buft_alloc_buffer", kind, ctypes.c_size_t(size))
        base = self.call("ggml_backend_buffer_get_base", buffer)
        assert self.call("ggml_backend_tensor_alloc", buffer, tensor, base, result=ctypes.c_int) == 0
        return int(buffer)

    def free(self, buffer: int) -> None:
        """Free a buffer."""
        self.call("ggml_backend_buffer_free", buffer, result=None)

    def write(self, tensor: int, data: np.ndarray[Any, Any]) -> None:
        """Copy the bytes of an array into a tensor."""
        data = np.ascontiguousarray(data)
        self.call(
            "ggml_backend_tensor_set", tensor, data.ctypes.data, ctypes.c_size_t(0), ctypes.c_size_t(data.nbytes),
            result=None,
        )  # fmt: skip

    def read(self, tensor: int, shape: tuple[int, ...], kind: Any) -> np.ndarray[Any, Any]:
        """Return the contents of a tensor."""
        data = np.empty(shape, kind)
        assert self.call("ggml_nbytes", tensor, result=ctypes.c_size_t) == data.nbytes
        self.call(
            "ggml_backend_tensor_get", tensor, data.ctypes.data, ctypes.c_size_t(0), ctypes.c_size_t(data.nbytes),
            result=None,
        )  # fmt: skip
        return data

    def supports(self, tensor: int) -> bool:
        """Return whether the backend can compute a tensor."""
        return bool(self.call("ggml_backend_dev_supports_op", self.device, tensor, result=ctypes.c_bool))

    def graph(self, context: int, tensor: int) -> int:
        """Create the graph that computes a tensor."""
        graph = self.call("ggml_new_graph", context)
        self.call("ggml_build_forward_expand", graph, tensor, result=None)
        return int(graph)

    def compute(self, graph: int, threads: int) -> None:
        """Compute a graph."""
        self._set_threads(self.backend, threads)
        assert self.call("ggml_backend_graph_compute", self.backend, graph, result=ctypes.c_int) == 0


def _argument(value: Any) -> Any:
    return ctypes.c_void_p(value) if isinstance(value, int) and value >= 1 << 31 else value


def _walk(types: Any) -> Iterator[int | None]:
    index = 0
    while True:
        yield types[index]
        index += 1
