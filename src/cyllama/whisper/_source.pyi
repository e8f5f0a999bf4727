from typing import Final

from cyllama.whisper.model_files import ModelFile


class ModelSource:
    what: Final[str]

    def __init__(self, model: ModelFile): ...
