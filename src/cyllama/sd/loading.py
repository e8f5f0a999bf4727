"""Which files make up a model: names become paths, and each file goes where the engine looks for it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from cyllama import models
from cyllama.sd.family import Family, family_of, is_bare, prefixed, version_of
from cyllama.sd.options import model_params
from cyllama.sd.params import Embedding, SDContextParams
from cyllama.sd.tensors import TensorFile, read_tensors

__all__ = ["ModelFiles", "model_files"]

TINY_AUTO_ENCODER = "tae."
PATHS = tuple(f.name for f in dataclasses.fields(SDContextParams) if f.metadata["kind"] == "path")


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """What is to be loaded.

    Attributes
    ----------
    params : SDContextParams
    header : TensorFile or None
        Of the file with the diffusion model; None if it has no header that can be read safely.
    """

    params: SDContextParams
    header: TensorFile | None

    @property
    def name(self) -> str:
        """The model's name: that of its file, without the ending."""
        return _stem(self.params.diffusion_model_path or self.params.model_path)

    @property
    def vae_name(self) -> str | None:
        """The file of an auto-encoder of its own."""
        path = self.params.vae_path or self.params.taesd_path
        return None if path in (None, self.params.model_path) else os.path.basename(os.fsdecode(path or ""))

    def family(self, version: str) -> Family:
        """The family, once the engine has said what it is."""
        return family_of(version, self.header)

    def detected(self) -> Family | None:
        """The family, by the file alone; None if that does not tell."""
        version = None if self.header is None else version_of(prefixed(self.header))
        return None if version is None else self.family(version)


def model_files(model: Any, given: Mapping[str, Any]) -> ModelFiles:
    """Find the files of a model.

    Parameters
    ----------
    model : str, path or None
        A name of `cyllama.models`, or a file: a whole model, or a diffusion model alone, which the engine wants to be
        told apart. A whole model with a tiny auto-encoder inside uses that.
    given : mapping
        Other parts and parameters, as of `StableDiffusion`.

    Returns
    -------
    ModelFiles

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ModelLoadError
    """
    values = model_params(given)
    if model is not None:
        if "model_path" in values:
            raise TypeError("model_path was given twice, once as model")
        values["model_path"] = model
    values = {name: value for name, value in values.items() if value is not None}
    for name in PATHS:
        if name in values:
            values[name] = _resolved(values[name], name)
    main = values.get("diffusion_model_path", values.get("model_path"))
    if main is None:
        raise ValueError("there is neither model nor diffusion_model")
    header = read_tensors(main)
    if header is not None and "model_path" in values and "diffusion_model_path" not in values:
        if is_bare(header):
            values["diffusion_model_path"] = values.pop("model_path")
        elif not {"vae_path", "taesd_path"} & values.keys() and _has_only_tiny_auto_encoder(header):
            values["taesd_path"] = values["model_path"]
    embeddings = values.get("embeddings")
    if isinstance(embeddings, Mapping):
        values["embeddings"] = [Embedding(name=name, path=path) for name, path in embeddings.items()]
    # the engine's own default leaves the encoder out, and with it everything that starts from a picture
    values.setdefault("vae_decode_only", False)
    return ModelFiles(SDContextParams(**values), header)


def _resolved(value: Any, name: str) -> Any:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is {value!r}, expected a path or the name of a model")
    return models.resolve(value)


def _has_only_tiny_auto_encoder(header: TensorFile) -> bool:
    names = header.tensors
    return any(name.startswith(TINY_AUTO_ENCODER) for name in names) and not any(
        name.startswith(("first_stage_model.", "vae.")) for name in names
    )


def _stem(path: Any) -> str:
    return os.path.splitext(os.path.basename(os.path.normpath(os.fsdecode(path))))[0]
