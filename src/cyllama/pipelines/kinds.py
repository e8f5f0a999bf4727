"""The kinds of models that a pool knows: how each is loaded, and how much memory it holds."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cyllama import models

__all__ = ["KINDS", "Spec"]

Name = str | os.PathLike[str] | None

KINDS: dict[str, tuple[str, str]] = {
    "llm": ("cyllama.llama.llm", "LLM"),
    "whisper": ("cyllama.whisper", "Whisper"),
    "sd": ("cyllama.sd", "StableDiffusion"),
    "llava": ("cyllama.llava", "Llava"),
}
"""Kind: (module, class), imported when the first model of the kind is loaded."""

NOT_OF_THE_CONTEXT = ("draft_model", "loras", "allow_unsafe", "check_memory")
"""Arguments of LLM that its estimate does not take."""

OF_LLAVA, LLAVA_CONTEXT = ("n_ctx", "n_batch", "n_threads"), 4096
"""Arguments of Llava that the estimate takes, and its own context."""


@dataclass(frozen=True)
class Spec:
    """Which model, and how it is loaded; equal for what can be shared.

    Attributes
    ----------
    kind : str
    identity : str
        The name in the registry, or the real path.
    frozen : tuple
        The settings in a form that can be compared.
    name, settings
        As they were given.
    """

    kind: str
    identity: str
    frozen: Any
    name: Name = field(compare=False)
    settings: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, kind: str, name: Name, settings: Mapping[str, Any]) -> Spec:
        """Check what is asked for.

        Raises
        ------
        ValueError
            There is no such kind.
        TypeError
            `name` is no name, or a setting cannot be compared with that of another caller.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
        return cls(kind, _identity(name), _frozen(dict(settings), "settings"), name, dict(settings))

    def load(self, on_progress: Callable[..., object] | None, cancel: Any) -> Any:
        """Load the model; the errors are those of its class."""
        module, name = KINDS[self.kind]
        make = getattr(importlib.import_module(module), name)
        hooks = {"cancel": cancel} | ({} if on_progress is None else {"on_progress": on_progress})
        model: Any = make(self.name, **hooks, **self.settings)
        return model

    def size(self) -> int:
        """How many bytes the model will hold while it is loaded.

        Notes
        -----
        Language models: weights, context and buffers as the engine would allocate them
        (`cyllama.llama.estimate_memory`), and the files that come with them. Others: their files, which are their
        weights; what a call needs while it runs comes on top. May fetch the model.
        """
        counted = ("mmproj",) if self.kind == "llm" else ()  # by the estimate
        files = sum(map(_size_of, _files(value for key, value in self.settings.items() if key not in counted)))
        if self.name is None:
            return files
        path = models.resolve(self.name)
        if self.kind not in ("llm", "llava"):
            return files + _size_of(path)
        from cyllama.llama import estimate_memory

        if self.kind == "llava":
            chosen = {k: v for k, v in self.settings.items() if k in OF_LLAVA}
            chosen = {"n_ctx": LLAVA_CONTEXT, "n_parallel": 1, **chosen}
        else:
            chosen = {k: v for k, v in self.settings.items() if k not in NOT_OF_THE_CONTEXT}
        return files + estimate_memory(path, **chosen).total


def _identity(name: Name) -> str:
    if name is None:
        return ""
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name is {name!r}, expected the name of a model or a path")
    if isinstance(name, str) and not os.path.exists(name):
        try:
            return models.find(name).name
        except ValueError:
            return name
    return os.path.realpath(name)


def _frozen(value: Any, what: str) -> Any:
    """The value in a form that has a hash and is equal only to what means the same."""
    if isinstance(value, Mapping):
        pairs = ((str(key), _frozen(item, f"{what}[{key!r}]")) for key, item in value.items())
        return ("mapping", *sorted(pairs, key=lambda pair: pair[0]))
    if isinstance(value, list | tuple):
        return ("sequence", *(_frozen(item, f"{what}[{i}]") for i, item in enumerate(value)))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | bytes | int | float):
        return value if isinstance(value, str) else (type(value).__name__, value)
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{what} is {value!r}: models are shared by their settings, expected texts, numbers, paths, and "
            "sequences and mappings of them"
        ) from None
    return value


def _files(values: Iterable[Any]) -> Iterator[os.PathLike[str] | str]:
    """The files that settings name, by path or by the name of a model."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _files(value.values())
        elif isinstance(value, list | tuple):
            yield from _files(value)
        elif isinstance(value, str | os.PathLike) and os.fspath(value):
            if os.path.exists(value):
                yield value
            elif isinstance(value, str) and _known(value):
                yield models.resolve(value)


def _known(name: str) -> bool:
    try:
        models.find(name)
    except ValueError:
        return False
    return True


def _size_of(path: str | os.PathLike[str]) -> int:
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
