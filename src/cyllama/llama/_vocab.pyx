"""The vocabulary: tokenize and detokenize."""

import numpy as np

from libc.stdint cimport INT32_MIN, int32_t

from cyllama._native._handle cimport check_range
from cyllama.llama cimport libllama as lib
from cyllama.llama._model cimport LlamaModel

from cyllama.errors import UnsupportedError
from cyllama.llama._batch import token_array
from cyllama.llama._enums import TokenAttr, VocabType


cdef object _or_none(int token):
    return None if token == lib.LLAMA_TOKEN_NULL else token


cdef class LlamaVocab:
    """The vocabulary of a model (``model.vocab``).

    Parameters
    ----------
    model : LlamaModel
        Kept alive, not kept open: after ``model.close()`` every method raises ClosedError.

    Notes
    -----
    Thread safety: may be used from several threads at once. Source: ``llama_model_get_vocab``, llama.h.
    """

    def __cinit__(self, LlamaModel model not None):
        model._check()
        self.model = model
        self._ptr = model._vocab_ptr

    def __init__(self, model: LlamaModel) -> None:
        pass

    def __reduce__(self):
        raise TypeError("LlamaVocab cannot be pickled: it holds native memory")

    cdef int _check(self) except -1:
        return self.model._check()

    cdef int _check_typed(self) except -1:
        self.model._check()
        if lib.llama_get_vocab_type(self._ptr) == lib.LLAMA_VOCAB_TYPE_NONE:
            raise UnsupportedError("this model has no vocabulary")
        return 0

    def __len__(self) -> int:
        self._check()
        return self.model.n_vocab

    @property
    def n_tokens(self) -> int:
        """Number of tokens. Source: ``llama_vocab_n_tokens``, llama.h."""
        self._check()
        return lib.llama_vocab_n_tokens(self._ptr)

    @property
    def vocab_type(self) -> VocabType:
        """Kind of tokenizer. Source: ``llama_vocab_type``, llama.h."""
        self._check()
        return VocabType(<int> lib.llama_get_vocab_type(self._ptr))

    # -------------------------------------------------------------------------- text and tokens

    def tokenize(self, text: str | bytes, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Tokenize a text.

        Parameters
        ----------
        text : str or bytes
            Bytes are taken as UTF-8 and need not be valid. Less than 2 GiB.
        add_special : bool
            Add the tokens that begin and end a text, if the model uses them.
        parse_special : bool
            Parse special tokens in the text (``<|im_end|>``). Do not use it for untrusted text.

        Notes
        -----
        Releases the GIL. Source: ``llama_tokenize``, llama.h.
        """
        self._check_typed()
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogateescape")
        elif not isinstance(text, bytes):
            raise TypeError(f"text is {type(text).__name__}, expected str or bytes")
        if len(text) >= 2**31 - 64:
            raise ValueError(f"text has {len(text)} bytes, expected less than 2 GiB")
        cdef bytes raw = text
        cdef const char * c_text = raw
        cdef int32_t c_len = <int32_t> len(raw)
        cdef bint c_add = add_special
        cdef bint c_parse = parse_special
        cdef int32_t capacity = c_len + 16
        cdef int32_t n = 0
        cdef lib.llama_token[::1] view
        cdef lib.llama_token * c_view
        while True:
            tokens = np.empty(capacity, np.int32)
            view = tokens
            c_view = &view[0]
            self.model._hold()
            try:
                with nogil:
                    n = lib.llama_tokenize(self._ptr, c_text, c_len, c_view, capacity, c_add, c_parse)
            finally:
                self.model._unhold()
            if n == INT32_MIN:
                raise ValueError("the text has more tokens than an int32 can count")
            if n >= 0:
                return tokens[:n].tolist()
            capacity = -n

    cdef bytes _piece(self, int token, int lstrip, bint special):
        cdef char c_small[64]
        cdef int32_t n = lib.llama_token_to_piece(self._ptr, token, c_small, sizeof(c_small), lstrip, special)
        cdef bytearray buffer
        if n >= 0:
            return c_small[:n]
        buffer = bytearray(-n)
        n = lib.llama_token_to_piece(self._ptr, token, buffer, <int32_t> len(buffer), lstrip, special)
        return bytes(buffer[:n])

    def token_to_bytes(self, token: int, lstrip: int = 0, special: bool = False) -> bytes:
        """Return the bytes of one token; a character may need several tokens.

        Parameters
        ----------
        token : int
        lstrip : int
            Number of leading spaces to remove.
        special : bool
            Render special tokens; they are empty otherwise.

        Raises
        ------
        IndexError
            The token id is out of range.

        Notes
        -----
        Source: ``llama_token_to_piece``, llama.h.
        """
        self._check_typed()
        self.model._check_token(token)
        check_range(lstrip, "lstrip", 0, 2**31 - 1)
        return self._piece(token, lstrip, special)

    def token_to_piece(self, token: int, lstrip: int = 0, special: bool = False) -> str:
        """Return the text of one token; incomplete characters become U+FFFD. See :meth:`token_to_bytes`."""
        return self.token_to_bytes(token, lstrip, special).decode("utf-8", "replace")

    def detokenize_bytes(self, tokens: list, remove_special: bool = False, unparse_special: bool = False) -> bytes:
        """Return the bytes of a list of tokens.

        Parameters
        ----------
        tokens : sequence of int or int32 array, shape (n,)
        remove_special : bool
            Remove the tokens that begin and end a text, if the model uses them.
        unparse_special : bool
            Render special tokens.

        Notes
        -----
        Releases the GIL. Source: ``llama_detokenize``, llama.h.
        """
        self._check_typed()
        found = token_array(tokens)
        if not len(found):
            return b""
        if found.min() < 0 or found.max() >= self.model.n_vocab:
            bad = int(found.min()) if found.min() < 0 else int(found.max())
            raise IndexError(f"tokens contain {bad}, expected 0 to {self.model.n_vocab - 1}")
        cdef const lib.llama_token[::1] view = found
        cdef const lib.llama_token * c_view
        cdef int32_t n_tokens = <int32_t> len(found)
        cdef int32_t capacity = n_tokens * 8 + 64
        cdef int32_t n
        cdef bytearray buffer
        cdef char * c_text
        cdef bint c_remove = remove_special
        cdef bint c_unparse = unparse_special
        while True:
            buffer = bytearray(capacity)
            c_text = buffer
            c_view = &view[0]
            self.model._hold()
            try:
                with nogil:
                    n = lib.llama_detokenize(self._ptr, c_view, n_tokens, c_text, capacity, c_remove, c_unparse)
            finally:
                self.model._unhold()
            if n >= 0:
                return bytes(buffer[:n])
            capacity = -n

    def detokenize(self, tokens: list, remove_special: bool = False, unparse_special: bool = False) -> str:
        """Return the text of a list of tokens; see :meth:`detokenize_bytes`."""
        return self.detokenize_bytes(tokens, remove_special, unparse_special).decode("utf-8", "replace")

    # ------------------------------------------------------------------------------- one token

    def get_text(self, token: int) -> str:
        """Return the token's entry in the vocabulary (``Ġhello``). Source: ``llama_vocab_get_text``, llama.h."""
        self._check_typed()
        self.model._check_token(token)
        return lib.llama_vocab_get_text(self._ptr, token).decode("utf-8", "replace")

    def get_score(self, token: int) -> float:
        """Return the score of the token, meaningful for some kinds of vocabulary. Source: ``llama_vocab_get_score``."""
        self._check_typed()
        self.model._check_token(token)
        return lib.llama_vocab_get_score(self._ptr, token)

    def get_attr(self, token: int) -> TokenAttr:
        """Return the attributes of the token. Source: ``llama_vocab_get_attr``, llama.h."""
        self._check_typed()
        self.model._check_token(token)
        return TokenAttr(<int> lib.llama_vocab_get_attr(self._ptr, token))

    def is_eog(self, token: int) -> bool:
        """Return whether the token ends a generation. Source: ``llama_vocab_is_eog``, llama.h."""
        self._check_typed()
        self.model._check_token(token)
        return lib.llama_vocab_is_eog(self._ptr, token)

    def is_control(self, token: int) -> bool:
        """Return whether the token is a control token. Source: ``llama_vocab_is_control``, llama.h."""
        self._check_typed()
        self.model._check_token(token)
        return lib.llama_vocab_is_control(self._ptr, token)

    # -------------------------------------------------------------------------- special tokens

    @property
    def bos(self) -> int | None:
        """Beginning of sentence. Source: ``llama_vocab_bos``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_bos(self._ptr))

    @property
    def eos(self) -> int | None:
        """End of sentence. Source: ``llama_vocab_eos``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_eos(self._ptr))

    @property
    def eot(self) -> int | None:
        """End of turn. Source: ``llama_vocab_eot``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_eot(self._ptr))

    @property
    def sep(self) -> int | None:
        """Sentence separator. Source: ``llama_vocab_sep``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_sep(self._ptr))

    @property
    def nl(self) -> int | None:
        """Next line. Source: ``llama_vocab_nl``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_nl(self._ptr))

    @property
    def pad(self) -> int | None:
        """Padding. Source: ``llama_vocab_pad``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_pad(self._ptr))

    @property
    def mask(self) -> int | None:
        """Mask. Source: ``llama_vocab_mask``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_mask(self._ptr))

    @property
    def fim_pre(self) -> int | None:
        """Fill-in-the-middle: prefix. Source: ``llama_vocab_fim_pre``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_fim_pre(self._ptr))

    @property
    def fim_suf(self) -> int | None:
        """Fill-in-the-middle: suffix. Source: ``llama_vocab_fim_suf``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_fim_suf(self._ptr))

    @property
    def fim_mid(self) -> int | None:
        """Fill-in-the-middle: middle. Source: ``llama_vocab_fim_mid``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_fim_mid(self._ptr))

    @property
    def fim_pad(self) -> int | None:
        """Fill-in-the-middle: padding. Source: ``llama_vocab_fim_pad``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_fim_pad(self._ptr))

    @property
    def fim_rep(self) -> int | None:
        """Fill-in-the-middle: repository. Source: ``llama_vocab_fim_rep``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_fim_rep(self._ptr))

    @property
    def fim_sep(self) -> int | None:
        """Fill-in-the-middle: file separator. Source: ``llama_vocab_fim_sep``, llama.h."""
        self._check()
        return _or_none(lib.llama_vocab_fim_sep(self._ptr))

    @property
    def add_bos(self) -> bool:
        """Whether ``tokenize`` adds :attr:`bos`. Source: ``llama_vocab_get_add_bos``, llama.h."""
        self._check()
        return lib.llama_vocab_get_add_bos(self._ptr)

    @property
    def add_eos(self) -> bool:
        """Whether ``tokenize`` adds :attr:`eos`. Source: ``llama_vocab_get_add_eos``, llama.h."""
        self._check()
        return lib.llama_vocab_get_add_eos(self._ptr)

    @property
    def add_sep(self) -> bool:
        """Whether ``tokenize`` adds :attr:`sep`. Source: ``llama_vocab_get_add_sep``, llama.h."""
        self._check()
        return lib.llama_vocab_get_add_sep(self._ptr)

    @property
    def suppress_tokens(self) -> list[int]:
        """Tokens that the model marks as never to be generated. Source: ``llama_vocab_get_suppress_tokens``."""
        self._check()
        cdef int32_t n = 0
        cdef const lib.llama_token * c_tokens = lib.llama_vocab_get_suppress_tokens(self._ptr, &n)
        return [c_tokens[i] for i in range(n)] if c_tokens != NULL else []

    def __repr__(self) -> str:
        return f"<LlamaVocab of {self.model!r}>"
