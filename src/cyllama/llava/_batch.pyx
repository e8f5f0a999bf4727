"""Batches of images for the encoder."""

import numpy as np

cimport cython

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport CallState, Handle
from cyllama.llava cimport libmtmd as lib
from cyllama.llava._chunks cimport InputChunk
from cyllama.llava._context cimport MtmdContext

from cyllama.errors import EngineError, MediaError


@cython.no_gc_clear  # freeing needs the parent and the chunks
cdef class MtmdBatch(Handle):
    """Images that are encoded together, if the projector supports it.

    Parameters
    ----------
    ctx : MtmdContext
        Kept open by the batch.

    Notes
    -----
    Thread safety: one thread at a time (InUseError). Source: ``mtmd_batch_init``, mtmd.h.
    """

    cdef lib.mtmd_batch * _ptr
    cdef readonly MtmdContext context
    cdef list _chunks           # in it, kept open
    cdef bint _encoded

    def __cinit__(self, MtmdContext ctx not None):
        ctx._check()
        self.context = ctx
        self._chunks = []
        self._ptr = lib.mtmd_batch_init(ctx._ptr)
        self._opened("MtmdBatch", ctx)

    def __init__(self, ctx: MtmdContext) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.mtmd_batch * c_batch = self._ptr
        cdef InputChunk chunk
        self._ptr = NULL
        with nogil:
            lib.mtmd_batch_free(c_batch)
        for chunk in self._chunks:
            chunk._n_children -= 1
        self._chunks = []
        return 0

    def __len__(self) -> int:
        return len(self._chunks)

    def add_chunk(self, chunk: InputChunk) -> bool:
        """Add an image or audio; the batch keeps it open.

        Returns
        -------
        bool
            False where it cannot go with those before: encode them first, and take a new batch. The first one always
            fits.

        Raises
        ------
        ValueError
            A chunk of text, of another context, or a placeholder; or the batch was encoded already.

        Notes
        -----
        Source: ``mtmd_batch_add_chunk``, mtmd.h.
        """
        return self._add(chunk)

    def _add(self, InputChunk chunk not None) -> bool:
        self._check()
        self.context._check_media(chunk, True)
        if self._encoded:
            raise ValueError("the batch was encoded already; take a new one")
        start_call()
        cdef int code = lib.mtmd_batch_add_chunk(self._ptr, chunk._ptr)
        if code in (2, 3):  # too many tokens; of another size
            return False
        if code != 0:
            raise engine_error(MediaError, "the chunk cannot be added", "llava", "mtmd_batch_add_chunk", code)
        chunk._n_children += 1
        self._chunks.append(chunk)
        return True

    def encode(self, *, cancel: object | None = None) -> None:
        """Encode the batch; :meth:`get_output_embd` gives the results.

        Raises
        ------
        ValueError
            It is empty.
        MediaError, CancelledError

        Notes
        -----
        Cancelling and threads as for :meth:`MtmdContext.encode_chunk`. Source: ``mtmd_batch_encode``, mtmd.h.
        """
        cdef CallState state = CallState(cancel)
        cdef MtmdContext ctx = self.context
        cdef int code = 0
        self._check()
        if not self._chunks:
            raise ValueError("the batch is empty, expected at least one chunk")
        state.finish()
        self._begin()
        self._encoded = False
        try:
            ctx._call_begin(state)
            try:
                with nogil:
                    code = lib.mtmd_batch_encode(self._ptr)
            except EngineError as e:
                ctx._failed(e)
                raise
            finally:
                ctx._call_end()
        finally:
            self._end()
        ctx._finish_encode(code, "mtmd_batch_encode", state)
        self._encoded = True

    def get_output_embd(self, chunk: InputChunk) -> np.ndarray:
        """Return the embeddings of a chunk of the batch: float32, shape (n_tokens, n_embd), a copy.

        Raises
        ------
        MediaError
            The batch was not encoded.
        ValueError
            The chunk is not in it.

        Notes
        -----
        Source: ``mtmd_batch_get_output_embd``, mtmd.h.
        """
        return self._output(chunk)

    def _output(self, InputChunk chunk not None) -> np.ndarray:
        cdef float * c_rows
        self._check()
        chunk._check()
        if not self._encoded:
            raise MediaError("no embeddings yet: call encode() first", engine="llava")
        c_rows = lib.mtmd_batch_get_output_embd(self._ptr, chunk._ptr)
        if c_rows == NULL:
            raise ValueError("the chunk is not in the batch")
        return self.context._output(c_rows, chunk.n_tokens)
