"""The model: loading, what it is, its vocabulary and languages; grammars."""

import os

cimport cython
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport engine_error, log_hook, start_call
from cyllama._native._handle cimport CallState, Handle, check_range
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._source cimport ModelSource
from cyllama.whisper.libgrammar cimport parse_grammar
from cyllama.whisper.libmodel cimport check_whisper_model, loader_of, stop_source

from cyllama._native import _core
from cyllama.errors import EngineError, GrammarError, ModelLoadError, UnsupportedError
from cyllama.whisper.grammar_rules import check_rules
from cyllama.whisper.model_files import ModelFile
from cyllama.whisper.params import AHEADS_PRESETS, WhisperContextParams
from cyllama.whisper.tokenizer import Tokenizer

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))
lib.whisper_log_set(log_hook, <void *> <const char *> b"whisper")


N_OTHER_TOKENS = 51766  # of a multilingual vocabulary: all but those of the languages


cdef cbool ask_stop(void * state) noexcept nogil:
    return (<CallState> state).poll()


cdef lib.whisper_context_params _c_params(object params, vector[lib.whisper_ahead] & heads):
    cdef lib.whisper_context_params c_params = lib.whisper_context_default_params()
    cdef lib.whisper_ahead head
    if params.use_gpu is not None:
        c_params.use_gpu = params.use_gpu
    if params.flash_attn is not None:
        c_params.flash_attn = params.flash_attn
    if params.gpu_device is not None:
        c_params.gpu_device = params.gpu_device
    if params.dtw_token_timestamps:
        c_params.dtw_token_timestamps = True
        c_params.flash_attn = False  # the engine turns alignment off otherwise
    c_params.dtw_aheads_preset = <lib.whisper_alignment_heads_preset> <int> AHEADS_PRESETS.index(
        params.dtw_aheads_preset or "none")
    if params.dtw_n_top is not None:
        c_params.dtw_n_top = params.dtw_n_top
    if params.dtw_mem_size is not None:
        c_params.dtw_mem_size = params.dtw_mem_size
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
    cancel : object with ``is_set()``, optional
        Such as ``threading.Event``; looked at while loading. Ctrl-C stops the loading too.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelLoadError
        Not a whisper model, truncated, or damaged; the message says where.
    CancelledError
        `cancel` was set.

    Notes
    -----
    Releases the GIL while loading. Thread safety: may be shared by states in several threads.
    Source: ``whisper_init_with_params_no_state``, whisper.h.
    """

    def __cinit__(self, path_model=None, params=None, *, cancel=None):
        if path_model is None:
            return  # the class methods fill it
        with ModelFile.from_path(path_model) as file:
            self._load(file, params, cancel)

    def __init__(self, path_model: str | bytes | os.PathLike[str] | None = None,
                 params: WhisperContextParams | None = None, *, cancel: object | None = None) -> None:
        if not self._open and path_model is None:
            raise TypeError("WhisperContext() needs path_model")

    def __dealloc__(self):
        self._dispose()

    @classmethod
    def from_bytes(cls, data: object, params: WhisperContextParams | None = None, *,
                   cancel: object | None = None) -> WhisperContext:
        """Load from a bytes-like object with the content of a model file; not copied as a whole.

        Notes
        -----
        Raises and releases the GIL as the constructor does. Source: ``whisper_init_with_params_no_state``, whisper.h.
        """
        cdef WhisperContext self = WhisperContext.__new__(WhisperContext)
        with ModelFile.from_bytes(data) as file:
            self._load(file, params, cancel)
        return self

    @classmethod
    def from_fileobj(cls, fileobj: object, params: WhisperContextParams | None = None, *,
                     cancel: object | None = None) -> WhisperContext:
        """Load from a binary file object, from where it stands to its end.

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
        cdef cbool has_weights = False
        self.params = WhisperContextParams() if params is None else params
        if not isinstance(self.params, WhisperContextParams):
            raise TypeError(f"params is {params!r}, expected WhisperContextParams")
        self.params.check()
        c_params = _c_params(self.params, heads)
        _core.load_backends()
        state.finish()  # cancelled before it began
        stop_source(source.ptr[0], ask_stop, <void *> state)
        start_call()
        try:
            with nogil:
                has_weights = check_whisper_model(source.ptr[0])
        except EngineError as e:
            state.finish()
            raise ModelLoadError(f"{source.what} cannot be loaded: {e.args[0] if e.args else e}", engine="whisper",
                                 function="whisper_init_with_params_no_state") from None
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
        """Heads that the model does not have would be read beyond its end."""
        n_layers, n_heads = self.model_n_text_layer, self.model_n_text_head
        for layer, head in self.params.dtw_aheads or ():
            if not (0 <= layer < n_layers and 0 <= head < n_heads):
                raise ValueError(f"dtw_aheads contains {(layer, head)}, the model has {n_layers} text layers of "
                                 f"{n_heads} heads")
        if self.params.dtw_n_top is not None and self.params.dtw_n_top > n_layers:
            raise ValueError(f"dtw_n_top is {self.params.dtw_n_top}, the model has {n_layers} text layers")

    cdef int _release(self) noexcept:
        cdef lib.whisper_context * c_context = self._ptr
        self._ptr = NULL
        with nogil:
            lib.whisper_free(c_context)
        return 0

    cdef int _check_weights(self) except -1:
        self._check()
        if not self.has_weights:
            raise UnsupportedError("this model has a vocabulary but no weights: it can only tokenize")
        return 0

    cdef int _check_token(self, object token, str what) except -1:
        if isinstance(token, bool) or not hasattr(token, "__index__"):
            raise TypeError(f"{what} is {token!r}, expected an integer")
        if not 0 <= token < self.n_vocab:
            raise IndexError(f"{what} is {token}, expected 0 to {self.n_vocab - 1}")
        return 0

    def init_state(self) -> object:
        """A new `WhisperState`: what one transcription needs beside the weights.

        Notes
        -----
        Releases the GIL. Source: ``whisper_init_state``, whisper.h.
        """
        from cyllama.whisper._state import WhisperState

        return WhisperState(self)

    # ------------------------------------------------------------------------------- what it is

    @property
    def is_multilingual(self) -> bool:
        """Whether it knows other languages than English. Source: ``whisper_is_multilingual``, whisper.h."""
        self._check()
        return lib.whisper_is_multilingual(self._ptr) != 0

    @property
    def model_type(self) -> str:
        """Its size: tiny, base, small, medium or large. Source: ``whisper_model_type_readable``, whisper.h."""
        self._check()
        return lib.whisper_model_type_readable(self._ptr).decode()

    @property
    def model_type_id(self) -> int:
        """Number of its size. Source: ``whisper_model_type``, whisper.h."""
        self._check()
        return lib.whisper_model_type(self._ptr)

    @property
    def n_text_ctx(self) -> int:
        """Most tokens of a window. Source: ``whisper_n_text_ctx``, whisper.h."""
        self._check()
        return lib.whisper_n_text_ctx(self._ptr)

    @property
    def n_audio_ctx(self) -> int:
        """Frames of the encoder for 30 s, of 20 ms each. Source: ``whisper_n_audio_ctx``, whisper.h."""
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
        """Mel bands that it hears. Source: ``whisper_model_n_mels``, whisper.h."""
        self._check()
        return lib.whisper_model_n_mels(self._ptr)

    @property
    def model_ftype(self) -> int:
        """Number of the type of its weights. Source: ``whisper_model_ftype``, whisper.h."""
        self._check()
        return lib.whisper_model_ftype(self._ptr)

    # ------------------------------------------------------------------------------- vocabulary

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, without special ones.

        Parameters
        ----------
        text : str
            At most 1 MiB. A word in the middle of a text begins with its space.

        Raises
        ------
        TypeError, ValueError
            `text` is not a string, is too long, or contains a null character.

        Notes
        -----
        Source: ``whisper_tokenize``, whisper.h, which :mod:`cyllama.whisper.tokenizer` replaces.
        """
        self._check()
        if self._tokenizer is None:
            self._tokenizer = Tokenizer([<bytes> lib.whisper_token_to_str(self._ptr, i) for i in range(self.n_vocab)])
        return self._tokenizer(text)

    def token_count(self, text: str) -> int:
        """How many tokens a text has; see :meth:`tokenize`. Source: ``whisper_token_count``, whisper.h."""
        return len(self.tokenize(text))

    def token_to_bytes(self, token: int) -> bytes:
        """The text of one token in UTF-8; a character may be split. Source: ``whisper_token_to_str``, whisper.h."""
        self._check()
        self._check_token(token, "token")
        return lib.whisper_token_to_str(self._ptr, token)

    def token_to_str(self, token: int) -> str:
        """The text of one token; a part of a character becomes U+FFFD. Source: ``whisper_token_to_str``, whisper.h."""
        return self.token_to_bytes(token).decode("utf-8", "replace")

    @property
    def token_eot(self) -> int:
        """Ends a text; all tokens of text are below it. Source: ``whisper_token_eot``, whisper.h."""
        self._check()
        return lib.whisper_token_eot(self._ptr)

    @property
    def token_sot(self) -> int:
        """Begins a text. Source: ``whisper_token_sot``, whisper.h."""
        self._check()
        return lib.whisper_token_sot(self._ptr)

    @property
    def token_solm(self) -> int:
        """Another speaker follows. Source: ``whisper_token_solm``, whisper.h."""
        self._check()
        return lib.whisper_token_solm(self._ptr)

    @property
    def token_prev(self) -> int:
        """The text of earlier windows follows. Source: ``whisper_token_prev``, whisper.h."""
        self._check()
        return lib.whisper_token_prev(self._ptr)

    @property
    def token_nosp(self) -> int:
        """There is no speech. Source: ``whisper_token_nosp``, whisper.h."""
        self._check()
        return lib.whisper_token_nosp(self._ptr)

    @property
    def token_not(self) -> int:
        """No times are wanted. Source: ``whisper_token_not``, whisper.h."""
        self._check()
        return lib.whisper_token_not(self._ptr)

    @property
    def token_beg(self) -> int:
        """The time 0; each next token is 20 ms later. Source: ``whisper_token_beg``, whisper.h."""
        self._check()
        return lib.whisper_token_beg(self._ptr)

    @property
    def token_translate(self) -> int:
        """Asks for a translation. Source: ``whisper_token_translate``, whisper.h."""
        self._check()
        return lib.whisper_token_translate(self._ptr)

    @property
    def token_transcribe(self) -> int:
        """Asks for a transcription. Source: ``whisper_token_transcribe``, whisper.h."""
        self._check()
        return lib.whisper_token_transcribe(self._ptr)

    def token_lang(self, language: str) -> int:
        """The token of a language, given as code or name. Source: ``whisper_token_lang``, whisper.h."""
        self._check()
        return lib.whisper_token_lang(self._ptr, language_id(language))

    @property
    def languages(self) -> dict[str, str]:
        """The languages that the model knows: code and English name, in the order of their numbers."""
        n_languages = self.n_vocab - N_OTHER_TOKENS if self.is_multilingual else 1
        return dict(list(languages().items())[:n_languages])

    def language_code(self, language: str) -> str:
        """The code of a language that the model knows, given as code or name.

        Raises
        ------
        ValueError
            There is no such language, or the model does not know it.
        """
        code = language_code(language_id(language))
        if code not in self.languages:
            only = "English only" if not self.is_multilingual else f"{len(self.languages)} languages without it"
            raise ValueError(f"language is {language!r}, but the model knows {only}")
        return code


# --------------------------------------------------------------------------------------- languages

def languages() -> dict[str, str]:
    """All languages of Whisper: code and English name, in the order of their numbers.

    Source: ``whisper_lang_str``, ``whisper_lang_str_full``, ``whisper_lang_max_id``, whisper.h.
    """
    return {lib.whisper_lang_str(i).decode(): lib.whisper_lang_str_full(i).decode()
            for i in range(lib.whisper_lang_max_id() + 1)}


def language_id(language: str) -> int:
    """The number of a language, given as code (``"de"``) or name (``"german"``).

    Raises
    ------
    ValueError
        There is no such language; the nearest is named.

    Notes
    -----
    Source: ``whisper_lang_id``, whisper.h.
    """
    if not isinstance(language, str):
        raise TypeError(f"language is {language!r}, expected a code such as 'en', or a name")
    cdef bytes raw = language.casefold().encode("utf-8", "replace")
    known = languages()
    if raw.decode() not in known and raw.decode() not in known.values():
        import difflib

        near = difflib.get_close_matches(language.casefold(), [*known.values(), *known], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"language is {language!r}, which Whisper does not know{hint}")
    return lib.whisper_lang_id(raw)


def language_code(id: int) -> str:
    """The code of a language by its number. Source: ``whisper_lang_str``, whisper.h."""
    check_range(id, "id", 0, lib.whisper_lang_max_id())
    return lib.whisper_lang_str(id).decode()


# ---------------------------------------------------------------------------------------- grammars

cdef class WhisperGrammar:
    """Rules that a text has to follow.

    Parameters
    ----------
    text : str
        In GBNF. It must fit all that is said: what it does not allow loses `grammar_penalty` in the logits.
    start_rule : str
        The rule that the text is.

    Raises
    ------
    GrammarError
        It is no grammar, or has no such rule.

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
            raise GrammarError(f"bad grammar: {e.args[0] if e.args else e}") from None
        if self._state.symbol_ids.find(c_start) == self._state.symbol_ids.end():
            raise GrammarError(f"the grammar has no rule {start_rule!r}")
        self._i_start = self._state.symbol_ids[c_start]
        self.text = text
        self.start_rule = start_rule
        check_rules(self._rules(), {entry.second: entry.first.decode() for entry in self._state.symbol_ids})

    def __init__(self, text: str, start_rule: str = "root") -> None:
        pass

    def _rules(self) -> list:
        """The rules as `check_rules` takes them."""
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
