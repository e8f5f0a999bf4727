"""Options of AUTOMATIC1111's API: those of an account, and those of one request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyllama.server.config import ModelEntry
from cyllama.server.fields.automatic1111 import CHECKPOINT, CLIP_LAYERS, COLOURS, FORMAT, JPEG_QUALITY, SETTINGS, VAE
from cyllama.server.http.errors import http_error
from cyllama.server.image_jobs import ImageFormat
from cyllama.server.state import ServerState

__all__ = ["AccountSettings", "ImageSettings", "vae_file"]

MAX_ACCOUNTS = 256
FORMATS: dict[str, ImageFormat] = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
DEFAULTS: dict[str, Any] = {VAE: "Automatic", CLIP_LAYERS: 1, FORMAT: "png", JPEG_QUALITY: 80, COLOURS: False}


@dataclass(frozen=True)
class ImageSettings:
    """The options of a request.

    Attributes
    ----------
    entry : ModelEntry
    clip_skip : int or None
    format : str
    quality : int
        0 to 100, for JPEG and WebP.
    """

    entry: ModelEntry
    clip_skip: int | None
    format: ImageFormat
    quality: int


class AccountSettings:
    """The options that accounts have set; those of the accounts that set them last are kept.

    Parameters
    ----------
    state : ServerState
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._values: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def values(self, account: str) -> dict[str, Any]:
        """Return all options of an account, with the defaults.

        Raises
        ------
        HTTPException
            404 if the server has no diffusion model.
        """
        with self._lock:
            own = dict(self._values.get(account, {}))
        entry = self._state.find_model(own.pop(CHECKPOINT, None), "images")
        return {CHECKPOINT: entry.name, **DEFAULTS, **own}

    def output(self, account: str) -> tuple[ImageFormat, int]:
        """Return the format of an account's images, and its quality."""
        with self._lock:
            values = {**DEFAULTS, **self._values.get(account, {})}
        return FORMATS[values[FORMAT]], values[JPEG_QUALITY]

    def update(self, account: str, given: Mapping[str, Any]) -> None:
        """Change options of an account.

        Raises
        ------
        HTTPException
            400 if an option is unknown or has a wrong value, 404 if there is no such model.
        """
        changes = self._checked(account, given)
        with self._lock:
            self._values[account] = {**self._values.get(account, {}), **changes}
            self._values.move_to_end(account)
            if len(self._values) > MAX_ACCOUNTS:
                self._values.popitem(last=False)

    def of_request(self, account: str, overrides: Mapping[str, Any]) -> ImageSettings:
        """Return the options of a request; errors as of `update`."""
        values = {**self.values(account), **self._checked(account, overrides)}
        layers = values[CLIP_LAYERS]
        return ImageSettings(
            self._state.find_model(values[CHECKPOINT], "images"),
            layers if layers > 1 else None,
            FORMATS[values[FORMAT]],
            values[JPEG_QUALITY],
        )

    def _checked(self, account: str, given: Mapping[str, Any]) -> dict[str, Any]:
        found = SETTINGS.check(given)
        current = found.get(CHECKPOINT) or self.values(account)[CHECKPOINT]
        entry = self._state.find_model(current, "images")
        vae = found.pop(VAE, None)
        if vae is not None and vae not in (vae_file(entry), Path(vae_file(entry)).stem):
            expected = f"Automatic or {vae_file(entry)}" if vae_file(entry) else "Automatic"
            raise http_error(400, f"{VAE} is {vae!r:.100}, expected {expected} for {entry.name}", param=VAE)
        return found


def vae_file(entry: ModelEntry) -> str:
    """Return the file name of a model's VAE; empty if the model's file contains it."""
    value = entry.settings.get("vae") or entry.settings.get("vae_path") or ""
    return Path(str(value)).name
