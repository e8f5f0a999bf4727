"""Information routes of AUTOMATIC1111's API: what the server has, in the forms that its clients read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cyllama._native.memory import free_memory, total_memory
from cyllama.sd.loras import lora_files
from cyllama.sd.samplers import HIRES_UPSCALERS, sampler_labels, scheduler_labels
from cyllama.server.config import ModelEntry
from cyllama.server.http.clients import account_name
from cyllama.server.routes._a1111_settings import AccountSettings, vae_file
from cyllama.server.routes._a1111_upscale import PILLOW
from cyllama.server.state import ServerState

__all__ = ["list_routes"]

BASE = "/sdapi/v1"
Item = dict[str, Any]


def list_routes(state: ServerState, settings: AccountSettings) -> list[Route]:
    """Return the routes that list what the server has, and those that ask it to look again."""
    constant: dict[str, Callable[[], Any]] = {
        "samplers": _samplers,
        "schedulers": _schedulers,
        "latent-upscale-modes": lambda: [{"name": name} for name in HIRES_UPSCALERS if name.startswith("Latent")],
        "upscalers": partial(_upscalers, state),
        "realesrgan-models": partial(_networks, state),
        "sd-models": partial(_models, state),
        "sd-vae": partial(_vaes, state),
        "prompt-styles": partial(_styles, state),
        "hypernetworks": list,
        "face-restorers": list,
        "script-info": list,
        "scripts": lambda: {"txt2img": [], "img2img": []},
        "extensions": list,
        "cmd-flags": lambda: {"api": True},
        "memory": _memory,
    }
    return [
        *(Route(f"{BASE}/{name}", partial(_constant, found), methods=["GET"]) for name, found in constant.items()),
        Route(f"{BASE}/loras", partial(_loras, state, settings), methods=["GET"]),
        Route(f"{BASE}/embeddings", partial(_embeddings, state, settings), methods=["GET"]),
        # each list is read anew for each request
        *(
            Route(f"{BASE}/refresh-{name}", _refresh, methods=["POST"])
            for name in ("checkpoints", "vae", "loras", "embeddings")
        ),
    ]


async def _constant(found: Callable[[], Any], request: Request) -> Response:
    return JSONResponse(found())


async def _refresh(request: Request) -> Response:
    return JSONResponse(None)


def _images(state: ServerState) -> list[ModelEntry]:
    return [entry for entry in state.entries if entry.kind == "sd"]


def _models(state: ServerState) -> list[Item]:
    return [
        {
            "title": entry.name,
            "model_name": entry.name,
            "hash": None,
            "sha256": None,
            "filename": Path(str(entry.model or entry.settings.get("diffusion_model", entry.name))).name,
            "config": None,
        }
        for entry in _images(state)
    ]


def _vaes(state: ServerState) -> list[Item]:
    names = dict.fromkeys(filter(None, map(vae_file, _images(state))))
    return [{"model_name": name, "filename": name} for name in names]


def _samplers() -> list[Item]:
    return [{"name": label, "aliases": [name], "options": {}} for name, label in sampler_labels().items()]


def _schedulers() -> list[Item]:
    names = {"automatic": "Automatic", **scheduler_labels()}
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": -1, "need_inner_model": False}
        for name, label in names.items()
    ]


def _upscalers(state: ServerState) -> list[Item]:
    names = ["None", *PILLOW, *state.config.upscalers]
    return [
        {
            "name": name,
            "model_name": _file(state, name),
            "model_path": None,
            "model_url": None,
            "scale": 4,
        }
        for name in names
    ]


def _file(state: ServerState, name: str) -> str | None:
    path = state.config.upscalers.get(name)
    return None if path is None else Path(path).name


def _networks(state: ServerState) -> list[Item]:
    return [{"name": name, "path": _file(state, name), "scale": 4} for name in state.config.upscalers]


def _styles(state: ServerState) -> list[Item]:
    empty = {"prompt": "", "negative_prompt": ""}
    return [{"name": name, **empty, **style} for name, style in state.config.image_styles.items()]


def _memory() -> Item:
    total, free = total_memory(), free_memory()
    return {"ram": {"free": free, "used": max(0, total - free), "total": total}, "cuda": {"error": "unavailable"}}


def _current(state: ServerState, settings: AccountSettings, request: Request) -> ModelEntry:
    return settings.of_request(account_name(request.scope), {}).entry


async def _loras(state: ServerState, settings: AccountSettings, request: Request) -> Response:
    """List the LoRAs of the account's model."""
    folder = _current(state, settings, request).settings.get("lora_dir")
    if folder is None:
        return JSONResponse([])
    root = Path(folder)
    files = sorted(set((await asyncio.to_thread(lora_files, root)).values()))
    return JSONResponse(
        [
            {"name": path.stem, "alias": path.stem, "path": path.relative_to(root).as_posix(), "metadata": {}}
            for path in files
        ]
    )


async def _embeddings(state: ServerState, settings: AccountSettings, request: Request) -> Response:
    """List the textual inversions of the account's model."""
    words = _current(state, settings, request).settings.get("embeddings") or {}
    item = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": None, "vectors": None}
    return JSONResponse({"loaded": {str(word): item for word in words}, "skipped": {}})
