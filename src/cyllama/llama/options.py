"""The options of `LLM`, and how they become arguments of upstream's parser."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import numbers
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyllama import models
from cyllama._native import get_threads, has_gpu
from cyllama._native._gguf import GGUFContext
from cyllama._params import check_names
from cyllama.errors import UnsupportedError
from cyllama.llama._chat_template import TEMPLATE_OPTIONS, template_arguments
from cyllama.llama._engine import engine_options
from cyllama.llama._media import check_projector

__all__ = [
    "LLMOptions",
    "adapter_arguments",
    "draft_arguments",
    "engine_options",
    "ignored_reason",
    "is_http_option",
    "llm_options",
    "model_arguments",
    "more_arguments",
    "request_defaults",
    "unsafe_reason",
]

Paths = str | os.PathLike[str]

# Options that a library should not accept from a configuration, unless allow_unsafe=True.
UNSAFE = {
    "--tools": "starts tools",
    "--tools-runtime": "starts tools",
    "--agent": "starts tools",
    "--mcp-servers-config": "starts programs",
    "--mcp-servers-json": "starts programs",
    "--ui-mcp-proxy": "opens a proxy",
    "--video-ffmpeg-dir": "starts programs",
    "--log-file": "writes a file",
    "--log-prompts-dir": "writes files",
}
# Options of llama-server's HTTP: names and prefixes.
HTTP = {
    "--host",
    "--port",
    "--path",
    "--reuse-port",
    "--timeout",
    "--sse-ping-interval",
    "--threads-http",
    "--slot-save-path",
    "--metrics",
    "--props",
    "--slots",
    "--no-slots",
    "--tags",
}
HTTP_GROUPS = (
    "--api-", "--cors-", "--no-cors-", "--ssl-", "--models-", "--no-models-",
    "--ui", "--webui", "--no-ui", "--no-webui",
)  # fmt: skip
# Options that upstream's parser accepts and that have no effect here: the reason, and the names.
IGNORED = {
    "logging is Python's, see cyllama.log": (
        "--log-disable", "--log-colors", "--log-prefix", "--no-log-prefix", "--log-timestamps", "--no-log-timestamps",
        "--log-jsonl", "--no-log-jsonl",
    ),
    "texts are never unescape": ("--escape", "--no-escape"),
    "nothing is downloaded": ("--offline",),
    "there are no built-in tools": ("--no-agent",),
    "a projector is used if mmproj= names one, or if hf:org/repo has one; name its file, hf:org/repo/file": (
        "--no-mmproj",
    ),
    "chats do not accept videos, cyllama.llava reads them": ("--video-fps", "--video-timestamp-interval"),
    "upstream ignores it": (
        "--defrag-thold", "--spec-draft-cpu-mask", "--spec-draft-cpu-range", "--spec-draft-cpu-strict",
        "--spec-draft-prio", "--spec-draft-poll", "--spec-draft-p-split", "--spec-draft-cpu-mask-batch",
        "--spec-draft-cpu-strict-batch", "--spec-draft-prio-batch", "--spec-draft-poll-batch",
    ),
}  # fmt: skip
REPLACED = {"--media-path": "allow_paths"}  # by arguments of LLM
VERBOSE, VERBOSITY = ("-v", "--verbose", "--log-verbose"), ("-lv", "--verbosity", "--log-verbosity")
MOST_LOGGED = 9  # with a higher verbosity, upstream's responses have details
EMBEDDING_BATCH = 2048
# Defaults that differ from upstream's, whose prompt cache is 8 GiB.
DEFAULTS = ("--kv-unified", "--cache-ram", "512")
DOWNLOADS = ("--hf-", "--docker-", "-url", "--mmproj-auto")


def unsafe_reason(option: Mapping[str, Any]) -> str | None:
    """Return why an option needs allow_unsafe=True; None if it does not."""
    names = option["names"]
    if "download" in option["help"] or any(part in name for name in names for part in DOWNLOADS):
        return "downloads"
    return next((UNSAFE[name] for name in names if name in UNSAFE), None)


def is_http_option(option: Mapping[str, Any]) -> bool:
    """Return whether an option is one of upstream's HTTP server."""
    return any(name in HTTP or name.startswith(HTTP_GROUPS) for name in option["names"])


def ignored_reason(option: Mapping[str, Any]) -> str | None:
    """Return why an option has no effect; None if it has one."""
    if "the argument has been removed" in option["help"]:
        return "upstream has removed it"
    return next((why for why, names in IGNORED.items() if not set(names).isdisjoint(option["names"])), None)


