"""The properties of a loaded model and the state of its slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cyllama.llama.responses import Record

__all__ = ["GenerationSettings", "Modalities", "ModelProperties", "Slot"]


class Slot(Record):
    """The state of a slot."""

    __slots__ = ()
    id: int
    n_ctx: int
    is_processing: bool
    speculative: bool


class GenerationSettings(Record):
    """The settings of a slot; `n_ctx` is the number of tokens of its context."""

    __slots__ = ()
    n_ctx: int
    params: Record


class Modalities(Record):
    """The media that a model accepts."""

    __slots__ = ()
    vision: bool
    audio: bool


class ModelProperties(Record):
    """The settings, the chat template and the path of a loaded model."""

    __slots__ = ()
    _records: ClassVar[Mapping[str, type[Record]]] = {
        "default_generation_settings": GenerationSettings,
        "modalities": Modalities,
    }
    default_generation_settings: GenerationSettings
    total_slots: int
    model_path: str
    modalities: Modalities
    chat_template: str
    chat_template_caps: Record
    bos_token: str
    eos_token: str
    build_info: str
