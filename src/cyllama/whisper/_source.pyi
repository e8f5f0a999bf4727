from typing import Final

from cyllama.whisper._model_source import ModelFile


class ModelSource:
    what: Final[str]

    def __init__(self, model: ModelFile): ...
