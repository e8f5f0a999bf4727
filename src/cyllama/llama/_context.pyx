"""The context: decoding, outputs, the KV cache and its state."""

import numpy as np

cimport cython
from libc.string cimport memcpy

from cyllama._native cimport libggml as ggml
from cyllama._native._c_memory cimport CMemory
from cyllama._native.libfields cimport set_enum
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport CallState, Handle, check_range, integer_of
from cyllama._native._tensors cimport ask_about_tensor
from cyllama._native._threadpool cimport ThreadPool
from cyllama.llama cimport libllama as lib
from cyllama.llama._batch cimport LlamaBatch, LlamaBatchExt
from cyllama.llama._model cimport LlamaModel

from cyllama._native import _core
from cyllama._native.memory import total_memory
from cyllama._cancel import AnyCancel
from cyllama.errors import ContextFullError, DecodeError, EngineError, OutOfMemoryError, UnsupportedError
from cyllama._params import checked, enum_value
from cyllama.llama._enums import PoolingType, ProcessType
from cyllama.llama.params import LlamaContextParams


cdef bint _poll(void * data) noexcept nogil:
    """Abort callback of every context: polls the running call."""
    cdef void * call = (<LlamaContext> data)._call
    return call != NULL and (<CallState> call).poll()


cdef bint _eval(ggml.ggml_tensor * tensor, bint ask, void * data) noexcept nogil:
    return False if is_ending() else _eval_gil(tensor, ask, data)


cdef bint _eval_gil(ggml.ggml_tensor * tensor, bint ask, void * data) noexcept with gil:
    """Evaluation callback: `params.cb_eval(name, op, shape, values)`; `values` is None in the query before it."""
    cdef LlamaContext ctx = <LlamaContext> data
    if ctx._eval_error is not None:
        return not ask
    try:
        return ask_about_tensor(ctx._eval_callback, tensor, ask)
    except BaseException as e:
        ctx._eval_error = e
        return False


cdef object _copy_rows(const float * source, size_t n_rows, size_t width):
    """Return a copy of float32 rows."""
    cdef size_t n = n_rows * width * sizeof(float)
    rows = np.empty((n_rows, width), np.float32)
    cdef float[:, ::1] view
    cdef void * c_target
    if n:
        view = rows
        c_target = &view[0, 0]
        with nogil:
            memcpy(c_target, source, n)
    return rows


cdef int _check_fits(LlamaModel model, lib.llama_context_params * c_params) except -1:
    """Reject a cache that cannot fit: the kernel would overcommit it and kill the process later."""
    cdef int n_head = lib.llama_model_n_head(model._ptr)
    if n_head <= 0 or lib.llama_model_is_recurrent(model._ptr):
        return 0
    n_ctx = c_params.n_ctx or lib.llama_model_n_ctx_train(model._ptr)
    row = lib.llama_model_n_embd(model._ptr) // n_head * max(1, lib.llama_model_n_head_kv(model._ptr))
    bits = sum(8 * ggml.ggml_type_size(t) / ggml.ggml_blck_size(t) for t in (c_params.type_k, c_params.type_v))
    # an upper bound: sliding windows and hybrid layers need less, so it is compared with twice the memory
    needed = int(n_ctx * lib.llama_model_n_layer(model._ptr) * row * bits / 8)
    total = total_memory(swap=True)
    if total and needed > 2 * total:
        raise OutOfMemoryError(
            f"n_ctx is {n_ctx}: its KV cache needs {needed / 2**30:.1f} GiB, this machine has {total / 2**30:.1f} GiB",
            engine="llama", function="llama_init_from_model")
    return 0


include "LlamaContextParams.pxi"


