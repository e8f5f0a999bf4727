"""States of Parakeet models: what one transcription needs beside the weights, and its results."""

from typing import NamedTuple

import numpy as np

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libcpp cimport bool as cbool

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport CallState, Handle
from cyllama.whisper cimport libparakeet as lib
from cyllama.whisper._fill cimport threads
from cyllama.whisper._model cimport ask_stop
from cyllama.whisper._parakeet cimport ParakeetContext

from cyllama.errors import DecodeError, EngineError, InUseError, OutOfMemoryError, TranscribeError
from cyllama.media.samples import as_array, check_samples, to_mono
from cyllama.whisper.params import ParakeetFullParams

MIN_SAMPLES = 1600  # shorter audio is padded: the engine divides by the number of its frames less one


class ParakeetToken(NamedTuple):
    """One token of a segment (``parakeet_token_data``, parakeet.h).

    ``text``: bytes of UTF-8; ``p``: its probability among the tokens; ``plog``: logarithm of its probability among
    tokens and durations together; ``t0``, ``t1``: times in centiseconds; ``frame_index``: its encoder frame, of 80 ms;
    ``duration_idx``, ``duration_value``: its duration as an index and in encoder frames.
    """

    id: int
    text: bytes
    p: float
    plog: float
    t0: int
    t1: int
    frame_index: int
    duration_idx: int
    duration_value: int
    is_word_start: bool


@cython.final
cdef class _Call:
    """What the callbacks of one call of :meth:`ParakeetState.full` need."""

    cdef ParakeetState owner
    cdef CallState state
    cdef lib.parakeet_full_params c
    cdef object new_segment
    cdef object new_token
    cdef object encoder_begin
    cdef bint ended  # encoder_begin returned False

    cdef int failed(self, object error) noexcept:
        if self.state.error is None:
            self.state.error = error
        self.state._stop = True
        return 0


cdef void _new_segment(lib.parakeet_context * c, lib.parakeet_state * s, int n_new, void * data) noexcept nogil:
    _new_segment_gil(n_new, data)


cdef void _new_segment_gil(int n_new, void * data) noexcept with gil:
    cdef _Call call = <_Call> data
    cdef int n
    if call.state._stop:
        return
    call.owner._callback_thread = PyThread_get_thread_ident()
    try:
        n = lib.parakeet_full_n_segments_from_state(call.owner._ptr)
        call.new_segment(n - n_new, n)
    except BaseException as e:
        call.failed(e)
    finally:
        call.owner._callback_thread = 0


cdef void _new_token(lib.parakeet_context * c, lib.parakeet_state * s, const lib.parakeet_token_data * token,
                     void * data) noexcept nogil:
    _new_token_gil(token, data)


cdef void _new_token_gil(const lib.parakeet_token_data * token, void * data) noexcept with gil:
    cdef _Call call = <_Call> data
    if call.state._stop:
        return
    try:
        call.new_token(call.owner._token(token))
    except BaseException as e:
        call.failed(e)


cdef void _progress(lib.parakeet_context * c, lib.parakeet_state * s, int percent, void * data) noexcept nogil:
    _progress_gil(percent, data)


cdef void _progress_gil(int percent, void * data) noexcept with gil:
    (<_Call> data).state.progress(min(1.0, percent / 100.0))


cdef cbool _encoder_begin(lib.parakeet_context * c, lib.parakeet_state * s, void * data) noexcept nogil:
    return _encoder_begin_gil(data)


