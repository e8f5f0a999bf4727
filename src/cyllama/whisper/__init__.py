"""Transcribe speech with whisper.cpp: Whisper and Parakeet models.

:func:`transcribe` transcribes one recording, and :class:`Whisper` keeps a model loaded. `WhisperContext`,
`WhisperState`, `WhisperVad`, `ParakeetContext` and `ParakeetState` are thin wrappers of the objects of whisper.cpp.
"""

from cyllama.media.audio import AudioStream, load_audio
from cyllama.whisper._core import bench_ggml_mul_mat, bench_memcpy, system_info, version
from cyllama.whisper._group import WhisperGroup
from cyllama.whisper._model import WhisperContext, WhisperGrammar, languages
from cyllama.whisper._option_types import TranscribeOptionsDict
from cyllama.whisper._parakeet import ParakeetContext
from cyllama.whisper._parakeet_state import ParakeetState, ParakeetToken
from cyllama.whisper._segment_iterator import SegmentIterator
from cyllama.whisper._state import WhisperState, WhisperTimings, WhisperToken
from cyllama.whisper._vad import WhisperVad
from cyllama.whisper.convert import convert
from cyllama.whisper.options import TranscribeOptions, VadOptions
from cyllama.whisper.params import (
    ParakeetContextParams,
    ParakeetFullParams,
    WhisperContextParams,
    WhisperFullParams,
    WhisperVadContextParams,
    WhisperVadParams,
)
from cyllama.whisper.quantize import quantize
from cyllama.whisper.results import DetectedLanguage, Segment, Token, Transcription, TranscriptionInfo, Word
from cyllama.whisper.speakers import channel_speakers
from cyllama.whisper.streaming import StreamedSegment, StreamingTranscriber
from cyllama.whisper.transcribe import AudioInput, ModelInput, Whisper, transcribe
from cyllama.whisper.writers import SegmentWriter

__all__ = [
    "AudioInput",
    "AudioStream",
    "DetectedLanguage",
    "ModelInput",
    "ParakeetContext",
    "ParakeetContextParams",
    "ParakeetFullParams",
    "ParakeetState",
    "ParakeetToken",
    "Segment",
    "SegmentIterator",
    "SegmentWriter",
    "StreamedSegment",
    "StreamingTranscriber",
    "Token",
    "TranscribeOptions",
    "TranscribeOptionsDict",
    "Transcription",
    "TranscriptionInfo",
    "VadOptions",
    "Whisper",
    "WhisperContext",
    "WhisperContextParams",
    "WhisperFullParams",
    "WhisperGrammar",
    "WhisperGroup",
    "WhisperState",
    "WhisperTimings",
    "WhisperToken",
    "WhisperVad",
    "WhisperVadContextParams",
    "WhisperVadParams",
    "Word",
    "bench_ggml_mul_mat",
    "bench_memcpy",
    "channel_speakers",
    "convert",
    "languages",
    "load_audio",
    "quantize",
    "system_info",
    "transcribe",
    "version",
]
