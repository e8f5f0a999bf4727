"""Chunks of a prompt: runs of tokens, images and audio."""

from collections.abc import Iterator

import numpy as np

cimport cython

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport Handle, check_range
from cyllama.llama cimport libllama as llama
from cyllama.llava cimport libmtmd as lib

from cyllama.errors import EngineError
from cyllama.llava._enums import ChunkType

# Limits for damaged chunks; no image or audio has more.
MAX_TOKENS = 1 << 24


cdef InputChunk _new_chunk(const lib.mtmd_input_chunk * c_chunk, lib.mtmd_input_chunk * c_own, object context,
                           Handle parent, bint is_placeholder):
    cdef InputChunk self = InputChunk.__new__(InputChunk)
    self._take(c_chunk, c_own, context, parent)
    self.is_placeholder = is_placeholder
    return self


@cython.no_gc_clear  # freeing needs the parent
cdef class InputChunk(Handle):
    """A run of tokens, an image or audio of a prompt.

    Attributes
    ----------
    context : MtmdContext or None
        Which it was made by, and can be encoded with.
    is_placeholder : bool
        It was loaded, or made without its content: it cannot be encoded.

    Notes
    -----
    Thread safety: may be shared by threads. Source: ``mtmd_input_chunk``, mtmd.h.
    """

    def __init__(self) -> None:
        raise TypeError("InputChunk() cannot be called; MtmdContext.tokenize and InputChunk.load give chunks")

    def __dealloc__(self):
        self._dispose()

    cdef int _take(self, const lib.mtmd_input_chunk * c_chunk, lib.mtmd_input_chunk * c_own, object context,
                   Handle parent) except -1:
        self._ptr = c_chunk
        self._own = c_own
        self.context = context
        self._opened("InputChunk", parent)
        return 0

    cdef int _release(self) noexcept:
        cdef lib.mtmd_input_chunk * c_own = self._own
        self._ptr = NULL
        self._own = NULL
        with nogil:
            lib.mtmd_input_chunk_free(c_own)
        return 0

    @property
    def type(self) -> ChunkType:
        """What it is. Source: ``mtmd_input_chunk_get_type``, mtmd.h."""
        self._check()
        return ChunkType(<int> lib.mtmd_input_chunk_get_type(self._ptr))

    @property
    def tokens(self) -> list[int]:
        """Token ids of a run of text, empty otherwise. Source: ``mtmd_input_chunk_get_tokens_text``, mtmd.h."""
        self._check()
        cdef size_t n = 0
        cdef const llama.llama_token * c_tokens = lib.mtmd_input_chunk_get_tokens_text(self._ptr, &n)
        return [c_tokens[i] for i in range(n)]

    @property
    def n_tokens(self) -> int:
        """Number of tokens, or of rows of its embeddings.

        Source: ``mtmd_input_chunk_get_n_tokens``, ``mtmd_image_tokens_get_n_tokens``, mtmd.h.
        """
        self._check()
        cdef const lib.mtmd_image_tokens * image = lib.mtmd_input_chunk_get_tokens_image(self._ptr)
        if image != NULL:
            return lib.mtmd_image_tokens_get_n_tokens(image)
        return lib.mtmd_input_chunk_get_n_tokens(self._ptr)

    @property
    def n_pos(self) -> int:
        """Number of positions in the context; with M-RoPE fewer than tokens.

        Source: ``mtmd_input_chunk_get_n_pos``, ``mtmd_image_tokens_get_n_pos``, mtmd.h.
        """
        self._check()
        cdef const lib.mtmd_image_tokens * image = lib.mtmd_input_chunk_get_tokens_image(self._ptr)
        if image != NULL:
            return lib.mtmd_image_tokens_get_n_pos(image)
        return lib.mtmd_input_chunk_get_n_pos(self._ptr)

    @property
    def id(self) -> str | None:
        """The ``id`` of its bitmap. Source: ``mtmd_input_chunk_get_id``, ``mtmd_image_tokens_get_id``, mtmd.h."""
        self._check()
        cdef const lib.mtmd_image_tokens * image = lib.mtmd_input_chunk_get_tokens_image(self._ptr)
        cdef const char * c_id = lib.mtmd_input_chunk_get_id(self._ptr)
        if image != NULL:
            c_id = lib.mtmd_image_tokens_get_id(image)
        return (c_id.decode("utf-8", "replace") or None) if c_id != NULL else None

    def decoder_pos(self, pos_0: int, i: int) -> tuple[int, int, int, int]:
        """Return the position (t, x, y, z) of a token of an image, for models with M-RoPE.

        Parameters
        ----------
        pos_0 : int
            Position of the first token.
        i : int
            0 to ``n_tokens`` - 1.

        Raises
        ------
        IndexError, TypeError, ValueError
            Also if the chunk is not an image.

        Notes
        -----
        Source: ``mtmd_image_tokens_get_decoder_pos``, mtmd.h.
        """
        cdef const lib.mtmd_image_tokens * image = self._image()
        cdef lib.mtmd_decoder_pos pos
        check_range(pos_0, "pos_0", 0, 2**31 - 1)
        check_range(i, "i", -2**62, 2**62)
        if not 0 <= i < lib.mtmd_image_tokens_get_n_tokens(image):
            raise IndexError(f"i is {i}, expected 0 to {self.n_tokens - 1}")
        pos = lib.mtmd_image_tokens_get_decoder_pos(image, pos_0, i)
        return pos.t, pos.x, pos.y, pos.z

    def positions(self, pos_0: int = 0) -> np.ndarray:
        """Return the positions of all tokens of an image: uint32, shape (n_tokens, 4), columns t, x, y, z.

        Raises
        ------
        TypeError, ValueError
            Also if the chunk is not an image.

        Notes
        -----
        Source: ``mtmd_helper_image_get_decoder_pos``, mtmd-helper.h.
        """
        cdef const lib.mtmd_image_tokens * image = self._image()
        cdef int c_pos
        cdef unsigned int[:, ::1] view
        cdef unsigned int * c_view
        check_range(pos_0, "pos_0", 0, 2**31 - 1)
        c_pos = pos_0
        rows = np.empty((self.n_tokens, 4), np.uint32)
        if len(rows):
            view = rows
            c_view = &view[0, 0]
            with nogil:
                lib.mtmd_helper_image_get_decoder_pos(image, c_pos, <lib.mtmd_decoder_pos *> c_view)
        return rows

    cdef const lib.mtmd_image_tokens * _image(self) except NULL:
        self._check()
        cdef const lib.mtmd_image_tokens * image = lib.mtmd_input_chunk_get_tokens_image(self._ptr)
        if image == NULL:
            raise ValueError(f"the chunk is {self.type.name.lower()}, expected an image")
        return image

    def copy(self) -> InputChunk:
        """Return a copy that stays valid after the list. Source: ``mtmd_input_chunk_copy``, mtmd.h."""
        cdef lib.mtmd_input_chunk * c_chunk
        self._hold()
        try:
            with nogil:
                c_chunk = lib.mtmd_input_chunk_copy(self._ptr)
        finally:
            self._unhold()
        return _new_chunk(c_chunk, c_chunk, self.context, None, self.is_placeholder)

    def placeholder(self) -> InputChunk:
        """Return a copy without the content. Source: ``mtmd_input_chunk_get_placeholder``, mtmd.h."""
        cdef lib.mtmd_input_chunk * c_chunk
        self._hold()
        try:
            with nogil:
                c_chunk = lib.mtmd_input_chunk_get_placeholder(self._ptr)
        finally:
            self._unhold()
        if c_chunk == NULL:
            raise engine_error(EngineError, "the chunk cannot be copied", "llava", "mtmd_input_chunk_get_placeholder",
                               None)
        return _new_chunk(c_chunk, c_chunk, self.context, None, True)

    def save(self) -> bytes:
        """Return the chunk without its content, to store it with a state. Source: ``mtmd_input_chunk_save``, mtmd.h."""
        cdef size_t n = 0
        self._check()
        if lib.mtmd_input_chunk_save(self._ptr, NULL, 0, &n) != 0:
            raise engine_error(EngineError, "the chunk cannot be saved", "llava", "mtmd_input_chunk_save", None)
        data = bytearray(n)
        cdef char[::1] view = data
        if lib.mtmd_input_chunk_save(self._ptr, &view[0], n, NULL) != 0:
            raise engine_error(EngineError, "the chunk cannot be saved", "llava", "mtmd_input_chunk_save", None)
        return bytes(data)

    @classmethod
    def load(cls, data: bytes) -> InputChunk:
        """Return a chunk from the data of :meth:`save`: a placeholder.

        Raises
        ------
        ValueError
            The data is not of a chunk of this version of the engine.

        Notes
        -----
        Source: ``mtmd_input_chunk_load``, mtmd.h.
        """
        cdef const char[::1] view = memoryview(data).cast("B").cast("c")
        cdef const char * c_view
        cdef lib.mtmd_input_chunk * c_chunk = NULL
        start_call()
        if view.shape[0]:
            c_view = &view[0]
            with nogil:
                c_chunk = lib.mtmd_input_chunk_load(c_view, view.shape[0])
        if c_chunk == NULL:
            raise ValueError(f"the data of {view.shape[0]} bytes is no saved chunk of this version of the engine")
        self = _new_chunk(c_chunk, c_chunk, None, None, True)
        if self.n_tokens > MAX_TOKENS:
            raise ValueError(f"the saved chunk has {self.n_tokens} tokens, at most {MAX_TOKENS} can be")
        return self

    def __repr__(self) -> str:
        if not self._open:
            return "<InputChunk (closed)>"
        return f"<InputChunk {self.type.name.lower()}, {self.n_tokens} tokens>"


