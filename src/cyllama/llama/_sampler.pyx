"""Samplers: select a token from logits."""

import math
import re

import numpy as np

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t
from libc.string cimport memset

from cyllama._native._c_memory cimport CMemory
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport Handle, check_range
from cyllama.llama cimport libllama as lib
from cyllama.llama._context cimport LlamaContext
from cyllama.llama._vocab cimport LlamaVocab
from cyllama.llama.libsampler cimport sample_token

from cyllama._native import _core
from cyllama.errors import EngineError, GrammarError, UnsupportedError
from cyllama.llama._batch import token_array
from cyllama.llama.params import LlamaSamplerChainParams
from cyllama._params import checked

include "LlamaSamplerChainParams.pxi"

# Upstream's names of samplers that select a token; a chain must end with one.
SELECTING = frozenset({"greedy", "dist", "mirostat", "mirostat-v2", "adaptive-p"})


# The elements of a grammar: comments, literals, character classes, repetitions, rules, parentheses.
_GRAMMAR_PART = re.compile(
    r'#[^\n]*|"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{\s*(?P<low>\d*)\s*,\s*(?P<high>\d+)\s*\}|(?P<rule>::=)|[()]',
    re.DOTALL)
MAX_GRAMMAR_DEPTH = 1000    # nested parentheses: the engine's parser is recursive
MAX_GRAMMAR_RULES = 10_000  # the engine's search for left recursion is recursive


def check_grammar(grammar: str) -> None:
    """Reject grammars that would crash or hang the engine's parser.

    Raises
    ------
    TypeError
        Not a str.
    GrammarError
        Empty, with a null character, nested too deeply, of too many rules, or with a repetition ``{m,n}`` where n < m.
    """
    if not isinstance(grammar, str):
        raise TypeError(f"the grammar is {grammar!r}, expected str")
    if not grammar.strip():
        raise GrammarError("the grammar is empty")
    if "\0" in grammar:
        raise GrammarError("the grammar contains a null character")
    depth = rules = 0
    for part in _GRAMMAR_PART.finditer(grammar):
        text = part[0]
        if text == "(":
            depth += 1
        elif text == ")":
            depth -= 1
        elif part["rule"]:
            rules += 1
        elif part["high"] and int(part["high"]) < int(part["low"] or 0):
            raise GrammarError(f"the grammar has the repetition {text}, which is empty")
        if depth > MAX_GRAMMAR_DEPTH:
            raise GrammarError(f"the grammar has more than {MAX_GRAMMAR_DEPTH} nested parentheses")
    if rules > MAX_GRAMMAR_RULES:
        raise GrammarError(f"the grammar has {rules} rules, expected {MAX_GRAMMAR_RULES} at most")


