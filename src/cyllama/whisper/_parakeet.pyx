"""Parakeet models: loading, sizes and vocabulary."""

import os
from typing import BinaryIO

cimport cython
from libc.stdint cimport int32_t
from libcpp.vector cimport vector

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport engine_error, log_hook, start_call
from cyllama._native._c_memory cimport CMemory
from cyllama._native._handle cimport CallState, Handle, check_index, integer_of
from cyllama.whisper cimport libparakeet as lib
from cyllama.whisper._model cimport ask_stop
from cyllama.whisper._source cimport ModelSource
from cyllama.whisper.libparakeet_model cimport check_parakeet_model, parakeet_loader_of

from cyllama._cancel import Cancel
from cyllama._native import _core
from cyllama.errors import EngineError, ModelLoadError
from cyllama.whisper._model_source import ModelFile
from cyllama._params import checked
from cyllama.whisper.params import ParakeetContextParams

include "ParakeetContextParams.pxi"

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))
lib.parakeet_log_set(log_hook, <void *> <const char *> b"whisper")


@cython.no_gc_clear  # freeing needs the fields
cdef class ParakeetContext(Handle):
    """A Parakeet model: weights and vocabulary. States made from it share the weights.

    Parameters
    ----------
    path_model : str, bytes or os.PathLike
        A file that ``convert-parakeet-to-ggml.py`` of whisper.cpp wrote.
    params : ParakeetContextParams, optional
    cancel : Cancel, optional
        Stops loading, as Ctrl-C does.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelLoadError
        The file is not a Parakeet model, is truncated or damaged; the message has the place.
    CancelledError
        `cancel` was set.

    Notes
    -----
    Releases the GIL while loading. Thread safety: states in several threads may share it.
    Source: ``parakeet_init_with_params_no_state``, parakeet.h.
    """

    def __cinit__(self, path_model=None, params=None, *, cancel=None):
        if path_model is None:
            return  # from_bytes() and from_fileobj() load
        with ModelFile.from_path(path_model) as file:
            self._load(file, params, cancel)

    def __init__(self, path_model: str | bytes | os.PathLike[str] | None = None,
                 params: ParakeetContextParams | None = None, *, cancel: Cancel | None = None) -> None:
        if not self._open and path_model is None:
            raise TypeError("ParakeetContext() needs path_model")

    def __dealloc__(self):
        self._dispose()

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, params: ParakeetContextParams | None = None, *,
                   cancel: Cancel | None = None) -> ParakeetContext:
        """Load from a bytes-like object with the content of a model file, without copying it.

        Notes
        -----
        Raises and releases the GIL as the constructor does. Source: ``parakeet_init_with_params_no_state``,
        parakeet.h.
        """
        cdef ParakeetContext self = ParakeetContext.__new__(ParakeetContext)
        with ModelFile.from_bytes(data) as file:
            self._load(file, params, cancel)
        return self

    @classmethod
    def from_fileobj(cls, fileobj: BinaryIO, params: ParakeetContextParams | None = None, *,
                     cancel: Cancel | None = None) -> ParakeetContext:
        """Load from a binary file object, from its position to its end.

        Notes
        -----
        Raises and releases the GIL as the constructor does. Source: ``parakeet_init_with_params_no_state``,
        parakeet.h.
        """
        cdef ParakeetContext self = ParakeetContext.__new__(ParakeetContext)
        with ModelFile.from_fileobj(fileobj) as file:
            self._load(file, params, cancel)
        return self

    cdef int _load(self, object file, object params, object cancel) except -1:
        cdef ModelSource source = ModelSource(file)
        cdef CallState state = CallState(cancel)
        cdef lib.parakeet_context_params c_params = lib.parakeet_context_default_params()
        cdef lib.parakeet_model_loader loader
        self.params = ParakeetContextParams() if params is None else params
        fill_ParakeetContextParams(checked(self.params, ParakeetContextParams), &c_params, None)
        _core.load_backends()
        source.check(check_parakeet_model, ask_stop, state, "parakeet_init_with_params_no_state")
        loader = parakeet_loader_of(source.ptr[0])
        with nogil:
            self._ptr = lib.parakeet_init_with_params_no_state(&loader, c_params)
        if self._ptr == NULL:
            state.finish()
            raise engine_error(ModelLoadError, f"cannot load {source.what}", "whisper",
                               "parakeet_init_with_params_no_state", None)
        self.n_vocab = lib.parakeet_n_vocab(self._ptr)
        self._opened("ParakeetContext", None)
        state.finish()
        return 0

    cdef int _release(self) noexcept:
        cdef lib.parakeet_context * c_context = self._ptr
        self._ptr = NULL
        with nogil:
            lib.parakeet_free(c_context)
        return 0

    cdef int _check_token(self, object token, str what) except -1:
        """Check a token and return it."""
        cdef long long found = integer_of(token, what)
        check_index(found, what, self.n_vocab + 1)  # the blank token follows the vocabulary
        return <int> found

    # ------------------------------------------------------------------------------------------ sizes

    @property
    def n_audio_ctx(self) -> int:
        """Maximum number of mel frames, of 10 ms, for one call. Source: ``parakeet_n_audio_ctx``, parakeet.h."""
        self._check()
        return lib.parakeet_n_audio_ctx(self._ptr)

    @property
    def model_n_audio_state(self) -> int:
        """Width of the encoder. Source: ``parakeet_model_n_audio_state``, parakeet.h."""
        self._check()
        return lib.parakeet_model_n_audio_state(self._ptr)

    @property
    def model_n_audio_head(self) -> int:
        """Attention heads of the encoder. Source: ``parakeet_model_n_audio_head``, parakeet.h."""
        self._check()
        return lib.parakeet_model_n_audio_head(self._ptr)

    @property
    def model_n_audio_layer(self) -> int:
        """Layers of the encoder. Source: ``parakeet_model_n_audio_layer``, parakeet.h."""
        self._check()
        return lib.parakeet_model_n_audio_layer(self._ptr)

    @property
    def model_n_mels(self) -> int:
        """Mel bands of the input. Source: ``parakeet_model_n_mels``, parakeet.h."""
        self._check()
        return lib.parakeet_model_n_mels(self._ptr)

    @property
    def model_ftype(self) -> int:
        """Number of the type of the weights. Source: ``parakeet_model_ftype``, parakeet.h."""
        self._check()
        return lib.parakeet_model_ftype(self._ptr)

    # ------------------------------------------------------------------------------------- vocabulary

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text: from its start on, the longest matching word of the vocabulary.

        Notes
        -----
        Releases the GIL. Source: ``parakeet_tokenize``, parakeet.h.
        """
        self._check()
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r}, expected a string")
        cdef bytes raw = text.encode()
        if b"\0" in raw:
            raise ValueError("text contains a null character")
        if len(raw) >= 2**28:
            raise ValueError(f"text has {len(raw)} bytes, expected less than 256 MiB")
        cdef const char * c_text = raw
        cdef vector[int32_t] tokens
        cdef int c_capacity = 3 * len(raw) + 8  # a space becomes a character of three bytes
        cdef int n
        tokens.resize(c_capacity)
        start_call()
        self._hold()
        try:
            with nogil:
                n = lib.parakeet_tokenize(self._ptr, c_text, tokens.data(), c_capacity)
        finally:
            self._unhold()
        if n < 0:
            raise engine_error(EngineError, f"the text has {-n} tokens", "whisper", "parakeet_tokenize", n)
        return [tokens[i] for i in range(n)]

    def token_count(self, text: str) -> int:
        """Return the number of tokens of a text; see :meth:`tokenize`. Source: ``parakeet_tokenize``, parakeet.h."""
        return len(self.tokenize(text))

    def token_to_str(self, token: int) -> str:
        """Return a token's entry in the vocabulary, such as ``"▁the"``.

        Source: ``parakeet_token_to_str``, parakeet.h.
        """
        cdef int c_token = self._check_token(token, "token")
        self._check()
        return lib.parakeet_token_to_str(self._ptr, c_token).decode("utf-8", "replace")

    def token_to_bytes(self, token: int) -> bytes:
        """Return the text of a token in UTF-8, such as ``b" the"``; control tokens have none.

        Source: ``parakeet_token_to_text``, parakeet.h.
        """
        cdef int c_token = self._check_token(token, "token")
        self._check()
        return self._token_bytes(c_token)

    cdef bytes _token_bytes(self, lib.parakeet_token token):
        cdef const char * c_word = lib.parakeet_token_to_str(self._ptr, token)
        cdef int n = lib.parakeet_token_to_text(c_word, False, NULL, 0)
        cdef bytearray text = bytearray(n + 1)
        cdef unsigned char[::1] view = text
        lib.parakeet_token_to_text(c_word, False, <char *> &view[0], n + 1)
        return bytes(text[:n])

    @property
    def token_blank(self) -> int:
        """The token of no text. Source: ``parakeet_token_blank``, parakeet.h."""
        self._check()
        return lib.parakeet_token_blank(self._ptr)

    @property
    def token_unk(self) -> int:
        """The token of unknown text; 0 if the vocabulary has none. Source: ``parakeet_token_unk``, parakeet.h."""
        self._check()
        return lib.parakeet_token_unk(self._ptr)

    @property
    def token_bos(self) -> int:
        """The token at the start of a text; 0 if there is none. Source: ``parakeet_token_bos``, parakeet.h."""
        self._check()
        return lib.parakeet_token_bos(self._ptr)
