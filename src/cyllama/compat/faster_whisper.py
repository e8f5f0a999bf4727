"""The names of faster-whisper: change ``from faster_whisper import WhisperModel`` to this module.

>>> from cyllama.compat.faster_whisper import WhisperModel
>>> model = WhisperModel("tiny.en", device="cpu", compute_type="int8")  # doctest: +SKIP
>>> segments, info = model.transcribe("talk.mp3", beam_size=5)          # doctest: +SKIP

Names, defaults and results are those of faster-whisper; `cyllama.whisper.Whisper` does the work. An argument has its
effect, or is rejected by name (`UnsupportedError`). See docs/howto/integrations.md for the differences.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cyllama import models
from cyllama.compat._speech import reject, show_progress, thresholds, use_gpu
from cyllama.errors import ModelLoadError, UnsupportedError
from cyllama.media._samples import Samples
from cyllama.media.audio import SAMPLE_RATE, load_audio
from cyllama.whisper import AudioInput, TranscriptionInfo, Whisper, Word, quantize
from cyllama.whisper import Segment as CyllamaSegment
from cyllama.whisper.model_names import HUB_MODELS, resolve_model

__all__ = [
    "BatchedInferencePipeline",
    "Segment",
    "TranscriptionInfo",
    "WhisperModel",
    "Word",
    "available_models",
    "decode_audio",
    "download_model",
]

FILE_TYPES = ("default", "auto", "float16")  # the weights of the file
QUANTIZED_TYPES = ("int8", "int8_float32", "int8_float16", "int8_bfloat16")
QUANTIZED = "q8_0"
DEFAULTS = {
    "beam_size": 5,
    "best_of": 5,
    "max_initial_timestamp": 1.0,
    "suppress_tokens": [-1],
}
VAD_DEFAULTS = {"min_silence_duration_ms": 2000, "speech_pad_ms": 400}


@dataclass
class Segment:
    """A segment with the fields of faster-whisper; ``tokens`` are integers."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: list[Word] | None
    temperature: float | None

    def _asdict(self) -> dict[str, Any]:
        return asdict(self)


class WhisperModel:
    """A loaded model.

    Parameters
    ----------
    model_size_or_path : str
        A name (``"tiny"`` to ``"large-v3"``, ``"turbo"``, ``"distil-large-v3"``) or a file in whisper.cpp's format.
    device : str
        ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU if there is one.
    device_index : int
        Number of the GPU.
    compute_type : str
        ``"int8"`` and its variants: the weights are quantized to q8_0 when the model is first loaded. ``"default"``,
        ``"auto"`` and ``"float16"``: the weights of the file.
    cpu_threads : int
        Threads of each call; 0: the thread budget.
    num_workers : int
        At least 1. Any number of threads may call the model at once; they share the weights.

    Raises
    ------
    UnsupportedError
        There is no such device, `compute_type` is another one, or another argument of faster-whisper is given.
    """

    def __init__(
        self,
        model_size_or_path: str | os.PathLike[str],
        device: str = "auto",
        device_index: int = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        **options: Any,
    ) -> None:
        reject(options, {"local_files_only": (False,), "download_root": (), "files": (), "revision": (),
                          "use_auth_token": ()})  # fmt: skip
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers!r}, expected at least 1")
        path = _quantized(resolve_model(model_size_or_path), compute_type)
        self._n_threads = cpu_threads or None
        self._whisper = Whisper(path, use_gpu=use_gpu(device), gpu_device=device_index or None)

    @property
    def is_multilingual(self) -> bool:
        """Whether the model supports other languages than English."""
        return self._whisper.is_multilingual

    @property
    def supported_languages(self) -> list[str]:
        """The codes of the languages."""
        return list(self._whisper.languages)

    def transcribe(
        self, audio: AudioInput, language: str | None = None, task: str = "transcribe", **options: Any
    ) -> tuple[Iterator[Segment], TranscriptionInfo]:
        """Transcribe a recording while iterating over its segments.

        Parameters
        ----------
        audio : path, bytes, binary file object or array of 16,000 Hz
        language : str, optional
            Default: detect it.
        task : str
            ``"transcribe"``, or ``"translate"`` into English.
        **options
            Those of faster-whisper and of `cyllama.whisper.transcribe`.

        Returns
        -------
        iterator of Segment
        TranscriptionInfo
        """
        given: dict[str, Any] = DEFAULTS | thresholds(options)
        parameters = given.pop("vad_parameters", None)
        if given.get("vad_filter"):
            is_dict = parameters is None or isinstance(parameters, dict)
            given["vad_parameters"] = {**VAD_DEFAULTS, **(parameters or {})} if is_dict else parameters
        if given.pop("log_progress", False):
            given["on_progress"] = show_progress()
        given.setdefault("cpu_threads", self._n_threads)
        segments, info = self._whisper.transcribe(audio, language=language, task=task, **given)
        return _converted(segments), info

    def detect_language(self, audio: Any, **options: Any) -> tuple[str, float, list[tuple[str, float]]]:
        """Return the language of the first 30 s, its probability, and those of all languages."""
        reject(options, {"vad_filter": (False,), "language_detection_segments": (1,),
                          "language_detection_threshold": (0.5,)})  # fmt: skip
        found = self._whisper.detect_language(audio)
        return found.language, found.probability, list(found.all_probabilities)