cdef double _number(object value, str what, double low, double high) except? -1.5:
    """Return `value` as a finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"{what} is {value!r}, expected a number")
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{what} is {value}, expected {low:g} to {high:g}")
    return value


cdef uint32_t _seed(object seed) except? 1:
    """Return a seed for C; None is a random seed."""
    if seed is None:
        return lib.LLAMA_DEFAULT_SEED
    check_range(seed, "seed", 0, 2**32 - 1)
    return seed


cdef class TokenDataArray:
    """Candidates that samplers work on, as NumPy arrays.

    Attributes
    ----------
    id : int32 array, shape (n,)
    logit, p : float32 arrays, shape (n,)
        Writable. A sampler that removes candidates calls :meth:`keep`.
    selected : int
        Index of the selected candidate, -1 before the selection.
    sorted : bool
        Whether the logits are in descending order.

    Notes
    -----
    Inside a Python sampler the arrays are valid until ``apply`` returns.
    """

    cdef public object id, logit, p
    cdef public long long selected
    cdef public bint sorted

    def __init__(self, id: np.ndarray, logit: np.ndarray, p: np.ndarray | None = None, selected: int = -1,
                 sorted: bool = False) -> None:
        self.id = np.array(id, np.int32)
        self.logit = np.array(logit, np.float32)
        self.p = np.zeros(len(self.id), np.float32) if p is None else np.array(p, np.float32)
        if not self.id.ndim == self.logit.ndim == self.p.ndim == 1 or not (
                len(self.id) == len(self.logit) == len(self.p)):
            raise ValueError("id, logit and p must be of one length, shape (n,)")
        self.selected = selected
        self.sorted = sorted

    def __len__(self) -> int:
        return len(self.id)

    def keep(self, index: np.ndarray) -> None:
        """Keep only these candidates: a mask, or indexes in their new order."""
        self.id, self.logit, self.p = self.id[index], self.logit[index], self.p[index]
        self.selected = -1
        self.sorted = False


cdef TokenDataArray _from_c(lib.llama_token_data_array * c_array):
    cdef size_t n = c_array.size
    cdef size_t i
    cdef TokenDataArray found = TokenDataArray.__new__(TokenDataArray)
    cdef lib.llama_token[::1] ids = np.empty(n, np.int32)
    cdef float[::1] logits = np.empty(n, np.float32)
    cdef float[::1] ps = np.empty(n, np.float32)
    for i in range(n):
        ids[i] = c_array.data[i].id
        logits[i] = c_array.data[i].logit
        ps[i] = c_array.data[i].p
    found.id, found.logit, found.p = np.asarray(ids), np.asarray(logits), np.asarray(ps)
    found.selected = c_array.selected
    found.sorted = c_array.sorted
    return found


cdef int _to_c(TokenDataArray array, lib.llama_token_data_array * c_array, size_t capacity) except -1:
    """Write the candidates back; there may be fewer than before."""
    cdef const lib.llama_token[::1] ids = np.ascontiguousarray(array.id, np.int32)
    cdef const float[::1] logits = np.ascontiguousarray(array.logit, np.float32)
    cdef const float[::1] ps = np.ascontiguousarray(array.p, np.float32)
    cdef size_t n = ids.shape[0]
    cdef size_t i
    if logits.shape[0] != n or ps.shape[0] != n:
        raise ValueError(f"id, logit and p have lengths {n}, {logits.shape[0]}, {ps.shape[0]}, expected the same")
    if not 1 <= n <= capacity:
        raise ValueError(f"{n} candidates, expected 1 to {capacity}")
    if not -1 <= array.selected < <long long> n:
        raise IndexError(f"selected is {array.selected}, expected -1 to {n - 1}")
    for i in range(n):
        c_array.data[i].id = ids[i]
        c_array.data[i].logit = logits[i]
        c_array.data[i].p = ps[i]
    c_array.size = n
    c_array.selected = array.selected
    c_array.sorted = array.sorted
    return 0


cdef class _Custom:
    """A Python sampler in a chain, and what it raised."""

    cdef object sampler
    cdef object error


cdef const char * _custom_name(const lib.llama_sampler * smpl) noexcept nogil:
    return b"python"


cdef void _custom_accept(lib.llama_sampler * smpl, lib.llama_token token) noexcept nogil:
    if not is_ending():
        _custom_accept_gil(smpl, token)


cdef void _custom_accept_gil(lib.llama_sampler * smpl, lib.llama_token token) noexcept with gil:
    cdef _Custom custom = <_Custom> smpl.ctx
    try:
        if custom.error is None and hasattr(custom.sampler, "accept"):
            custom.sampler.accept(token)
    except BaseException as e:
        custom.error = e


cdef void _custom_apply(lib.llama_sampler * smpl, lib.llama_token_data_array * cur_p) noexcept nogil:
    if not is_ending():
        _custom_apply_gil(smpl, cur_p)


cdef void _custom_apply_gil(lib.llama_sampler * smpl, lib.llama_token_data_array * cur_p) noexcept with gil:
    cdef _Custom custom = <_Custom> smpl.ctx
    cdef TokenDataArray array
    if custom.error is not None:
        return
    try:
        array = _from_c(cur_p)
        custom.sampler.apply(array)
        _to_c(array, cur_p, cur_p.size)
    except BaseException as e:
        custom.error = e


cdef void _custom_reset(lib.llama_sampler * smpl) noexcept nogil:
    if not is_ending():
        _custom_reset_gil(smpl)


cdef void _custom_reset_gil(lib.llama_sampler * smpl) noexcept with gil:
    cdef _Custom custom = <_Custom> smpl.ctx
    try:
        custom.error = None
        if hasattr(custom.sampler, "reset"):
            custom.sampler.reset()
    except BaseException as e:
        custom.error = e


cdef lib.llama_sampler * _custom_clone(const lib.llama_sampler * smpl) noexcept nogil:
    if is_ending():
        return NULL
    return _custom_clone_gil(smpl)


cdef lib.llama_sampler * _custom_clone_gil(const lib.llama_sampler * smpl) noexcept with gil:
    """The copy shares the Python object, unless that has a ``clone`` of its own."""
    cdef _Custom custom = <_Custom> smpl.ctx
    cdef _Custom copy = _Custom.__new__(_Custom)
    copy.sampler = custom.sampler
    try:
        if hasattr(custom.sampler, "clone"):
            copy.sampler = custom.sampler.clone()
        return _make_custom(copy)
    except BaseException as e:
        custom.error = e
        return NULL


cdef void _custom_free(lib.llama_sampler * smpl) noexcept nogil:
    if not is_ending():
        _custom_free_gil(smpl)


cdef void _custom_free_gil(lib.llama_sampler * smpl) noexcept with gil:
    Py_DECREF(<_Custom> smpl.ctx)


cdef lib.llama_sampler_i _custom_iface
memset(&_custom_iface, 0, sizeof(_custom_iface))
_custom_iface.name = _custom_name
_custom_iface.accept = _custom_accept
_custom_iface.apply = _custom_apply
_custom_iface.reset = _custom_reset
_custom_iface.clone = _custom_clone
_custom_iface.free = _custom_free


cdef lib.llama_sampler * _make_custom(_Custom custom) except NULL:
    cdef lib.llama_sampler * c_sampler = lib.llama_sampler_init(&_custom_iface, <void *> custom)
    Py_INCREF(custom)
    return c_sampler


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class LlamaSampler(Handle):
    """A chain of samplers.

    The ``add_...`` methods append samplers. The last one must select a token: greedy, dist, mirostat,
    mirostat_v2 or adaptive_p. A number out of range raises ValueError.

    Parameters
    ----------
    params : LlamaSamplerChainParams, optional

    Notes
    -----
    Thread safety: one thread at a time (InUseError). Source: ``llama_sampler_chain_init``, llama.h.
    """

    def __cinit__(self, params=None):
        cdef lib.llama_sampler_chain_params c_params = lib.llama_sampler_chain_default_params()
        self.params = LlamaSamplerChainParams() if params is None else params
        fill_LlamaSamplerChainParams(checked(self.params, LlamaSamplerChainParams), &c_params, None)
        self._kept = []
        self._custom = []
        self._ptr = lib.llama_sampler_chain_init(c_params)
        self._opened("LlamaSampler", None)

    def __init__(self, params: LlamaSamplerChainParams | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.llama_sampler * c_chain = self._ptr
        self._ptr = NULL
        with nogil:
            lib.llama_sampler_free(c_chain)
        return 0

    cdef void * _address(self) noexcept:
        return self._ptr

    cdef int _add(self, lib.llama_sampler * sampler, str what) except -1:
        if sampler == NULL:
            raise engine_error(EngineError, f"the sampler {what} was refused", "llama", f"llama_sampler_init_{what}",
                               None)
        lib.llama_sampler_chain_add(self._ptr, sampler)
        return 0

    # ------------------------------------------------------------------------- select a token

    def add_greedy(self) -> None:
        """Select the most likely token. Source: ``llama_sampler_init_greedy``, llama.h."""
        self._check()
        self._add(lib.llama_sampler_init_greedy(), "greedy")

    def add_dist(self, seed: int | None = None) -> None:
        """Sample by probability; seed 0 to 2**32 - 1, None: random. Source: ``llama_sampler_init_dist``."""
        self._check()
        self._add(lib.llama_sampler_init_dist(_seed(seed)), "dist")

    def add_mirostat(self, n_vocab: int, seed: int | None = None, tau: float = 5.0, eta: float = 0.1,
                     m: int = 100) -> None:
        """Add Mirostat 1.0: target surprise `tau`, learning rate `eta`, `m` tokens for the estimate.

        Source: ``llama_sampler_init_mirostat``, llama.h.
        """
        self._check()
        check_range(n_vocab, "n_vocab", 1, 2**31 - 1)
        check_range(m, "m", 2, 2**20)
        self._add(lib.llama_sampler_init_mirostat(
            n_vocab, _seed(seed), _number(tau, "tau", 0, 1e6), _number(eta, "eta", 0, 1e6), m), "mirostat")

    def add_mirostat_v2(self, seed: int | None = None, tau: float = 5.0, eta: float = 0.1) -> None:
        """Add Mirostat 2.0. Source: ``llama_sampler_init_mirostat_v2``, llama.h."""
        self._check()
        self._add(lib.llama_sampler_init_mirostat_v2(
            _seed(seed), _number(tau, "tau", 0, 1e6), _number(eta, "eta", 0, 1e6)), "mirostat_v2")

    def add_adaptive_p(self, target: float, decay: float = 0.9, seed: int | None = None) -> None:
        """Select near a target probability (0 to 1, negative: off); `decay` 0 to 0.99.

        Source: ``llama_sampler_init_adaptive_p``, llama.h.
        """
        self._check()
        self._add(lib.llama_sampler_init_adaptive_p(
            _number(target, "target", -1, 1), _number(decay, "decay", 0, 0.99), _seed(seed)), "adaptive_p")

    # ------------------------------------------------------------------- narrow the candidates

    def add_top_k(self, k: int) -> None:
        """Keep the `k` most likely; 0 or less: all. Source: ``llama_sampler_init_top_k``, llama.h."""
        self._check()
        check_range(k, "k", -2**31, 2**31 - 1)
        self._add(lib.llama_sampler_init_top_k(k), "top_k")

    def add_top_p(self, p: float, min_keep: int = 1) -> None:
        """Keep the most likely whose probabilities sum to `p`. Source: ``llama_sampler_init_top_p``, llama.h."""
        self._check()
        check_range(min_keep, "min_keep", 0, 2**31 - 1)
        self._add(lib.llama_sampler_init_top_p(_number(p, "p", 0, 1), min_keep), "top_p")

    def add_min_p(self, p: float, min_keep: int = 1) -> None:
        """Keep those at least `p` times as likely as the best. Source: ``llama_sampler_init_min_p``, llama.h."""
        self._check()
        check_range(min_keep, "min_keep", 0, 2**31 - 1)
        self._add(lib.llama_sampler_init_min_p(_number(p, "p", 0, 1), min_keep), "min_p")

    def add_typical(self, p: float, min_keep: int = 1) -> None:
        """Add locally typical sampling. Source: ``llama_sampler_init_typical``, llama.h."""
        self._check()
        check_range(min_keep, "min_keep", 0, 2**31 - 1)
        self._add(lib.llama_sampler_init_typical(_number(p, "p", 0, 1), min_keep), "typical")

    def add_temp(self, t: float) -> None:
        """Divide the logits by `t`; 0 or less keeps the best only. Source: ``llama_sampler_init_temp``, llama.h."""
        self._check()
        self._add(lib.llama_sampler_init_temp(_number(t, "t", -1e6, 1e6)), "temp")

    def add_temp_ext(self, t: float, delta: float, exponent: float) -> None:
        """Add dynamic temperature, `t` ± `delta` by entropy. Source: ``llama_sampler_init_temp_ext``."""
        self._check()
        self._add(lib.llama_sampler_init_temp_ext(
            _number(t, "t", -1e6, 1e6), _number(delta, "delta", 0, 1e6), _number(exponent, "exponent", 0, 1e6)),
            "temp_ext")

    def add_xtc(self, p: float, t: float, min_keep: int = 1, seed: int | None = None) -> None:
        """With probability `p`, remove all above threshold `t` but the last. Source: ``llama_sampler_init_xtc``."""
        self._check()
        check_range(min_keep, "min_keep", 0, 2**31 - 1)
        self._add(lib.llama_sampler_init_xtc(
            _number(p, "p", 0, 1), _number(t, "t", 0, 1), min_keep, _seed(seed)), "xtc")

    def add_top_n_sigma(self, n: float) -> None:
        """Keep logits within `n` standard deviations of the best. Source: ``llama_sampler_init_top_n_sigma``."""
        self._check()
        self._add(lib.llama_sampler_init_top_n_sigma(_number(n, "n", -1e6, 1e6)), "top_n_sigma")

    # ------------------------------------------------------------------------ change the logits

    def add_penalties(self, n_vocab: int, last_n: int, repeat: float = 1.0, freq: float = 0.0,
                      present: float = 0.0) -> None:
        """Penalize tokens among the last `last_n`; `repeat` above 0 (1: off), `freq` and `present` (0: off).

        Source: ``llama_sampler_init_penalties``, llama.h.
        """
        self._check()
        check_range(n_vocab, "n_vocab", 1, 2**31 - 1)
        check_range(last_n, "last_n", 0, 2**24)
        self._add(lib.llama_sampler_init_penalties(
            n_vocab, last_n, _number(repeat, "repeat", 1e-6, 1e6), _number(freq, "freq", -1e6, 1e6),
            _number(present, "present", -1e6, 1e6)), "penalties")

    def add_dry(self, vocab: LlamaVocab, multiplier: float, base: float = 1.75, allowed_length: int = 2,
                last_n: int = 1024, breakers: list = ("\n", ":", '"', "*")) -> None:
        """Add DRY ("don't repeat yourself"): penalize repetitions longer than `allowed_length` tokens.

        Source: ``llama_sampler_init_dry``, llama.h.
        """
        self._check()
        (<LlamaVocab?> vocab)._check_typed()
        check_range(allowed_length, "allowed_length", 0, 2**20)
        check_range(last_n, "last_n", 0, 2**24)
        raws = [text.encode() for text in breakers]
        cdef const char ** c_breakers = <const char **> PyMem_Calloc(len(raws) + 1, sizeof(char *))
        if c_breakers == NULL:
            raise MemoryError()
        try:
            for i, raw in enumerate(raws):
                c_breakers[i] = raw
            self._add(lib.llama_sampler_init_dry(
                (<LlamaVocab> vocab)._ptr, _number(multiplier, "multiplier", 0, 1e6), _number(base, "base", 0, 1e6),
                allowed_length, last_n, c_breakers, len(raws)), "dry")
        finally:
            PyMem_Free(c_breakers)
        self._kept.append(vocab)

    def add_logit_bias(self, n_vocab: int, biases: dict) -> None:
        """Add to logits: ``{token: bias}`` or pairs; minus infinity forbids a token.

        Source: ``llama_sampler_init_logit_bias``, llama.h.
        """
        self._check()
        check_range(n_vocab, "n_vocab", 1, 2**31 - 1)
        pairs = list(biases.items() if hasattr(biases, "items") else biases)
        cdef lib.llama_logit_bias * c_biases = <lib.llama_logit_bias *> PyMem_Calloc(
            len(pairs) + 1, sizeof(lib.llama_logit_bias))
        if c_biases == NULL:
            raise MemoryError()
        try:
            for i, (token, bias) in enumerate(pairs):
                if not 0 <= token < n_vocab:
                    raise IndexError(f"biases contain token {token}, expected 0 to {n_vocab - 1}")
                if math.isnan(bias):
                    raise ValueError(f"the bias of token {token} is not a number")
                c_biases[i].token = token
                c_biases[i].bias = bias
            self._add(lib.llama_sampler_init_logit_bias(n_vocab, <int> len(pairs), c_biases), "logit_bias")
        finally:
            PyMem_Free(c_biases)

    def add_infill(self, vocab: LlamaVocab) -> None:
        """Add fill-in-the-middle sampling; use it after top_k and top_p. Source: ``llama_sampler_init_infill``."""
        self._check()
        (<LlamaVocab?> vocab)._check_typed()
        self._add(lib.llama_sampler_init_infill((<LlamaVocab> vocab)._ptr), "infill")
        self._kept.append(vocab)

    def add_grammar(self, vocab: LlamaVocab, grammar: str, root: str = "root") -> None:
        """Add a GBNF grammar: remove tokens that it does not allow.

        Raises
        ------
        GrammarError
            The grammar cannot be parsed; the message has the parser's error.

        Notes
        -----
        Source: ``llama_sampler_init_grammar``, llama.h.
        """
        self._check()
        self._add_grammar(vocab, grammar, root, (), (), False)

    def add_grammar_lazy_patterns(self, vocab: LlamaVocab, grammar: str, root: str = "root",
                                  trigger_patterns: list = (), trigger_tokens: list = ()) -> None:
        """Add a grammar that applies after the output matches a pattern or contains a token.

        Raises and notes as :meth:`add_grammar`. Source: ``llama_sampler_init_grammar_lazy_patterns``, llama.h.
        """
        self._check()
        self._add_grammar(vocab, grammar, root, list(trigger_patterns), list(trigger_tokens), True)

    def _add_grammar(self, LlamaVocab vocab not None, grammar, root, patterns, tokens, bint lazy) -> None:
        vocab._check_typed()
        check_grammar(grammar)
        if not isinstance(root, str):
            raise TypeError(f"root is {root!r}, expected str")
        if "\0" in root:
            raise GrammarError(f"root is {root!r}, a name cannot contain a null character")
        cdef bytes raw_grammar = grammar.encode()
        cdef bytes raw_root = root.encode()
        raws = [pattern.encode() for pattern in patterns]
        found = token_array(tokens)
        for token in tokens:
            vocab.model._check_token(token)
        cdef const lib.llama_token[::1] view = found if len(found) else np.zeros(1, np.int32)
        cdef const char ** c_patterns = <const char **> PyMem_Calloc(len(raws) + 1, sizeof(char *))
        cdef lib.llama_sampler * c_sampler = NULL
        if c_patterns == NULL:
            raise MemoryError()
        start_call()
        try:
            for i, raw in enumerate(raws):
                c_patterns[i] = raw
            if lazy:
                c_sampler = lib.llama_sampler_init_grammar_lazy_patterns(
                    vocab._ptr, raw_grammar, raw_root, c_patterns, len(raws), &view[0], len(found))
            else:
                c_sampler = lib.llama_sampler_init_grammar(vocab._ptr, raw_grammar, raw_root)
        except EngineError as e:
            raise GrammarError(f"the grammar cannot be parsed: {e}") from e
        finally:
            PyMem_Free(c_patterns)
        if c_sampler == NULL:
            reason = "; ".join(_core.last_log()) or f"does it define {root!r}?"
            raise GrammarError(f"the grammar cannot be parsed: {reason}")
        lib.llama_sampler_chain_add(self._ptr, c_sampler)
        self._kept.append(vocab)

    def add_custom(self, sampler: object) -> None:
        """Add a sampler written in Python.

        Parameters
        ----------
        sampler : object
            ``apply(array)`` changes a :class:`TokenDataArray`; ``accept(token)``, ``reset()`` and ``clone()`` are
            optional. What it raises is raised by :meth:`sample`, :meth:`apply` or :meth:`accept`.

        Notes
        -----
        Source: ``llama_sampler_init``, llama.h.
        """
        self._check()
        if not callable(getattr(sampler, "apply", None)):
            raise TypeError(f"sampler is {sampler!r}, expected an object with apply(array)")
        cdef _Custom custom = _Custom.__new__(_Custom)
        custom.sampler = sampler
        lib.llama_sampler_chain_add(self._ptr, _make_custom(custom))
        self._custom.append(custom)

    cdef int _raise_custom(self) except -1:
        cdef _Custom custom
        for custom in self._custom:
            if custom.error is not None:
                error = custom.error
                custom.error = None
                raise error
        return 0

    # -------------------------------------------------------------------------------- the chain

    def __len__(self) -> int:
        self._check()
        return lib.llama_sampler_chain_n(self._ptr)

    @property
    def name(self) -> str:
        """Name of the chain. Source: ``llama_sampler_name``, llama.h."""
        self._check()
        return lib.llama_sampler_name(self._ptr).decode()

    @property
    def names(self) -> list[str]:
        """Names of the samplers in the chain, in order. Source: ``llama_sampler_chain_get``, llama.h."""
        self._check()
        return [lib.llama_sampler_name(lib.llama_sampler_chain_get(self._ptr, i)).decode()
                for i in range(lib.llama_sampler_chain_n(self._ptr))]

    def chain_get(self, i: int) -> str:
        """Return the name of sampler `i`. IndexError if there is none. Source: ``llama_sampler_chain_get``, llama.h."""
        names = self.names
        if not 0 <= i < len(names):
            raise IndexError(f"i is {i}, expected 0 to {len(names) - 1}")
        return names[i]

    def chain_remove(self, i: int) -> None:
        """Remove sampler `i` from the chain and free it; the same as :meth:`remove`."""
        self.remove(i)

    def remove(self, i: int) -> None:
        """Remove sampler `i` from the chain and free it. Source: ``llama_sampler_chain_remove``, llama.h."""
        self._check()
        n = lib.llama_sampler_chain_n(self._ptr)
        if not 0 <= i < n:
            raise IndexError(f"i is {i}, expected 0 to {n - 1}")
        self._selecting = False
        lib.llama_sampler_free(lib.llama_sampler_chain_remove(self._ptr, i))

    def clone(self) -> LlamaSampler:
        """Return a copy of the chain with its state. Source: ``llama_sampler_clone``, llama.h."""
        self._check()
        cdef lib.llama_sampler * c_copy
        c_copy = lib.llama_sampler_clone(self._ptr)
        self._raise_custom()
        cdef LlamaSampler other = LlamaSampler(self.params)
        lib.llama_sampler_free(other._ptr)
        other._ptr = c_copy
        other._kept = list(self._kept)
        cdef int i
        for i in range(lib.llama_sampler_chain_n(c_copy)):
            if lib.llama_sampler_chain_get(c_copy, i).iface == &_custom_iface:
                other._custom.append(<_Custom> lib.llama_sampler_chain_get(c_copy, i).ctx)
        return other

    def copy_from(self, other: LlamaSampler) -> None:
        """Copy the state from another chain of the same samplers. Source: ``llama_sampler_copy``, llama.h."""
        self._check()
        (<LlamaSampler?> other)._check()
        if self.names != other.names:
            raise ValueError(f"the chains differ: {self.names} and {other.names}")
        if "python" in self.names:
            raise UnsupportedError("the state of samplers written in Python cannot be copied; use clone()")
        lib.llama_sampler_copy((<LlamaSampler> other)._ptr, self._ptr)

    def copy_to(self, other: LlamaSampler) -> None:
        """Copy the state to another chain of the same samplers. Source: ``llama_sampler_copy``, llama.h."""
        (<LlamaSampler?> other).copy_from(self)

    def accept(self, token: int) -> None:
        """Accept `token`: update the state of the samplers.

        Raises
        ------
        GrammarError
            A grammar in the chain does not allow it.
        IndexError
            A negative token.

        Notes
        -----
        Source: ``llama_sampler_accept``, llama.h.
        """
        if token < 0:
            raise IndexError(f"token is {token}, expected 0 or more")
        check_range(token, "token", 0, 2**31 - 1)
        for vocab in self._kept:
            (<LlamaVocab> vocab).model._check_token(token)
        self._begin()
        start_call()
        cdef lib.llama_token c_token = token
        try:
            with nogil:
                lib.llama_sampler_accept(self._ptr, c_token)
        except EngineError as e:
            if "grammar" in str(e):
                raise GrammarError(f"token {token} does not follow the grammar: {e}") from e
            self._failed(e)
            raise
        finally:
            self._end()
        self._raise_custom()

    cdef int _selects(self) except -1:
        if self._selecting:
            return 0
        names = self.names
        if not names or not (SELECTING.intersection(name.lstrip("+?") for name in names) or "python" in names):
            raise ValueError(f"the chain {names} selects no token: end it with add_greedy(), add_dist(), ...")
        self._selecting = True
        return 0

    def sample(self, ctx: LlamaContext, idx: int = -1) -> int:
        """Sample a token from an output of the context, and accept it.

        Parameters
        ----------
        ctx : LlamaContext
        idx : int
            Index of a token with an output in the last batch; negative counts from the end.

        Raises
        ------
        DecodeError
            Nothing has been decoded.
        IndexError
            The token has no output.
        ValueError
            The chain selects no token, or has samplers made for another model.

        Notes
        -----
        Releases the GIL. A chain of only the greedy sampler reads the logits directly.
        Source: ``llama_sampler_sample``, llama.h.
        """
        return self._sample(ctx, idx)

    def _sample(self, LlamaContext ctx not None, idx) -> int:
        ctx._check()
        self._check()
        ctx._check_output(idx)
        self._selects()
        for vocab in self._kept:
            if (<LlamaVocab> vocab)._ptr != ctx.model._vocab_ptr:
                raise ValueError("the chain has a sampler that was made for the vocabulary of another model")
        cdef int c_idx = idx
        cdef lib.llama_token token = 0
        self._begin()
        try:
            ctx._begin()
            start_call()
            try:
                with nogil:
                    token = sample_token(self._ptr, ctx._ptr, c_idx)
            except EngineError as e:
                self._raise_custom()
                if "grammar" in str(e):
                    raise GrammarError(str(e)) from e
                if "cur_p.selected" in str(e):
                    raise ValueError(f"the chain {self.names} selected no token") from e
                self._failed(e)
                raise
            finally:
                ctx._end()
        finally:
            self._end()
        self._raise_custom()
        return token

    def apply(self, array: TokenDataArray) -> None:
        """Apply the chain to candidates, in place. Releases the GIL. Source: ``llama_sampler_apply``, llama.h."""
        self._apply(array)

    def _apply(self, TokenDataArray array not None) -> None:
        cdef lib.llama_token_data_array c_array
        cdef size_t capacity = len(array)
        if capacity == 0:
            raise ValueError("the array is empty, expected candidates")
        cdef lib.llama_token_data * c_data = <lib.llama_token_data *> PyMem_Calloc(
            capacity, sizeof(lib.llama_token_data))
        if c_data == NULL:
            raise MemoryError()
        c_array.data = c_data  # samplers may move it forward
        cdef TokenDataArray result
        self._begin()
        try:
            _to_c(array, &c_array, capacity)
            try:
                with nogil:
                    lib.llama_sampler_apply(self._ptr, &c_array)
            except EngineError as e:
                self._failed(e)
                raise
            result = _from_c(&c_array)
        finally:
            PyMem_Free(c_data)
            self._end()
        self._raise_custom()
        array.id, array.logit, array.p = result.id, result.logit, result.p
        array.selected = result.selected
        array.sorted = result.sorted

    def reset(self) -> None:
        """Reset the state of the samplers. Source: ``llama_sampler_reset``, llama.h."""
        self._begin()
        try:
            with nogil:
                lib.llama_sampler_reset(self._ptr)
        finally:
            self._end()
        self._raise_custom()

    @property
    def seed(self) -> int | None:
        """Seed of the chain's random sampler, None without one. Source: ``llama_sampler_get_seed``, llama.h."""
        self._check()
        seed = lib.llama_sampler_get_seed(self._ptr)
        return None if seed == lib.LLAMA_DEFAULT_SEED else seed

    def perf(self) -> dict:
        """Return ``sample`` in seconds and ``n_sample`` since the last reset. Source: ``llama_perf_sampler``."""
        self._check()
        cdef lib.llama_perf_sampler_data data = lib.llama_perf_sampler(self._ptr)
        return {"sample": data.t_sample_ms / 1e3, "n_sample": data.n_sample}

    def print_perf(self) -> None:
        """Write the timings to the log, level info. Releases the GIL. Source: ``llama_perf_sampler_print``, llama.h."""
        self._begin()
        try:
            with nogil:
                lib.llama_perf_sampler_print(self._ptr)
        finally:
            self._end()

    def perf_reset(self) -> None:
        """Reset the timings. Source: ``llama_perf_sampler_reset``, llama.h."""
        self._check()
        lib.llama_perf_sampler_reset(self._ptr)

    def __repr__(self) -> str:
        return f"<LlamaSampler {' > '.join(self.names)}>" if self._open else "<LlamaSampler (closed)>"