def _option(default: Any, help_text: str, flag: str, off: str = "", least: int | None = None) -> Any:
    """Return a field: `flag` is the name of the option, `off` that of its opposite, `least` the smallest value."""
    return field(default=default, metadata={"help": help_text, "flag": flag, "off": off, "least": least})


@dataclass(kw_only=True, frozen=True)
class LLMOptions:
    """The options of a model; None is upstream's default."""

    n_ctx: int | None = _option(
        None,
        "tokens of the context; None: as many as the model was trained with, or as fit in memory",
        "--ctx-size",
        least=0,
    )
    n_parallel: int | None = _option(
        None, "number of slots: requests that are computed at the same time", "--parallel", least=1
    )
    n_batch: int | None = _option(None, "the most tokens of a batch", "--batch-size", least=1)
    n_ubatch: int | None = _option(None, "the most tokens that are computed at once", "--ubatch-size", least=1)
    n_threads: int | None = _option(None, "number of threads", "--threads")
    n_threads_batch: int | None = _option(None, "number of threads for prompts", "--threads-batch")
    n_gpu_layers: int | str | None = _option(None, "layers on the GPU: a number, 'auto' or 'all'", "--n-gpu-layers")
    split_mode: str | None = _option(None, "how the model is split across GPUs: none, layer or row", "--split-mode")
    main_gpu: int | None = _option(None, "the GPU for the model, or for small tensors", "--main-gpu")
    tensor_split: Sequence[float] | None = _option(None, "the fraction of the model for each GPU", "--tensor-split")
    rpc: Sequence[str] | str | None = _option(
        None, "RPC servers, HOST:PORT, whose devices compute parts of the model; they are the first devices", "--rpc"
    )
    load_mode: str | None = _option(None, "how the file is loaded: none, mmap, mlock, mmap+mlock or dio", "--load-mode")
    flash_attn: bool | str | None = _option(None, "flash attention: on, off or auto", "--flash-attn")
    cache_type_k: str | None = _option(None, "type of the keys in the KV cache, such as q8_0", "--cache-type-k")
    cache_type_v: str | None = _option(None, "type of the values in the KV cache", "--cache-type-v")
    rope_scaling_type: str | None = _option(None, "scaling of RoPE: none, linear or yarn", "--rope-scaling")
    rope_freq_base: float | None = _option(None, "base frequency of RoPE", "--rope-freq-base")
    rope_freq_scale: float | None = _option(None, "scale of RoPE's frequencies", "--rope-freq-scale")
    yarn_orig_ctx: int | None = _option(None, "YaRN: context length that the model was trained with", "--yarn-orig-ctx")
    yarn_ext_factor: float | None = _option(None, "YaRN: mix of extrapolation", "--yarn-ext-factor")
    yarn_attn_factor: float | None = _option(None, "YaRN: scale of attention", "--yarn-attn-factor")
    yarn_beta_slow: float | None = _option(None, "YaRN: high correction", "--yarn-beta-slow")
    yarn_beta_fast: float | None = _option(None, "YaRN: low correction", "--yarn-beta-fast")
    ctx_shift: bool | None = _option(
        None, "discard the oldest tokens when the context is full", "--context-shift", "--no-context-shift"
    )
    cache_reuse: int | None = _option(
        None, "the fewest tokens of a prompt that are reused from the prompt cache by shifting", "--cache-reuse"
    )
    chat_template: Paths | None = _option(
        None, "a Jinja template, a file that contains one, or the name of a built-in template", "--chat-template"
    )
    chat_template_kwargs: Mapping[str, Any] | str | None = _option(
        None, "variables of the chat template, a mapping or JSON", "--chat-template-kwargs"
    )
    reasoning_format: str | None = _option(
        None, "how reasoning is extracted from the text: none, deepseek or auto", "--reasoning-format"
    )
    embedding: bool | None = _option(None, "load the model for embeddings only", "--embeddings")
    reranking: bool | None = _option(None, "load the model for reranking only", "--reranking")
    pooling_type: str | None = _option(
        None, "how the vectors of tokens become one: none, mean, cls, last or rank", "--pooling"
    )
    mmproj: Paths | None = _option(
        None, "projector for images and audio: a file, or a name of cyllama.models", "--mmproj"
    )
    n_gpu_layers_draft: int | str | None = _option(None, "layers of the draft model on the GPU", "--n-gpu-layers-draft")
    draft_max: int | None = _option(None, "the most drafted tokens", "--spec-draft-n-max")
    draft_min: int | None = _option(None, "the fewest drafted tokens", "--spec-draft-n-min")
    draft_p_min: float | None = _option(None, "the smallest probability of a drafted token", "--spec-draft-p-min")
    seed: int | None = _option(None, "seed of the random numbers, if a request has none", "--seed")
    warmup: bool | None = _option(None, "compute an empty batch after loading", "--warmup", "--no-warmup")


