"""Save and load the state of a context."""

import os
import struct

import numpy as np

from libc.stdint cimport uint8_t

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport path_bytes
from cyllama.llama cimport libllama as lib
from cyllama.llama._context cimport LlamaContext

from cyllama._native.files import atomic_path
from cyllama.errors import EngineError


def _saved_tokens(raw: bytes, magic: int, version: int) -> int:
    """Return the number of tokens in the header of a state file, which the engine does not check."""
    size = os.path.getsize(raw)
    with open(raw, "rb") as f:
        head = f.read(12)
    if len(head) < 12 or struct.unpack("<II", head[:8]) != (magic, version):
        raise EngineError(f"{os.fsdecode(raw)} is not a state file of this engine version", engine="llama")
    n_tokens = struct.unpack("<I", head[8:])[0]
    if 12 + 4 * n_tokens > size:
        raise EngineError(f"{os.fsdecode(raw)} is truncated: {n_tokens} tokens in {size} bytes", engine="llama")
    return n_tokens


cdef class LlamaState:
    """The state of a context (KV cache and outputs) as bytes and files.

    A state that cannot be restored raises EngineError and leaves the memory of the context (or of the
    sequence) empty. Files are written atomically.

    Parameters
    ----------
    context : LlamaContext
        Kept alive.

    Notes
    -----
    Every method releases the GIL. Thread safety: that of the context, one thread at a time.
    """

    cdef readonly LlamaContext context

    def __init__(self, context: LlamaContext) -> None:
        self.context = <LlamaContext?> context
        self.context._check_memory()

    def _prefix(self) -> bytes:
        """Return the first bytes of each whole state of this model: length and name of the architecture.

        It is compared before the engine reads a state, because the engine allocates the length that it finds there,
        up to 4 GiB.
        """
        name = (self.context.model.meta_val_str("general.architecture") or "").encode()
        return struct.pack("<I", len(name)) + name

    cdef int _clear(self, int seq_id) except -1:
        """Clear the memory after a failed load."""
        cdef lib.llama_memory_t memory = lib.llama_get_memory(self.context._ptr)
        if seq_id < 0:
            lib.llama_memory_clear(memory, True)
        else:
            lib.llama_memory_seq_rm(memory, seq_id, -1, -1)
        return 0

    def size(self) -> int:
        """Return the current size of the state in bytes. Source: ``llama_state_get_size``, llama.h."""
        cdef size_t n
        self.context._begin()
        try:
            with nogil:
                n = lib.llama_state_get_size(self.context._ptr)
        finally:
            self.context._end()
        return n

    def get_data(self) -> bytes:
        """Return the whole state. Source: ``llama_state_get_data``, llama.h."""
        data = bytearray(self.size())
        cdef uint8_t[::1] view = data
        cdef uint8_t * c_view
        cdef size_t size = len(data)
        cdef size_t n
        self.context._begin()
        start_call()
        try:
            c_view = &view[0]
            with nogil:
                n = lib.llama_state_get_data(self.context._ptr, c_view, size)
        finally:
            self.context._end()
        if n == 0:
            raise engine_error(EngineError, "the state cannot be saved", "llama", "llama_state_get_data", None)
        return bytes(data[:n])

    def set_data(self, data: bytes) -> int:
        """Restore a whole state; return the number of bytes read. EngineError for a state of another model.

        Source: ``llama_state_set_data``, llama.h.
        """
        return self._set(data, -1, 0)

    def _set(self, const uint8_t[::1] data not None, int seq_id, unsigned int flags) -> int:
        cdef size_t size = data.shape[0]
        cdef size_t n = 0
        if size == 0:
            raise EngineError("the state is empty", engine="llama")
        cdef const uint8_t * c_data = &data[0]
        prefix = self._prefix() if seq_id < 0 else b""
        cdef bint c_foreign = bytes(data[:len(prefix)]) != prefix
        self.context._begin()
        start_call()
        try:
            with nogil:
                if c_foreign:
                    n = 0
                elif seq_id < 0:
                    n = lib.llama_state_set_data(self.context._ptr, c_data, size)
                elif flags == 0:
                    n = lib.llama_state_seq_set_data(self.context._ptr, c_data, size, seq_id)
                else:
                    n = lib.llama_state_seq_set_data_ext(self.context._ptr, c_data, size, seq_id, flags)
        except EngineError as e:
            # a failed assertion while a state is read leaves the context usable
            if not e.aborted:
                raise
        finally:
            if n == 0:
                self._clear(seq_id)
            self.context._end()
        if n == 0:
            raise engine_error(EngineError, "the state cannot be restored: not of this model, or damaged", "llama",
                               "llama_state_set_data", None)
        return n

    def save_file(self, path: str | bytes | os.PathLike, tokens: list = ()) -> None:
        """Write the state and its tokens. Source: ``llama_state_save_file``, llama.h."""
        self._save(path, tokens, -1)

    def load_file(self, path: str | bytes | os.PathLike) -> list:
        """Restore the state from a file; return its tokens. Source: ``llama_state_load_file``, llama.h."""
        return self._load(path, -1)

    def seq_size(self, seq_id: int, flags: int = 0) -> int:
        """Return the size of one sequence's state in bytes.

        Source: ``llama_state_seq_get_size``, ``llama_state_seq_get_size_ext``, llama.h.
        """
        self.context._check()
        self.context._check_seq(seq_id, False)
        cdef int c_seq = seq_id
        cdef unsigned int c_flags = flags
        cdef size_t n
        self.context._begin()
        try:
            with nogil:
                if c_flags == 0:
                    n = lib.llama_state_seq_get_size(self.context._ptr, c_seq)
                else:
                    n = lib.llama_state_seq_get_size_ext(self.context._ptr, c_seq, c_flags)
        finally:
            self.context._end()
        return n

    def seq_get_data(self, seq_id: int, flags: int = 0) -> bytes:
        """Return one sequence's state. `flags`: 1 only partial states (sliding window, recurrent).

        Source: ``llama_state_seq_get_data``, ``llama_state_seq_get_data_ext``, llama.h.
        """
        if flags not in (0, 1):
            raise ValueError(f"flags is {flags}, expected 0 or 1 (device buffers cannot be bytes)")
        data = bytearray(self.seq_size(seq_id, flags))
        cdef uint8_t[::1] view = data
        cdef uint8_t * c_view
        cdef size_t size = len(data)
        cdef size_t n
        cdef int c_seq = seq_id
        cdef unsigned int c_flags = flags
        self.context._begin()
        start_call()
        try:
            c_view = &view[0]
            with nogil:
                if c_flags == 0:
                    n = lib.llama_state_seq_get_data(self.context._ptr, c_view, size, c_seq)
                else:
                    n = lib.llama_state_seq_get_data_ext(self.context._ptr, c_view, size, c_seq, c_flags)
        finally:
            self.context._end()
        if n == 0:
            raise engine_error(EngineError, "the state cannot be saved", "llama", "llama_state_seq_get_data", None)
        return bytes(data[:n])

    def seq_set_data(self, data: bytes, seq_id: int, flags: int = 0) -> int:
        """Restore one sequence's state into sequence `seq_id`; return the number of bytes read.

        Source: ``llama_state_seq_set_data``, ``llama_state_seq_set_data_ext``, llama.h.
        """
        if flags not in (0, 1):
            raise ValueError(f"flags is {flags}, expected 0 or 1 (device buffers cannot be bytes)")
        self.context._check()
        self.context._check_seq(seq_id, False)
        return self._set(data, seq_id, flags)

    def seq_save_file(self, path: str | bytes | os.PathLike, seq_id: int, tokens: list = ()) -> None:
        """Write one sequence's state and its tokens. Source: ``llama_state_seq_save_file``, llama.h."""
        self.context._check()
        self.context._check_seq(seq_id, False)
        self._save(path, tokens, seq_id)

    def seq_load_file(self, path: str | bytes | os.PathLike, seq_id: int) -> list:
        """Restore a sequence's state from a file into `seq_id`; return its tokens.

        Source: ``llama_state_seq_load_file``, llama.h.
        """
        self.context._check()
        self.context._check_seq(seq_id, False)
        return self._load(path, seq_id)

    def _save(self, path, tokens, int seq_id) -> None:
        found = np.ascontiguousarray(tokens, np.int32)
        cdef lib.llama_token[::1] view = found if len(found) else np.zeros(1, np.int32)
        cdef lib.llama_token * c_view
        cdef size_t n_tokens = len(tokens)
        cdef bytes raw
        cdef const char * c_path
        cdef bint ok
        with atomic_path(path) as temporary:
            raw = os.fsencode(temporary)
            c_path = raw
            self.context._begin()
            start_call()
            try:
                c_view = &view[0]
                with nogil:
                    if seq_id < 0:
                        ok = lib.llama_state_save_file(self.context._ptr, c_path, c_view, n_tokens)
                    else:
                        ok = lib.llama_state_seq_save_file(
                            self.context._ptr, c_path, seq_id, c_view, n_tokens) != 0
            finally:
                self.context._end()
            if not ok:
                raise engine_error(EngineError, f"the state cannot be written to {os.fsdecode(path)}", "llama",
                                   "llama_state_save_file", None)

    def _load(self, path, int seq_id) -> list:
        cdef bytes raw = path_bytes(path, "path")
        cdef const char * c_path = raw
        if seq_id < 0:
            capacity = _saved_tokens(raw, lib.LLAMA_SESSION_MAGIC, lib.LLAMA_SESSION_VERSION)
        else:
            capacity = _saved_tokens(raw, lib.LLAMA_STATE_SEQ_MAGIC, lib.LLAMA_STATE_SEQ_VERSION)
        prefix = self._prefix() if seq_id < 0 else b""
        with open(raw, "rb") as file:
            file.seek(12 + 4 * capacity)
            foreign = file.read(len(prefix)) != prefix
        tokens = np.zeros(max(capacity, 1), np.int32)
        cdef bint c_foreign = foreign
        cdef lib.llama_token[::1] view = tokens
        cdef lib.llama_token * c_view
        cdef size_t c_capacity = max(capacity, 1)
        cdef size_t n_tokens = 0
        cdef bint ok = False
        self.context._begin()
        start_call()
        try:
            c_view = &view[0]
            with nogil:
                if c_foreign:
                    ok = False
                elif seq_id < 0:
                    ok = lib.llama_state_load_file(self.context._ptr, c_path, c_view, c_capacity, &n_tokens)
                else:
                    ok = lib.llama_state_seq_load_file(
                        self.context._ptr, c_path, seq_id, c_view, c_capacity, &n_tokens) != 0
        except EngineError as e:
            if not e.aborted:
                raise
        finally:
            if not ok:
                self._clear(seq_id)
            self.context._end()
        if not ok:
            raise engine_error(EngineError, f"the state in {os.fsdecode(raw)} cannot be restored", "llama",
                               "llama_state_load_file", None)
        return tokens[:n_tokens].tolist()
