"""Speculative decoding: draft tokens."""

cimport cython
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport Handle, check_range
from cyllama.llama cimport libcommon as lib
from cyllama.llama cimport libllama as llama
from cyllama.llama._batch cimport LlamaBatch
from cyllama.llama._common cimport CommonParams
from cyllama.llama._context cimport LlamaContext

from cyllama.errors import DecodeError, EngineError
from cyllama.llama._batch import token_array


def speculative_types() -> list[str]:
    """Return the supported kinds of drafting. Source: ``common_speculative_all_types_str``, common/speculative.h."""
    return [name.strip() for name in lib.common_speculative_all_types_str().decode().split(",")]


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class Speculative(Handle):
    """A drafter: proposes tokens that the target model verifies in one batch.

    The ``ngram-...`` kinds search the text for repetitions and need no draft model.

    Parameters
    ----------
    target : LlamaContext
        The context that verifies; kept open.
    types : sequence of str
        Of :func:`speculative_types`.
    params : CommonParams, optional
        Its ``speculative`` part is read.
    draft : LlamaContext, optional
        A context of the smaller model, for ``draft-simple``; kept open. It needs the target's vocabulary and number of
        sequences. The caller feeds it with :meth:`process` and removes rejected tokens from its memory.

    Raises
    ------
    ValueError
        The kind is unknown, or its draft context is missing.
    EngineError
        The draft model does not fit the target. Kinds such as ``draft-mtp`` need models made for them.

    Notes
    -----
    Thread safety: one thread at a time. Source: ``common_speculative_init``, common/speculative.h.
    """

    cdef lib.speculative * _ptr
    cdef readonly LlamaContext target
    cdef readonly LlamaContext draft_context
    cdef dict _lengths          # tokens of each sequence that the engine has seen

    def __cinit__(self, LlamaContext target not None, types=("ngram-simple",), params=None, draft=None):
        known = speculative_types()
        names = list(types)
        cdef CommonParams base = CommonParams() if params is None else <CommonParams?> params
        cdef llama.llama_context * c_draft = NULL
        cdef vector[string] c_types
        cdef bint ok
        target._check()
        for name in names:
            if name not in known:
                raise ValueError(f"types contains {name!r}, expected some of {known}")
            if name.startswith("draft-") and draft is None:
                raise ValueError(f"{name!r} needs draft, a context of the draft model")
            c_types.push_back(name.encode())
        if not names or names == ["none"]:
            raise ValueError(f"types is {names}, expected at least one of {known[1:]}")
        if draft is not None:
            self.draft_context = <LlamaContext?> draft
            self.draft_context._check()
            c_draft = self.draft_context._ptr
        self.target = target
        self._lengths = {}
        self._ptr = new lib.speculative()
        if self.draft_context is not None and draft is target:
            raise ValueError("draft is the target itself, expected a context of its own")
        start_call()
        ok = self._ptr.init(c_types, base._params, target._ptr, c_draft, llama.llama_n_seq_max(target._ptr))
        if not ok:
            raise engine_error(EngineError, f"cannot draft with {names}", "llama", "common_speculative_init", None)
        self._opened("Speculative", target)
        if self.draft_context is not None:
            self.draft_context._n_children += 1

    def __init__(self, target: LlamaContext, types: list = ("ngram-simple",), params: CommonParams | None = None,
                 draft: LlamaContext | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()
        if self._ptr != NULL:
            del self._ptr
            self._ptr = NULL

    cdef int _release(self) noexcept:
        del self._ptr
        self._ptr = NULL
        if self.draft_context is not None:
            self.draft_context._n_children -= 1
        return 0

    cdef int _begin_both(self) except -1:
        """Take this handle, and the draft context that the engine computes with."""
        if self.draft_context is not None:
            self.draft_context._begin()
            self.draft_context._n_outputs = -1
        try:
            self._begin()
        except BaseException:
            if self.draft_context is not None:
                self.draft_context._end()
            raise
        return 0

    cdef int _end_both(self) noexcept:
        self._end()
        if self.draft_context is not None:
            self.draft_context._end()
        return 0

    def begin(self, prompt: list, seq_id: int = 0) -> None:
        """Begin a new text. Source: ``common_speculative_begin``, common/speculative.h."""
        self._check()
        self.target._check_seq(seq_id, False)
        cdef vector[llama.llama_token] c_prompt = token_array(prompt).tolist()
        self._begin()
        try:
            self._ptr.begin(seq_id, c_prompt)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._end()
        self._lengths[seq_id] = c_prompt.size()

    def process(self, LlamaBatch batch not None) -> None:
        """Decode the target's batch with the draft model; not needed for the ``ngram-...`` kinds.

        Parameters
        ----------
        batch : LlamaBatch
            Tokens that :attr:`target` has just decoded.

        Raises
        ------
        DecodeError
            The draft model cannot decode them, for example because its context is full.
        ValueError, IndexError
            The batch does not fit the draft context.

        Notes
        -----
        Releases the GIL. Source: ``common_speculative_process``, common/speculative.h.
        """
        cdef bint ok
        self._check()
        batch._check()
        batch._check_for(self.target, False)
        if batch.embd:
            raise ValueError("the batch holds embeddings, expected tokens")
        if self.draft_context is not None:
            batch._check_for(self.draft_context, False)
        start_call()
        self._begin_both()
        try:
            with nogil:
                ok = self._ptr.process(batch._batch)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._end_both()
        if not ok:
            raise engine_error(DecodeError, f"the draft model cannot process {batch.n_tokens} tokens", "llama",
                               "common_speculative_process", None)

    def draft(self, tokens: list, last: int, seq_id: int = 0, n_max: int | None = None) -> list[int]:
        """Draft the next tokens.

        Parameters
        ----------
        tokens : sequence of int
            All tokens so far, without `last`. Fewer than the last time begin a new text.
        last : int
            The token sampled last.
        n_max : int, optional
            Maximum number of tokens to draft.

        Returns
        -------
        list of int
            The drafted tokens; may be empty.

        Notes
        -----
        Releases the GIL. Source: ``common_speculative_draft``, common/speculative.h.
        """
        self._check()
        self.target._check_seq(seq_id, False)
        self.target.model._check_token(last)
        cdef vector[llama.llama_token] c_tokens = token_array(tokens).tolist()
        cdef vector[llama.llama_token] result
        cdef int c_seq = seq_id
        cdef llama.llama_token c_last = last
        cdef int c_max = -1
        if n_max is not None:
            check_range(n_max, "n_max", 0, 2**15)
            c_max = n_max
        if c_tokens.size() < <size_t> self._lengths.get(seq_id, 0):  # the engine asserts this
            self.begin(tokens, seq_id)
        self._lengths[seq_id] = c_tokens.size()
        start_call()
        self._begin_both()
        try:
            with nogil:
                result = self._ptr.draft(c_seq, c_tokens, c_last, c_max)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._end_both()
        return list(result)[:n_max] if n_max is not None else result

    def accept(self, n_accepted: int, seq_id: int = 0) -> None:
        """Set how many drafted tokens were accepted. Source: ``common_speculative_accept``, common/speculative.h."""
        self._check()
        self.target._check_seq(seq_id, False)
        check_range(n_accepted, "n_accepted", 0, 2**16 - 1)
        self._ptr.accept(seq_id, n_accepted)
