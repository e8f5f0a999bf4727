"""`LLM`: a language model with llama.cpp's own scheduler."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import cyllama
from cyllama import models
from cyllama._cancel import AnyCancel, Cancel
from cyllama.llama._async import AsyncCalls
from cyllama.llama._backend import llama_version
from cyllama.llama._engine import EngineResponse
from cyllama.llama._media import Attachments, MediaInput
from cyllama.llama._message_types import Paths
from cyllama.llama._request_types import LLMOptionsDict
from cyllama.llama._slot_cache import SlotCache, state_options
from cyllama.llama._slots import SlotUse
from cyllama.llama._special_tokens import ControlTexts
from cyllama.llama._validation import FieldValidator
from cyllama.llama.memory_estimate import fit_context
from cyllama.llama.options import adapter_arguments, draft_arguments, found_model, model_arguments, request_defaults
from cyllama.llama.prompt_cache import DEFAULT_BYTES, PromptCache, cache_path, fingerprint
from cyllama.media.message_parts import Folders, MediaRules

__all__ = ["LLM"]


class LLM(AsyncCalls):
    """A loaded language model that serves many requests at once.

    Parameters
    ----------
    model : str or path
        A GGUF file, or a name as of `cyllama.models.resolve`: of the registry, ``organisation/repository`` or
        ``hf:organisation/repository:Q4_K_M`` of the Hugging Face hub, or ``ollama:NAME`` of a local Ollama store. The
        last three come with their projector, if they have one and `mmproj` is not given.
    draft_model : str or path, optional
        A small model with the same vocabulary for speculative decoding; ``"ngram"`` drafts from the text itself.
    loras : sequence of path or of (path, weight)
        Adapters; `set_loras` and requests may change their weights.
    options : mapping, optional
        Options of ``llama-server`` by name: ``{"cache-ram": 2048, "mlock": True}``.
    allow_unsafe : bool
        Accept options that download, start programs or write files.
    allow_paths, allow_urls, media_limits
        The files and addresses that messages may refer to: see `MediaRules`; `media_limits` is a mapping of its other
        fields.
    check_memory : bool
        Reject a model that needs more than the free memory before it is loaded. Without `n_ctx`, limit the context to
        the free memory, if the model was trained for a longer one.
    prompt_cache : bool or path
        Keep the states of prompts on disk, for later processes: in a folder, or with True in the cache of the package.
        When the model is closed, the states of its slots are written. A request whose prompt begins as that of a state
        continues with that state. States are used only with the same model file, adapters, options and version.
    prompt_cache_bytes : int, optional
        The most bytes of all states in the folder, by default 8 GiB; the least recently used are removed.
    on_progress : callable, optional
        Called with the loaded fraction; returning False cancels.
    cancel : Cancel, optional
        Stops the loading when it is set.
    **settings
        The fields of `LLMOptionsDict`: ``n_ctx``, ``n_parallel``, ``n_gpu_layers``, ``flash_attn``, ``cache_type_k``,
        ``chat_template``, ``embedding``, ``reranking``, ``mmproj``, ``seed``, ...

    Raises
    ------
    TypeError
        An option does not exist; the message names the nearest.
    ValueError
        A value is invalid.
    FileNotFoundError, ModelLoadError, OutOfMemoryError, CancelledError

    Notes
    -----
    Thread safety: any thread may call it. Requests share the slots and wait for a free one. The GIL is released while
    it loads and computes. Source: ``server_context``, tools/server.

    >>> from cyllama import LLM
    >>> with LLM("smollm2-135m-instruct") as llm:        # doctest: +SKIP
    ...     print(llm.chat("Please tell me the capital of France.").text)
    """

    def __init__(
        self,
        model: Paths,
        *,
        draft_model: Paths | None = None,
        loras: Sequence[Paths | tuple[Paths, float]] = (),
        options: Mapping[str, Any] | None = None,
        allow_unsafe: bool = False,
        allow_paths: bool | Folders = False,
        allow_urls: bool | str | Sequence[str] = False,
        media_limits: Mapping[str, Any] | None = None,
        check_memory: bool = True,
        prompt_cache: bool | Paths = False,
        prompt_cache_bytes: int | None = None,
        on_progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
        **settings: Unpack[LLMOptionsDict],
    ) -> None:
        rules = MediaRules(allow_paths=allow_paths, allow_urls=allow_urls, **(media_limits or {}))
        path, chosen = found_model(model, settings, options)
        arguments = model_arguments(path, chosen, options, allow_unsafe=allow_unsafe)
        arguments += draft_arguments(draft_model)
        arguments += adapter_arguments(loras)
        if check_memory:
            with models.load_errors(path, "llama"):
                n_ctx = fit_context(arguments, given=chosen.n_ctx is not None or "--ctx-size" in arguments)
            arguments += [] if n_ctx is None else ["--ctx-size", str(n_ctx)]
        self._defaults = request_defaults(arguments)
        files = [path, *([] if chosen.mmproj is None else [chosen.mmproj])]
        self._loras = [os.fspath(item[0] if isinstance(item, tuple) else item) for item in loras]
        self._slot_use = SlotUse()
        self._slot_cache: SlotCache | None = None
        disk = None
        if prompt_cache is False and prompt_cache_bytes is not None:
            raise ValueError(f"prompt_cache_bytes is {prompt_cache_bytes!r}, expected prompt_cache with it")
        if prompt_cache is not False:
            files += [models.resolve(lora) for lora in self._loras]
            disk = _open_cache(prompt_cache, prompt_cache_bytes, files, arguments)
        self._keeps_states = disk is not None
        self._states = tempfile.mkdtemp(prefix="cyllama-") if disk is None else disk.make_work_folder()
        self._remove_states = weakref.finalize(self, _remove_folder, self._states, os.getpid())
        self._remove_states.atexit = False  # the end of the interpreter closes models, which write states before
        arguments += ["--slot-save-path", self._states + os.sep]
        try:
            with models.load_errors(path, "llama"):
                super().__init__(path, arguments, on_progress=on_progress, cancel=cancel)
        except BaseException:
            self._remove_states()
            raise
        if disk is None:
            self._remove_states()  # it exists again while a state is written
        self._states_lock = threading.Lock()
        self._read_properties(rules)
        if disk is not None:
            self._slot_cache = SlotCache(disk, self._states, self)

    def _read_properties(self, rules: MediaRules) -> None:
        """Read what requests need to know of the loaded model."""
        properties = self._json("props", None, None)
        accepts = {kind: bool(properties["modalities"][kind]) for kind in ("vision", "audio")}
        self._media = MediaInput(rules, **accepts)
        self._caps = properties["chat_template_caps"] | {f"supports_{kind}": value for kind, value in accepts.items()}
        self._template = properties.get("chat_template_tool_use") or properties["chat_template"]
        self._control = ControlTexts(self._engine.control_texts())
        (meta,) = self._json("models", None, None)["data"]
        self._meta = meta["meta"]
        self._head = {"model": meta["id"], "system_fingerprint": properties["build_info"]}
        self._validator = FieldValidator(
            n_vocab=meta["meta"]["n_vocab"],
            n_slots=properties["total_slots"],
            n_loras=len(self._loras),
            drafts=any(slot["speculative"] for slot in self._json("slots", None, None)),
        )

    def close(self) -> None:
        """Stop the running requests and free the model; requests of other threads raise ClosedError."""
        cache, self._slot_cache = self._slot_cache, None
        if cache is not None and not self._engine.closed:
            cache.save()
        super().close()
        self._remove_states()

    def _exchange(
        self, route: str, raw: bytes, params: Mapping[str, str] | None, cancel: AnyCancel, attached: Attachments
    ) -> EngineResponse:
        if self._slot_cache is not None:
            self._slot_cache.before(route, raw, bool(attached.files), cancel)
        return super()._exchange(route, raw, params, cancel, attached)


def _open_cache(value: bool | Paths, max_bytes: int | None, files: list[Paths], arguments: list[str]) -> PromptCache:
    if max_bytes is None:
        max_bytes = DEFAULT_BYTES
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
        raise TypeError(f"prompt_cache_bytes is {max_bytes!r}, expected an integer")
    if max_bytes < 1:
        raise ValueError(f"prompt_cache_bytes is {max_bytes}, expected 1 or more")
    versions = {"cyllama": cyllama.__version__, "engine": llama_version()}
    return PromptCache(cache_path(value), fingerprint(files, state_options(arguments), versions), max_bytes)


def _remove_folder(path: str, owner: int) -> None:
    """Remove a folder, unless this process is a fork of its owner."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
