"""Types of what chat requests contain: messages, tools, response formats, images and audio."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypedDict

import numpy.typing as npt

__all__ = [
    "Audio",
    "AudioInput",
    "ChatMessageDict",
    "ContentPart",
    "FunctionDict",
    "ImageInput",
    "Images",
    "JSONSchemaDict",
    "LoraScale",
    "Message",
    "Messages",
    "Paths",
    "Prompt",
    "ResponseFormat",
    "ResponseFormatDict",
    "StreamOptions",
    "SupportsModelDump",
    "Tool",
    "ToolChoice",
    "ToolDict",
]

Paths = str | os.PathLike[str]
Prompt = str | Sequence[int]


class SupportsModelDump(Protocol):
    """An object of pydantic, such as the messages of the package ``openai``."""

    def model_dump(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        ...


class SupportsRead(Protocol):
    """A binary file."""

    def read(self, n: int = ..., /) -> bytes:
        """Return at most `n` bytes."""
        ...


class SupportsArray(Protocol):
    """An object that NumPy converts to an array, such as a tensor of PyTorch."""

    def __array__(self) -> npt.NDArray[Any]: ...


class SupportsArrayInterface(Protocol):
    """An object that NumPy converts to an array, such as an image of Pillow."""

    @property
    def __array_interface__(self) -> Mapping[str, Any]: ...


_File = Paths | bytes | bytearray | memoryview | SupportsRead
_Array = npt.NDArray[Any] | SupportsArray
ImageInput = _File | _Array | SupportsArrayInterface
AudioInput = _File | _Array | tuple[float, npt.NDArray[Any]]


class ContentPart(TypedDict, total=False):
    """A part of a message's content; `type` names the key that has the content."""

    type: Literal[
        "text", "image", "image_url", "input_image", "audio", "audio_url", "input_audio", "input_text", "output_text"
    ]
    text: str
    image: ImageInput
    image_url: str | Mapping[str, object]
    audio: AudioInput
    audio_url: str | Mapping[str, object]
    input_audio: Mapping[str, object]


class FunctionDict(TypedDict, total=False):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, object]
    strict: bool | None


class ToolDict(TypedDict):
    """A tool in OpenAI's form."""

    type: Literal["function"]
    function: FunctionDict


class ChatMessageDict(TypedDict, total=False):
    """A message in OpenAI's form."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Sequence[ContentPart | Mapping[str, object]] | None
    name: str
    tool_calls: Sequence[Mapping[str, object]]
    tool_call_id: str
    reasoning_content: str | None


class JSONSchemaDict(TypedDict, total=False):
    """A named JSON schema."""

    name: str
    description: str
    schema: Mapping[str, object]
    strict: bool | None


class ResponseFormatDict(TypedDict, total=False):
    """A response format in OpenAI's form."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchemaDict


class StreamOptions(TypedDict, total=False):
    """Options of a stream: with `include_usage`, the last chunk has the number of tokens."""

    include_usage: bool


class LoraScale(TypedDict):
    """The weight of a loaded adapter, by its number."""

    id: int
    scale: float


Message = ChatMessageDict | Mapping[str, object] | SupportsModelDump
Messages = str | Sequence[Message]
Tool = Callable[..., object] | ToolDict | Mapping[str, object]
ToolChoice = Literal["auto", "none", "required"] | str | Mapping[str, object] | Callable[..., object]
ResponseFormat = (
    Literal["text", "json_object"]
    | ResponseFormatDict
    | Mapping[str, object]
    | type
    | types.GenericAlias
    | types.UnionType
)
Images = ImageInput | Iterable[ImageInput]
Audio = AudioInput | Iterable[AudioInput]
