"""Saving and restoring the prompt caches of slots."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyllama._native.files import atomic_path
from cyllama._paths import expanded
from cyllama.errors import EngineError
from cyllama.llama._client import EngineClient
from cyllama.llama._message_types import Paths
from cyllama.llama._slots import SlotUse, slot_of
from cyllama.llama._validation import FieldValidator
from cyllama.llama.responses import ChatCompletion, Completion, Infill

__all__ = ["SlotStates"]


class SlotStates(EngineClient):
    """The calls of `LLM` for the states of slots."""

    _slot_use: SlotUse
    _states: str  # a folder
    _keeps_states: bool  # or else it exists only while a state is written or read
    _states_lock: threading.Lock
    _validator: FieldValidator

    def save_state(self, path: Paths, *, slot: int | Completion | ChatCompletion | Infill | None = None) -> int:
        """Write the prompt cache of a slot to a file, which is replaced as a whole.

        Parameters
        ----------
        path : str or path
        slot : int or response, optional
            A slot, or a response whose slot is saved. By default the slot that was used last.

        Returns
        -------
        int
            The slot.

        Raises
        ------
        ValueError
            The slot has no prompt cache.
        OSError
            The disk is full, or the path cannot be written.
        """
        chosen = self._slot_use.last(self.metrics) if slot is None else self._checked_slot(slot_of(slot))
        with self._state_file() as file:
            action = {"id_slot": str(chosen), "action": "save"}
            try:
                saved = self._json("slot_action", {"filename": file.name}, None, action)
            except EngineError as error:
                if not file.exists():
                    raise
                raise OSError(errno.EIO, f"the state cannot be written ({error.message})", str(path)) from error
            if not saved["n_saved"]:
                raise ValueError(
                    f"slot {chosen} has no prompt cache: it was not used, or its prompt was moved to memory"
                )
            expected, written = int(saved["n_written"]), file.stat().st_size
            if written < expected:  # the engine does not check for it
                raise OSError(errno.ENOSPC, f"{written} of {expected} bytes of the state could be written", str(path))
            with atomic_path(path) as temporary:
                mode = os.stat(temporary).st_mode & 0o777
                shutil.move(file, temporary)  # copies if the path is on another disk
                os.chmod(temporary, mode)
        return chosen

    def load_state(self, path: Paths, *, slot: int | None = None) -> int:
        """Read the prompt cache of a slot from a file that `save_state` wrote.

        Parameters
        ----------
        path : str or path
        slot : int, optional
            The slot whose prompt cache is replaced. By default an idle one whose last use is the longest ago. A request
            selects the slot with the most similar prompt.

        Returns
        -------
        int
            The slot.

        Raises
        ------
        ValueError
            The file is not a state of this model, or contains no tokens.
        """
        slots = self.metrics
        chosen = self._slot_use.oldest(slots) if slot is None else self._checked_slot(slot)
        with self._state_file() as file:
            file.symlink_to(expanded(path).resolve(strict=True))
            action = {"id_slot": str(chosen), "action": "restore"}
            if not self._json("slot_action", {"filename": file.name}, None, action)["n_restored"]:
                raise ValueError(f"{os.fspath(path)} is the state of a slot without tokens")
        self._slot_use.restore(chosen, slots)
        return chosen

    @contextlib.contextmanager
    def _state_file(self) -> Iterator[Path]:
        """Name a file in the model's own folder: upstream restricts file names."""
        with self._states_lock:
            folder = Path(self._states)
            if not self._keeps_states:
                folder.mkdir(0o700)  # it does not exist: nobody else can have files there
            file = folder / "state"
            try:
                yield file
            finally:
                if self._keeps_states:
                    file.unlink(missing_ok=True)
                else:
                    shutil.rmtree(folder, ignore_errors=True)

    def _checked_slot(self, slot: Any) -> int:
        self._validator.slot(slot, "slot")
        return int(slot)