def llm_options(given: Mapping[str, Any]) -> LLMOptions:
    """Return the options of a mapping.

    Raises
    ------
    TypeError
        An option does not exist; the message names the nearest.
    """
    check_names(given, [item.name for item in dataclasses.fields(LLMOptions)], "LLM")
    if given.get("mmproj") is not None:
        given = {**given, "mmproj": models.resolve(given["mmproj"])}
    return LLMOptions(**given)


def found_model(
    model: Paths, settings: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> tuple[Path, LLMOptions]:
    """Return the file of a model and its options; a model of the hub or of Ollama comes with its projector.

    Raises
    ------
    TypeError, FileNotFoundError, DownloadError, UnsupportedError
        As of `cyllama.models.resolve` and `llm_options`.
    """
    path, chosen = models.resolve(model), llm_options(settings)
    has_projector = chosen.mmproj is not None or any("mmproj" in str(name) for name in options or {})
    if not has_projector and not chosen.embedding and not chosen.reranking:
        chosen = dataclasses.replace(chosen, mmproj=models.projector(model))
    return path, chosen


def model_arguments(
    model: str | os.PathLike[str],
    chosen: LLMOptions,
    options: Mapping[str, Any] | None,
    *,
    allow_unsafe: bool = False,
) -> list[str]:
    """Return the arguments of upstream's parser for a model; parameters as of `cyllama.LLM`."""
    path = os.fspath(model)
    more = more_arguments(options or {}, allow_unsafe=allow_unsafe)
    offloads = bool(chosen.rpc) or "--rpc" in more or has_gpu()
    arguments = ["--model", path, "--alias", Path(path).stem, *DEFAULTS, *option_arguments(chosen, offloads), *more]
    for flag, value in itertools.pairwise(arguments):
        if flag in ("-mm", "--mmproj"):
            check_projector(value)
        if flag == "--rpc":
            _check_rpc_servers(value)
        if flag in ("-n", "--predict", "--n-predict") and value.startswith("-") and value != "-1":
            raise ValueError(f"n-predict is {value}, expected -1 (no limit) or more")  # upstream stops after one token
    return arguments


def _check_rpc_servers(servers: str) -> None:
    from cyllama.rpc import endpoints, probe  # few models need it

    for endpoint in endpoints(servers):
        probe(endpoint)


def option_arguments(options: LLMOptions, offloads: bool) -> list[str]:
    """Return the options as arguments of upstream's parser.

    Parameters
    ----------
    options : LLMOptions
    offloads : bool
        Whether there will be a device for `n_gpu_layers`.

    Raises
    ------
    TypeError
    """
    found: list[str] = []
    if options.n_threads is None:
        found += ["--threads", str(get_threads())]
    if not offloads:
        # Nothing can be fitted; and upstream replaces the log while it tries, which crashes the process if two models
        # are loaded at once.
        found += ["--fit", "off"]
    if isinstance(options.n_gpu_layers, int | str) and options.n_gpu_layers not in (0, "auto") and not offloads:
        warnings.warn(f"n_gpu_layers is {options.n_gpu_layers!r}, but this build has no usable GPU; "
                      "see cyllama.devices()", RuntimeWarning, stacklevel=5)  # fmt: skip
    if (options.embedding or options.reranking) and options.n_ubatch is None:
        # a text must fit into one batch
        found += [
            "--batch-size",
            str(options.n_ctx or EMBEDDING_BATCH),
            "--ubatch-size",
            str(options.n_ctx or EMBEDDING_BATCH),
        ]
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        flag, off = item.metadata["flag"], item.metadata["off"]
        if value is None:
            continue
        kind = str(item.type).removesuffix(" | None")
        if kind == "int":
            _check_integer(item.name, value, item.metadata["least"])
        if isinstance(value, bool) != (kind == "bool") and not (isinstance(value, bool) and "bool" in kind):
            raise TypeError(f"{item.name} is {value!r}, expected {kind.replace(' | ', ' or ')}")
        if flag in TEMPLATE_OPTIONS:
            found += template_arguments(value)
        elif kind == "bool":
            if value:
                found.append(flag)
            elif off:
                found.append(off)
        else:
            found += [flag, _text(value, item.name)]
    return found


def _check_integer(name: str, value: Any, least: int | None) -> None:
    """Reject what upstream's parser would truncate, such as 2.5."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}, expected an integer")
    most = 2**32 - 1 if name == "seed" else 2**31 - 1
    if not (-(2**31) if least is None else least) <= value <= most:
        raise ValueError(f"{name} is {value}, expected {-(2**31) if least is None else least} to {most}")


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | numbers.Real):
        return str(value)
    if isinstance(value, Mapping) and name == "chat_template_kwargs":
        return json.dumps(value)
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes | bytearray):
        return ",".join(_text(item, name) for item in value)
    raise TypeError(f"{name} is {value!r}, expected a number, a string, a path or a sequence of them")


def more_arguments(options: Mapping[str, Any], *, allow_unsafe: bool = False) -> list[str]:
    """Return the arguments for options by upstream's names.

    Parameters
    ----------
    options : mapping
        ``{"top-nsigma": 1.5, "mlock": True, "lora-scaled": ["a.gguf", 0.5]}``
    allow_unsafe : bool

    Raises
    ------
    TypeError
        An option does not exist; the message names the nearest.
    UnsupportedError
        The option downloads, starts a program or writes files, and `allow_unsafe` is false; or it is one of upstream's
        HTTP server.
    """
    every: Any = engine_options()
    known: dict[str, Any] = {name: info for info in every for name in info["names"]}
    found: list[str] = []
    for name, value in options.items():
        flag = next((f for f in (name, f"--{name}", f"-{name}", f"--{name.replace('_', '-')}") if f in known), None)
        if flag is None:
            near = difflib.get_close_matches(f"--{name.replace('_', '-')}", known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"options has {name!r}, which is not an option of upstream{hint}")
        if is_http_option(known[flag]):
            raise UnsupportedError(f"the option {name!r} is one of llama-server's HTTP; `cyllama serve` has its own")
        ignored = ignored_reason(known[flag])
        if ignored is not None:
            raise UnsupportedError(f"the option {name!r} has no effect: {ignored}")
        if flag in REPLACED:
            raise TypeError(f"options has {name!r}, which is {REPLACED[flag]}= here")
        unsafe = unsafe_reason(known[flag])
        if unsafe is not None and not allow_unsafe:
            raise UnsupportedError(f"the option {name!r} {unsafe}; it needs allow_unsafe=True")
        values = known[flag]["values"]
        if flag in TEMPLATE_OPTIONS:
            found += template_arguments(Path(value) if flag.endswith("-file") else value, f"options[{name!r}]")
        elif values == 0:
            if not isinstance(value, bool):
                raise TypeError(f"options[{name!r}] is {value!r}, expected True or False")
            chosen = flag if value else next(filter(known.__contains__, map(_opposite, known[flag]["names"])), None)
            found += [] if chosen is None else [chosen]
        else:
            parts = [value] if values == 1 else [] if isinstance(value, str) else list(value)
            if len(parts) != values:
                raise TypeError(f"options[{name!r}] is {value!r}, expected {values} values")
            found += [flag, *(_text(part, name) for part in parts)]
    return found


def _opposite(flag: str) -> str:
    """Return the flag that turns off what `flag` turns on: ``--no-repack`` for ``--repack``, and the reverse."""
    return f"--{flag.removeprefix('--no-')}" if flag.startswith("--no-") else f"--no-{flag.removeprefix('--')}"


def request_defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the fields that a request has by default with these arguments: with ``verbose``, its details.

    Raises
    ------
    ValueError
        The verbosity is not an integer.
    """
    is_verbose = not set(VERBOSE).isdisjoint(arguments)
    for word, level in itertools.pairwise(arguments):
        if word in VERBOSITY:
            try:
                is_verbose |= int(level) > MOST_LOGGED
            except ValueError:
                raise ValueError(f"{word} is {level!r}, expected an integer") from None
    return {"verbose": True} if is_verbose else {}


def draft_arguments(draft_model: Paths | None) -> list[str]:
    """Return the arguments for a draft model, or for ``"ngram"``."""
    if draft_model is None:
        return []
    if draft_model == "ngram":
        return ["--spec-type", "ngram-simple"]
    path = models.resolve(draft_model)
    with GGUFContext.from_file(path) as file:
        architecture = file.get("general.architecture")
        known = architecture == "dflash" or any(info.name.endswith("nextn.eh_proj.weight") for info in file.tensors())
    # upstream detects these kinds; with any other model it drafts nothing unless the type is given
    kind = [] if known else ["--spec-type", "draft-eagle3" if architecture == "eagle3" else "draft-simple"]
    return ["--model-draft", os.fspath(path), *kind]


def adapter_arguments(loras: Sequence[Paths | tuple[Paths, float]]) -> list[str]:
    """Return the arguments for adapters and their weights."""
    parts = []
    for item in loras:
        path, weight = item if isinstance(item, tuple) else (item, 1.0)
        parts.append(f"{os.fspath(models.resolve(path))}:{weight}")
    return ["--lora-scaled", ",".join(parts)] if parts else []
