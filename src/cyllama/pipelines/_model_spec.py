"""Model specifications of a pool: kind, name and settings; how to load them and how much memory they need."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cyllama import models
from cyllama._cancel import Cancel

__all__ = ["KINDS", "Name", "Spec"]

Name = str | os.PathLike[str] | None

KINDS: dict[str, tuple[str, str]] = {
    "llm": ("cyllama.llama.llm", "LLM"),
    "whisper": ("cyllama.whisper", "Whisper"),
    "sd": ("cyllama.sd", "StableDiffusion"),
    "llava": ("cyllama.llava", "Llava"),
}
"""Module and class of each kind, imported when the first model of the kind is loaded."""

NOT_ESTIMATED = (
    "draft_model",
    "loras",
    "allow_unsafe",
    "check_memory",
    "prompt_cache",
    "prompt_cache_bytes",
)
"""Arguments of LLM that `estimate_memory` does not accept."""

LLAVA_ESTIMATED, LLAVA_CONTEXT = ("n_ctx", "n_batch", "n_threads"), 4096
"""Arguments of Llava for `estimate_memory`, and its default context."""


@dataclass(frozen=True)
class Spec:
    """A model and its settings; specifications that compare equal share one loaded model.

    Attributes
    ----------
    kind : str
    identity : str
        The name in the registry, or the real path.
    frozen : tuple
        The settings in hashable form.
    name, settings
        The arguments of the first request.
    """

    kind: str
    identity: str
    frozen: Any
    name: Name = field(compare=False)
    settings: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, kind: str, name: Name, settings: Mapping[str, object]) -> Spec:
        """Make a specification of the arguments of `ModelPool.use`.

        Raises
        ------
        ValueError
            The kind is unknown.
        TypeError
            `name` is neither a name nor a path, or a setting is not hashable.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
        return cls(kind, _identity(name), _frozen(dict(settings), "settings"), name, dict(settings))

    def load(self, on_progress: Callable[..., object] | None, cancel: Cancel | None) -> Any:
        """Load the model; raises the exceptions of its class."""
        module, name = KINDS[self.kind]
        make = getattr(importlib.import_module(module), name)
        hooks = {"cancel": cancel} | ({} if on_progress is None else {"on_progress": on_progress})
        model: Any = make(self.name, **hooks, **self.settings)
        return model

    def size(self) -> int:
        """Estimate the memory of the loaded model in bytes; may download the model.

        Notes
        -----
        Language models: weights, context and buffers (`cyllama.llama.estimate_memory`), and additional files. Other
        models: the size of their files. Memory that a call needs while it runs is not included.
        """
        estimated = ("mmproj", "prompt_cache") if self.kind == "llm" else ()
        files = sum(map(_file_size, _files(value for key, value in self.settings.items() if key not in estimated)))
        if self.name is None:
            return files
        if self.kind not in ("llm", "llava"):
            return files + _file_size(models.resolve(self.name))
        from cyllama.llama import estimate_memory

        if self.kind == "llava":
            chosen = {k: v for k, v in self.settings.items() if k in LLAVA_ESTIMATED}
            chosen = {"n_ctx": LLAVA_CONTEXT, "n_parallel": 1, **chosen}
        else:
            chosen = {k: v for k, v in self.settings.items() if k not in NOT_ESTIMATED}
        return files + estimate_memory(self.name, **chosen).total


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
    """Return the value in a hashable form that compares equal only for the same meaning."""
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
            f"{what} is {value!r}, expected a string, number, path, or a sequence or mapping of them, because models "
            "are shared by their settings"
        ) from None
    return value


def _files(values: Iterable[Any]) -> Iterator[os.PathLike[str] | str]:
    """Yield the files that settings name, by path or by the name of a model."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _files(value.values())
        elif isinstance(value, list | tuple):
            yield from _files(value)
        elif isinstance(value, str | os.PathLike) and os.fspath(value):
            if os.path.exists(value):
                yield value
            elif isinstance(value, str) and _is_model(value):
                yield models.resolve(value)


def _is_model(name: str) -> bool:
    try:
        models.find(name)
    except ValueError:
        return False
    return True


def _file_size(path: str | os.PathLike[str]) -> int:
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
