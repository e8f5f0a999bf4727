"""Whisper models: loading, sizes, vocabulary and languages; grammars."""

import difflib
import os
from typing import BinaryIO

cimport cython
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport engine_error, log_hook
from cyllama._native._c_memory cimport CMemory
from cyllama._native.libfields cimport set_enum
from cyllama._native._handle cimport CallState, Handle, check_index, check_range, integer_of
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._source cimport ModelSource
from cyllama.whisper.libgrammar cimport parse_grammar
from cyllama.whisper.libmodel cimport check_whisper_model, loader_of

from cyllama._cancel import Cancel
from cyllama._native import _core
from cyllama.errors import EngineError, GrammarError, ModelLoadError, UnsupportedError
from cyllama.whisper._grammar_check import check_rules
from cyllama.whisper._model_source import ModelFile
from cyllama._params import checked
from cyllama.whisper.params import AHEADS_PRESETS, WhisperContextParams
from cyllama.whisper._tokenizer import Tokenizer

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))
lib.whisper_log_set(log_hook, <void *> <const char *> b"whisper")


N_OTHER_TOKENS = 51766  # tokens of a multilingual vocabulary that are not languages


cdef cbool ask_stop(void * state) noexcept nogil:
    return (<CallState> state).poll()


include "WhisperContextParams.pxi"


cdef lib.whisper_context_params _c_params(object params, vector[lib.whisper_ahead] & heads):
    cdef lib.whisper_context_params c_params = lib.whisper_context_default_params()
    cdef lib.whisper_ahead head
    fill_WhisperContextParams(checked(params, WhisperContextParams), &c_params, None)
    set_enum(c_params.dtw_aheads_preset, AHEADS_PRESETS.index(params.dtw_aheads_preset or "none"))
    for layer, number in params.dtw_aheads or ():
        head.n_text_layer = layer
        head.n_head = number
        heads.push_back(head)
    c_params.dtw_aheads.n_heads = heads.size()
    c_params.dtw_aheads.heads = heads.data()
    return c_params


