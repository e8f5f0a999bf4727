"""Voice activity detection: find speech in audio."""

import os
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

cimport cython

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._c_memory cimport CMemory
from cyllama._native._handle cimport CallState, Handle
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._fill cimport fill_vad
from cyllama.whisper._model cimport ask_stop
from cyllama.whisper._source cimport ModelSource
from cyllama.whisper.libmodel cimport check_vad_model, loader_of, stop_source

from cyllama._cancel import Cancel
from cyllama._native import _core
from cyllama.errors import DecodeError, EngineError, ModelLoadError, TranscribeError
from cyllama.whisper._checks import convert_samples
from cyllama.whisper._model_source import ModelFile
from cyllama._params import checked
from cyllama.whisper.params import WhisperVadContextParams, WhisperVadParams

include "WhisperVadContextParams.pxi"

CENTISECONDS = 100.0
MAX_SAMPLES = 2**31 - 1 - 16_000


@cython.no_gc_clear  # freeing needs the fields
cdef class WhisperVad(Handle):
    """A model for voice activity detection (Silero VAD).

    Parameters
    ----------
    path_model : str, bytes or os.PathLike
        A file in whisper.cpp's format.
    params : WhisperVadContextParams, optional
    cancel : Cancel, optional

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelLoadError
        The file is not a VAD model, or is damaged.

    Notes
    -----
    Releases the GIL. Thread safety: one thread at a time. Source: ``whisper_vad_init_with_params``, whisper.h.
    """

    cdef lib.whisper_vad_context * _ptr
    cdef readonly object params
    cdef bint _has_probs

    def __cinit__(self, path_model=None, params=None, *, cancel=None):
        if path_model is not None:
            with ModelFile.from_path(path_model) as file:
                self._load(file, params, cancel)

    def __init__(self, path_model: str | bytes | os.PathLike[str] | None = None,
                 params: WhisperVadContextParams | None = None, *, cancel: Cancel | None = None) -> None:
        if not self._open and path_model is None:
            raise TypeError("WhisperVad() needs path_model")

    def __dealloc__(self):
        self._dispose()

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview,
                   params: WhisperVadContextParams | None = None) -> WhisperVad:
        """Load from the content of a model file. Source: ``whisper_vad_init_with_params``, whisper.h."""
        cdef WhisperVad self = WhisperVad.__new__(WhisperVad)
        with ModelFile.from_bytes(data) as file:
            self._load(file, params, None)
        return self

    @classmethod
    def from_fileobj(cls, fileobj: BinaryIO, params: WhisperVadContextParams | None = None) -> WhisperVad:
        """Load from a binary file object. Source: ``whisper_vad_init_with_params``, whisper.h."""
        cdef WhisperVad self = WhisperVad.__new__(WhisperVad)
        with ModelFile.from_fileobj(fileobj) as file:
            self._load(file, params, None)
        return self

    def _load(self, file, params, cancel) -> None:
        cdef ModelSource source = ModelSource(file)
        cdef CallState state = CallState(cancel)
        cdef lib.whisper_vad_context_params c_params = lib.whisper_vad_default_context_params()
        cdef lib.whisper_model_loader loader
        self.params = WhisperVadContextParams() if params is None else params
        c_params.n_threads = 1  # the network is too small for more
        fill_WhisperVadContextParams(checked(self.params, WhisperVadContextParams), &c_params, None)
        _core.load_backends()
        source.check(check_vad_model, ask_stop, state, "whisper_vad_init_with_params")
        # The engine leaks a model if its loader is stopped; loading a checked model takes milliseconds.
        stop_source(source.ptr[0], NULL, NULL)
        loader = loader_of(source.ptr[0])
        with nogil:
            self._ptr = lib.whisper_vad_init_with_params(&loader, c_params)
        if self._ptr == NULL:
            state.finish()
            raise engine_error(ModelLoadError, f"cannot load {source.what}", "whisper", "whisper_vad_init_with_params",
                               None)
        self._opened("WhisperVad", None)
        state.finish()

    cdef int _release(self) noexcept:
        cdef lib.whisper_vad_context * c_context = self._ptr
        self._ptr = NULL
        with nogil:
            lib.whisper_vad_free(c_context)
        return 0

    def detect_speech(self, samples: npt.ArrayLike, *, reset: bool = True,
                      cancel: Cancel | None = None) -> npt.NDArray[np.float32]:
        """Return the probability of speech for each 512 samples (32 ms).

        Parameters
        ----------
        samples : array, shape (n,)
            16,000 Hz; integers are scaled by their range, channels averaged.
        reset : bool
            False continues the audio of the last call.
        cancel : Cancel, optional

        Returns
        -------
        ndarray of float32, shape (ceil(n / 512),)
            Probabilities, a copy.

        Notes
        -----
        Releases the GIL. Source: ``whisper_vad_detect_speech``, ``whisper_vad_detect_speech_no_reset``, whisper.h.
        """
        cdef const float[::1] view = convert_samples(samples, MAX_SAMPLES)
        cdef const float * c_view
        cdef CallState state = CallState(cancel)
        cdef bint c_reset = reset
        cdef bint ok = False
        self._begin()
        try:
            state.finish()
            start_call()
            self._has_probs = False
            lib.whisper_vad_set_abort_callback(self._ptr, ask_stop, <void *> state)
            c_view = &view[0]
            with nogil:
                if c_reset:
                    ok = lib.whisper_vad_detect_speech(self._ptr, c_view, <int> view.shape[0])
                else:
                    ok = lib.whisper_vad_detect_speech_no_reset(self._ptr, c_view, <int> view.shape[0])
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            lib.whisper_vad_set_abort_callback(self._ptr, NULL, NULL)
            self._end()
        state.finish()
        if not ok:
            raise engine_error(TranscribeError, "the engine failed", "whisper", "whisper_vad_detect_speech", None)
        self._has_probs = True
        return self.probs

    @property
    def probs(self) -> npt.NDArray[np.float32]:
        """The result of the last :meth:`detect_speech`, a copy. Source: ``whisper_vad_probs``, whisper.h."""
        self._check_probs()
        cdef Py_ssize_t n = lib.whisper_vad_n_probs(self._ptr)
        return np.array(<float[:n]> lib.whisper_vad_probs(self._ptr)) if n else np.zeros(0, np.float32)

    def reset_state(self) -> None:
        """Reset the state of the model for new audio. Source: ``whisper_vad_reset_state``, whisper.h."""
        self._begin()
        try:
            with nogil:
                lib.whisper_vad_reset_state(self._ptr)
        finally:
            self._end()

    def segments_from_probs(self, params: WhisperVadParams | None = None) -> list[tuple[float, float]]:
        """Return the segments of speech, from the probabilities of the last :meth:`detect_speech`.

        Returns
        -------
        list of (float, float)
            Start and end in seconds, in order, without overlap.

        Notes
        -----
        Releases the GIL. Source: ``whisper_vad_segments_from_probs``, whisper.h.
        """
        self._check_probs()
        cdef lib.whisper_vad_params c_params = fill_vad(params)
        cdef lib.whisper_vad_segments * c_segments = NULL
        cdef int i
        self._begin()
        try:
            start_call()
            with nogil:
                c_segments = lib.whisper_vad_segments_from_probs(self._ptr, c_params)
        finally:
            self._end()
        if c_segments == NULL:
            raise engine_error(TranscribeError, "the engine failed", "whisper", "whisper_vad_segments_from_probs", None)
        try:
            return [(lib.whisper_vad_segments_get_segment_t0(c_segments, i) / CENTISECONDS,
                     lib.whisper_vad_segments_get_segment_t1(c_segments, i) / CENTISECONDS)
                    for i in range(lib.whisper_vad_segments_n_segments(c_segments))]
        finally:
            lib.whisper_vad_free_segments(c_segments)

    def segments(self, samples: npt.ArrayLike, params: WhisperVadParams | None = None, *,
                 cancel: Cancel | None = None) -> list[tuple[float, float]]:
        """Return the segments of speech in audio: :meth:`detect_speech`, then :meth:`segments_from_probs`.

        Source: ``whisper_vad_segments_from_samples``, whisper.h.
        """
        fill_vad(params)  # reject wrong parameters before computing
        self.detect_speech(samples, cancel=cancel)
        return self.segments_from_probs(params)

    cdef int _check_probs(self) except -1:
        self._check()
        if self._busy or not self._has_probs:
            raise DecodeError("there are no probabilities: call detect_speech() first", engine="whisper")
        return 0
