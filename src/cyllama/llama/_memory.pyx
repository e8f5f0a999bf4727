"""The memory (KV cache) of a context."""

from cyllama._native._handle cimport check_range
from cyllama.llama cimport libllama as lib
from cyllama.llama._context cimport LlamaContext

from cyllama.errors import EngineError, UnsupportedError

cdef long long POS_MAX = 2**31 - 1


cdef class LlamaMemory:
    """The KV cache of a context: positions [p0, p1) of its sequences.

    A negative `p0` means from the start, a negative `p1` to the end.

    Parameters
    ----------
    context : LlamaContext
        Kept alive.

    Notes
    -----
    Thread safety: that of the context, one thread at a time.
    """

    cdef readonly LlamaContext context

    def __init__(self, context: LlamaContext) -> None:
        self.context = <LlamaContext?> context
        self.context._check_memory()

    cdef lib.llama_memory_t _begin(self) except NULL:
        self.context._check_memory()
        self.context._begin()
        return lib.llama_get_memory(self.context._ptr)

    cdef int _check_range(self, object seq_id, bint any_allowed, object p0, object p1) except -1:
        self.context._check()
        self.context._check_seq(seq_id, any_allowed)
        check_range(p0, "p0", -1, POS_MAX)
        check_range(p1, "p1", -1, POS_MAX)
        return 0

    def clear(self, data: bool = True) -> None:
        """Remove all sequences; `data` also zeroes the buffers. Source: ``llama_memory_clear``, llama.h."""
        cdef bint c_data = data
        cdef lib.llama_memory_t memory = self._begin()
        try:
            with nogil:
                lib.llama_memory_clear(memory, c_data)
        finally:
            self.context._end()

    def seq_rm(self, seq_id: int, p0: int = -1, p1: int = -1) -> bool:
        """Remove positions [p0, p1) of a sequence (-1: of all sequences).

        Returns
        -------
        bool
            False if the model cannot remove a part of a sequence (recurrent models).

        Notes
        -----
        Source: ``llama_memory_seq_rm``, llama.h.
        """
        self._check_range(seq_id, True, p0, p1)
        cdef lib.llama_memory_t memory = self._begin()
        try:
            return lib.llama_memory_seq_rm(memory, seq_id, p0, p1)
        finally:
            self.context._end()

    def seq_cp(self, seq_id_src: int, seq_id_dst: int, p0: int = -1, p1: int = -1) -> None:
        """Copy positions [p0, p1) of a sequence to another.

        Raises
        ------
        UnsupportedError
            The range is a part of the sequence, and each sequence has its own buffer (``kv_unified`` is False).

        Notes
        -----
        Source: ``llama_memory_seq_cp``, llama.h.
        """
        self._check_range(seq_id_src, False, p0, p1)
        self.context._check_seq(seq_id_dst, False)
        n_ctx_seq = lib.llama_n_ctx_seq(self.context._ptr)
        if not self.context._kv_unified and seq_id_src != seq_id_dst and (p0 > 0 or 0 < p1 < n_ctx_seq - 1):
            raise UnsupportedError(
                f"only whole sequences can be copied between separate buffers, got p0={p0}, p1={p1}; "
                "make the context with kv_unified=True")
        cdef lib.llama_memory_t memory = self._begin()
        try:
            lib.llama_memory_seq_cp(memory, seq_id_src, seq_id_dst, p0, p1)
        except EngineError as e:
            self.context._failed(e)
            raise
        finally:
            self.context._end()

    def seq_keep(self, seq_id: int) -> None:
        """Remove all sequences but this one. Source: ``llama_memory_seq_keep``, llama.h."""
        self._check_range(seq_id, False, -1, -1)
        cdef lib.llama_memory_t memory = self._begin()
        try:
            lib.llama_memory_seq_keep(memory, seq_id)
        finally:
            self.context._end()

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        """Shift positions [p0, p1) of a sequence by `delta`.

        Raises
        ------
        UnsupportedError
            This model does not support shifting positions.

        Notes
        -----
        Source: ``llama_memory_seq_add``, llama.h.
        """
        self._check_range(seq_id, False, p0, p1)
        check_range(delta, "delta", -POS_MAX, POS_MAX)
        self._check_shift()
        cdef lib.llama_memory_t memory = self._begin()
        try:
            lib.llama_memory_seq_add(memory, seq_id, p0, p1, delta)
        except EngineError as e:
            self.context._failed(e)
            raise
        finally:
            self.context._end()

    def seq_div(self, seq_id: int, p0: int, p1: int, divisor: int) -> None:
        """Divide positions [p0, p1) of a sequence by `divisor` (1 or more). Errors as :meth:`seq_add`.

        Source: ``llama_memory_seq_div``, llama.h.
        """
        self._check_range(seq_id, False, p0, p1)
        check_range(divisor, "divisor", 1, POS_MAX)
        self._check_shift()
        cdef lib.llama_memory_t memory = self._begin()
        try:
            lib.llama_memory_seq_div(memory, seq_id, p0, p1, divisor)
        except EngineError as e:
            self.context._failed(e)
            raise
        finally:
            self.context._end()

    def _check_shift(self) -> None:
        if not self.can_shift():
            raise UnsupportedError("this model does not support shifting positions")

    def seq_pos_min(self, seq_id: int) -> int:
        """Return the smallest position of a sequence, -1 if it is empty. Source: ``llama_memory_seq_pos_min``."""
        self._check_range(seq_id, False, -1, -1)
        return lib.llama_memory_seq_pos_min(lib.llama_get_memory(self.context._ptr), seq_id)

    def seq_pos_max(self, seq_id: int) -> int:
        """Return the largest position of a sequence, -1 if it is empty. Source: ``llama_memory_seq_pos_max``."""
        self._check_range(seq_id, False, -1, -1)
        return lib.llama_memory_seq_pos_max(lib.llama_get_memory(self.context._ptr), seq_id)

    def can_shift(self) -> bool:
        """Return whether positions can be shifted. Source: ``llama_memory_can_shift``, llama.h."""
        self.context._check_memory()
        return lib.llama_memory_can_shift(lib.llama_get_memory(self.context._ptr))
