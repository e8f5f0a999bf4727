"""States: what one transcription needs beside the weights, and its results."""

from typing import NamedTuple

import numpy as np

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libc.math cimport INFINITY
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport CallState, Handle, check_range
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._fill cimport FullParams, threads
from cyllama.whisper._model cimport WhisperContext, ask_stop

from cyllama.errors import DecodeError, EngineError, InUseError, OutOfMemoryError, TranscribeError
from cyllama.whisper.params import WhisperFullParams
from cyllama.media.samples import as_array, check_samples, to_mono

MAX_SAMPLES = 2**31 - 1 - 30 * 16_000  # the engine counts in int, and pads 30 s


class WhisperToken(NamedTuple):
    """One token of a segment (``whisper_token_data``, whisper.h).

    ``p``, ``plog``: its probability and the logarithm of that; ``pt``, ``ptsum``: probability of the timestamp
    token ``tid``, and of all timestamp tokens; ``t0``, ``t1``: times in centiseconds (with ``token_timestamps``);
    ``t_dtw``: time in centiseconds by alignment, or -1; ``vlen``: voice length; ``text``: bytes of UTF-8.
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
    """Mean milliseconds of a run (``whisper_timings``, whisper.h)."""

    sample_ms: float
    encode_ms: float
    decode_ms: float
    batchd_ms: float
    prompt_ms: float


@cython.final
cdef class _Call:
    """What the callbacks of one call of :meth:`WhisperState.full` need."""

    cdef WhisperState owner
    cdef CallState state
    cdef FullParams params
    cdef int n_vocab
    cdef object new_segment
    cdef object encoder_begin
    cdef object logits_filter

    cdef int failed(self, object error) noexcept:
        if self.state.error is None:
            self.state.error = error
        self.state._stop = True
        return 0


cdef void _new_segment(lib.whisper_context * c, lib.whisper_state * s, int n_new, void * data) noexcept nogil:
    _new_segment_gil(n_new, data)


cdef void _new_segment_gil(int n_new, void * data) noexcept with gil:
    cdef _Call call = <_Call> data
    cdef int n
    if call.state._stop:
        return
    call.owner._callback_thread = PyThread_get_thread_ident()
    try:
        n = lib.whisper_full_n_segments_from_state(call.owner._ptr)
        call.new_segment(n - n_new, n)
    except BaseException as e:
        call.failed(e)
    finally:
        call.owner._callback_thread = 0


cdef void _progress(lib.whisper_context * c, lib.whisper_state * s, int percent, void * data) noexcept nogil:
    _progress_gil(percent, data)


cdef void _progress_gil(int percent, void * data) noexcept with gil:
    (<_Call> data).state.progress(min(1.0, percent / 100.0))


cdef cbool _encoder_begin(lib.whisper_context * c, lib.whisper_state * s, void * data) noexcept nogil:
    return _encoder_begin_gil(data)


cdef bint _encoder_begin_gil(void * data) noexcept with gil:
    cdef _Call call = <_Call> data
    if call.state._poll_gil():
        return False
    if call.encoder_begin is None:
        return True
    try:
        return call.encoder_begin() is not False
    except BaseException as e:
        call.failed(e)
        return False


cdef void _filter(lib.whisper_context * c, lib.whisper_state * s, const lib.whisper_token_data * tokens, int n_tokens,
                  float * logits, void * data) noexcept nogil:
    """The engine calls this from several threads at once."""
    cdef size_t i
    cdef vector[int] * suppressed = _suppressed(data)
    for i in range(suppressed.size()):
        logits[suppressed[0][i]] = -INFINITY
    if _has_filter(data):
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
        values = np.empty(call.n_vocab, np.float32)  # a copy: the caller may keep it
        view = values
        memcpy(&view[0], logits, call.n_vocab * sizeof(float))
        call.logits_filter([tokens[i].id for i in range(n_tokens)], values)
        memcpy(logits, &view[0], call.n_vocab * sizeof(float))
    except BaseException as e:
        call.failed(e)


cdef object _samples(object samples):
    """Mono float32, contiguous and checked."""
    found = np.ascontiguousarray(to_mono(as_array(samples)))
    if not len(found):
        raise ValueError("samples is empty, expected sound of 16,000 Hz")
    if len(found) > MAX_SAMPLES:
        raise ValueError(f"samples has {len(found)} samples, expected {MAX_SAMPLES} at most")
    check_samples(found, 0, "samples")
    return found


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class WhisperState(Handle):
    """What one transcription needs beside the weights.

    Parameters
    ----------
    context : WhisperContext
        The model; kept open.

    Notes
    -----
    Releases the GIL. Thread safety: one thread at a time for each state; the states of one model may compute at the
    same time. Source: ``whisper_init_state``, whisper.h.
    """

    def __cinit__(self, WhisperContext context not None):
        context._check_weights()
        self.context = context
        start_call()
        context._hold()
        try:
            with nogil:
                self._ptr = lib.whisper_init_state(context._ptr)
        finally:
            context._unhold()
        if self._ptr == NULL:
            raise engine_error(OutOfMemoryError, "cannot make a state", "whisper", "whisper_init_state", None)
        self._opened("WhisperState", context)

    def __init__(self, context: WhisperContext) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.whisper_state * c_state = self._ptr
        self._ptr = NULL
        with nogil:
            lib.whisper_free_state(c_state)
        return 0

    # --------------------------------------------------------------------------------- step by step

    def pcm_to_mel(self, samples: object, n_threads: int | None = None, *, cancel: object | None = None) -> None:
        """Compute the mel spectrogram of sound and keep it in the state.

        Parameters
        ----------
        samples : array, shape (n,)
            16,000 Hz; integers are scaled by their range, channels averaged.
        n_threads : int, optional
            At most the thread budget, which is the default.
        cancel : object with ``is_set()``, optional

        Notes
        -----
        Releases the GIL. Source: ``whisper_pcm_to_mel_with_state``, whisper.h.
        """
        cdef const float[::1] view = _samples(samples)
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

    def set_mel(self, mel: object) -> None:
        """Set the mel spectrogram.

        Parameters
        ----------
        mel : array of float32, shape (n_mels, n_frames)
            Frames of 10 ms.

        Notes
        -----
        Source: ``whisper_set_mel_with_state``, whisper.h.
        """
        found = np.ascontiguousarray(mel, np.float32)
        n_mels = self.context.model_n_mels
        if found.ndim != 2 or found.shape[0] != n_mels or not 0 < found.shape[1] < 2**24:
            raise ValueError(f"mel has the shape {found.shape}, expected ({n_mels}, frames)")
        if not np.isfinite(found).all():
            raise ValueError("mel contains values that are not finite")
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
            raise engine_error(TranscribeError, "the mel spectrogram was refused", "whisper",
                               "whisper_set_mel_with_state", code)
        self._has_mel, self._encoded = True, False

    @property
    def n_len(self) -> int:
        """Length of the mel spectrogram in frames of 10 ms. Source: ``whisper_n_len_from_state``, whisper.h."""
        self._check()
        return lib.whisper_n_len_from_state(self._ptr) if self._has_mel else 0

    def encode(self, offset: int = 0, n_threads: int | None = None, *, cancel: object | None = None) -> None:
        """Encode 30 s of the mel spectrogram, from frame `offset` on (of 10 ms).

        Raises
        ------
        DecodeError
            There is no spectrogram.
        ValueError
            `offset` is outside of it.

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

    def decode(self, tokens: list, n_past: int = 0, n_threads: int | None = None, *,
               cancel: object | None = None) -> None:
        """Run the decoder on tokens that follow the `n_past` tokens that were decoded before.

        Raises
        ------
        DecodeError
            Nothing was encoded.
        ValueError
            Too many tokens, or `n_past` is more than was decoded.
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
            self.context._check_token(token, "a token")
            c_tokens.push_back(token)
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

    def get_logits(self) -> np.ndarray:
        """Logits after the last token of :meth:`decode`: float32, shape (n_vocab,), a copy.

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
                         cancel: object | None = None) -> tuple[str, dict[str, float]]:
        """Find out the language of 30 s of the mel spectrogram.

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
            The model knows English only, or `offset_ms` is outside of the sound.

        Notes
        -----
        Releases the GIL. Source: ``whisper_lang_auto_detect_with_state``, whisper.h.
        """
        self._check_mel()
        if not self.context.is_multilingual:
            raise ValueError("the model knows English only")
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
        # the engine counts all languages that any model knows, and takes another token for one that this one does not
        found = {name: probabilities[i] for i, name in enumerate(self.context.languages)}
        total = sum(found.values())
        return max(found, key=found.get), {name: p / total for name, p in found.items()}

    # ---------------------------------------------------------------------------------------- whole

    def full(self, samples: object, params: WhisperFullParams | None = None, *, cancel: object | None = None) -> None:
        """Transcribe; the results are segments of this state.

        Parameters
        ----------
        samples : array, shape (n,)
            16,000 Hz; integers are scaled by their range, channels averaged.
        params : WhisperFullParams, optional
            With the callbacks of this call. The results up to then can be read in ``new_segment_callback``.
        cancel : object with ``is_set()``, optional
            Obeyed within a second, as Ctrl-C is.

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
        found = _samples(samples)
        cdef const float[::1] view = found
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
        """Take the state for one call that `state` may stop."""
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

    cdef int _check_results(self) except -1:
        """Results can be read when nothing runs, and in a callback of what runs."""
        self._check()
        if self._busy and self._callback_thread != <unsigned long> PyThread_get_thread_ident():
            raise InUseError("WhisperState is in use by another call; its results can be read in the callbacks only")
        return 0

    cdef int _check_segment(self, object i) except -1:
        self._check_results()
        n = lib.whisper_full_n_segments_from_state(self._ptr)
        if isinstance(i, bool) or not hasattr(i, "__index__"):
            raise TypeError(f"i_segment is {i!r}, expected an integer")
        if not 0 <= i < n:
            raise IndexError(f"i_segment is {i}, there are {n} segments")
        return 0

    cdef int _check_token(self, object i, object j) except -1:
        self._check_segment(i)
        n = lib.whisper_full_n_tokens_from_state(self._ptr, i)
        if isinstance(j, bool) or not hasattr(j, "__index__"):
            raise TypeError(f"i_token is {j!r}, expected an integer")
        if not 0 <= j < n:
            raise IndexError(f"i_token is {j}, the segment has {n} tokens")
        return 0

    @property
    def n_segments(self) -> int:
        """Segments that are known. Source: ``whisper_full_n_segments_from_state``, whisper.h."""
        self._check_results()
        return lib.whisper_full_n_segments_from_state(self._ptr)

    @property
    def lang_id(self) -> int:
        """Number of the language of the last call. Source: ``whisper_full_lang_id_from_state``, whisper.h."""
        self._check_results()
        return lib.whisper_full_lang_id_from_state(self._ptr)

    def get_segment_t0(self, i_segment: int) -> int:
        """Where a segment begins, in centiseconds. Source: ``whisper_full_get_segment_t0_from_state``, whisper.h."""
        self._check_segment(i_segment)
        return lib.whisper_full_get_segment_t0_from_state(self._ptr, i_segment)

    def get_segment_t1(self, i_segment: int) -> int:
        """Where a segment ends, in centiseconds. Source: ``whisper_full_get_segment_t1_from_state``, whisper.h."""
        self._check_segment(i_segment)
        return lib.whisper_full_get_segment_t1_from_state(self._ptr, i_segment)

    def get_segment_text(self, i_segment: int) -> str:
        """The text of a segment. Source: ``whisper_full_get_segment_text_from_state``, whisper.h."""
        self._check_segment(i_segment)
        return lib.whisper_full_get_segment_text_from_state(self._ptr, i_segment).decode("utf-8", "replace")

    def get_segment_no_speech_prob(self, i_segment: int) -> float:
        """How likely it is that a segment is no speech, 0 to 1.

        Source: ``whisper_full_get_segment_no_speech_prob_from_state``, whisper.h.
        """
        self._check_segment(i_segment)
        return lib.whisper_full_get_segment_no_speech_prob_from_state(self._ptr, i_segment)

    def get_segment_speaker_turn_next(self, i_segment: int) -> bool:
        """Whether another speaker follows (with ``tdrz_enable``).

        Source: ``whisper_full_get_segment_speaker_turn_next_from_state``, whisper.h.
        """
        self._check_segment(i_segment)
        return lib.whisper_full_get_segment_speaker_turn_next_from_state(self._ptr, i_segment)

    def n_tokens(self, i_segment: int) -> int:
        """Tokens of a segment. Source: ``whisper_full_n_tokens_from_state``, whisper.h."""
        self._check_segment(i_segment)
        return lib.whisper_full_n_tokens_from_state(self._ptr, i_segment)

    def get_token_id(self, i_segment: int, i_token: int) -> int:
        """Number of a token. Source: ``whisper_full_get_token_id_from_state``, whisper.h."""
        self._check_token(i_segment, i_token)
        return lib.whisper_full_get_token_id_from_state(self._ptr, i_segment, i_token)

    def get_token_p(self, i_segment: int, i_token: int) -> float:
        """Probability of a token. Source: ``whisper_full_get_token_p_from_state``, whisper.h."""
        self._check_token(i_segment, i_token)
        return lib.whisper_full_get_token_p_from_state(self._ptr, i_segment, i_token)

    def get_token_text(self, i_segment: int, i_token: int) -> bytes:
        """Text of a token in UTF-8. Source: ``whisper_full_get_token_text_from_state``, whisper.h."""
        self._check_token(i_segment, i_token)
        return lib.whisper_full_get_token_text_from_state(self.context._ptr, self._ptr, i_segment, i_token)

    def get_tokens(self, i_segment: int) -> list[WhisperToken]:
        """All tokens of a segment, special ones too.

        Source: ``whisper_full_get_token_data_from_state``, whisper.h.
        """
        self._check_segment(i_segment)
        cdef int c_segment = i_segment
        cdef int j
        cdef lib.whisper_token_data d
        found = []
        for j in range(lib.whisper_full_n_tokens_from_state(self._ptr, c_segment)):
            d = lib.whisper_full_get_token_data_from_state(self._ptr, c_segment, j)
            text = lib.whisper_full_get_token_text_from_state(self.context._ptr, self._ptr, c_segment, j)
            found.append(WhisperToken(d.id, text, d.p, d.plog, d.t0, d.t1, d.t_dtw, d.tid, d.pt, d.ptsum, d.vlen))
        return found

    @property
    def timings(self) -> WhisperTimings:
        """Mean times since the last reset. Source: ``whisper_get_timings``, whisper.h."""
        self._check_results()
        cdef lib.whisper_timings t = lib.whisper_get_timings_from_state(self._ptr)
        return WhisperTimings(t.sample_ms, t.encode_ms, t.decode_ms, t.batchd_ms, t.prompt_ms)

    def reset_timings(self) -> None:
        """Forget the times. Source: ``whisper_reset_timings``, whisper.h."""
        self._begin()
        lib.whisper_reset_timings_from_state(self._ptr)
        self._end()
