"""Callables that compute a batch of rows: for Ray Data, pandas, PySpark and Dask.

Each callable has a configuration only and can be pickled. Its model is loaded where it is called, once in a process,
and the rows of a batch use the parallel slots of the engine. A batch is a dict of columns, a pandas DataFrame, a
pyarrow Table or RecordBatch, or an iterator of them. The result is of the same kind, with further columns.

>>> from cyllama.batch import Chat
>>> chat = Chat("smollm2-135m-instruct", max_tokens=16)
>>> chat({"messages": ["Hello", "Good morning"]})["response"]                    # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyllama.batch.call import BatchCall
    from cyllama.batch.media import Describe, GenerateImages, Transcribe
    from cyllama.batch.ray_arguments import RayArguments
    from cyllama.batch.text import Chat, Complete, Embed, Rerank

__all__ = [
    "BatchCall",
    "Chat",
    "Complete",
    "Describe",
    "Embed",
    "GenerateImages",
    "RayArguments",
    "Rerank",
    "Transcribe",
]

_MODULES = {
    "BatchCall": "call",
    "Chat": "text",
    "Complete": "text",
    "Describe": "media",
    "Embed": "text",
    "GenerateImages": "media",
    "RayArguments": "ray_arguments",
    "Rerank": "text",
    "Transcribe": "media",
}


def __getattr__(name: str) -> object:
    """Import a class on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
