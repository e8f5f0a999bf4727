"""Fill the C structs of a transcription (see ``scripts/gen_fill.py``)."""

from libcpp.string cimport string

from cyllama._native._c_memory cimport CMemory
from cyllama._native._handle cimport CallState, check_range
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._model cimport WhisperContext, WhisperGrammar, ask_stop
from cyllama.whisper.libgrammar cimport matching_tokens

from cyllama._native import _core
from cyllama._params import checked
from cyllama.errors import EngineError
from cyllama.whisper.params import WhisperFullParams, WhisperVadParams


cdef int threads(object n_threads) except -1:
    """Return the threads of a call: `n_threads`, at most the budget."""
    if n_threads is None:
        return _core.get_threads()
    check_range(n_threads, "n_threads", 1, 512)
    return min(n_threads, _core.get_threads())


include "WhisperVadParams.pxi"
include "WhisperFullParams.pxi"


cdef lib.whisper_vad_params fill_vad(object params):
    """Return `params` over the engine's defaults."""
    cdef lib.whisper_vad_params c_params = lib.whisper_vad_default_params()
    fill_WhisperVadParams(checked(params, WhisperVadParams), &c_params, None)
    if params is not None and params.max_speech_duration_s is not None and params.max_speech_duration_s <= 100_000:
        c_params.max_speech_duration_s = params.max_speech_duration_s
    return c_params


cdef class FullParams:
    """`WhisperFullParams` as C takes them, and what they point to."""

    cdef int fill(self, WhisperContext context, object params, CallState state) except -1:
        """Check `params` and write them over the engine's defaults."""
        if params is None:
            raise TypeError("params is None, expected WhisperFullParams")
        values = checked(params, WhisperFullParams)
        self.memory = CMemory()
        strategy = params.strategy or ("greedy" if params.beam_size is None else "beam_search")
        self.c = lib.whisper_full_default_params(
            lib.WHISPER_SAMPLING_GREEDY if strategy == "greedy" else lib.WHISPER_SAMPLING_BEAM_SEARCH)
        self.c.n_threads = threads(params.n_threads)
        self.c.no_context = True
        fill_WhisperFullParams(values, &self.c, self.memory)
        if params.max_len:
            self.c.token_timestamps = True
        self._texts(context, params)
        self._tokens(context, params, state)
        self._grammar(params)
        if params.audio_ctx is not None and params.audio_ctx > context.n_audio_ctx:
            raise ValueError(f"audio_ctx is {params.audio_ctx}, expected at most {context.n_audio_ctx}")
        return 0

    def _texts(self, WhisperContext context, params) -> None:
        if params.language is not None and params.language != "auto":
            self.c.language = self.memory.text(context.language_code(params.language))
        elif params.language == "auto":
            self.c.language = self.memory.text(b"auto")
        if not context.is_multilingual:
            if params.translate:
                raise ValueError("translate is True, but the model supports English only")
            if params.detect_language or params.language == "auto":
                self.c.language = self.memory.text(b"en")
                self.c.detect_language = False

    def _tokens(self, WhisperContext context, params, CallState state) -> None:
        cdef string c_pattern
        cdef int n_text
        prompt = params.prompt_tokens
        if params.initial_prompt is not None:
            prompt = context.tokenize(params.initial_prompt)
        if prompt is not None:
            for token in prompt:
                self.prompt.push_back(context._check_token(token, "a token of prompt_tokens"))
            self.c.prompt_tokens = self.prompt.data()
            self.c.prompt_n_tokens = <int> self.prompt.size()
        if params.suppress_regex is not None:
            c_pattern = params.suppress_regex.encode()
            n_text = context.n_vocab
            try:
                with nogil:
                    self.suppressed = matching_tokens(context._ptr, n_text, c_pattern, ask_stop, <void *> state)
            except EngineError as e:
                reason = e.args[0] if e.args else e
                raise ValueError(f"suppress_regex is {params.suppress_regex!r}, expected a regular "
                                 f"expression of ECMAScript: {reason}") from None
            state.finish()
        for token in params.suppress_tokens or ():
            self.suppressed.push_back(context._check_token(token, "a token of suppress_tokens"))

    def _grammar(self, params) -> None:
        cdef size_t i
        if params.grammar_rules is None:
            return
        grammar = params.grammar_rules
        if isinstance(grammar, str):
            grammar = WhisperGrammar(grammar, params.i_start_rule or "root")
        if not isinstance(grammar, WhisperGrammar):
            raise TypeError(f"grammar_rules is {grammar!r}, expected a WhisperGrammar or its text")
        self.grammar = grammar
        for i in range(self.grammar._state.rules.size()):
            self.rules.push_back(self.grammar._state.rules[i].data())
        self.c.grammar_rules = self.rules.data()
        self.c.n_grammar_rules = self.rules.size()
        self.c.i_start_rule = self.grammar._i_start