cdef int _fill(object params, lib.llama_context_params * c_params) except -1:
    """Write `params` over the engine's defaults."""
    values = checked(params, LlamaContextParams)
    c_params[0] = lib.llama_context_default_params()
    c_params.n_threads = c_params.n_threads_batch = _core.get_threads()
    fill_LlamaContextParams(values, c_params, None)
    if params.n_seq_max is not None:
        check_range(params.n_seq_max, "n_seq_max", 1, lib.llama_max_parallel_sequences())
    if params.n_batch is not None and params.n_ubatch is None:
        c_params.n_ubatch = min(c_params.n_ubatch, c_params.n_batch)
    return 0


class _AbortSignal:
    """An abort callback as an event."""

    def __init__(self, callback) -> None:
        self.is_set = callback


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class LlamaContext(Handle):
    """A context: the KV cache of a model, its computations and their outputs.

    Parameters
    ----------
    model : LlamaModel
        Kept open by the context; several contexts may share it.
    params : LlamaContextParams, optional

    Raises
    ------
    EngineError
        The engine rejects the parameters; ``log`` has its message.
    OutOfMemoryError
        The KV cache does not fit in the memory of this machine.

    Notes
    -----
    Releases the GIL while allocating. Thread safety: one thread at a time (InUseError).
    Source: ``llama_init_from_model``, llama.h.
    """

    def __cinit__(self, LlamaModel model not None, params=None):
        cdef lib.llama_context_params c_params
        model._check()
        self.model = model
        self.params = LlamaContextParams() if params is None else params
        _core.load_backends()
        _fill(self.params, &c_params)
        if self.params.ctx_other is not None:
            self._other = <LlamaContext?> self.params.ctx_other
            (<LlamaContext> self._other)._check()
            c_params.ctx_other = (<LlamaContext> self._other)._ptr
        if self.params.cb_eval is not None:
            self._eval_callback = self.params.cb_eval
            c_params.cb_eval = <ggml.ggml_backend_sched_eval_callback> _eval
            c_params.cb_eval_user_data = <void *> self
        _check_fits(model, &c_params)
        self._samplers = {}
        self._loras = []
        self._n_outputs = -1
        self._kv_unified = c_params.kv_unified
        self._embeddings = c_params.embeddings
        start_call()
        model._hold()
        try:
            with nogil:
                self._ptr = lib.llama_init_from_model(model._ptr, c_params)
        finally:
            model._unhold()
        if self._ptr == NULL:
            raise engine_error(EngineError, "cannot make the context", "llama", "llama_init_from_model", None)
        self._opened("LlamaContext", model)
        lib.llama_set_abort_callback(self._ptr, <ggml.ggml_abort_callback> _poll, <void *> self)
        for seq_id, sampler in dict(self.params.samplers or {}).items():
            self.set_sampler(seq_id, sampler)

    def __init__(self, model: LlamaModel, params: LlamaContextParams | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.llama_context * c_ctx = self._ptr
        cdef Handle used
        self._ptr = NULL
        with nogil:
            lib.llama_free(c_ctx)
        for used in (*(self._loras or ()), *(self._samplers or {}).values(), *(self._threadpools or ())):
            used._n_children -= 1
        self._loras, self._samplers, self._threadpools = [], {}, None
        return 0

    # ---------------------------------------------------------------------------------- checks

    cdef int _check_seq(self, object seq_id, bint any_allowed) except -1:
        """Check that `seq_id` is a sequence of this context, or -1 if `any_allowed`."""
        cdef long long found = integer_of(seq_id, "seq_id")
        self._check()  # after the conversion, which may run Python code
        cdef long long n = lib.llama_n_seq_max(self._ptr)
        if not (-1 if any_allowed else 0) <= found < n:
            raise IndexError(f"seq_id is {found}, expected {-1 if any_allowed else 0} to {n - 1} (n_seq_max is {n})")
        return 0

    cdef int _check_output(self, object i) except -1:
        """Check that output `i` exists (a batch index, or negative from the end)."""
        check_range(i, "the index of an output", -2**31, 2**31 - 1)
        if self._n_outputs < 0:
            raise DecodeError("no output yet: call decode() first", engine="llama")
        if i < 0:
            if i < -self._n_outputs:
                raise IndexError(f"output {i} does not exist: the last batch had {self._n_outputs} output(s)")
        elif i >= len(self._has_output) or not self._has_output[i]:
            raise IndexError(
                f"token {i} of the last batch has no output: mark it with logits=True; the batch had "
                f"{len(self._has_output)} token(s), {self._n_outputs} output(s)")
        return 0

    cdef int _check_memory(self) except -1:
        self._check()
        if lib.llama_get_memory(self._ptr) == NULL:
            raise UnsupportedError("the context of this model has no memory (KV cache)")
        return 0

    cdef int _call_begin(self, object cancel) except -1:
        self._begin()
        self._eval_error = None
        start_call()
        return 0

    cdef int _finish(self, int code, str function, CallState state) except -1:
        """Turn the return code of a computation into an exception."""
        if self._eval_error is not None:
            error = self._eval_error
            self._eval_error = None
            raise error
        state.finish()
        if code == 0:
            return 0
        if code == 1:
            raise engine_error(
                ContextFullError, f"no room in the context for the batch (n_ctx is {lib.llama_n_ctx(self._ptr)})",
                "llama", function, code)
        what = {2: "the computation was aborted", -1: "invalid batch"}.get(code, "the computation failed")
        raise engine_error(DecodeError, what, "llama", function, code)

    cdef object _stop_signal(self, object cancel):
        """Return `cancel`, combined with the abort callback if there is one."""
        return cancel if self._abort is None else AnyCancel(_AbortSignal(self._abort), cancel)

    # ---------------------------------------------------------------------------------- compute

    def decode(self, batch: LlamaBatch, *, cancel: object | None = None) -> None:
        """Process a batch and update the KV cache.

        Parameters
        ----------
        batch : LlamaBatch
            1 to ``n_batch`` tokens.
        cancel : object with ``is_set()``, optional
            Polled every 50 ms, like Ctrl-C.

        Raises
        ------
        ContextFullError
            The KV cache is full; the memory is unchanged.
        DecodeError
            The engine rejects the batch, for example because positions do not continue those of the cache.
        IndexError
            A token or sequence id is out of range.
        ValueError
            The batch is empty or has more than ``n_batch`` tokens.
        CancelledError
            The tokens processed until then stay in the memory; remove them or clear the memory.

        Notes
        -----
        Releases the GIL. Thread safety: one thread at a time. Source: ``llama_decode``, llama.h.
        """
        self._compute(batch, cancel, False)

    def encode(self, batch: LlamaBatch, *, cancel: object | None = None) -> None:
        """Process a batch with the encoder, without the KV cache. Parameters and errors as :meth:`decode`.

        Source: ``llama_encode``, llama.h.
        """
        self._compute(batch, cancel, True)

    def _compute(self, LlamaBatch batch not None, cancel, bint encode) -> None:
        cdef CallState state = CallState(self._stop_signal(cancel))
        cdef lib.llama_batch c_batch
        cdef int code = 0
        batch._check()
        self._check()
        batch._check_for(self, encode)
        if not encode and lib.llama_get_memory(self._ptr) == NULL and lib.llama_model_has_encoder(self.model._ptr):
            raise UnsupportedError("this model has no decoder: use encode()")
        c_batch = batch._batch
        self._call_begin(cancel)
        self._call = <void *> state
        self._n_outputs = -1
        try:
            with nogil:
                code = lib.llama_encode(self._ptr, c_batch) if encode else lib.llama_decode(self._ptr, c_batch)
                if not state._stop:
                    lib.llama_synchronize(self._ptr)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._call = NULL
            self._end()
        self._finish(code, "llama_encode" if encode else "llama_decode", state)
        self._note_outputs(batch._output_flags(encode or self._all_outputs()))

    cdef int _note_outputs(self, bytearray flags) noexcept:
        cdef unsigned char flag
        self._has_output = flags
        self._n_outputs = 0
        for flag in flags:
            self._n_outputs += flag != 0
        return 0

    cdef bint _all_outputs(self) noexcept:
        """Return whether the engine overrides the flags of the batch and outputs every token."""
        return self._embeddings and lib.llama_get_pooling_type(self._ptr) != lib.LLAMA_POOLING_TYPE_NONE

    def process(self, batch: LlamaBatchExt, process_type: int | str = "decode", *,
                cancel: object | None = None) -> None:
        """Process an extended batch with the encoder or the decoder.

        Parameters and errors as :meth:`decode`. Source: ``llama_process``, llama.h.
        """
        self._process(batch, process_type, cancel)

    def _process(self, LlamaBatchExt batch not None, process_type, cancel) -> None:
        cdef lib.llama_process_type c_type = <lib.llama_process_type> <int> enum_value(
            ProcessType, process_type, "process_type")
        cdef CallState state = CallState(self._stop_signal(cancel))
        cdef int code = 0
        batch._check()
        if batch._context is not self:
            raise ValueError("the batch was made for another context")
        if not len(batch):
            raise ValueError("the batch is empty, expected at least one token")
        if batch._missing_position() >= 0:
            raise ValueError(f"token {batch._missing_position()} of the batch has no position: call set_pos()")
        self._call_begin(cancel)
        self._call = <void *> state
        self._n_outputs = -1
        try:
            with nogil:
                code = lib.llama_process(self._ptr, c_type, batch._ptr)
                if not state._stop:
                    lib.llama_synchronize(self._ptr)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._call = NULL
            self._end()
        self._finish(code, "llama_process", state)
        self._note_outputs(batch._output_flags(self._all_outputs()))

    def synchronize(self) -> None:
        """Wait until all computations are finished. Releases the GIL. Source: ``llama_synchronize``, llama.h."""
        self._begin()
        try:
            with nogil:
                lib.llama_synchronize(self._ptr)
        finally:
            self._end()

    # ---------------------------------------------------------------------------------- outputs

    cdef object _rows(self, const float * source, size_t n_rows, size_t width):
        """Copy rows of the context; no other call may run meanwhile."""
        self._begin()
        try:
            return _copy_rows(source, n_rows, width)
        finally:
            self._end()

    @property
    def n_outputs(self) -> int:
        """Return the number of outputs of the last batch."""
        self._check()
        return max(self._n_outputs, 0)

    def get_logits(self) -> np.ndarray:
        """Return a copy of the logits of the last batch: float32, shape (n_outputs, n_vocab).

        Raises
        ------
        DecodeError
            Nothing has been decoded, or the model has no logits.

        Notes
        -----
        Source: ``llama_get_logits``, llama.h.
        """
        self._idle()
        if self._n_outputs < 0:
            raise DecodeError("no output yet: call decode() first", engine="llama")
        cdef float * c_logits = lib.llama_get_logits(self._ptr)
        if c_logits == NULL:
            raise DecodeError("the last batch gave no logits", engine="llama", function="llama_get_logits")
        return self._rows(c_logits, self._n_outputs, self.model.n_vocab)

    def get_logits_ith(self, i: int = -1) -> np.ndarray:
        """Return a copy of the logits of one token: float32, shape (n_vocab,).

        Parameters
        ----------
        i : int
            Index in the last batch, of a token with an output; negative counts outputs from the end.

        Raises
        ------
        IndexError
            The token has no output.

        Notes
        -----
        Source: ``llama_get_logits_ith``, llama.h.
        """
        self._idle()
        self._check_output(i)
        cdef float * c_logits = lib.llama_get_logits_ith(self._ptr, i)
        if c_logits == NULL:
            raise DecodeError("the last batch gave no logits", engine="llama", function="llama_get_logits_ith")
        return self._rows(c_logits, 1, self.model.n_vocab)[0]

    def get_embeddings(self) -> np.ndarray:
        """Return a copy of all embeddings, without pooling only: float32, shape (n_outputs, n_embd_out).

        Source: ``llama_get_embeddings``, llama.h.
        """
        self._idle()
        if self._n_outputs < 0:
            raise DecodeError("no output yet: call decode() first", engine="llama")
        cdef float * c_rows = lib.llama_get_embeddings(self._ptr)
        if c_rows == NULL or self._all_outputs():
            raise DecodeError("no embeddings of tokens: the context needs embeddings=True and pooling_type 'none'",
                              engine="llama", function="llama_get_embeddings")
        return self._rows(c_rows, self._n_outputs, lib.llama_model_n_embd_out(self.model._ptr))

    def get_embeddings_ith(self, i: int = -1) -> np.ndarray:
        """Return a copy of the embedding of one token: float32, shape (n_embd_out,); `i` as in :meth:`get_logits_ith`.

        Source: ``llama_get_embeddings_ith``, llama.h.
        """
        self._idle()
        self._check_output(i)
        cdef float * c_row = lib.llama_get_embeddings_ith(self._ptr, i)
        if c_row == NULL:
            raise DecodeError("no embeddings of tokens: the context needs embeddings=True and pooling_type 'none'",
                              engine="llama", function="llama_get_embeddings_ith")
        return self._rows(c_row, 1, lib.llama_model_n_embd_out(self.model._ptr))[0]

    def get_embeddings_seq(self, seq_id: int = 0) -> np.ndarray:
        """Return a copy of the pooled embedding: float32, shape (n_embd_out,), or (n_cls_out,) for rerankers.

        Raises
        ------
        DecodeError
            The context does not pool, or the last batch had no token of the sequence.

        Notes
        -----
        Source: ``llama_get_embeddings_seq``, llama.h.
        """
        self._idle()
        self._check_seq(seq_id, False)
        cdef float * c_row = lib.llama_get_embeddings_seq(self._ptr, seq_id)
        if c_row == NULL:
            raise DecodeError(
                f"no pooled embedding for sequence {seq_id}: the context needs embeddings=True, a pooling_type, and a "
                "batch with that sequence", engine="llama", function="llama_get_embeddings_seq")
        if lib.llama_get_pooling_type(self._ptr) == lib.LLAMA_POOLING_TYPE_RANK:
            return self._rows(c_row, 1, lib.llama_model_n_cls_out(self.model._ptr))[0]
        return self._rows(c_row, 1, lib.llama_model_n_embd_out(self.model._ptr))[0]

    # ------------------------------------------------------------------------ backend sampling

    def set_sampler(self, seq_id: int, sampler: Handle | None) -> bool:
        """Set the sampler chain that the backend runs for a sequence; None removes it.

        Returns
        -------
        bool
            False when the backend cannot run this chain.

        Notes
        -----
        The context keeps the chain alive. Source: ``llama_set_sampler``, llama.h.
        """
        self._check()
        self._check_seq(seq_id, False)
        cdef int c_seq = seq_id
        cdef lib.llama_sampler * c_sampler = NULL
        cdef bint accepted
        if sampler is not None:
            from cyllama.llama._sampler import LlamaSampler  # it imports this module

            if not isinstance(sampler, LlamaSampler):
                raise TypeError(f"sampler is {sampler!r}, expected a LlamaSampler or None")
            (<Handle> sampler)._check()
            c_sampler = <lib.llama_sampler *> (<Handle> sampler)._address()
        self._begin()
        try:
            with nogil:
                accepted = lib.llama_set_sampler(self._ptr, c_seq, c_sampler)
        finally:
            self._end()
        old = self._samplers.pop(seq_id, None)
        if old is not None:
            (<Handle> old)._n_children -= 1
        if sampler is not None and accepted:
            (<Handle> sampler)._n_children += 1
            self._samplers[seq_id] = sampler
        return accepted

    @property
    def backend_samplers(self) -> dict:
        """Return the sampler chains that run in the backend, by sequence id."""
        self._check()
        return dict(self._samplers)

    def get_sampled_token_ith(self, i: int = -1) -> int | None:
        """Return the token that the backend sampled for `i`, or None. Source: ``llama_get_sampled_token_ith``."""
        self._idle()
        self._check_output(i)
        token = lib.llama_get_sampled_token_ith(self._ptr, i)
        return None if token == lib.LLAMA_TOKEN_NULL else token

    def get_sampled_probs_ith(self, i: int = -1) -> np.ndarray | None:
        """Return a copy of the probabilities after the backend's sampling: float32, shape (n,), or None.

        Source: ``llama_get_sampled_probs_ith``, ``llama_get_sampled_probs_count_ith``, llama.h.
        """
        self._idle()
        self._check_output(i)
        cdef float * c_row = lib.llama_get_sampled_probs_ith(self._ptr, i)
        if c_row == NULL:
            return None
        return self._rows(c_row, 1, lib.llama_get_sampled_probs_count_ith(self._ptr, i))[0]

    def get_sampled_logits_ith(self, i: int = -1) -> np.ndarray | None:
        """Return a copy of the logits after the backend's sampling: float32, shape (n,), or None.

        Source: ``llama_get_sampled_logits_ith``, ``llama_get_sampled_logits_count_ith``, llama.h.
        """
        self._idle()
        self._check_output(i)
        cdef float * c_row = lib.llama_get_sampled_logits_ith(self._ptr, i)
        if c_row == NULL:
            return None
        return self._rows(c_row, 1, lib.llama_get_sampled_logits_count_ith(self._ptr, i))[0]

    def get_sampled_candidates_ith(self, i: int = -1) -> np.ndarray | None:
        """Return a copy of the token ids of the sampled probabilities: int32, shape (n,), or None.

        Source: ``llama_get_sampled_candidates_ith``, ``llama_get_sampled_candidates_count_ith``, llama.h.
        """
        self._idle()
        self._check_output(i)
        cdef lib.llama_token * c_row = lib.llama_get_sampled_candidates_ith(self._ptr, i)
        if c_row == NULL:
            return None
        cdef Py_ssize_t n = lib.llama_get_sampled_candidates_count_ith(self._ptr, i)
        return np.array(<lib.llama_token[:n]> c_row) if n else np.empty(0, np.int32)

    # ---------------------------------------------------------------------------------- settings

    def n_ctx(self) -> int:
        """Return the actual context size in tokens. Source: ``llama_n_ctx``, llama.h."""
        self._check()
        return lib.llama_n_ctx(self._ptr)

    def n_ctx_seq(self) -> int:
        """Return the context size of one sequence in tokens. Source: ``llama_n_ctx_seq``, llama.h."""
        self._check()
        return lib.llama_n_ctx_seq(self._ptr)

    def n_batch(self) -> int:
        """Return the maximum number of tokens of a decode() call. Source: ``llama_n_batch``, llama.h."""
        self._check()
        return lib.llama_n_batch(self._ptr)

    def n_ubatch(self) -> int:
        """Return the maximum number of tokens computed at once. Source: ``llama_n_ubatch``, llama.h."""
        self._check()
        return lib.llama_n_ubatch(self._ptr)

    def n_seq_max(self) -> int:
        """Return the maximum number of sequences. Source: ``llama_n_seq_max``, llama.h."""
        self._check()
        return lib.llama_n_seq_max(self._ptr)

    def n_rs_seq(self) -> int:
        """Return the number of recurrent-state snapshots of each sequence. Source: ``llama_n_rs_seq``, llama.h."""
        self._check()
        return lib.llama_n_rs_seq(self._ptr)

    @property
    def pooling_type(self) -> PoolingType:
        """Kind of pooling of embeddings."""
        self._check()
        return PoolingType(<int> lib.llama_get_pooling_type(self._ptr))

    def n_threads(self) -> int:
        """Return the number of threads for generation. Source: ``llama_n_threads``, llama.h."""
        self._check()
        return lib.llama_n_threads(self._ptr)

    def n_threads_batch(self) -> int:
        """Return the number of threads for prompts. Source: ``llama_n_threads_batch``, llama.h."""
        self._check()
        return lib.llama_n_threads_batch(self._ptr)

    def set_n_threads(self, n_threads: int, n_threads_batch: int | None = None) -> None:
        """Set the threads for generation and for prompts (default: the same), 1 to 512.

        The limit of :func:`cyllama.set_threads` still applies. Source: ``llama_set_n_threads``, llama.h.
        """
        check_range(n_threads, "n_threads", 1, 512)
        if n_threads_batch is not None:
            check_range(n_threads_batch, "n_threads_batch", 1, 512)
        self._begin()
        try:
            lib.llama_set_n_threads(self._ptr, n_threads, n_threads if n_threads_batch is None else n_threads_batch)
        finally:
            self._end()

    def attach_threadpool(self, threadpool: ThreadPool, threadpool_batch: ThreadPool | None = None) -> None:
        """Compute with the thread pools of the caller. Source: ``llama_attach_threadpool``, llama.h."""
        self._attach(threadpool, threadpool_batch)

    def _attach(self, ThreadPool threadpool not None, ThreadPool threadpool_batch) -> None:
        threadpool._check()
        if threadpool_batch is not None:
            threadpool_batch._check()
        pools = [p for p in (threadpool, threadpool_batch) if p is not None]
        self.detach_threadpool()
        self._begin()
        try:
            lib.llama_attach_threadpool(
                self._ptr, threadpool._ptr,
                <ggml.ggml_threadpool_t> NULL if threadpool_batch is None else threadpool_batch._ptr)
        finally:
            self._end()
        for pool in pools:
            (<Handle> pool)._n_children += 1
        self._threadpools = pools

    def detach_threadpool(self) -> None:
        """Compute with the process's own threads again. Source: ``llama_detach_threadpool``, llama.h."""
        self._begin()
        try:
            lib.llama_detach_threadpool(self._ptr)
        finally:
            self._end()
        for pool in self._threadpools or ():
            (<Handle> pool)._n_children -= 1
        self._threadpools = None

    def set_embeddings(self, embeddings: bool) -> None:
        """Set whether embeddings are computed as well. Source: ``llama_set_embeddings``, llama.h."""
        self._begin()
        try:
            lib.llama_set_embeddings(self._ptr, embeddings)
            self._embeddings = embeddings
        finally:
            self._end()

    @property
    def causal_attn(self) -> bool:
        """Return whether a token attends to earlier tokens only. Source: ``llama_get_causal_attn``, llama.h."""
        self._check()
        return lib.llama_get_causal_attn(self._ptr)

    def set_causal_attn(self, causal_attn: bool) -> None:
        """Set whether a token attends to earlier tokens only. Source: ``llama_set_causal_attn``, llama.h."""
        self._begin()
        try:
            lib.llama_set_causal_attn(self._ptr, causal_attn)
        finally:
            self._end()

    def perf(self) -> dict:
        """Return the timings since the last reset: ``load``, ``prompt``, ``generation`` in seconds, ``n_prompt``,
        ``n_generated`` in tokens, ``n_reused`` graphs. Source: ``llama_perf_context``, llama.h.
        """
        self._check()
        cdef lib.llama_perf_context_data data = lib.llama_perf_context(self._ptr)
        return {"load": data.t_load_ms / 1e3, "prompt": data.t_p_eval_ms / 1e3, "generation": data.t_eval_ms / 1e3,
                "n_prompt": data.n_p_eval, "n_generated": data.n_eval, "n_reused": data.n_reused}

    def perf_reset(self) -> None:
        """Reset the timings. Source: ``llama_perf_context_reset``, llama.h."""
        self._check()
        lib.llama_perf_context_reset(self._ptr)

    def set_abort_callback(self, callback: object | None) -> None:
        """Stop computations when ``callback()`` returns true; None removes the callback.

        Polled every 50 ms, in addition to `cancel` of the call. The call then raises CancelledError.
        Source: ``llama_set_abort_callback``, llama.h (every context has one, which calls this callback).
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {callback!r}, expected a callable or None")
        self._check()
        self._abort = callback

    # ---------------------------------------------------------------------------------- adapters

    def set_adapters_lora(self, adapters: list) -> None:
        """Replace the LoRA adapters of the context.

        Parameters
        ----------
        adapters : list of (LlamaAdapterLora, float)
            Adapters of this context's model with their scales. The context keeps them alive.

        Notes
        -----
        Source: ``llama_set_adapters_lora``, llama.h.
        """
        pairs = [(adapter, float(scale)) for adapter, scale in adapters]
        cdef size_t n = len(pairs)
        cdef size_t i
        cdef Handle handle
        cdef lib.llama_adapter_lora * c_adapters[64]
        cdef float c_scales[64]
        if n > 64:
            raise ValueError(f"{n} adapters, expected 64 at most")
        from cyllama.llama._adapter import LlamaAdapterLora  # it imports this module

        for i, (adapter, scale) in enumerate(pairs):
            if not isinstance(adapter, LlamaAdapterLora):
                raise TypeError(f"adapters[{i}] is {adapter!r}, expected a LlamaAdapterLora")
            handle = adapter
            handle._check()
            if handle._parent is not self.model:
                raise ValueError(f"adapters[{i}] was loaded for another model")
            c_adapters[i] = <lib.llama_adapter_lora *> handle._address()
            c_scales[i] = scale
        self._begin()
        try:
            with nogil:
                lib.llama_set_adapters_lora(self._ptr, c_adapters, n, c_scales)
        finally:
            self._end()
        for handle in self._loras:
            handle._n_children -= 1
        self._loras = [adapter for adapter, _ in pairs]
        for handle in self._loras:
            handle._n_children += 1

    def set_adapter_cvec(self, data: np.ndarray | None, il_start: int = 1, il_end: int | None = None) -> None:
        """Set the control vector; None removes it.

        Parameters
        ----------
        data : float32 array, shape (n_layers, n_embd), or None
            Row 0 belongs to layer 1.
        il_start, il_end : int
            First and last layer that it applies to; default: all.

        Raises
        ------
        ValueError
            The width is not the model's ``n_embd``.

        Notes
        -----
        Source: ``llama_set_adapter_cvec``, llama.h.
        """
        cdef const float[:, ::1] rows
        cdef int code = 0
        cdef int n_layer = self.model.n_layer
        if il_end is None:
            il_end = n_layer
        check_range(il_start, "il_start", 0, n_layer)
        check_range(il_end, "il_end", il_start, n_layer)
        if data is not None:
            rows = np.ascontiguousarray(data, np.float32)
            if rows.shape[1] != self.model.n_embd or rows.shape[0] < 1:
                raise ValueError(f"data has shape {tuple(data.shape)}, expected (layers, {self.model.n_embd})")
        self._begin()
        start_call()
        try:
            if data is None:
                code = lib.llama_set_adapter_cvec(self._ptr, NULL, 0, 0, 0, 0)
            else:
                code = lib.llama_set_adapter_cvec(self._ptr, &rows[0, 0], rows.shape[0] * rows.shape[1],
                                                  <int> rows.shape[1], il_start, il_end)
        finally:
            self._end()
        if code != 0:
            raise engine_error(EngineError, "control vector rejected", "llama", "llama_set_adapter_cvec", code)

    @property
    def memory(self):
        """The KV cache: :class:`LlamaMemory`."""
        from cyllama.llama._memory import LlamaMemory
        return LlamaMemory(self)

    @property
    def state(self):
        """State to save and load: :class:`LlamaState`."""
        from cyllama.llama._state import LlamaState
        return LlamaState(self)
