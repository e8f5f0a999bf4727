"""Upstream's enums as Python enums; every value comes from the header."""

from enum import IntEnum

from cyllama.llava cimport libmtmd as lib

ChunkType = IntEnum("ChunkType", {
    "TEXT": <int> lib.MTMD_INPUT_CHUNK_TYPE_TEXT, "IMAGE": <int> lib.MTMD_INPUT_CHUNK_TYPE_IMAGE,
    "AUDIO": <int> lib.MTMD_INPUT_CHUNK_TYPE_AUDIO,
})

GenAudioType = IntEnum("GenAudioType", {
    "NONE": <int> lib.MTMD_GEN_AUDIO_TYPE_NONE, "QWEN3TTS": <int> lib.MTMD_GEN_AUDIO_TYPE_QWEN3TTS,
    "POCKETTTS": <int> lib.MTMD_GEN_AUDIO_TYPE_POCKETTTS,
})

AudioFormat = IntEnum("AudioFormat", {
    "PCM": <int> lib.MTMD_HELPER_GEN_AUDIO_OUTTYPE_PCM, "WAV": <int> lib.MTMD_HELPER_GEN_AUDIO_OUTTYPE_WAV,
})