class BatchedInferencePipeline:
    """Transcribes several ranges of speech at once.

    Parameters
    ----------
    model : WhisperModel
    """

    def __init__(self, model: WhisperModel) -> None:
        self.model = model

    def transcribe(
        self, audio: AudioInput, language: str | None = None, task: str = "transcribe", **options: Any
    ) -> tuple[Iterator[Segment], TranscriptionInfo]:
        """Transcribe a recording; as `WhisperModel.transcribe`, with voice activity detection and ``batch_size`` 8."""
        return self.model.transcribe(
            audio, language, task, **{"batch_size": 8, "vad_filter": True, "without_timestamps": True} | options
        )


def available_models() -> list[str]:
    """Return the names of models."""
    return list(HUB_MODELS)


def download_model(size_or_id: str, **options: Any) -> str:
    """Return the path of a model; download it if it is not in the cache."""
    reject(options, {"output_dir": (), "local_files_only": (False,), "cache_dir": (), "revision": (),
                      "use_auth_token": ()})  # fmt: skip
    return str(resolve_model(size_or_id))


def decode_audio(audio: Any, sampling_rate: int = SAMPLE_RATE, split_stereo: bool = False) -> Samples:
    """Return a recording as mono float32 samples.

    Raises
    ------
    UnsupportedError
        `split_stereo`.
    """
    reject({"split_stereo": split_stereo}, {"split_stereo": (False,)})
    return load_audio(audio, target_rate=sampling_rate)


def _converted(segments: Iterable[CyllamaSegment]) -> Iterator[Segment]:
    for number, segment in enumerate(segments, 1):
        yield Segment(
            id=number,
            seek=segment.seek,
            start=segment.start,
            end=segment.end,
            text=segment.text,
            tokens=list(segment.tokens),
            avg_logprob=segment.avg_logprob,
            compression_ratio=segment.compression_ratio,
            no_speech_prob=segment.no_speech_prob,
            words=None if segment.words is None else list(segment.words),
            temperature=segment.temperature,
        )


def _quantized(path: Any, compute_type: str) -> Any:
    """Return the path of the model with the weights of `compute_type`, in the cache."""
    if compute_type in FILE_TYPES:
        return path
    if compute_type not in QUANTIZED_TYPES:
        known = ", ".join((*FILE_TYPES, *QUANTIZED_TYPES))
        raise UnsupportedError(f"compute_type={compute_type!r}: the weights are those of the file; expected {known}")
    status = path.stat()
    folder = models.cache_folder("models") / "quantized" / f"{status.st_size:x}-{status.st_mtime_ns:x}"
    target = folder / f"{path.stem}-{QUANTIZED}.bin"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            quantize(path, target, QUANTIZED)
        except ModelLoadError:  # it is quantized already, or loading says what is wrong
            return path
    return target
