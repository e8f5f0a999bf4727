"""Pipelines that combine several engines, and a pool of loaded models.

A pipeline returns an immutable result with the final value, the intermediate values and the seconds of each step.
Models are loaded when they are first used, stay in a `ModelPool` and are shared. All functions are thread-safe.
"""

from typing import TYPE_CHECKING

from cyllama.pipelines.model_pool import LoadedModel, ModelPool, model_size

if TYPE_CHECKING:
    from cyllama.pipelines._runner import default_pool
    from cyllama.pipelines.images import caption, create_variation, illustrate
    from cyllama.pipelines.prompts import prompt_from_caption, prompt_from_speech
    from cyllama.pipelines.results import (
        Caption,
        Illustration,
        ImageVariation,
        SpeechToImageResult,
        Summary,
        VoiceChatTurn,
    )
    from cyllama.pipelines.speech import speech_to_image, summarize_audio, voice_chat

__all__ = [
    "Caption",
    "Illustration",
    "ImageVariation",
    "LoadedModel",
    "ModelPool",
    "SpeechToImageResult",
    "Summary",
    "VoiceChatTurn",
    "caption",
    "create_variation",
    "default_pool",
    "illustrate",
    "model_size",
    "prompt_from_caption",
    "prompt_from_speech",
    "speech_to_image",
    "summarize_audio",
    "voice_chat",
]

# Imported on first access, because these modules load the engines.
_MODULES = {
    "Caption": "results",
    "Illustration": "results",
    "ImageVariation": "results",
    "SpeechToImageResult": "results",
    "Summary": "results",
    "VoiceChatTurn": "results",
    "caption": "images",
    "create_variation": "images",
    "default_pool": "_runner",
    "illustrate": "images",
    "prompt_from_caption": "prompts",
    "prompt_from_speech": "prompts",
    "speech_to_image": "speech",
    "summarize_audio": "speech",
    "voice_chat": "speech",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
