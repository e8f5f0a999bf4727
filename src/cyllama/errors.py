"""The exception classes."""

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
    """Base class of cyllama's exceptions."""


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
        The last warnings and errors that the engine logged in the calling thread.
    aborted : bool
        Whether an assertion of the engine failed; the handle of the call can then only be closed.
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
    """A model file cannot be loaded: it is not a model, truncated, of another kind, or not supported."""


class OutOfMemoryError(EngineError, MemoryError):
    """The engine could not allocate memory."""


class DecodeError(EngineError):
    """Processing a batch failed."""


class ContextFullError(DecodeError):
    """The batch does not fit into the context (KV cache)."""


class TranscribeError(EngineError):
    """Speech recognition failed."""


class ImageGenerationError(EngineError):
    """Image generation failed."""


class MediaError(EngineError):
    """An image, audio or video file cannot be read or encoded."""


class ClosedError(CyllamaError, ValueError):
    """The handle is closed."""


class InUseError(CyllamaError, RuntimeError):
    """The handle is in use by another thread, or other handles depend on it."""


class CancelledError(CyllamaError):
    """The call was cancelled; the handle stays usable."""


class GrammarError(CyllamaError, ValueError):
    """A grammar cannot be parsed, or a token does not match it."""


class UnsupportedError(CyllamaError, NotImplementedError):
    """The model, the build or the platform does not support the call."""


class ABIMismatchError(CyllamaError, ImportError):
    """Modules of the package were built with different versions of ggml."""


class DownloadError(CyllamaError, OSError):
    """A file cannot be downloaded, or its hash differs from the pinned one."""
