"""Batches: the input of one decode() call."""

import numpy as np

cimport cython
from cyllama._native._handle cimport Handle, check_range
from cyllama.llama cimport libllama as lib
from cyllama.llama._context cimport LlamaContext

cdef int MAX_CAPACITY = 1 << 22
cdef int MAX_SHORT = 8


def token_array(tokens) -> np.ndarray:
    """Return `tokens` as a contiguous int32 array; TypeError for other types than integers."""
    found = np.asarray(tokens)
    if found.ndim != 1:
        raise TypeError(f"tokens have {found.ndim} dimensions, expected 1")
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"tokens have dtype {found.dtype}, expected integers")
    if found.size and (found.min() < -2**31 or found.max() >= 2**31):
        raise ValueError("tokens contain a value that is not a 32-bit integer")
    return np.ascontiguousarray(found, np.int32)


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class LlamaBatch(Handle):
    """Tokens or embeddings for :meth:`LlamaContext.decode`.

    Parameters
    ----------
    n_tokens : int
        Capacity, 1 to 4,194,304.
    embd : int
        0 for token ids, otherwise the width of the embeddings.
    n_seq_max : int
        Maximum number of sequences that one token can belong to.

    Notes
    -----
    Thread safety: one thread at a time. Source: ``llama_batch_init``, llama.h.
    """

    def __cinit__(self, *, n_tokens=512, embd=0, n_seq_max=1):
        check_range(n_tokens, "n_tokens", 1, MAX_CAPACITY)
        check_range(embd, "embd", 0, 1 << 20)
        check_range(n_seq_max, "n_seq_max", 1, lib.llama_max_parallel_sequences())
        self.capacity = n_tokens
        self.embd = embd
        self.n_seq_max = n_seq_max
        self._batch = lib.llama_batch_init(n_tokens, embd, n_seq_max)
        if self._batch.pos == NULL or (self._batch.token == NULL and self._batch.embd == NULL):
            raise MemoryError(f"no memory for a batch of {n_tokens} tokens")
        self._opened("LlamaBatch", None)

    def __init__(self, *, n_tokens: int = 512, embd: int = 0, n_seq_max: int = 1) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        lib.llama_batch_free(self._batch)
        return 0

    @classmethod
    def from_tokens(cls, tokens: list, pos0: int = 0, seq_id: int = 0, logits_all: bool = False) -> LlamaBatch:
        """Return a batch with one sequence of tokens from position `pos0`; the last token has an output."""
        found = token_array(tokens)
        if not len(found):
            raise ValueError("tokens is empty, expected at least one")
        batch = cls(n_tokens=len(found), embd=0, n_seq_max=1)
        batch.add_sequence(found, pos0, seq_id, logits_all)
        return batch

    @property
    def n_tokens(self) -> int:
        """Tokens in the batch."""
        self._check()
        return self._batch.n_tokens

    def __len__(self) -> int:
        return self._batch.n_tokens if self._open else 0

    cdef int _room(self, Py_ssize_t n) except -1:
        self._check()
        if self._batch.n_tokens + n > self.capacity:
            raise ValueError(
                f"the batch is full: it has {self._batch.n_tokens} of {self.capacity} tokens, {n} more do not fit")
        return 0

    cdef int _place(self, int i, int pos, object seq_ids, bint logits) except -1:
        """Set position, sequences and output flag of entry `i`."""
        cdef int s
        n = len(seq_ids)
        if not 1 <= n <= self.n_seq_max:
            raise ValueError(f"seq_ids has {n} entries, expected 1 to {self.n_seq_max} (n_seq_max of the batch)")
        limit = lib.llama_max_parallel_sequences()
        for s, seq_id in enumerate(seq_ids):
            if not 0 <= seq_id < limit:
                raise IndexError(f"seq_ids contains {seq_id}, expected 0 to {limit - 1}")
            self._batch.seq_id[i][s] = seq_id
        self._batch.pos[i] = pos
        self._batch.n_seq_id[i] = n
        self._batch.logits[i] = logits
        return 0

    def add(self, token: int, pos: int, seq_ids: list = (0,), logits: bool = False) -> None:
        """Add one token.

        Parameters
        ----------
        token : int
            Token id. ``decode`` checks it against the vocabulary.
        pos : int
            Position in its sequences, 0 or more.
        seq_ids : sequence of int
            Sequences that the token belongs to.
        logits : bool
            Whether to compute the token's output.

        Raises
        ------
        ValueError
            The batch is full, or contains embeddings.
        IndexError
            A negative token or sequence id.
        """
        self._room(1)
        if self._batch.token == NULL:
            raise ValueError("this batch takes embeddings, not tokens: use add_embeddings()")
        if token < 0:
            raise IndexError(f"token is {token}, expected 0 or more")
        check_range(token, "token", 0, 2**31 - 1)
        check_range(pos, "pos", 0, 2**31 - 1)
        cdef int i = self._batch.n_tokens
        self._place(i, pos, seq_ids, logits)
        self._batch.token[i] = token
        self._batch.n_tokens += 1

    def add_sequence(self, tokens: list, pos0: int = 0, seq_id: int = 0, logits_all: bool = False) -> None:
        """Add tokens of one sequence from position `pos0`; the last token, or each, has an output.

        Parameters
        ----------
        tokens : sequence of int or int32 array, shape (n,)
        """
        # Fast path without NumPy: a generation loop passes a list of one token.
        cdef list short_list = tokens if type(tokens) is list and len(tokens) <= MAX_SHORT else None
        cdef const lib.llama_token[::1] view
        cdef int n, first, i
        if short_list is None:
            view = token_array(tokens)
            n = <int> view.shape[0]
        else:
            n = <int> len(short_list)
            for i in range(n):
                check_range(short_list[i], "token", -2**31, 2**31 - 1)
        self._room(n)
        if self._batch.token == NULL:
            raise ValueError("this batch takes embeddings, not tokens: use add_embeddings()")
        check_range(pos0, "pos0", 0, 2**31 - 1 - n)
        check_range(seq_id, "seq_id", 0, lib.llama_max_parallel_sequences() - 1)
        cdef int c_pos = pos0
        cdef int c_seq = seq_id
        cdef bint c_all = logits_all
        first = self._batch.n_tokens
        for i in range(n):
            self._batch.token[first + i] = short_list[i] if short_list is not None else view[i]
            self._batch.pos[first + i] = c_pos + i
            self._batch.n_seq_id[first + i] = 1
            self._batch.seq_id[first + i][0] = c_seq
            self._batch.logits[first + i] = c_all or i == n - 1
        self._batch.n_tokens += n

    def set_batch(self, tokens: list, n_past: int = 0, logits_all: bool = False) -> None:
        """Replace the content by tokens of sequence 0 from position `n_past`."""
        self.clear()
        self.add_sequence(tokens, n_past, 0, logits_all)

    def add_embeddings(self, rows: np.ndarray, pos0: int = 0, seq_id: int = 0, logits_all: bool = False) -> None:
        """Add embeddings instead of tokens.

        Parameters
        ----------
        rows : float32 array, shape (n, embd)
        """
        cdef const float[:, ::1] view = np.ascontiguousarray(rows, np.float32)
        cdef int n = <int> view.shape[0]
        cdef int width = self.embd
        cdef int first, i, j
        self._room(n)
        if self._batch.embd == NULL:
            raise ValueError("this batch takes tokens: make it with embd=the width of the embeddings")
        if view.shape[1] != width:
            raise ValueError(f"rows have width {view.shape[1]}, expected {width} (embd of the batch)")
        check_range(pos0, "pos0", 0, 2**31 - 1 - n)
        first = self._batch.n_tokens
        for i in range(n):
            self._place(first + i, pos0 + i, (seq_id,), logits_all or i == n - 1)
            for j in range(width):
                self._batch.embd[(<size_t> first + i) * width + j] = view[i, j]
        self._batch.n_tokens += n

    def set_last_logits_to_true(self) -> None:
        """Request the output of the last token. ValueError for an empty batch."""
        self._check()
        if self._batch.n_tokens == 0:
            raise ValueError("the batch is empty")
        self._batch.logits[self._batch.n_tokens - 1] = True

    def clear(self) -> None:
        """Remove all tokens; the memory is kept."""
        self._check()
        self._batch.n_tokens = 0

    cdef int _check_for(self, LlamaContext ctx, bint encode) except -1:
        """Check the sizes, ids and sequences that the engine asserts."""
        cdef int i, s, limit
        cdef int n = self._batch.n_tokens
        cdef int n_vocab = ctx.model.n_vocab
        cdef int n_seq = lib.llama_n_seq_max(ctx._ptr)
        cdef int n_positions = ctx.model._n_positions
        if n == 0:
            raise ValueError("the batch is empty, expected at least one token")
        limit = lib.llama_n_ubatch(ctx._ptr) if encode or not lib.llama_get_causal_attn(ctx._ptr) else \
            lib.llama_n_batch(ctx._ptr)
        if n > limit:
            raise ValueError(f"the batch has {n} tokens, expected {limit} at most "
                             f"({'n_ubatch' if limit != lib.llama_n_batch(ctx._ptr) else 'n_batch'} of the context)")
        if self.embd and self.embd != lib.llama_model_n_embd_inp(ctx.model._ptr):
            raise ValueError(f"the embeddings have width {self.embd}, expected "
                             f"{lib.llama_model_n_embd_inp(ctx.model._ptr)} for this model")
        for i in range(n):
            if self._batch.token != NULL and not 0 <= self._batch.token[i] < n_vocab:
                raise IndexError(f"token {i} of the batch is {self._batch.token[i]}, expected 0 to {n_vocab - 1}")
            if n_positions and self._batch.pos[i] >= n_positions:
                raise ValueError(f"token {i} of the batch is at position {self._batch.pos[i]}, expected 0 to "
                                 f"{n_positions - 1}: the model has no weights for more positions")
            for s in range(self._batch.n_seq_id[i]):
                if not 0 <= self._batch.seq_id[i][s] < n_seq:
                    raise IndexError(f"token {i} of the batch is in sequence {self._batch.seq_id[i][s]}, expected 0 to "
                                     f"{n_seq - 1} (n_seq_max of the context is {n_seq})")
        return 0

    cdef bytearray _output_flags(self, bint output_all):
        """Return one byte for each token: whether it has an output."""
        cdef int i
        flags = bytearray(self._batch.n_tokens)
        for i in range(self._batch.n_tokens):
            flags[i] = output_all or self._batch.logits[i] != 0
        return flags


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class LlamaBatchExt(Handle):
    """A batch whose entries can carry a token, an embedding, or both (for :meth:`LlamaContext.process`).

    Parameters
    ----------
    context : LlamaContext
        The context that processes the batch; kept open.

    Notes
    -----
    Thread safety: one thread at a time. Source: ``llama_batch_ext_init``, llama.h.
    """

    def __cinit__(self, LlamaContext context not None):
        context._check()
        self._context = context
        self._ptr = lib.llama_batch_ext_init(context._ptr)
        self._outputs = bytearray()
        self._placed = bytearray()
        self._opened("LlamaBatchExt", context)

    def __init__(self, context: LlamaContext) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        lib.llama_batch_ext_free(self._ptr)
        self._ptr = NULL
        return 0

    def __len__(self) -> int:
        return len(self._outputs)

    def clear(self) -> None:
        """Remove all entries. Source: ``llama_batch_ext_clear``, llama.h."""
        self._check()
        lib.llama_batch_ext_clear(self._ptr)
        self._outputs = bytearray()
        self._placed = bytearray()

    cdef int _added(self, int code, str what) except -1:
        if code < 0:
            reason = {-1: f"the batch is full (n_batch is {lib.llama_n_batch(self._context._ptr)})",
                      -2: f"{what} is not valid for this model", -3: "the sequence id is not valid"}
            if code == -2 and len(self._outputs) < lib.llama_n_batch(self._context._ptr):
                raise ValueError(reason[-2] + "; call clear() before the batch is used again")
            raise ValueError(reason.get(code, f"the engine rejected {what} ({code})"))
        self._outputs.append(False)
        self._placed.append(False)
        return code

    cdef lib.llama_embd _row(self, const float[:, ::1] rows) except *:
        cdef lib.llama_embd c_embd
        c_embd.data = &rows[0, 0]
        c_embd.n_rows = rows.shape[0]
        c_embd.n_embd = rows.shape[1]
        return c_embd

    cdef int _index(self, object idx) except -1:
        self._check()
        if not 0 <= idx < len(self._outputs):
            raise IndexError(f"idx is {idx}, expected 0 to {len(self._outputs) - 1}")
        return idx

    def add(self, seq_id: int = 0) -> int:
        """Add an entry without token or embedding; return its index. Source: ``llama_batch_ext_add``, llama.h."""
        self._check()
        self._context._check_seq(seq_id, False)
        return self._added(lib.llama_batch_ext_add(self._ptr, seq_id), "the entry")

    def add_token(self, token: int, seq_id: int = 0) -> int:
        """Add a token; return its index. IndexError for an invalid id. Source: ``llama_batch_ext_add_token``."""
        self._check()
        self._context._check_seq(seq_id, False)
        self._context.model._check_token(token)
        return self._added(lib.llama_batch_ext_add_token(self._ptr, seq_id, token), "the token")

    def add_embd(self, rows: np.ndarray, seq_id: int = 0) -> int:
        """Add an embedding (float32, shape (n_embd,) or (n_rows, n_embd)); return its index.

        Source: ``llama_batch_ext_add_embd``, llama.h.
        """
        self._check()
        self._context._check_seq(seq_id, False)
        found = np.ascontiguousarray(np.atleast_2d(rows), np.float32)
        self._check_width(found)
        return self._added(lib.llama_batch_ext_add_embd(self._ptr, seq_id, self._row(found)), "the embedding")

    def _check_width(self, found: np.ndarray) -> None:
        width = lib.llama_model_n_embd_inp(self._context.model._ptr)
        if found.size != width:
            raise ValueError(f"the embedding has {found.size} values, expected {width}")

    def add_seq(self, idx: int, seq_id: int) -> None:
        """Add entry `idx` to another sequence. Source: ``llama_batch_ext_add_seq``, llama.h."""
        self._index(idx)
        self._context._check_seq(seq_id, False)
        lib.llama_batch_ext_add_seq(self._ptr, idx, seq_id)

    def set_pos(self, idx: int, pos: int | list) -> None:
        """Set the position of entry `idx`; an embedding of an M-RoPE model has four.

        Source: ``llama_batch_ext_set_pos``, llama.h.
        """
        self._index(idx)
        cdef lib.llama_pos c_pos[4]
        values = [pos] * 4 if hasattr(pos, "__index__") else list(pos)
        if len(values) != 4:
            raise ValueError(f"pos has {len(values)} values, expected 1 or 4")
        most = (self._context.model._n_positions or 2**31) - 1
        for i in range(4):
            check_range(values[i], "pos", 0, most)
            c_pos[i] = values[i]
        lib.llama_batch_ext_set_pos(self._ptr, idx, c_pos)
        self._placed[idx] = True

    def set_embd_token(self, idx: int, rows: np.ndarray) -> None:
        """Add an embedding to the token at `idx`. Source: ``llama_batch_ext_set_embd_token``, llama.h."""
        self._index(idx)
        found = np.ascontiguousarray(np.atleast_2d(rows), np.float32)
        self._check_width(found)
        if not lib.llama_batch_ext_set_embd_token(self._ptr, idx, self._row(found)):
            raise ValueError(f"the engine refused the embedding of entry {idx}")

    def set_output(self, idx: int, value: bool = True) -> None:
        """Set whether the output of entry `idx` is computed.

        Source: ``llama_batch_ext_set_output_logits``, ``llama_batch_ext_set_output_embd`` (the same for now), llama.h.
        """
        self._index(idx)
        lib.llama_batch_ext_set_output_logits(self._ptr, idx, value)
        lib.llama_batch_ext_set_output_embd(self._ptr, idx, value)
        self._outputs[idx] = value

    cdef int _missing_position(self) except? -2:
        """Return the first entry without a position, or -1."""
        return self._placed.find(b"\0")

    cdef bytearray _output_flags(self, bint output_all):
        return bytearray([1] * len(self._outputs)) if output_all else self._outputs
