"""What a program written for diffusers expects of `StableDiffusion`: lists of prompts, generators, names of models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cyllama import models
from cyllama._paths import expanded
from cyllama.errors import UnsupportedError
from cyllama.sd.params import Lora
from cyllama.sd.results import ImageResult

__all__ = ["Adapters", "Call", "calls_of", "joined", "load_options", "pretrained_name", "single_file_name"]

DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "float": "f32", "half": "f16"}
HOSTS = ("huggingface.co", "hf.co")
SEEDS = ("seed", "generator")
# Arguments of from_pretrained that have no counterpart: the accepted values, and what to do instead.
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_safetensors": ((None, True), "checkpoints are read by from_single_file"),
    "safety_checker": ((None,), "images are not checked"),
    "requires_safety_checker": ((None, False), "images are not checked"),
    "feature_extractor": ((None,), "images are not checked"),
    "variant": ((None,), "weights are converted by torch_dtype"),
    "low_cpu_mem_usage": ((None, True), "weights are always loaded once"),
    "cache_dir": ((None,), "the folder is that of HF_HOME"),
    "token": ((None,), "set HF_TOKEN"),
    "scheduler": ((None,), "it is an option of a call: scheduler='karras'"),
    "device_map": ((None,), "a GPU is used if there is one"),
    "config": ((None,), "the family is found in the file"),
    "original_config": ((None,), "the family is found in the file"),
}
MAX_PROMPTS = 256


class Call(NamedTuple):
    """One call of the engine: a prompt, its images, and the options that are its own."""

    prompt: str
    image: Any
    mask_image: Any
    options: dict[str, Any]


def load_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `StableDiffusion` for those of diffusers' loaders.

    Raises
    ------
    UnsupportedError
        An option has no counterpart.
    TypeError, ValueError
    """
    options = dict(given)
    for name, (accepted, instead) in UNSUPPORTED.items():
        value = options.pop(name, None)
        if not any(value is item for item in accepted) and value is not None:
            raise UnsupportedError(f"{name} is {value!r}, which is not supported: {instead}")
    dtype = options.pop("torch_dtype", options.pop("dtype", None))
    if dtype is not None:
        if "wtype" in options or "type" in options:
            raise TypeError("wtype was given twice, once as torch_dtype")
        kind = str(dtype).removeprefix("torch.")
        if kind not in DTYPES:
            raise ValueError(f"torch_dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
        options["wtype"] = DTYPES[kind]
    return options


def pretrained_name(name: str | os.PathLike[str], options: dict[str, Any]) -> str | os.PathLike[str]:
    """Return the name of a model for `models.resolve`, and remove what belongs to it from the options.

    Raises
    ------
    FileNotFoundError
        ``local_files_only`` was given, and the model is not on this machine.
    """
    revision, local = options.pop("revision", None), options.pop("local_files_only", False)
    if isinstance(name, str) and revision is not None and not expanded(name).exists():
        name = f"{models.HUB_PREFIX}{name.removeprefix(models.HUB_PREFIX)}@{revision}"
    found = models.check(name)
    if local and isinstance(found, str):
        path = models.cached(found)
        if path is None:
            raise FileNotFoundError(f"{name} is not on this machine; call without local_files_only, or `cyllama pull`")
        return path
    return name


def single_file_name(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the name of a file; a URL of the Hugging Face hub becomes ``hf:organisation/repository/file``."""
    if not isinstance(source, str) or not source.startswith(("https://", "http://")):
        return source
    parts = urlsplit(source)
    words = parts.path.strip("/").split("/")
    if parts.hostname not in HOSTS or len(words) < 5 or words[2] not in ("blob", "resolve"):
        raise ValueError(f"{source} is not a file of the Hugging Face hub; download it, and give its path")
    revision = "" if words[3] == "main" else f"@{words[3]}"
    return f"{models.HUB_PREFIX}{words[0]}/{words[1]}{revision}/{'/'.join(words[4:])}"


# ------------------------------------------------------------------------------------------- calls


def calls_of(prompt: str | Sequence[str], image: Any, mask_image: Any, options: Mapping[str, Any]) -> list[Call]:
    """Return the calls for a prompt or a list of prompts.

    Parameters
    ----------
    prompt : str or sequence of str
    image, mask_image : image, or a list with one for each prompt
    options : mapping
        ``negative_prompt`` may be a list with one for each prompt, ``generator`` (or ``seed``) a list with one for
        each image. One seed for several prompts is that of the first image; the others have the next ones.

    Raises
    ------
    TypeError, ValueError
    """
    prompts = _strings(prompt, "prompt")
    rest = dict(options)
    if rest.get("generator") is not None and rest.get("seed") is not None:
        raise TypeError("seed was given twice, once as generator")
    negatives = _spread(rest.pop("negative_prompt", None), len(prompts), "negative_prompt")
    images = _spread(image, len(prompts), "image")
    masks = _spread(mask_image, len(prompts), "mask_image")
    count = next((rest[name] for name in ("num_images_per_prompt", "batch_size", "batch_count") if name in rest), 1)
    seed = next((rest.pop(name) for name in SEEDS if rest.get(name) is not None), None)
    found = []
    for i, text in enumerate(prompts):
        own = {**rest, **({} if negatives[i] is None else {"negative_prompt": negatives[i]})}
        if isinstance(seed, list | tuple):
            found += _seeded_calls(Call(text, images[i], masks[i], own), seed, i, len(prompts), int(count or 1))
            continue
        if seed is not None:
            first = _seed_of(seed)
            own["seed"] = first + i * int(count or 1) if first >= 0 else first
        found.append(Call(text, images[i], masks[i], own))
    return found


def _seeded_calls(call: Call, seeds: Sequence[Any], i: int, prompts: int, count: int) -> list[Call]:
    """Return a call for each image of a prompt, each with its own seed."""
    if len(seeds) != prompts * count:
        raise ValueError(f"generator has {len(seeds)} items, expected one for each of {prompts * count} images")
    own = {name: value for name, value in call.options.items() if name not in ("num_images_per_prompt", "batch_count")}
    return [
        call._replace(options={**own, "batch_size": 1, "seed": _seed_of(seed)})
        for seed in seeds[i * count : (i + 1) * count]
    ]


def _seed_of(value: Any) -> int:
    """Return the seed of an integer, or of a generator of torch or NumPy."""
    initial = getattr(value, "initial_seed", None)
    if callable(initial):
        return int(initial())
    if callable(getattr(value, "integers", None)):  # numpy.random.Generator
        return int(value.integers(1 << 32))
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"generator is {value!r}, expected an integer, or a generator with a seed")
    return int(value)


def _strings(value: str | Sequence[str], name: str) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} is {value!r}, expected a string or a list of strings")
    if not 0 < len(value) <= MAX_PROMPTS:
        raise ValueError(f"{name} has {len(value)} items, expected 1 to {MAX_PROMPTS}")
    return list(value)


def _spread(value: Any, count: int, name: str) -> list[Any]:
    """Return a value for each prompt: the items of a list, or the same value."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} items, expected one for each of {count} prompts")
    return list(value)


def joined(results: Sequence[ImageResult]) -> ImageResult:
    """Return the images of several calls; the parameters are those of the first."""
    if len(results) == 1:
        return results[0]
    images = [image for result in results for image in result]
    seeds = [seed for result in results for seed in result.seeds]
    texts = [text for result in results for text in result.infotexts]
    return ImageResult(images, seeds, results[0].parameters, texts)


# ---------------------------------------------------------------------------------------- adapters


class Adapters:
    """The LoRAs that stay loaded, by name."""

    def __init__(self) -> None:
        self._loaded: dict[str, Lora] = {}
        self._weights: dict[str, float] = {}

    def load(self, source: str | os.PathLike[str], weight_name: str | None, name: str | None) -> None:
        """Add a LoRA: a file, a folder with `weight_name`, or a repository of the hub.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError, DownloadError
        """
        if not isinstance(source, str | os.PathLike):
            raise TypeError(f"the LoRA is {type(source).__name__}, expected a path or the name of a repository")
        path = expanded(source)
        if path.is_dir():
            if weight_name is None:
                raise ValueError(f"{path} is a folder, expected weight_name with the file in it")
            path = path / weight_name
        elif not path.exists() and weight_name is not None:
            repository = str(source).removeprefix(models.HUB_PREFIX)
            path = models.resolve(f"{models.HUB_PREFIX}{repository}/{weight_name}")
        else:
            path = models.resolve(source)
        if not path.is_file():
            raise FileNotFoundError(f"no such file: {path}")
        chosen = f"default_{len(self._loaded)}" if name is None else name
        if chosen in self._loaded:
            raise ValueError(f"adapter_name is {chosen!r}, which is in use; unload_lora_weights() removes all")
        self._loaded[chosen] = Lora(path=path, multiplier=1.0)
        self._weights[chosen] = 1.0

    def select(self, names: str | Sequence[str], weights: float | Sequence[float] | None) -> None:
        """Use these LoRAs only, with these weights.

        Raises
        ------
        ValueError
            A name is not loaded, or the numbers of names and weights differ.
        """
        chosen = [names] if isinstance(names, str) else list(names)
        values = [1.0] * len(chosen) if weights is None else weights
        values = [float(values)] * len(chosen) if isinstance(values, int | float) else [float(item) for item in values]
        unknown = [name for name in chosen if name not in self._loaded]
        if unknown:
            raise ValueError(f"there is no adapter {unknown[0]!r}, expected one of {', '.join(self._loaded) or 'none'}")
        if len(values) != len(chosen):
            raise ValueError(
                f"adapter_weights has {len(values)} items, expected one for each of {len(chosen)} adapters"
            )
        self._weights = dict(zip(chosen, values, strict=True))

    def clear(self) -> None:
        """Remove all LoRAs."""
        self._loaded.clear()
        self._weights.clear()

    @property
    def active(self) -> list[Lora]:
        """The LoRAs of the next call."""
        return [Lora(path=self._loaded[name].path, multiplier=weight) for name, weight in self._weights.items()]

    @property
    def names(self) -> list[str]:
        """The names of the LoRAs of the next call."""
        return list(self._weights)
