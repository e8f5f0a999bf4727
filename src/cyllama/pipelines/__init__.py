"""Several engines together: a pool of loaded models, and small functions that go from one engine to the next.

Each pipeline returns an immutable record of the final result, every intermediate one, and the seconds of each step.
Models are loaded when they are first needed, stay in a `ModelPool` and are shared. All functions may be called from
many threads at once.
"""

from typing import TYPE_CHECKING, Any

from cyllama.pipelines.pool import LoadedModel, ModelPool

if TYPE_CHECKING:
    from cyllama.pipelines.pictures import caption, describe_and_redraw, illustrate
    from cyllama.pipelines.prompts import drawable, spoken_prompt
    from cyllama.pipelines.results import Caption, Illustration, Redrawing, SpokenPicture, Summary, VoiceAnswer
    from cyllama.pipelines.speech import speech_to_image, summarize_audio, voice_chat
    from cyllama.pipelines.steps import default_pool

__all__ = [
    "Caption",
    "Illustration",
    "LoadedModel",
    "ModelPool",
    "Redrawing",
    "SpokenPicture",
    "Summary",
    "VoiceAnswer",
    "caption",
    "default_pool",
    "describe_and_redraw",
    "drawable",
    "illustrate",
    "speech_to_image",
    "spoken_prompt",
    "summarize_audio",
    "voice_chat",
]

# Imported when they are first asked for: the pool alone loads no engine.
_LATER = {
    "Caption": "results",
    "Illustration": "results",
    "Redrawing": "results",
    "SpokenPicture": "results",
    "Summary": "results",
    "VoiceAnswer": "results",
    "caption": "pictures",
    "default_pool": "steps",
    "describe_and_redraw": "pictures",
    "drawable": "prompts",
    "illustrate": "pictures",
    "speech_to_image": "speech",
    "spoken_prompt": "prompts",
    "summarize_audio": "speech",
    "voice_chat": "speech",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
