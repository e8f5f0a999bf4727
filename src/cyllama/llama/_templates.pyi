from typing import Any

from cyllama._native._handle import Handle
from cyllama.llama._model import LlamaModel


class ChatTemplate(Handle):
    def __init__(self, model: LlamaModel, template: str | None=None, *, jinja: bool | None=None) -> None: ...
    @property
    def source(self) -> str: ...
    def apply(self, messages: list[Any], add_generation_prompt: bool=True) -> str: ...
