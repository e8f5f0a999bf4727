"""`LLM`: a language model with llama.cpp's own scheduler."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from cyllama import models
from cyllama._cancel import Cancel
from cyllama.llama._async import AsyncCalls
from cyllama.llama._media import MediaInput
from cyllama.llama._message_types import Paths
from cyllama.llama._request_types import LLMOptionsDict
from cyllama.llama._special_tokens import ControlTexts
from cyllama.llama._validation import FieldValidator
from cyllama.llama.memory_estimate import fit_context
from cyllama.llama.options import adapter_arguments, draft_arguments, llm_options, model_arguments
from cyllama.media.message_parts import Folders, MediaRules

__all__ = ["LLM"]


class LLM(AsyncCalls):
    """A loaded language model that serves many requests at once.

    Parameters
    ----------
    model : str or path
        A GGUF file, or a name of `cyllama.models`.
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
        on_progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
        **settings: Unpack[LLMOptionsDict],
    ) -> None:
        rules = MediaRules(allow_paths=allow_paths, allow_urls=allow_urls, **(media_limits or {}))
        path = models.resolve(model)
        chosen = llm_options(settings)
        arguments = model_arguments(path, chosen, options, allow_unsafe=allow_unsafe)
        arguments += draft_arguments(draft_model)
        arguments += adapter_arguments(loras)
        if check_memory:
            n_ctx = fit_context(arguments, given=chosen.n_ctx is not None or "--ctx-size" in arguments)
            arguments += [] if n_ctx is None else ["--ctx-size", str(n_ctx)]
        self._loras = [os.fspath(item[0] if isinstance(item, tuple) else item) for item in loras]
        self._states = tempfile.mkdtemp(prefix="cyllama-")
        self._remove_states = weakref.finalize(self, _remove_folder, self._states, os.getpid())
        arguments += ["--slot-save-path", self._states + os.sep]
        try:
            super().__init__(path, arguments, on_progress=on_progress, cancel=cancel)
        except BaseException:
            self._remove_states()
            raise
        properties = self._json("props", None, None)
        accepts = {kind: bool(properties["modalities"][kind]) for kind in ("vision", "audio")}
        self._media = MediaInput(rules, **accepts)
        self._caps = properties["chat_template_caps"] | {f"supports_{kind}": value for kind, value in accepts.items()}
        self._control = ControlTexts(self._engine.control_texts())
        (meta,) = self._json("models", None, None)["data"]
        n_slots, n_loras = properties["total_slots"], len(self._loras)
        self._validator = FieldValidator(n_vocab=meta["meta"]["n_vocab"], n_slots=n_slots, n_loras=n_loras)

    def close(self) -> None:
        """Stop the running requests and free the model; requests of other threads raise ClosedError."""
        super().close()
        self._remove_states()


def _remove_folder(path: str, owner: int) -> None:
    """Remove a folder, unless this process is a fork of its owner."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
