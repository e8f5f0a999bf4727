"""The files of a diffusion model: resolve names to paths and assign each file to a parameter of the engine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from cyllama import models
from cyllama._native import cpu_kernels, has_gpu
from cyllama.sd._tensor_header import TensorFile, read_tensors
from cyllama.sd.families import Family, family_of, is_diffusion_model_only, prefixed, version_of
from cyllama.sd.options import MODEL_OPTIONS, model_params
from cyllama.sd.params import Embedding, SDContextParams

__all__ = ["ModelFiles", "model_files"]

TINY_AUTO_ENCODER = "tae."
PATHS = tuple(name for name in SDContextParams.__dataclass_fields__ if name.endswith("_path"))


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """The files of a model and the parameters to load them with.

    Attributes
    ----------
    params : SDContextParams
    header : TensorFile or None
        The header of the file with the diffusion model; None for a format that has none, such as pickle.
    """

    params: SDContextParams
    header: TensorFile | None

    @property
    def name(self) -> str:
        """The name of the model's file, without its suffix."""
        return _stem(self.params.diffusion_model_path or self.params.model_path)

    @property
    def vae_name(self) -> str | None:
        """The file name of a separate auto-encoder; None if there is none."""
        path = self.params.vae_path or self.params.taesd_path
        return None if path in (None, self.params.model_path) else os.path.basename(os.fsdecode(path or ""))

    def family(self, version: str) -> Family:
        """Return the family for the version that the engine reports."""
        return family_of(version, self.header)

    def detected(self) -> Family | None:
        """Return the family that the file's header shows; None if it is unknown."""
        version = None if self.header is None else version_of(prefixed(self.header))
        return None if version is None else self.family(version)


def model_files(model: Any, given: Mapping[str, Any]) -> ModelFiles:
    """Resolve the files of a model.

    Parameters
    ----------
    model : str, path or None
        A name of `cyllama.models`, or a file: a whole model, or a diffusion model alone, which becomes
        ``diffusion_model_path``. A whole model with a tiny auto-encoder and no other one uses it.
    given : mapping
        Other components and parameters of `StableDiffusion`.

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
    said = {MODEL_OPTIONS[name]: name for name in given} | {"model_path": "model"}
    for name in PATHS:
        if name in values:
            values[name] = _resolved(values[name], said[name])
    main = values.get("diffusion_model_path", values.get("model_path"))
    if main is None:
        raise ValueError("there is neither model nor diffusion_model, expected one, such as the model 'tiny-shapes'")
    header = read_tensors(main)
    if header is not None and "model_path" in values and "diffusion_model_path" not in values:
        if is_diffusion_model_only(header):
            values["diffusion_model_path"] = values.pop("model_path")
        elif not {"vae_path", "taesd_path"} & values.keys() and _has_only_tiny_auto_encoder(header):
            values["taesd_path"] = values["model_path"]
    embeddings = values.get("embeddings")
    if isinstance(embeddings, Mapping):
        values["embeddings"] = [Embedding(name=name, path=path) for name, path in embeddings.items()]
    # the engine's default does not load the encoder, which every request with an initial image needs
    values.setdefault("vae_decode_only", False)
    if cpu_kernels() and not has_gpu():
        # with this package's kernels, these need less time and memory than what the engine does by default
        for name in ("diffusion_flash_attn", "diffusion_conv_direct", "vae_conv_direct"):
            values.setdefault(name, True)
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
