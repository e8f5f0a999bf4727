"""Images and sound into a language model: mtmd, llama.cpp's multimodal library.

`describe` asks one question about a picture, `Llava` keeps the models loaded for many. The classes below are thin
handles on mtmd's; they work on the `LlamaModel` and the `LlamaContext` of :mod:`cyllama.llama`.
"""

from cyllama.llava._batch import MtmdBatch
from cyllama.llava._bitmap import Bitmap
from cyllama.llava._chunks import InputChunk, InputChunks
from cyllama.llava._context import MtmdContext
from cyllama.llava._core import default_marker, get_cap_from_file, system_info, version
from cyllama.llava._enums import AudioFormat, ChunkType, GenAudioType
from cyllama.llava._speech import AudioGenerator, gen_code, gen_inp_default, gen_wav
from cyllama.llava._video import Video
from cyllama.llava.answers import Answer, AnswerStream, Timings
from cyllama.llava.chat import Llava, describe
from cyllama.llava.params import MtmdContextParams, VideoParams

__all__ = [
    "Answer",
    "AnswerStream",
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
    "Timings",
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
