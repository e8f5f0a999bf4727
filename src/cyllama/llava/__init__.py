"""Multimodal language models: images and audio in prompts, with mtmd, llama.cpp's multimodal library.

`describe` asks one question about an image, `Llava` keeps a model loaded for many; both use `cyllama.LLM`. The other
classes are thin handles of mtmd's own; they use `LlamaModel` and `LlamaContext` of :mod:`cyllama.llama`.
"""

from cyllama.llava._batch import MtmdBatch
from cyllama.llava._bitmap import Bitmap
from cyllama.llava._chunks import InputChunk, InputChunks
from cyllama.llava._context import MtmdContext
from cyllama.llava._core import default_marker, get_cap_from_file, system_info, version
from cyllama.llava._enums import AudioFormat, ChunkType, GenAudioType
from cyllama.llava._speech import AudioGenerator, gen_code, gen_inp_default, gen_wav
from cyllama.llava._video import Video
from cyllama.llava.chat import Llava, describe
from cyllama.llava.params import MtmdContextParams, VideoParams

__all__ = [
    "AudioFormat",
    "AudioGenerator",
    "Bitmap",
    "ChunkType",
    "GenAudioType",
    "InputChunk",
    "InputChunks",
    "Llava",
    "MtmdBatch",
    "MtmdContext",
    "MtmdContextParams",
    "Video",
    "VideoParams",
    "default_marker",
    "describe",
    "gen_code",
    "gen_inp_default",
    "gen_wav",
    "get_cap_from_file",
    "system_info",
    "version",
]
