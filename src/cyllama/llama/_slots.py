"""Slots: which one a response used, which one was used last, and which one a saved state replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cyllama.llama._properties import Slot
from cyllama.llama.responses import Record

__all__ = ["SlotUse", "hides_details", "name_slot", "slot_of", "with_slot"]

# Upstream reports the slot among the details of a verbose response, and filters those of the last part.
DETAILS = "__verbose"
SLOT_FIELDS: Mapping[str, Any] = {"verbose": True, "response_fields": ["id_slot"]}


def with_slot(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a request whose response names its slot, unless the body selects the details itself."""
    return dict(body) if body.keys() & SLOT_FIELDS.keys() else {**body, **SLOT_FIELDS}


def hides_details(body: Mapping[str, Any]) -> bool:
    """Return whether the details of the response are for the slot only."""
    return all(body.get(name) == value for name, value in SLOT_FIELDS.items())


def name_slot(data: dict[str, Any], *, hide: bool) -> dict[str, Any]:
    """Add ``id_slot`` to a response or a chunk that has details, and remove them with `hide`."""
    details = data.get(DETAILS)
    if isinstance(details, Mapping):
        slot = details.get("id_slot", -1)  # -1 in all chunks but the last one
        if slot >= 0:
            data["id_slot"] = slot
        if hide:
            del data[DETAILS]
    return data


def slot_of(value: object) -> object:
    """Return the slot of a response, or the value itself.

    Raises
    ------
    ValueError
        The response does not name its slot.
    """
    if not isinstance(value, Record):
        return value
    slot = value.get("id_slot")
    if slot is None:
        raise ValueError(f"slot is {value!r}, which does not name its slot")
    return slot


class SlotUse:
    """The order in which the slots were used: by requests, and by restored states."""

    def __init__(self) -> None:
        self._restored: dict[int, float] = {}

    def _when(self, slot: Slot) -> float:
        """Return a number that grows with each use; upstream numbers the tasks."""
        return float(max(slot.get("id_task", -1), self._restored.get(slot.id, -1)))

    def last(self, slots: Sequence[Slot]) -> int:
        """Return the slot that was used last and has a prompt cache.

        Raises
        ------
        ValueError
            There is none.
        """
        used = [slot for slot in slots if self._when(slot) >= 0 and slot.get("n_prompt_tokens", 1) > 0]
        if not used:
            raise ValueError("no slot has a prompt cache: there was no request, or its prompt was removed")
        return max(used, key=self._when).id

    def oldest(self, slots: Sequence[Slot]) -> int:
        """Return an idle slot, if there is one, whose last use is the longest ago."""
        return min(slots, key=lambda slot: (slot.is_processing, self._when(slot))).id

    def restore(self, slot: int, slots: Sequence[Slot]) -> None:
        """Remember that a state was restored to a slot."""
        self._restored[slot] = max(map(self._when, slots)) + 0.5
