"""States of Parakeet models: the working memory and the results of one transcription."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

cimport cython
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._c_memory cimport CMemory
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport CallState
from cyllama.whisper cimport libparakeet as lib
from cyllama.whisper._base cimport BaseState, Callbacks, call_encoder_begin, call_new_segment, call_progress
from cyllama.whisper._fill cimport threads
from cyllama.whisper._model cimport ask_stop
from cyllama.whisper._parakeet cimport ParakeetContext

from cyllama._cancel import Cancel
from cyllama._params import checked
from cyllama.errors import DecodeError, EngineError, OutOfMemoryError, TranscribeError
from cyllama.whisper._checks import check_mel, convert_samples
from cyllama.whisper.params import ParakeetFullParams

include "ParakeetFullParams.pxi"

MIN_SAMPLES = 1600  # shorter audio is padded: the engine divides by the number of frames minus one


class ParakeetToken(NamedTuple):
    """One token of a segment (``parakeet_token_data``, parakeet.h).

    Attributes
    ----------
    id : int
        Index in the vocabulary.
    text : bytes
        Text in UTF-8; a character may be split between tokens.
    p : float
        Probability among the tokens, 0 to 1.
    plog : float
        Logarithm of the probability among tokens and durations together.
    t0, t1 : int
        Start and end in centiseconds.
    frame_index : int
        Encoder frame of 80 ms.
    duration_idx, duration_value : int
        Duration as an index and in encoder frames.
    is_word_start : bool
        Whether the token begins a word.
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
cdef class _Call(Callbacks):
    """The callbacks and C parameters of one call of :meth:`ParakeetState.full`."""

    cdef lib.parakeet_full_params c
    cdef object new_token


cdef void _new_segment(lib.parakeet_context * c, lib.parakeet_state * s, int n_new, void * data) noexcept nogil:
    call_new_segment(n_new, data)


cdef void _new_token(lib.parakeet_context * c, lib.parakeet_state * s, const lib.parakeet_token_data * token,
                     void * data) noexcept nogil:
    if not is_ending():
        _new_token_gil(token, data)


cdef void _new_token_gil(const lib.parakeet_token_data * token, void * data) noexcept with gil:
    cdef _Call call = <_Call> data
    if call.state._stop:
        return
    try:
        call.new_token((<ParakeetState> call.owner)._token(token))
    except BaseException as e:
        call.fail(e)


cdef void _progress(lib.parakeet_context * c, lib.parakeet_state * s, int percent, void * data) noexcept nogil:
    call_progress(percent, data)


