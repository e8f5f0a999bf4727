"""The parameters of a transcription as C takes them."""

from libcpp.string cimport string

from cyllama._native._handle cimport CallState, check_range
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._model cimport WhisperContext, WhisperGrammar, ask_stop
from cyllama.whisper.libgrammar cimport matching_tokens

from cyllama._native import _core
from cyllama.errors import EngineError
from cyllama.whisper.params import WhisperFullParams, WhisperVadParams


cdef int threads(object n_threads) except -1:
    """How many threads a call takes: as many as asked for, at most the budget."""
    if n_threads is None:
        return _core.get_threads()
    check_range(n_threads, "n_threads", 1, 512)
    return min(n_threads, _core.get_threads())


cdef lib.whisper_vad_params fill_vad(object params):
    """`params` over the engine's defaults."""
    cdef lib.whisper_vad_params c_params = lib.whisper_vad_default_params()
    if params is None:
        return c_params
    if not isinstance(params, WhisperVadParams):
        raise TypeError(f"params is {params!r}, expected WhisperVadParams")
    params.check()
    if params.threshold is not None:
        c_params.threshold = params.threshold
    if params.min_speech_duration_ms is not None:
        c_params.min_speech_duration_ms = params.min_speech_duration_ms
    if params.min_silence_duration_ms is not None:
        c_params.min_silence_duration_ms = params.min_silence_duration_ms
    if params.max_speech_duration_s is not None and params.max_speech_duration_s <= 100_000:
        c_params.max_speech_duration_s = params.max_speech_duration_s
    if params.speech_pad_ms is not None:
        c_params.speech_pad_ms = params.speech_pad_ms
    if params.samples_overlap is not None:
        c_params.samples_overlap = params.samples_overlap
    return c_params


cdef class FullParams:
    """`WhisperFullParams` as C takes them, and what they point to."""

    cdef int fill(self, WhisperContext context, object params, CallState state) except -1:
        """Check `params` and write them over the engine's defaults."""
        if not isinstance(params, WhisperFullParams):
            raise TypeError(f"params is {params!r}, expected WhisperFullParams")
        params.check()
        self.keep = []
        strategy = params.strategy or ("greedy" if params.beam_size is None else "beam_search")
        self.c = lib.whisper_full_default_params(
            lib.WHISPER_SAMPLING_GREEDY if strategy == "greedy" else lib.WHISPER_SAMPLING_BEAM_SEARCH)
        self.c.n_threads = threads(params.n_threads)
        self.c.no_context = True if params.no_context is None else params.no_context
        self._numbers(params)
        self._switches(params)
        self._texts(context, params)
        self._tokens(context, params, state)
        self._grammar(params)
        if params.audio_ctx is not None and params.audio_ctx > context.n_audio_ctx:
            raise ValueError(f"audio_ctx is {params.audio_ctx}, expected at most {context.n_audio_ctx}")
        return 0

    cdef const char * _kept(self, bytes raw):
        self.keep.append(raw)
        return raw

    def _numbers(self, params) -> None:
        if params.n_max_text_ctx is not None:
            self.c.n_max_text_ctx = params.n_max_text_ctx
        if params.offset_ms is not None:
            self.c.offset_ms = params.offset_ms
        if params.duration_ms is not None:
            self.c.duration_ms = params.duration_ms
        if params.thold_pt is not None:
            self.c.thold_pt = params.thold_pt
        if params.thold_ptsum is not None:
            self.c.thold_ptsum = params.thold_ptsum
        if params.max_len is not None:
            self.c.max_len = params.max_len
        if params.max_tokens is not None:
            self.c.max_tokens = params.max_tokens
        if params.audio_ctx is not None:
            self.c.audio_ctx = params.audio_ctx
        if params.temperature is not None:
            self.c.temperature = params.temperature
        if params.max_initial_ts is not None:
            self.c.max_initial_ts = params.max_initial_ts
        if params.length_penalty is not None:
            self.c.length_penalty = params.length_penalty
        if params.temperature_inc is not None:
            self.c.temperature_inc = params.temperature_inc
        if params.entropy_thold is not None:
            self.c.entropy_thold = params.entropy_thold
        if params.logprob_thold is not None:
            self.c.logprob_thold = params.logprob_thold
        if params.no_speech_thold is not None:
            self.c.no_speech_thold = params.no_speech_thold
        if params.best_of is not None:
            self.c.greedy.best_of = params.best_of
        if params.beam_size is not None:
            self.c.beam_search.beam_size = params.beam_size
        if params.grammar_penalty is not None:
            self.c.grammar_penalty = params.grammar_penalty

    def _switches(self, params) -> None:
        if params.translate is not None:
            self.c.translate = params.translate
        if params.no_timestamps is not None:
            self.c.no_timestamps = params.no_timestamps
        if params.single_segment is not None:
            self.c.single_segment = params.single_segment
        if params.print_special is not None:
            self.c.print_special = params.print_special
        self.c.token_timestamps = bool(params.token_timestamps or params.max_len)
        if params.split_on_word is not None:
            self.c.split_on_word = params.split_on_word
        if params.tdrz_enable is not None:
            self.c.tdrz_enable = params.tdrz_enable
        if params.carry_initial_prompt is not None:
            self.c.carry_initial_prompt = params.carry_initial_prompt
        if params.detect_language is not None:
            self.c.detect_language = params.detect_language
        if params.suppress_blank is not None:
            self.c.suppress_blank = params.suppress_blank
        if params.suppress_nst is not None:
            self.c.suppress_nst = params.suppress_nst

    def _texts(self, WhisperContext context, params) -> None:
        if params.language is not None and params.language != "auto":
            self.c.language = self._kept(context.language_code(params.language).encode())
        elif params.language == "auto":
            self.c.language = self._kept(b"auto")
        if not context.is_multilingual:
            if params.translate:
                raise ValueError("translate is True, but the model knows English only")
            if params.detect_language or params.language == "auto":
                self.c.language = self._kept(b"en")
                self.c.detect_language = False

    def _tokens(self, WhisperContext context, params, CallState state) -> None:
        cdef string c_pattern
        cdef int n_text
        prompt = params.prompt_tokens
        if params.initial_prompt is not None:
            prompt = context.tokenize(params.initial_prompt)
        if prompt is not None:
            for token in prompt:
                context._check_token(token, "a token of prompt_tokens")
                self.prompt.push_back(token)
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
                raise ValueError(f"suppress_regex is {params.suppress_regex!r}, which is no regular expression of "
                                 f"ECMAScript: {reason}") from None
            state.finish()
        for token in params.suppress_tokens or ():
            context._check_token(token, "a token of suppress_tokens")
            self.suppressed.push_back(token)

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
