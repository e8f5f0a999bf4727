"""Every exception class of cyllama, and nothing else."""

from __future__ import annotations

__all__ = [
    "ABIMismatchError",
    "CancelledError",
    "ClosedError",
    "ContextFullError",
    "CyllamaError",
    "DecodeError",
    "DownloadError",
    "EngineError",
    "GrammarError",
    "ImageGenerationError",
    "InUseError",
    "MediaError",
    "ModelLoadError",
    "OutOfMemoryError",
    "TranscribeError",
    "UnsupportedError",
]


class CyllamaError(Exception):
    """Base of all exceptions that cyllama itself raises."""


class EngineError(CyllamaError, RuntimeError):
    """A native engine failed.

    Attributes
    ----------
    engine : str
        ``"ggml"``, ``"llama"``, ``"llava"``, ``"whisper"`` or ``"sd"``; empty if unknown.
    function : str
        The native function that failed; empty if unknown.
    code : int or None
        Its return code.
    log : tuple of str
        The last warnings and errors that the engine logged on the calling thread.
    aborted : bool
        An assertion of the engine failed. The handle it was called on is broken and can only be closed.
    """

    def __init__(
        self,
        message: str,
        *,
        engine: str = "",
        function: str = "",
        code: int | None = None,
        log: tuple[str, ...] = (),
        aborted: bool = False,
    ) -> None:
        self.message = message
        self.engine = engine
        self.function = function
        self.code = code
        self.log = tuple(log)
        self.aborted = aborted
        text = message
        if log:
            text += "\n  engine log: " + "\n  engine log: ".join(log)
        super().__init__(text)

    def __str__(self) -> str:
        return str(self.args[0])


class ModelLoadError(EngineError, OSError):
    """A model file could not be loaded: not a model, truncated, of another kind, or refused by the engine."""


class OutOfMemoryError(EngineError, MemoryError):
    """The engine could not get the memory it needs."""


class DecodeError(EngineError):
    """Processing a batch failed."""


class ContextFullError(DecodeError):
    """The context (KV cache) has no room for the batch."""


class TranscribeError(EngineError):
    """Speech recognition failed."""


class ImageGenerationError(EngineError):
    """Image generation failed."""


class MediaError(EngineError):
    """An image or a sound could not be read or encoded."""


class ClosedError(CyllamaError, ValueError):
    """The handle has been closed."""


class InUseError(CyllamaError, RuntimeError):
    """The handle is used by another thread, or other handles still depend on it."""


class CancelledError(CyllamaError):
    """The call was cancelled; the handle stays usable."""


class GrammarError(CyllamaError, ValueError):
    """A grammar could not be parsed, or a token does not follow it."""


class UnsupportedError(CyllamaError, NotImplementedError):
    """The model, the build or the platform cannot do this."""


class ABIMismatchError(CyllamaError, ImportError):
    """Parts of the package were built against different versions of ggml."""


class DownloadError(CyllamaError, OSError):
    """A file could not be fetched, or is not what was pinned."""
