"""The slots of a loaded model and the prompt cache on disk: restore states before requests, save them at the end."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cyllama._cancel import AnyCancel, Cancel
from cyllama.errors import CancelledError, CyllamaError
from cyllama.llama._client import EngineClient
from cyllama.llama.prompt_cache import MIN_TOKENS, CachedPrompt, PromptCache, Tokens, common_prefix
from cyllama.llama.streaming import EventParser

__all__ = ["SlotCache", "state_options"]

log = logging.getLogger("cyllama.llama")

COMPLETIONS, CHATS = ("completion", "completions"), ("chat_completions",)
OTHERS = ("responses", "messages", "infill")  # their prompts are not known before the request
SIMILARITY = 0.1  # upstream uses a slot whose tokens are a larger part of the prompt than this
REMEMBERED = 64  # prompts
KEPT = 0.9  # the part of a prompt that the engine must have in memory
RESTORE_SECONDS = 10.0  # after which a request computes its prompt
SAVE_SECONDS = 60.0  # after which no more states are written
# Options that do not change the states, each with a value.
NEUTRAL = (
    "--model", "--alias", "--threads", "--threads-batch", "--cache-ram", "--chat-template", "--chat-template-kwargs",
    "--reasoning-format", "--seed", "--fit",
)  # fmt: skip


class _Deadline:
    """A cancel that is set after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def is_set(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() > self._end


class SlotCache:
    """Restore and save the states of slots.

    Parameters
    ----------
    cache : PromptCache
    folder : str
        The folder in which the engine reads and writes states.
    engine : EngineClient
    """

    def __init__(self, cache: PromptCache, folder: str, engine: EngineClient) -> None:
        self._cache, self._folder = cache, Path(folder)
        self._weak_engine = weakref.ref(engine)  # it refers to this object
        self._lock = threading.Lock()
        self._seen: deque[Tokens] = deque(maxlen=REMEMBERED)  # prompts that the engine has in memory, latest last
        self._rejected: set[Path] = set()
        self._restored: set[int] = set()  # slots
        self._filled = self._other_weights = False
        self._count = 0
        self._process = os.getpid()

    def before(self, route: str, raw: bytes, has_files: bool, cancel: Cancel | None) -> None:
        """Restore the state that fits best to a request, if it is better than those in memory."""
        if route == "set_lora_adapters":
            self._other_weights = True
        if route not in (*COMPLETIONS, *CHATS, *OTHERS) or self._other_weights:
            return
        with self._lock:
            try:
                self._restore_for(route, json.loads(raw), has_files, cancel)
            except Exception as error:  # the request itself reports what is wrong with it
                log.debug("no state was restored for the request: %s", error)

    def save(self) -> None:
        """Write the states of the slots, and those of the engine's prompt cache in memory, before the engine is closed.

        The engine moves states between slots and memory. A state in memory is written after a request for its prompt,
        without new tokens, has moved it to a slot. While other requests run, only the slots that are idle are written.
        """
        if self._other_weights or self._process != os.getpid():  # a fork has no scheduler
            return
        with self._lock:
            try:
                self._save_all()
            except Exception as error:  # the model must be closed in any case
                log.warning("cannot save the states of the slots: %s", error)

    def _save_all(self) -> None:
        slots = self._call("slots")
        idle = [slot["id"] for slot in slots if not slot["is_processing"]]
        for slot in idle:
            self._save(slot)
        if len(idle) < len(slots):
            return
        deadline = _Deadline(SAVE_SECONDS)
        for slot in idle:  # a slot that shares the start of a prompt would be used instead of the state in memory
            self._erase(slot)
        for prompt in reversed(self._seen):
            if any(common_prefix(entry.tokens, prompt) == len(prompt) for entry in self._cache.entries()):
                continue
            recalled = self._recall(prompt, deadline)
            if recalled is None:  # the engine removes the oldest states first
                return
            self._save(recalled)
            self._erase(recalled)

    def _recall(self, prompt: Tokens, cancel: Cancel) -> int | None:
        """Move a state from memory to a slot and return the slot; None if the engine has not kept the state."""
        body = {"prompt": prompt.tolist(), "n_predict": 0, "stream": True, "return_progress": True}
        events, slot = EventParser(), None
        try:
            with self._engine()._request("completion", body, cancel) as response:
                while (data := response.next(cancel=cancel)) is not None:
                    for event in events.feed(data):
                        progress = event.get("prompt_progress")
                        if progress and progress["cache"] < KEPT * len(prompt):
                            return None
                        slot = event.get("id_slot", slot)
        except CyllamaError as error:
            log.debug("a state in memory was not saved: %s", error)
            return None
        return slot

    def _erase(self, slot: int) -> None:
        self._call("slot_action", None, None, {"id_slot": str(slot), "action": "erase"})

    def _restore_for(self, route: str, body: dict[str, Any], has_files: bool, cancel: Cancel | None) -> None:
        if body.get("lora"):
            self._other_weights = True
            return
        tokens = None if has_files else self._prompt_tokens(route, body, cancel)
        if tokens is None:
            self._fill_slots(cancel)
            return
        found = self._cache.find(tokens, self._rejected)
        in_memory = max((common_prefix(prompt, tokens) for prompt in self._seen), default=0)
        self._seen.append(tokens)
        if found is None or found[1] < max(MIN_TOKENS, in_memory + 1, SIMILARITY * len(tokens)):
            return
        slot = self._idle_slot()
        if slot is not None:
            self._restore(found[0], slot, cancel)

    def _prompt_tokens(self, route: str, body: dict[str, Any], cancel: Cancel | None) -> Tokens | None:
        """Return the tokens of the prompt; None if they are not known."""
        if route in CHATS:
            prompt: Any = self._call("apply_template", body, cancel)["prompt"]
        elif route in COMPLETIONS:
            prompt = body.get("prompt")
        else:
            return None
        if isinstance(prompt, str):
            content = {"content": prompt, "add_special": True, "parse_special": True}
            prompt = self._call("tokenize", content, cancel)["tokens"]
        if not isinstance(prompt, list) or not all(isinstance(token, int) for token in prompt):
            return None
        return np.array(prompt, np.int32)

    def _fill_slots(self, cancel: Cancel | None) -> None:
        """Restore the states that were used last in the slots that are empty, once."""
        if self._filled:
            return
        self._filled = True
        latest = sorted(self._cache.entries(), key=lambda entry: entry.used, reverse=True)
        for entry, slot in zip(latest, self._empty_slots(), strict=False):
            self._restore(entry, slot, cancel)

    def _empty_slots(self) -> list[int]:
        slots = self._call("slots")
        return [slot["id"] for slot in slots if "id_task" not in slot and slot["id"] not in self._restored]

    def _idle_slot(self) -> int | None:
        """Return an empty slot, or the idle slot with the fewest tokens, after its state was saved."""
        empty = self._empty_slots()
        if empty:
            return empty[0]
        idle = [slot for slot in self._call("slots") if not slot["is_processing"]]
        if not idle:
            return None
        chosen: int = min(idle, key=lambda slot: slot.get("n_prompt_tokens", 0))["id"]
        self._save(chosen)
        return chosen

    def _restore(self, entry: CachedPrompt, slot: int, cancel: Cancel | None) -> None:
        if not self._cache.verify(entry):
            return
        file = self._new_file()
        try:
            file.symlink_to(entry.path)
            # another request can have taken the slot, which must not delay this one
            stop = AnyCancel(cancel, _Deadline(RESTORE_SECONDS))
            self._call("slot_action", {"filename": file.name}, stop, {"id_slot": str(slot), "action": "restore"})
        except CancelledError:
            return
        except Exception as error:  # such as a prompt that is longer than the slot
            self._rejected.add(entry.path)
            log.warning("cannot restore a state of the prompt cache: %s", error)
            return
        finally:
            file.unlink(missing_ok=True)
        self._seen.append(entry.tokens)
        self._restored.add(slot)

    def _save(self, slot: int) -> None:
        file = self._new_file()
        try:
            action = {"id_slot": str(slot), "action": "save"}
            saved = self._call("slot_action", {"filename": file.name}, None, action)
            if file.stat().st_size >= saved["n_written"]:  # else the disk is full
                self._cache.store(file)
        except (OSError, CyllamaError, ValueError) as error:
            log.warning("cannot save the state of slot %d: %s", slot, error)
        finally:
            file.unlink(missing_ok=True)

    def _call(
        self, route: str, body: Any = None, cancel: Cancel | None = None, params: Mapping[str, str] | None = None
    ) -> Any:
        return self._engine()._json(route, body, cancel, params)

    def _engine(self) -> EngineClient:
        engine = self._weak_engine()
        assert engine is not None
        return engine

    def _new_file(self) -> Path:
        self._count += 1
        return self._folder / f"slot-{self._count}"


def state_options(arguments: list[str]) -> list[str]:
    """Return the arguments of upstream's parser that change the states.

    Raises
    ------
    ValueError
        An option does not support a prompt cache on disk.
    """
    found = []
    skip = False
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if skip:
            skip = False
            continue
        if flag in ("--embeddings", "--embedding", "--reranking", "--rerank"):
            raise ValueError(f"prompt_cache and {flag.lstrip('-')} exclude each other: there are no prompts to keep")
        if flag in ("--model-draft", "-md") or (flag == "--spec-type" and not value.startswith(("ngram", "none"))):
            raise ValueError("prompt_cache and a draft model exclude each other: the draft model's state is not saved")
        skip = flag in NEUTRAL
        if not skip:
            found.append(flag)
    return found
