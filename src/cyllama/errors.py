"""The exception classes."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes long to import
if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ABIMismatchError",
    "AudioTooLongError",
    "CancelledError",
    "ClosedError",
    "ContextFullError",
    "CyllamaError",
    "DamagedAudioWarning",
    "DecodeError",
    "DownloadError",
    "EngineError",
    "GrammarError",
    "ImageGenerationError",
    "InUseError",
    "MediaError",
    "ModelLoadError",
    "OutOfMemoryError",
    "RPCError",
    "SchemaError",
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
    """The batch does not fit into the context (KV cache).

    Attributes
    ----------
    n_prompt_tokens, n_ctx : int or None
        The tokens of the prompt, and those of a slot's context; None if unknown.
    """

    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class TranscribeError(EngineError):
    """Speech recognition failed."""


class ImageGenerationError(EngineError):
    """Image generation failed."""


class MediaError(EngineError):
    """An image, audio or video file cannot be read or encoded."""


class AudioTooLongError(CyllamaError, ValueError):
    """Audio is longer than `max_seconds` allows."""


class DamagedAudioWarning(UserWarning):
    """An audio file is damaged or truncated; the message says where. The rest of it was read."""


class ClosedError(CyllamaError, ValueError):
    """The handle is closed."""


class InUseError(CyllamaError, RuntimeError):
    """The handle is in use by another thread, or other handles depend on it."""


class CancelledError(CyllamaError):
    """The call was cancelled; the handle stays usable."""


class GrammarError(CyllamaError, ValueError):
    """A grammar cannot be parsed, or a token does not match it."""


class RPCError(EngineError, OSError):
    """An RPC server cannot be used: nothing answers, its version does not match, or it was lost.

    A model that has lost a server answers no more requests: close it and load it again.
    """


class UnsupportedError(CyllamaError, NotImplementedError):
    """The model, the build or the platform does not support the call."""


class ABIMismatchError(CyllamaError, ImportError):
    """Modules of the package were built with different versions of ggml."""


class DownloadError(CyllamaError, OSError):
    """A file cannot be downloaded, or its hash differs from the pinned one."""


class SchemaError(CyllamaError, ValueError):
    """A value does not match a JSON schema.

    Attributes
    ----------
    path : str
        Place of the value, such as ``messages[0].role``; empty for the whole value.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path or 'the value'} {message}")
        self.path = path

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.path, str(self).removeprefix(f"{self.path or 'the value'} "))