@cython.no_gc_clear  # freeing needs the fields
cdef class WhisperContext(Handle):
    """A speech model: weights and vocabulary. States made from it share the weights.

    Parameters
    ----------
    path_model : str, bytes or os.PathLike
        A file in whisper.cpp's format (``ggml-tiny.en.bin``).
    params : WhisperContextParams, optional
    cancel : Cancel, optional
        Stops loading, as Ctrl-C does.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelLoadError
        The file is not a Whisper model, is truncated or damaged; the message has the place.
    CancelledError
        `cancel` was set.

    Notes
    -----
    Releases the GIL while loading. Thread safety: may be shared by states in several threads.
    Source: ``whisper_init_with_params_no_state``, whisper.h.
    """

    def __cinit__(self, path_model=None, params=None, *, cancel=None):
        if path_model is None:
            return  # from_bytes() and from_fileobj() load
        with ModelFile.from_path(path_model) as file:
            self._load(file, params, cancel)

    def __init__(self, path_model: str | bytes | os.PathLike[str] | None = None,
                 params: WhisperContextParams | None = None, *, cancel: Cancel | None = None) -> None:
        if not self._open and path_model is None:
            raise TypeError("WhisperContext() needs path_model")

    def __dealloc__(self):
        self._dispose()

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, params: WhisperContextParams | None = None, *,
                   cancel: Cancel | None = None) -> WhisperContext:
        """Load from a bytes-like object with the content of a model file, without copying it.

        Notes
        -----
        Raises and releases the GIL as the constructor does. Source: ``whisper_init_with_params_no_state``, whisper.h.
        """
        cdef WhisperContext self = WhisperContext.__new__(WhisperContext)
        with ModelFile.from_bytes(data) as file:
            self._load(file, params, cancel)
        return self

    @classmethod
    def from_fileobj(cls, fileobj: BinaryIO, params: WhisperContextParams | None = None, *,
                     cancel: Cancel | None = None) -> WhisperContext:
        """Load from a binary file object, from its position to its end.

        Notes
        -----
        Raises and releases the GIL as the constructor does. Source: ``whisper_init_with_params_no_state``, whisper.h.
        """
        cdef WhisperContext self = WhisperContext.__new__(WhisperContext)
        with ModelFile.from_fileobj(fileobj) as file:
            self._load(file, params, cancel)
        return self

    cdef int _load(self, object file, object params, object cancel) except -1:
        cdef ModelSource source = ModelSource(file)
        cdef CallState state = CallState(cancel)
        cdef vector[lib.whisper_ahead] heads
        cdef lib.whisper_context_params c_params
        cdef lib.whisper_model_loader loader
        cdef bint has_weights
        self.params = WhisperContextParams() if params is None else params
        c_params = _c_params(self.params, heads)
        _core.load_backends()
        has_weights = source.check(check_whisper_model, ask_stop, state, "whisper_init_with_params_no_state")
        loader = loader_of(source.ptr[0])
        with nogil:
            self._ptr = lib.whisper_init_with_params_no_state(&loader, c_params)
        if self._ptr == NULL:
            state.finish()
            raise engine_error(ModelLoadError, f"cannot load {source.what}", "whisper",
                               "whisper_init_with_params_no_state", None)
        self.has_weights = has_weights
        self.n_vocab = lib.whisper_n_vocab(self._ptr)
        self._opened("WhisperContext", None)
        self._check_heads()
        state.finish()
        return 0

    def _check_heads(self) -> None:
        """Reject alignment heads that the model does not have: the engine would read out of bounds."""
        n_layers, n_heads = self.model_n_text_layer, self.model_n_text_head
        for layer, head in self.params.dtw_aheads or ():
            if not (0 <= layer < n_layers and 0 <= head < n_heads):
                raise ValueError(f"dtw_aheads contains {(layer, head)}, expected at most {(n_layers - 1, n_heads - 1)}")
        if self.params.dtw_n_top is not None and self.params.dtw_n_top > n_layers:
            raise ValueError(f"dtw_n_top is {self.params.dtw_n_top}, expected at most {n_layers}")

    cdef int _release(self) noexcept:
        cdef lib.whisper_context * c_context = self._ptr
        self._ptr = NULL
        with nogil:
            lib.whisper_free(c_context)
        return 0

    cdef int _check_weights(self) except -1:
        self._check()
        if not self.has_weights:
            raise UnsupportedError("the model has a vocabulary but no weights: it can only tokenize")
        return 0

    cdef int _check_token(self, object token, str what) except -1:
        """Check a token and return it."""
        cdef long long found = integer_of(token, what)
        check_index(found, what, self.n_vocab)
        return <int> found

    # ----------------------------------------------------------------------------------- sizes

    @property
    def is_multilingual(self) -> bool:
        """Whether the model supports other languages than English. Source: ``whisper_is_multilingual``, whisper.h."""
        self._check()
        return lib.whisper_is_multilingual(self._ptr) != 0

    @property
    def model_type(self) -> str:
        """Size of the model: tiny, base, small, medium or large. Source: ``whisper_model_type_readable``, whisper.h."""
        self._check()
        return lib.whisper_model_type_readable(self._ptr).decode()

    @property
    def model_type_id(self) -> int:
        """Number of the size of the model. Source: ``whisper_model_type``, whisper.h."""
        self._check()
        return lib.whisper_model_type(self._ptr)

    @property
    def n_text_ctx(self) -> int:
        """Maximum number of tokens of a window. Source: ``whisper_n_text_ctx``, whisper.h."""
        self._check()
        return lib.whisper_n_text_ctx(self._ptr)

    @property
    def n_audio_ctx(self) -> int:
        """Encoder frames of 20 ms for a window of 30 s. Source: ``whisper_n_audio_ctx``, whisper.h."""
        self._check()
        return lib.whisper_n_audio_ctx(self._ptr)

    @property
    def model_n_audio_state(self) -> int:
        """Width of the encoder. Source: ``whisper_model_n_audio_state``, whisper.h."""
        self._check()
        return lib.whisper_model_n_audio_state(self._ptr)

    @property
    def model_n_audio_head(self) -> int:
        """Attention heads of the encoder. Source: ``whisper_model_n_audio_head``, whisper.h."""
        self._check()
        return lib.whisper_model_n_audio_head(self._ptr)

    @property
    def model_n_audio_layer(self) -> int:
        """Layers of the encoder. Source: ``whisper_model_n_audio_layer``, whisper.h."""
        self._check()
        return lib.whisper_model_n_audio_layer(self._ptr)

    @property
    def model_n_text_state(self) -> int:
        """Width of the decoder. Source: ``whisper_model_n_text_state``, whisper.h."""
        self._check()
        return lib.whisper_model_n_text_state(self._ptr)

    @property
    def model_n_text_head(self) -> int:
        """Attention heads of the decoder. Source: ``whisper_model_n_text_head``, whisper.h."""
        self._check()
        return lib.whisper_model_n_text_head(self._ptr)

    @property
    def model_n_text_layer(self) -> int:
        """Layers of the decoder. Source: ``whisper_model_n_text_layer``, whisper.h."""
        self._check()
        return lib.whisper_model_n_text_layer(self._ptr)

    @property
    def model_n_mels(self) -> int:
        """Mel bands of the input. Source: ``whisper_model_n_mels``, whisper.h."""
        self._check()
        return lib.whisper_model_n_mels(self._ptr)

    @property
    def model_ftype(self) -> int:
        """Number of the type of the weights. Source: ``whisper_model_ftype``, whisper.h."""
        self._check()
        return lib.whisper_model_ftype(self._ptr)

    # ------------------------------------------------------------------------------- vocabulary

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, without special ones.

        Parameters
        ----------
        text : str
            At most 1 MiB. Words inside a text begin with their space.

        Raises
        ------
        TypeError, ValueError
            `text` is not a string, is too long, or contains a null character.

        Notes
        -----
        Source: ``whisper_tokenize``, whisper.h, which :mod:`cyllama.whisper._tokenizer` replaces.
        """
        self._check()
        if self._tokenizer is None:
            self._tokenizer = Tokenizer([<bytes> lib.whisper_token_to_str(self._ptr, i) for i in range(self.n_vocab)])
        return self._tokenizer(text)

    def token_count(self, text: str) -> int:
        """Return the number of tokens of a text; see :meth:`tokenize`. Source: ``whisper_token_count``, whisper.h."""
        return len(self.tokenize(text))

    def token_to_bytes(self, token: int) -> bytes:
        """Return the text of a token in UTF-8; a character may be split between tokens.

        Source: ``whisper_token_to_str``, whisper.h.
        """
        cdef int c_token = self._check_token(token, "token")
        self._check()
        return lib.whisper_token_to_str(self._ptr, c_token)

    def token_to_str(self, token: int) -> str:
        """Return the text of a token; a part of a character becomes U+FFFD.

        Source: ``whisper_token_to_str``, whisper.h.
        """
        return self.token_to_bytes(token).decode("utf-8", "replace")

    @property
    def token_eot(self) -> int:
        """The token that ends a text; all tokens of text are below it. Source: ``whisper_token_eot``, whisper.h."""
        self._check()
        return lib.whisper_token_eot(self._ptr)

    @property
    def token_sot(self) -> int:
        """The token that begins a text. Source: ``whisper_token_sot``, whisper.h."""
        self._check()
        return lib.whisper_token_sot(self._ptr)

    @property
    def token_solm(self) -> int:
        """The token of a change of speaker. Source: ``whisper_token_solm``, whisper.h."""
        self._check()
        return lib.whisper_token_solm(self._ptr)

    @property
    def token_prev(self) -> int:
        """The token before the text of earlier windows. Source: ``whisper_token_prev``, whisper.h."""
        self._check()
        return lib.whisper_token_prev(self._ptr)

    @property
    def token_nosp(self) -> int:
        """The token of no speech. Source: ``whisper_token_nosp``, whisper.h."""
        self._check()
        return lib.whisper_token_nosp(self._ptr)

    @property
    def token_not(self) -> int:
        """The token that turns timestamps off. Source: ``whisper_token_not``, whisper.h."""
        self._check()
        return lib.whisper_token_not(self._ptr)

    @property
    def token_beg(self) -> int:
        """The timestamp token of 0 s; each following token is 20 ms later. Source: ``whisper_token_beg``, whisper.h."""
        self._check()
        return lib.whisper_token_beg(self._ptr)

    @property
    def token_translate(self) -> int:
        """The token of the task translate. Source: ``whisper_token_translate``, whisper.h."""
        self._check()
        return lib.whisper_token_translate(self._ptr)

    @property
    def token_transcribe(self) -> int:
        """The token of the task transcribe. Source: ``whisper_token_transcribe``, whisper.h."""
        self._check()
        return lib.whisper_token_transcribe(self._ptr)

    def token_lang(self, language: str) -> int:
        """Return the token of a language by its code or name. Source: ``whisper_token_lang``, whisper.h."""
        self._check()
        return lib.whisper_token_lang(self._ptr, language_id(language))

    @property
    def languages(self) -> dict[str, str]:
        """The supported languages: code and English name, in the order of their ids."""
        n_languages = self.n_vocab - N_OTHER_TOKENS if self.is_multilingual else 1
        return dict(list(languages().items())[:n_languages])

    def language_code(self, language: str) -> str:
        """Return the code of a supported language by its code or name.

        Raises
        ------
        ValueError
            The language is unknown, or the model does not support it.
        """
        code = language_code(language_id(language))
        if code not in self.languages:
            only = "English only" if not self.is_multilingual else f"{len(self.languages)} languages without it"
            raise ValueError(f"language is {language!r}, but the model supports {only}")
        return code


# --------------------------------------------------------------------------------------- languages

def languages() -> dict[str, str]:
    """Return all languages of Whisper: code and English name, in the order of their ids.

    Source: ``whisper_lang_str``, ``whisper_lang_str_full``, ``whisper_lang_max_id``, whisper.h.
    """
    return {lib.whisper_lang_str(i).decode(): lib.whisper_lang_str_full(i).decode()
            for i in range(lib.whisper_lang_max_id() + 1)}


def language_id(language: str) -> int:
    """Return the id of a language by its code (``"de"``) or name (``"german"``).

    Raises
    ------
    ValueError
        The language is unknown; the message suggests a similar one.

    Notes
    -----
    Source: ``whisper_lang_id``, whisper.h.
    """
    if not isinstance(language, str):
        raise TypeError(f"language is {language!r}, expected a code such as 'en', or a name")
    cdef bytes raw = language.casefold().encode("utf-8", "replace")
    known = languages()
    if raw.decode() not in known and raw.decode() not in known.values():
        near = difflib.get_close_matches(language.casefold(), [*known.values(), *known], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"language is {language!r}, expected a language of Whisper{hint}")
    return lib.whisper_lang_id(raw)


def language_code(id: int) -> str:
    """Return the code of a language by its id. Source: ``whisper_lang_str``, whisper.h."""
    check_range(id, "id", 0, lib.whisper_lang_max_id())
    return lib.whisper_lang_str(id).decode()


# ---------------------------------------------------------------------------------------- grammars

cdef class WhisperGrammar:
    """A grammar that constrains the text.

    Parameters
    ----------
    text : str
        Rules in GBNF. They should match all of the speech: other tokens lose `grammar_penalty` in their logits.
    start_rule : str
        Name of the rule for the whole text.

    Raises
    ------
    GrammarError
        The grammar is invalid, or has no such rule.

    Notes
    -----
    Releases the GIL. Source: ``grammar_parser::parse``, examples/grammar-parser.h.
    """

    def __cinit__(self, str text not None, str start_rule not None="root"):
        cdef string c_text = text.encode()
        cdef string c_start = start_rule.encode()
        if "\0" in text:
            raise GrammarError("the grammar contains a null character")
        try:
            with nogil:
                self._state = parse_grammar(c_text)
        except EngineError as e:
            raise GrammarError(f"the grammar is invalid: {e.args[0] if e.args else e}") from None
        if self._state.symbol_ids.find(c_start) == self._state.symbol_ids.end():
            raise GrammarError(f"the grammar has no rule {start_rule!r}")
        self._i_start = self._state.symbol_ids[c_start]
        self.text = text
        self.start_rule = start_rule
        check_rules(self._rules(), {entry.second: entry.first.decode() for entry in self._state.symbol_ids})

    def __init__(self, text: str, start_rule: str = "root") -> None:
        pass

    def _rules(self) -> list:
        """Return the rules in the form of `check_rules`."""
        cdef size_t i, j
        cdef lib.whisper_grammar_element element
        found = []
        for i in range(self._state.rules.size()):
            alternatives = [[]] if self._state.rules[i].size() else []
            for j in range(self._state.rules[i].size()):
                element = self._state.rules[i][j]
                if element.type == lib.WHISPER_GRETYPE_ALT:
                    alternatives.append([])
                elif element.type == lib.WHISPER_GRETYPE_RULE_REF:
                    alternatives[-1].append(<int> element.value)
                elif element.type != lib.WHISPER_GRETYPE_END:
                    alternatives[-1].append(None)
            found.append(alternatives)
        return found

    def __repr__(self) -> str:
        return f"WhisperGrammar({self.text!r}, {self.start_rule!r})"
