"""States of Whisper models: the working memory and the results of one transcription."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

cimport cython
from libc.math cimport INFINITY
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport CallState, Handle, check_range
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._base cimport BaseState, Callbacks, call_encoder_begin, call_new_segment, call_progress
from cyllama.whisper._fill cimport FullParams, threads
from cyllama.whisper._group cimport WhisperGroup
from cyllama.whisper._model cimport WhisperContext, ask_stop

from cyllama._cancel import Cancel
from cyllama.errors import DecodeError, EngineError, OutOfMemoryError, TranscribeError
from cyllama.whisper._checks import check_mel, convert_samples
from cyllama.whisper.params import WhisperFullParams

MAX_SAMPLES = 2**31 - 1 - 30 * 16_000  # the engine counts in int and pads 30 s
MAX_MEL_FRAMES = 2**24 - 1


class WhisperToken(NamedTuple):
    """One token of a segment (``whisper_token_data``, whisper.h).

    Attributes
    ----------
    id : int
        Index in the vocabulary.
    text : bytes
        Text in UTF-8; a character may be split between tokens.
    p, plog : float
        Probability, 0 to 1, and its natural logarithm.
    t0, t1 : int
        Start and end in centiseconds (with ``token_timestamps``).
    t_dtw : int
        Time in centiseconds by alignment (dynamic time warping), or -1.
    tid : int
        The timestamp token.
    pt, ptsum : float
        Probability of that token, and of all timestamp tokens.
    vlen : float
        Voice length.
    """

    id: int
    text: bytes
    p: float
    plog: float
    t0: int
    t1: int
    t_dtw: int
    tid: int
    pt: float
    ptsum: float
    vlen: float


class WhisperTimings(NamedTuple):
    """Mean milliseconds of each step (``whisper_timings``, whisper.h)."""

    sample_ms: float
    encode_ms: float
    decode_ms: float
    batchd_ms: float
    prompt_ms: float


@cython.final
cdef class _Call(Callbacks):
    """The callbacks and parameters of one call of :meth:`WhisperState.full`."""

    cdef FullParams params
    cdef int n_vocab
    cdef object logits_filter


cdef void _new_segment(lib.whisper_context * c, lib.whisper_state * s, int n_new, void * data) noexcept nogil:
    call_new_segment(n_new, data)


cdef void _progress(lib.whisper_context * c, lib.whisper_state * s, int percent, void * data) noexcept nogil:
    call_progress(percent, data)


cdef cbool _encoder_begin(lib.whisper_context * c, lib.whisper_state * s, void * data) noexcept nogil:
    return call_encoder_begin(data)


cdef void _filter(lib.whisper_context * c, lib.whisper_state * s, const lib.whisper_token_data * tokens, int n_tokens,
                  float * logits, void * data) noexcept nogil:
    """Suppress tokens and call the filter; the engine calls this from several threads at once."""
    cdef size_t i
    cdef vector[int] * suppressed = _suppressed(data)
    for i in range(suppressed.size()):
        logits[suppressed[0][i]] = -INFINITY
    if _has_filter(data) and not is_ending():
        _filter_gil(tokens, n_tokens, logits, data)


cdef vector[int] * _suppressed(void * data) noexcept nogil:
    return &(<_Call> data).params.suppressed


cdef bint _has_filter(void * data) noexcept nogil:
    return (<void *> (<_Call> data).logits_filter) != <void *> None


cdef void _filter_gil(const lib.whisper_token_data * tokens, int n_tokens, float * logits,
                      void * data) noexcept with gil:
    cdef _Call call = <_Call> data
    cdef float[::1] view
    cdef int i
    if call.state._stop:
        return
    try:
        values = np.empty(call.n_vocab, np.float32)  # a copy, which the callback may keep
        view = values
        memcpy(&view[0], logits, call.n_vocab * sizeof(float))
        call.logits_filter([tokens[i].id for i in range(n_tokens)], values)
        memcpy(logits, &view[0], call.n_vocab * sizeof(float))
    except BaseException as e:
        call.fail(e)


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class WhisperState(BaseState):
    """The working memory and the results of one transcription.

    Parameters
    ----------
    context : WhisperContext
        The model. It stays open as long as the state.
    group : WhisperGroup, optional
        The group that :meth:`full` decodes with. It stays open as long as the state.

    Raises
    ------
    ValueError
        The group is one of another context, or has no room.

    Notes
    -----
    Releases the GIL. Thread safety: one thread at a time for each state; the states of one model may compute at the
    same time. Source: ``whisper_init_state``, whisper.h.
    """

    def __cinit__(self, WhisperContext context not None, WhisperGroup group=None):
        cdef Handle parent = context if group is None else group
        context._check_weights()
        if group is not None:
            group._check_room(context)
        self.context = context
        start_call()
        parent._hold()
        try:
            with nogil:
                self._ptr = lib.whisper_init_state(context._ptr)
        finally:
            parent._unhold()
        if self._ptr == NULL:
            raise engine_error(OutOfMemoryError, "cannot make a state", "whisper", "whisper_init_state", None)
        if group is not None:
            lib.whisper_set_group(self._ptr, group._ptr)
        self._opened("WhisperState", parent)

    def __init__(self, context: WhisperContext, group: WhisperGroup | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.whisper_state * c_state = self._ptr
        self._ptr = NULL
        with nogil:
            lib.whisper_free_state(c_state)
        return 0

    # -------------------------------------------------------------------------------- single steps

    def pcm_to_mel(self, samples: npt.ArrayLike, n_threads: int | None = None, *, cancel: Cancel | None = None) -> None:
        """Compute the mel spectrogram of audio and store it in the state.

        Parameters
        ----------
        samples : array, shape (n,)
            16,000 Hz; integers are scaled by their range, channels averaged.
        n_threads : int, optional
            At most the thread budget, which is the default.
        cancel : Cancel, optional

        Notes
        -----
        Releases the GIL. Source: ``whisper_pcm_to_mel_with_state``, whisper.h.
        """
        cdef const float[::1] view = convert_samples(samples, MAX_SAMPLES)
        cdef const float * c_view
        cdef int c_threads = threads(n_threads)
        cdef CallState state = CallState(cancel)
        cdef int code = 0
        self._start(state)
        self._has_mel = self._encoded = False
        try:
            c_view = &view[0]
            with nogil:
                code = lib.whisper_pcm_to_mel_with_state(self.context._ptr, self._ptr, c_view, <int> view.shape[0],
                                                         c_threads)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._stopped()
        self._finish(state, code, "whisper_pcm_to_mel_with_state")
        self._has_mel = True

    def set_mel(self, mel: npt.ArrayLike) -> None:
        """Set the mel spectrogram.

        Parameters
        ----------
        mel : array of float32, shape (n_mels, n_frames)
            Frames of 10 ms.

        Notes
        -----
        Source: ``whisper_set_mel_with_state``, whisper.h.
        """
        found = check_mel(mel, self.context.model_n_mels, MAX_MEL_FRAMES, bands_first=True)
        cdef const float[:, ::1] view = found
        cdef const float * c_view
        cdef int code
        self._begin()
        try:
            c_view = &view[0, 0]
            with nogil:
                code = lib.whisper_set_mel_with_state(self.context._ptr, self._ptr, c_view, <int> view.shape[1],
                                                      <int> view.shape[0])
        finally:
            self._end()
        if code != 0:
            raise engine_error(TranscribeError, "the engine rejected the mel spectrogram", "whisper",
                               "whisper_set_mel_with_state", code)
        self._has_mel, self._encoded = True, False

    @property
    def n_len(self) -> int:
        """Length of the mel spectrogram in frames of 10 ms. Source: ``whisper_n_len_from_state``, whisper.h."""
        self._check()
        return lib.whisper_n_len_from_state(self._ptr) if self._has_mel else 0

    def encode(self, offset: int = 0, n_threads: int | None = None, *, cancel: Cancel | None = None) -> None:
        """Encode 30 s of the mel spectrogram.

        Parameters
        ----------
        offset : int
            First frame, of 10 ms.
        n_threads : int, optional
            At most the thread budget, which is the default.
        cancel : Cancel, optional

        Raises
        ------
        DecodeError
            There is no spectrogram.
        ValueError
            `offset` is out of range.

        Notes
        -----
        Releases the GIL. Source: ``whisper_encode_with_state``, whisper.h.
        """
        self._check_mel()
        check_range(offset, "offset", 0, max(0, self.n_len - 1))
        cdef int c_offset = offset
        cdef int c_threads = threads(n_threads)
        cdef CallState state = CallState(cancel)
        cdef int code = 0
        self._start(state)
        self._encoded = False
        try:
            with nogil:
                code = lib.whisper_encode_with_state(self.context._ptr, self._ptr, c_offset, c_threads)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._stopped()
        self._finish(state, code, "whisper_encode_with_state")
        self._encoded, self._n_decoded, self._n_last = True, 0, 0

    def decode(self, tokens: list[int], n_past: int = 0, n_threads: int | None = None, *,
               cancel: Cancel | None = None) -> None:
        """Run the decoder on tokens.

        Parameters
        ----------
        tokens : list of int
            At least one.
        n_past : int
            How many of the tokens decoded before are the context of these.
        n_threads : int, optional
            At most the thread budget, which is the default.
        cancel : Cancel, optional

        Raises
        ------
        DecodeError
            Nothing was encoded.
        ValueError
            There are too many tokens, or `n_past` exceeds the number of decoded tokens.
        IndexError
            A token is not in the vocabulary.

        Notes
        -----
        Releases the GIL. Source: ``whisper_decode_with_state``, whisper.h.
        """
        self._check()
        if not self._encoded:
            raise DecodeError("nothing is encoded yet: call encode() first", engine="whisper")
        cdef vector[lib.whisper_token] c_tokens
        for token in tokens:
            c_tokens.push_back(self.context._check_token(token, "a token"))
        if not c_tokens.size():
            raise ValueError("tokens is empty, expected at least one")
        check_range(n_past, "n_past", 0, self._n_decoded)
        n_ctx = self.context.n_text_ctx
        if n_past + c_tokens.size() > n_ctx:
            raise ValueError(f"n_past is {n_past} and there are {c_tokens.size()} tokens, together at most {n_ctx}")
        cdef int c_past = n_past
        cdef int c_n = <int> c_tokens.size()
        cdef int c_threads = threads(n_threads)
        cdef CallState state = CallState(cancel)
        cdef int code = 0
        self._start(state)
        self._n_decoded, self._n_last = c_past, 0
        try:
            with nogil:
                code = lib.whisper_decode_with_state(self.context._ptr, self._ptr, c_tokens.data(), c_n, c_past,
                                                     c_threads)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._stopped()
        self._finish(state, code, "whisper_decode_with_state")
        self._n_decoded, self._n_last = c_past + c_n, c_n

    def get_logits(self) -> npt.NDArray[np.float32]:
        """Return the logits after the last token of :meth:`decode`.

        Returns
        -------
        ndarray of float32, shape (n_vocab,)
            A copy.

        Raises
        ------
        DecodeError
            Nothing was decoded.

        Notes
        -----
        Source: ``whisper_get_logits_from_state``, whisper.h.
        """
        self._check_results()
        if not self._n_last:
            raise DecodeError("nothing is decoded yet: call decode() first", engine="whisper")
        cdef float * c_logits = lib.whisper_get_logits_from_state(self._ptr)
        cdef Py_ssize_t n = self.context.n_vocab
        return np.array(<float[:n]> (c_logits + (self._n_last - 1) * n))

    def lang_auto_detect(self, offset_ms: int = 0, n_threads: int | None = None, *,
                         cancel: Cancel | None = None) -> tuple[str, dict[str, float]]:
        """Detect the language of 30 s of the mel spectrogram.

        Parameters
        ----------
        offset_ms : int
            Start of the 30 s in milliseconds.
        n_threads : int, optional
            At most the thread budget, which is the default.
        cancel : Cancel, optional

        Returns
        -------
        str
            Code of the most likely language.
        dict of str to float
            Probability of each language by its code.

        Raises
        ------
        DecodeError
            There is no spectrogram.
        ValueError
            The model supports English only, or `offset_ms` is out of range.

        Notes
        -----
        Releases the GIL. Source: ``whisper_lang_auto_detect_with_state``, whisper.h.
        """
        self._check_mel()
        if not self.context.is_multilingual:
            raise ValueError("the model supports English only")
        check_range(offset_ms, "offset_ms", 0, max(0, self.n_len * 10 - 1))
        cdef int c_offset = offset_ms
        cdef int c_threads = threads(n_threads)
        cdef vector[float] probabilities
        cdef CallState state = CallState(cancel)
        cdef int code = 0
        probabilities.resize(lib.whisper_lang_max_id() + 1)
        self._start(state)
        self._encoded = False
        try:
            with nogil:
                code = lib.whisper_lang_auto_detect_with_state(self.context._ptr, self._ptr, c_offset, c_threads,
                                                               probabilities.data())
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._stopped()
        self._finish(state, min(code, 0), "whisper_lang_auto_detect_with_state")
        self._encoded, self._n_decoded, self._n_last = True, 1, 1
        # the engine goes through the languages of all models; for a language without a token it reads another token
        found = {name: probabilities[i] for i, name in enumerate(self.context.languages)}
        total = sum(found.values())
        return max(found, key=found.get), {name: p / total for name, p in found.items()}

    # -------------------------------------------------------------------------------- transcription

    def full(self, samples: npt.ArrayLike, params: WhisperFullParams | None = None, *,
             cancel: Cancel | None = None) -> None:
        """Transcribe audio; the results are the segments of this state.

        Parameters
        ----------
        samples : array, shape (n,)
            16,000 Hz; integers are scaled by their range, channels averaged.
        params : WhisperFullParams, optional
            With the callbacks of this call. ``new_segment_callback`` can read the results so far.
        cancel : Cancel, optional
            Stops the call within a second, as Ctrl-C does.

        Raises
        ------
        TranscribeError
            The engine failed.
        CancelledError
            `cancel` was set, or the progress callback returned False.
        TypeError, ValueError
            A parameter or a sample is wrong.

        Notes
        -----
        Releases the GIL. An exception of a callback stops the call and is raised. The state stays usable after all of
        these. Source: ``whisper_full_with_state``, whisper.h.
        """
        cdef const float[::1] view = convert_samples(samples, MAX_SAMPLES)
        cdef const float * c_view
        cdef int code = 0
        cdef _Call call = self._call(WhisperFullParams() if params is None else params, cancel)
        self._start(call.state)
        self._has_mel = self._encoded = False
        self._n_last = 0
        try:
            c_view = &view[0]
            with nogil:
                code = lib.whisper_full_with_state(self.context._ptr, self._ptr, call.params.c, c_view,
                                                   <int> view.shape[0])
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._stopped()
        self._finish(call.state, code, "whisper_full_with_state")

    def _call(self, params, cancel) -> object:
        cdef _Call call = _Call.__new__(_Call)
        cdef void * data = <void *> call
        call.owner = self
        call.state = CallState(cancel, params.progress_callback if isinstance(params, WhisperFullParams) else None)
        call.params = FullParams()
        self.context._check()
        call.params.fill(self.context, params, call.state)
        call.n_vocab = self.context.n_vocab
        call.new_segment = params.new_segment_callback
        call.encoder_begin = params.encoder_begin_callback
        call.logits_filter = params.logits_filter_callback
        call.params.c.encoder_begin_callback = _encoder_begin
        call.params.c.encoder_begin_callback_user_data = data
        if call.new_segment is not None:
            call.params.c.new_segment_callback = _new_segment
            call.params.c.new_segment_callback_user_data = data
        if params.progress_callback is not None:
            call.params.c.progress_callback = _progress
            call.params.c.progress_callback_user_data = data
        if call.logits_filter is not None or call.params.suppressed.size():
            call.params.c.logits_filter_callback = _filter
            call.params.c.logits_filter_callback_user_data = data
        return call

    def _start(self, CallState state) -> None:
        """Mark the state as in use by one call, which `state` may stop."""
        self._begin()
        try:
            self.context._check()
            state.finish()
            start_call()
        except BaseException:
            self._end()
            raise
        lib.whisper_set_abort_callback_from_state(self._ptr, ask_stop, <void *> state)

    def _stopped(self) -> None:
        lib.whisper_set_abort_callback_from_state(self._ptr, NULL, NULL)
        self._end()

    def _finish(self, CallState state, int code, str function) -> None:
        state.finish()
        if code != 0:
            raise engine_error(TranscribeError, "the engine failed", "whisper", function, code)

    def _check_mel(self) -> None:
        self._check()
        if not self._has_mel:
            raise DecodeError("there is no mel spectrogram yet: call pcm_to_mel() or set_mel() first",
                              engine="whisper")

    # -------------------------------------------------------------------------------------- results

    cdef int _count_segments(self) noexcept:
        return lib.whisper_full_n_segments_from_state(self._ptr)

    cdef int _count_tokens(self, int i_segment) noexcept:
        return lib.whisper_full_n_tokens_from_state(self._ptr, i_segment)

    @property
    def n_segments(self) -> int:
        """Number of segments so far. Source: ``whisper_full_n_segments_from_state``, whisper.h."""
        self._check_results()
        return lib.whisper_full_n_segments_from_state(self._ptr)

    @property
    def lang_id(self) -> int:
        """Id of the language of the last call. Source: ``whisper_full_lang_id_from_state``, whisper.h."""
        self._check_results()
        return lib.whisper_full_lang_id_from_state(self._ptr)

    def get_segment_t0(self, i_segment: int) -> int:
        """Return the start of a segment in centiseconds.

        Source: ``whisper_full_get_segment_t0_from_state``, whisper.h.
        """
        cdef int i = self._segment(i_segment)
        return lib.whisper_full_get_segment_t0_from_state(self._ptr, i)

    def get_segment_t1(self, i_segment: int) -> int:
        """Return the end of a segment in centiseconds.

        Source: ``whisper_full_get_segment_t1_from_state``, whisper.h.
        """
        cdef int i = self._segment(i_segment)
        return lib.whisper_full_get_segment_t1_from_state(self._ptr, i)

    def get_segment_text(self, i_segment: int) -> str:
        """Return the text of a segment. Source: ``whisper_full_get_segment_text_from_state``, whisper.h."""
        cdef int i = self._segment(i_segment)
        return lib.whisper_full_get_segment_text_from_state(self._ptr, i).decode("utf-8", "replace")

    def get_segment_no_speech_prob(self, i_segment: int) -> float:
        """Return the probability that a segment is not speech, 0 to 1.

        Source: ``whisper_full_get_segment_no_speech_prob_from_state``, whisper.h.
        """
        cdef int i = self._segment(i_segment)
        return lib.whisper_full_get_segment_no_speech_prob_from_state(self._ptr, i)

    def get_segment_temperature(self, i_segment: int) -> float:
        """Return the temperature at which a segment was sampled.

        Source: ``whisper_full_get_segment_temperature_from_state``, whisper.h (patched).
        """
        cdef int i = self._segment(i_segment)
        return lib.whisper_full_get_segment_temperature_from_state(self._ptr, i)

    def get_segment_speaker_turn_next(self, i_segment: int) -> bool:
        """Return whether the speaker changes after a segment (with ``tdrz_enable``).

        Source: ``whisper_full_get_segment_speaker_turn_next_from_state``, whisper.h.
        """
        cdef int i = self._segment(i_segment)
        return lib.whisper_full_get_segment_speaker_turn_next_from_state(self._ptr, i)

    def n_tokens(self, i_segment: int) -> int:
        """Return the number of tokens of a segment. Source: ``whisper_full_n_tokens_from_state``, whisper.h."""
        cdef int i = self._segment(i_segment)
        return lib.whisper_full_n_tokens_from_state(self._ptr, i)

    def get_token_id(self, i_segment: int, i_token: int) -> int:
        """Return the id of a token. Source: ``whisper_full_get_token_id_from_state``, whisper.h."""
        cdef int i
        cdef int j = self._token_of(i_segment, i_token, &i)
        return lib.whisper_full_get_token_id_from_state(self._ptr, i, j)

    def get_token_p(self, i_segment: int, i_token: int) -> float:
        """Return the probability of a token. Source: ``whisper_full_get_token_p_from_state``, whisper.h."""
        cdef int i
        cdef int j = self._token_of(i_segment, i_token, &i)
        return lib.whisper_full_get_token_p_from_state(self._ptr, i, j)

    def get_token_text(self, i_segment: int, i_token: int) -> bytes:
        """Return the text of a token in UTF-8. Source: ``whisper_full_get_token_text_from_state``, whisper.h."""
        cdef int i
        cdef int j = self._token_of(i_segment, i_token, &i)
        return lib.whisper_full_get_token_text_from_state(self.context._ptr, self._ptr, i, j)

    def get_tokens(self, i_segment: int) -> list[WhisperToken]:
        """Return all tokens of a segment, including special tokens.

        Source: ``whisper_full_get_token_data_from_state``, whisper.h.
        """
        cdef int c_segment = self._segment(i_segment)
        cdef int j
        cdef vector[lib.whisper_token_data] data  # first: making a tuple lets other threads run
        for j in range(lib.whisper_full_n_tokens_from_state(self._ptr, c_segment)):
            data.push_back(lib.whisper_full_get_token_data_from_state(self._ptr, c_segment, j))
        self._hold()
        try:
            return [WhisperToken(d.id, lib.whisper_token_to_str(self.context._ptr, d.id), d.p, d.plog, d.t0, d.t1,
                                 d.t_dtw, d.tid, d.pt, d.ptsum, d.vlen) for d in data]
        finally:
            self._unhold()

    @property
    def timings(self) -> WhisperTimings:
        """Mean times since the last reset. Source: ``whisper_get_timings``, whisper.h."""
        self._check_results()
        cdef lib.whisper_timings t = lib.whisper_get_timings_from_state(self._ptr)
        return WhisperTimings(t.sample_ms, t.encode_ms, t.decode_ms, t.batchd_ms, t.prompt_ms)

    def reset_timings(self) -> None:
        """Set all times to 0. Source: ``whisper_reset_timings``, whisper.h."""
        self._begin()
        lib.whisper_reset_timings_from_state(self._ptr)
        self._end()