cdef cbool _encoder_begin(lib.parakeet_context * c, lib.parakeet_state * s, void * data) noexcept nogil:
    return call_encoder_begin(data)


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class ParakeetState(BaseState):
    """The working memory and the results of one transcription by a Parakeet model.

    Parameters
    ----------
    context : ParakeetContext
        The model. It stays open as long as the state.

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

    def pcm_to_mel(self, samples: npt.ArrayLike, n_threads: int | None = None) -> None:
        """Compute the mel spectrogram of audio and store it in the state.

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

    def set_mel(self, mel: npt.ArrayLike) -> None:
        """Set the mel spectrogram.

        Parameters
        ----------
        mel : array of float32, shape (n_frames, n_mels)
            Frames of 10 ms, at most the model's `n_audio_ctx`; normalized for each band.

        Notes
        -----
        Source: ``parakeet_set_mel_with_state``, parakeet.h.
        """
        found = check_mel(mel, self.context.model_n_mels, self.context.n_audio_ctx, bands_first=False)
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
            raise engine_error(TranscribeError, "the engine rejected the mel spectrogram", "whisper",
                               "parakeet_set_mel_with_state", code)
        self._has_mel = True

    @property
    def n_len(self) -> int:
        """Length of the mel spectrogram in frames of 10 ms. Source: ``parakeet_n_len_from_state``, parakeet.h."""
        self._check_results()
        return lib.parakeet_n_len_from_state(self._ptr) if self._has_mel else 0

    # --------------------------------------------------------------------------------- transcription

    def full(self, samples: npt.ArrayLike | None = None, params: ParakeetFullParams | None = None, *,
             cancel: Cancel | None = None) -> None:
        """Transcribe audio; the state then has one segment, or none if there is no text.

        Parameters
        ----------
        samples : array, shape (n,), optional
            16,000 Hz; integers are scaled by their range, channels averaged. Audio below 0.1 s is padded with silence.
            Without samples, the mel spectrogram of :meth:`pcm_to_mel` or :meth:`set_mel` is transcribed.
        params : ParakeetFullParams, optional
            With the callbacks of this call.
        cancel : Cancel, optional
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
        The engine encodes the audio at once: its memory grows with the square of the length. `Whisper` therefore splits
        longer audio into chunks.

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
        values = checked(params, ParakeetFullParams)
        self.context._check()
        most = self.context.n_audio_ctx
        if params.audio_ctx is not None and params.audio_ctx > most:
            raise ValueError(f"audio_ctx is {params.audio_ctx}, expected at most {most}")
        call.owner = self
        call.state = CallState(cancel, params.progress_callback)
        call.c = lib.parakeet_full_default_params(lib.PARAKEET_SAMPLING_GREEDY)
        call.c.n_threads = threads(params.n_threads)
        call.c.no_context = True
        call.c.audio_ctx = 0
        fill_ParakeetFullParams(values, &call.c, None)
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
        """Mark the state as in use by one call."""
        self._begin()
        try:
            self.context._check()
            start_call()
        except BaseException:
            self._end()
            raise

    def _samples(self, samples: object) -> object:
        """Return checked mono samples, padded to the shortest audio that the engine takes."""
        self._check()
        found = convert_samples(samples, self.context.n_audio_ctx * lib.PARAKEET_HOP_LENGTH - 1,
                                "the model's n_audio_ctx; Whisper splits longer audio")
        return found if len(found) >= MIN_SAMPLES else np.pad(found, (0, MIN_SAMPLES - len(found)))

    # --------------------------------------------------------------------------------------- results

    cdef int _count_segments(self) noexcept:
        return lib.parakeet_full_n_segments_from_state(self._ptr)

    cdef int _count_tokens(self, int i_segment) noexcept:
        return lib.parakeet_full_n_tokens_from_state(self._ptr, i_segment)

    cdef object _token(self, const lib.parakeet_token_data * d):
        return ParakeetToken(d.id, self.context._token_bytes(d.id), d.p, d.plog, d.t0, d.t1, d.frame_index,
                             d.duration_idx, d.duration_value, d.is_word_start)

    @property
    def n_segments(self) -> int:
        """Number of segments of the last call: 0 or 1. Source: ``parakeet_full_n_segments_from_state``, parakeet.h."""
        self._check_results()
        return lib.parakeet_full_n_segments_from_state(self._ptr)

    def get_segment_t0(self, i_segment: int) -> int:
        """Return the start of a segment in centiseconds: always 0.

        Source: ``parakeet_full_get_segment_t0_from_state``, parakeet.h.
        """
        cdef int i = self._segment(i_segment)
        return lib.parakeet_full_get_segment_t0_from_state(self._ptr, i)

    def get_segment_t1(self, i_segment: int) -> int:
        """Return the end of a segment in centiseconds: the length of the mel spectrogram.

        Source: ``parakeet_full_get_segment_t1_from_state``, parakeet.h.
        """
        cdef int i = self._segment(i_segment)
        return lib.parakeet_full_get_segment_t1_from_state(self._ptr, i)

    def get_segment_text(self, i_segment: int) -> str:
        """Return the text of a segment. Source: ``parakeet_full_get_segment_text_from_state``, parakeet.h."""
        cdef int i = self._segment(i_segment)
        return lib.parakeet_full_get_segment_text_from_state(self._ptr, i).decode("utf-8", "replace")

    def n_tokens(self, i_segment: int) -> int:
        """Return the number of tokens of a segment. Source: ``parakeet_full_n_tokens_from_state``, parakeet.h."""
        cdef int i = self._segment(i_segment)
        return lib.parakeet_full_n_tokens_from_state(self._ptr, i)

    def get_token_id(self, i_segment: int, i_token: int) -> int:
        """Return the id of a token. Source: ``parakeet_full_get_token_id_from_state``, parakeet.h."""
        cdef int i
        cdef int j = self._token_of(i_segment, i_token, &i)
        return lib.parakeet_full_get_token_id_from_state(self._ptr, i, j)

    def get_token_p(self, i_segment: int, i_token: int) -> float:
        """Return the probability of a token. Source: ``parakeet_full_get_token_p_from_state``, parakeet.h."""
        cdef int i
        cdef int j = self._token_of(i_segment, i_token, &i)
        return lib.parakeet_full_get_token_p_from_state(self._ptr, i, j)

    def get_token_text(self, i_segment: int, i_token: int) -> str:
        """Return a token's entry in the vocabulary, such as ``"▁the"``.

        Source: ``parakeet_full_get_token_text_from_state``, parakeet.h.
        """
        cdef int i
        cdef int j = self._token_of(i_segment, i_token, &i)
        return lib.parakeet_full_get_token_text_from_state(self.context._ptr, self._ptr, i,
                                                           j).decode("utf-8", "replace")

    def get_tokens(self, i_segment: int) -> list[ParakeetToken]:
        """Return all tokens of a segment, including control tokens.

        Source: ``parakeet_full_get_token_data_from_state``, parakeet.h.
        """
        cdef int c_segment = self._segment(i_segment)
        cdef int j
        cdef vector[lib.parakeet_token_data] data  # first: making a tuple lets other threads run
        for j in range(lib.parakeet_full_n_tokens_from_state(self._ptr, c_segment)):
            data.push_back(lib.parakeet_full_get_token_data_from_state(self._ptr, c_segment, j))
        self._hold()
        try:
            return [self._token(&data[j]) for j in range(<int> data.size())]
        finally:
            self._unhold()