cdef bint _encoder_begin_gil(void * data) noexcept with gil:
    cdef _Call call = <_Call> data
    if call.state._poll_gil():
        return False
    if call.encoder_begin is None:
        return True
    try:
        call.ended = call.encoder_begin() is False
        return not call.ended
    except BaseException as e:
        call.failed(e)
        return False


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class ParakeetState(Handle):
    """What one transcription by a Parakeet model needs beside the weights.

    Parameters
    ----------
    context : ParakeetContext
        The model; kept open.

    Notes
    -----
    Releases the GIL. Thread safety: one thread at a time for each state; the states of one model may compute at the
    same time. Source: ``parakeet_init_state``, parakeet.h.
    """

    def __cinit__(self, ParakeetContext context not None):
        context._check()
        self.context = context
        start_call()
        context._hold()
        try:
            with nogil:
                self._ptr = lib.parakeet_init_state(context._ptr)
        finally:
            context._unhold()
        if self._ptr == NULL:
            raise engine_error(OutOfMemoryError, "cannot make a state", "whisper", "parakeet_init_state", None)
        self._opened("ParakeetState", context)

    def __init__(self, context: ParakeetContext) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.parakeet_state * c_state = self._ptr
        self._ptr = NULL
        with nogil:
            lib.parakeet_free_state(c_state)
        return 0

    # ------------------------------------------------------------------------------ mel spectrogram

    def pcm_to_mel(self, samples: object, n_threads: int | None = None) -> None:
        """Compute the mel spectrogram of audio and keep it in the state.

        Parameters
        ----------
        samples : array, shape (n,)
            16,000 Hz; integers are scaled by their range, channels averaged. Audio below 0.1 s is padded with silence.
        n_threads : int, optional
            At most the thread budget, which is the default.

        Raises
        ------
        ValueError
            `samples` is empty or longer than the model's `n_audio_ctx`.

        Notes
        -----
        Releases the GIL. Source: ``parakeet_pcm_to_mel_with_state``, parakeet.h.
        """
        cdef const float[::1] view = self._samples(samples)
        cdef const float * c_view = &view[0]
        cdef int c_n = <int> view.shape[0]
        cdef int c_threads = threads(n_threads)
        cdef int code = 0
        self._start()
        self._has_mel = False
        try:
            with nogil:
                code = lib.parakeet_pcm_to_mel_with_state(self.context._ptr, self._ptr, c_view, c_n, c_threads)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._end()
        if code != 0:
            raise engine_error(TranscribeError, "the engine failed", "whisper", "parakeet_pcm_to_mel_with_state", code)
        self._has_mel = True

    def set_mel(self, mel: object) -> None:
        """Set the mel spectrogram.

        Parameters
        ----------
        mel : array of float32, shape (n_frames, n_mels)
            Frames of 10 ms, at most the model's `n_audio_ctx`; normalized for each band.

        Notes
        -----
        Source: ``parakeet_set_mel_with_state``, parakeet.h.
        """
        found = np.ascontiguousarray(mel, np.float32)
        n_mels, most = self.context.model_n_mels, self.context.n_audio_ctx
        if found.ndim != 2 or found.shape[1] != n_mels or not 0 < found.shape[0] <= most:
            raise ValueError(f"mel has the shape {found.shape}, expected (1 to {most} frames, {n_mels})")
        if not np.isfinite(found).all():
            raise ValueError("mel contains values that are not finite")
        cdef const float[:, ::1] view = found
        cdef const float * c_view = &view[0, 0]
        cdef int code
        self._start()
        try:
            with nogil:
                code = lib.parakeet_set_mel_with_state(self.context._ptr, self._ptr, c_view, <int> view.shape[0],
                                                       <int> view.shape[1])
        finally:
            self._end()
        if code != 0:
            raise engine_error(TranscribeError, "the mel spectrogram was refused", "whisper",
                               "parakeet_set_mel_with_state", code)
        self._has_mel = True

    @property
    def n_len(self) -> int:
        """Length of the mel spectrogram in frames of 10 ms. Source: ``parakeet_n_len_from_state``, parakeet.h."""
        self._check_results()
        return lib.parakeet_n_len_from_state(self._ptr) if self._has_mel else 0

    # --------------------------------------------------------------------------------- transcription

    def full(self, samples: object | None = None, params: ParakeetFullParams | None = None, *,
             cancel: object | None = None) -> None:
        """Transcribe; the result is a segment of this state, or none if there is no text.

        Parameters
        ----------
        samples : array, shape (n,), optional
            16,000 Hz; integers are scaled by their range, channels averaged. Audio below 0.1 s is padded with silence.
            Without samples, the mel spectrogram of :meth:`pcm_to_mel` or :meth:`set_mel` is transcribed.
        params : ParakeetFullParams, optional
            With the callbacks of this call.
        cancel : object with ``is_set()``, optional
            Stops the call within a second, as Ctrl-C does.

        Raises
        ------
        DecodeError
            There are neither samples nor a mel spectrogram.
        TranscribeError
            The engine failed.
        CancelledError
            `cancel` was set, or the progress callback returned False.
        TypeError, ValueError
            A parameter or a sample is wrong, or the audio is longer than the model's `n_audio_ctx`.

        Notes
        -----
        The engine encodes longer audio at once, with memory that grows with the square of its length. `Whisper`
        therefore cuts it.

        Releases the GIL. An exception of a callback stops the call and is raised. The state stays usable after all of
        these. Source: ``parakeet_full_with_state``, parakeet.h.
        """
        cdef const float[::1] view
        cdef const float * c_view = NULL
        cdef int c_n = 0
        cdef int code = 0
        self._check()
        cdef _Call call = self._call(ParakeetFullParams() if params is None else params, cancel)
        if samples is not None:
            view = self._samples(samples)
            c_view, c_n = &view[0], <int> view.shape[0]
        elif not self._has_mel:
            raise DecodeError("there is no mel spectrogram yet: give samples, or call pcm_to_mel() or set_mel() first",
                              engine="whisper")
        call.state.finish()
        self._start()
        if c_n:
            self._has_mel = False
        try:
            with nogil:
                code = lib.parakeet_full_with_state(self.context._ptr, self._ptr, call.c, c_view, c_n)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            self._end()
        call.state.finish()
        self._has_mel = True
        if code != 0 and not call.ended:
            raise engine_error(TranscribeError, "the engine failed", "whisper", "parakeet_full_with_state", code)

    def _call(self, params, cancel) -> object:
        """Return the callbacks and C parameters of one call."""
        cdef _Call call = _Call.__new__(_Call)
        cdef void * data = <void *> call
        if not isinstance(params, ParakeetFullParams):
            raise TypeError(f"params is {params!r}, expected ParakeetFullParams")
        params.check()
        self.context._check()
        most = self.context.n_audio_ctx
        if params.audio_ctx is not None and params.audio_ctx > most:
            raise ValueError(f"audio_ctx is {params.audio_ctx}, expected at most {most}")
        call.owner = self
        call.state = CallState(cancel, params.progress_callback)
        call.c = lib.parakeet_full_default_params(lib.PARAKEET_SAMPLING_GREEDY)
        call.c.n_threads = threads(params.n_threads)
        call.c.no_context = True if params.no_context is None else params.no_context
        call.c.audio_ctx = params.audio_ctx or 0
        call.new_segment = params.new_segment_callback
        call.new_token = params.new_token_callback
        call.encoder_begin = params.encoder_begin_callback
        call.c.encoder_begin_callback = _encoder_begin
        call.c.encoder_begin_callback_user_data = data
        call.c.abort_callback = ask_stop
        call.c.abort_callback_user_data = <void *> call.state
        if call.new_segment is not None:
            call.c.new_segment_callback = _new_segment
            call.c.new_segment_callback_user_data = data
        if call.new_token is not None:
            call.c.new_token_callback = _new_token
            call.c.new_token_callback_user_data = data
        if params.progress_callback is not None:
            call.c.progress_callback = _progress
            call.c.progress_callback_user_data = data
        return call

    def _start(self) -> None:
        """Take the state for one call."""
        self._begin()
        try:
            self.context._check()
            start_call()
        except BaseException:
            self._end()
            raise

    def _samples(self, samples: object) -> object:
        """Return mono float32 samples, contiguous, checked, and neither too short nor too long for the engine."""
        self._check()
        found = np.ascontiguousarray(to_mono(as_array(samples)))
        if not len(found):
            raise ValueError("samples is empty, expected audio of 16,000 Hz")
        most = self.context.n_audio_ctx * lib.PARAKEET_HOP_LENGTH - 1
        if len(found) > most:
            raise ValueError(f"samples has {len(found)} samples, expected at most {most}, the model's n_audio_ctx; "
                             "Whisper cuts longer audio")
        check_samples(found, 0, "samples")
        return found if len(found) >= MIN_SAMPLES else np.pad(found, (0, MIN_SAMPLES - len(found)))

    # --------------------------------------------------------------------------------------- results

    cdef int _check_results(self) except -1:
        """Allow reading results when nothing runs, and in a callback of what runs."""
        self._check()
        if self._busy and self._callback_thread != <unsigned long> PyThread_get_thread_ident():
            raise InUseError("ParakeetState is in use by another call; its results can be read in "
                             "new_segment_callback only")
        return 0

    cdef int _check_segment(self, object i) except -1:
        self._check_results()
        n = lib.parakeet_full_n_segments_from_state(self._ptr)
        if isinstance(i, bool) or not hasattr(i, "__index__"):
            raise TypeError(f"i_segment is {i!r}, expected an integer")
        if not 0 <= i < n:
            raise IndexError(f"i_segment is {i}, there are {n} segments")
        return 0

    cdef int _check_token(self, object i, object j) except -1:
        self._check_segment(i)
        n = lib.parakeet_full_n_tokens_from_state(self._ptr, i)
        if isinstance(j, bool) or not hasattr(j, "__index__"):
            raise TypeError(f"i_token is {j!r}, expected an integer")
        if not 0 <= j < n:
            raise IndexError(f"i_token is {j}, the segment has {n} tokens")
        return 0

    cdef object _token(self, const lib.parakeet_token_data * d):
        return ParakeetToken(d.id, self.context._token_bytes(d.id), d.p, d.plog, d.t0, d.t1, d.frame_index,
                             d.duration_idx, d.duration_value, d.is_word_start)

    @property
    def n_segments(self) -> int:
        """Segments of the last call: 0 or 1. Source: ``parakeet_full_n_segments_from_state``, parakeet.h."""
        self._check_results()
        return lib.parakeet_full_n_segments_from_state(self._ptr)

    def get_segment_t0(self, i_segment: int) -> int:
        """Return where a segment begins in centiseconds: always 0.

        Source: ``parakeet_full_get_segment_t0_from_state``, parakeet.h.
        """
        self._check_segment(i_segment)
        return lib.parakeet_full_get_segment_t0_from_state(self._ptr, i_segment)

    def get_segment_t1(self, i_segment: int) -> int:
        """Return where a segment ends in centiseconds: the length of the mel spectrogram.

        Source: ``parakeet_full_get_segment_t1_from_state``, parakeet.h.
        """
        self._check_segment(i_segment)
        return lib.parakeet_full_get_segment_t1_from_state(self._ptr, i_segment)

    def get_segment_text(self, i_segment: int) -> str:
        """Return the text of a segment. Source: ``parakeet_full_get_segment_text_from_state``, parakeet.h."""
        self._check_segment(i_segment)
        return lib.parakeet_full_get_segment_text_from_state(self._ptr, i_segment).decode("utf-8", "replace")

    def n_tokens(self, i_segment: int) -> int:
        """Return the number of tokens of a segment. Source: ``parakeet_full_n_tokens_from_state``, parakeet.h."""
        self._check_segment(i_segment)
        return lib.parakeet_full_n_tokens_from_state(self._ptr, i_segment)

    def get_token_id(self, i_segment: int, i_token: int) -> int:
        """Return the number of a token. Source: ``parakeet_full_get_token_id_from_state``, parakeet.h."""
        self._check_token(i_segment, i_token)
        return lib.parakeet_full_get_token_id_from_state(self._ptr, i_segment, i_token)

    def get_token_p(self, i_segment: int, i_token: int) -> float:
        """Return the probability of a token. Source: ``parakeet_full_get_token_p_from_state``, parakeet.h."""
        self._check_token(i_segment, i_token)
        return lib.parakeet_full_get_token_p_from_state(self._ptr, i_segment, i_token)

    def get_token_text(self, i_segment: int, i_token: int) -> str:
        """Return a token's entry of the vocabulary, such as ``"▁the"``.

        Source: ``parakeet_full_get_token_text_from_state``, parakeet.h.
        """
        self._check_token(i_segment, i_token)
        return lib.parakeet_full_get_token_text_from_state(self.context._ptr, self._ptr, i_segment,
                                                           i_token).decode("utf-8", "replace")

    def get_tokens(self, i_segment: int) -> list[ParakeetToken]:
        """Return all tokens of a segment, control tokens too.

        Source: ``parakeet_full_get_token_data_from_state``, parakeet.h.
        """
        self._check_segment(i_segment)
        cdef int c_segment = i_segment
        cdef int j
        cdef lib.parakeet_token_data d
        found = []
        for j in range(lib.parakeet_full_n_tokens_from_state(self._ptr, c_segment)):
            d = lib.parakeet_full_get_token_data_from_state(self._ptr, c_segment, j)
            found.append(self._token(&d))
        return found