@cython.no_gc_clear
cdef class InputChunks(Handle):
    """The chunks of a prompt, in order: a sequence. ``MtmdContext.tokenize`` fills it.

    Attributes
    ----------
    context : MtmdContext
        Which it was made by.

    Notes
    -----
    Thread safety: may be shared by threads. Source: ``mtmd_input_chunks``, mtmd.h.
    """

    def __cinit__(self, context=None):
        self._ptr = lib.mtmd_input_chunks_init()
        self.context = context
        self._opened("InputChunks", None)

    def __init__(self, context: object | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.mtmd_input_chunks * c_chunks = self._ptr
        self._ptr = NULL
        with nogil:
            lib.mtmd_input_chunks_free(c_chunks)
        return 0

    def __len__(self) -> int:
        self._check()
        return lib.mtmd_input_chunks_size(self._ptr)

    def __getitem__(self, i: int) -> InputChunk:
        """Return the i-th chunk; negative indices count from the end. Source: ``mtmd_input_chunks_get``, mtmd.h."""
        n = len(self)
        check_range(i, "the index of a chunk", -2**62, 2**62)
        if not -n <= i < n:
            raise IndexError(f"chunk {i} does not exist: there are {n}")
        return _new_chunk(lib.mtmd_input_chunks_get(self._ptr, i % n), NULL, self.context, self, False)

    def __iter__(self) -> Iterator[InputChunk]:
        return (self[i] for i in range(len(self)))

    @property
    def n_tokens(self) -> int:
        """Tokens of all chunks. Source: ``mtmd_helper_get_n_tokens``, mtmd-helper.h."""
        self._check()
        return lib.mtmd_helper_get_n_tokens(self._ptr)

    @property
    def n_pos(self) -> int:
        """Positions of all chunks. Source: ``mtmd_helper_get_n_pos``, mtmd-helper.h."""
        self._check()
        return lib.mtmd_helper_get_n_pos(self._ptr)

    def __repr__(self) -> str:
        if not self._open:
            return "<InputChunks (closed)>"
        return f"<InputChunks {', '.join(f'{c.type.name.lower()} {c.n_tokens}' for c in self)}>"
