"""An OpenAI-compatible server for all engines: ``cyllama serve``.

>>> from cyllama.server import ServerConfig, serve
>>> serve(ServerConfig.from_file("models.toml"))          # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyllama.server.config import ModelEntry, ServerConfig
from cyllama.server.limits import Limits

if TYPE_CHECKING:
    from cyllama.server.app import create_app
    from cyllama.server.run import serve

__all__ = ["Limits", "ModelEntry", "ServerConfig", "create_app", "serve"]


def __getattr__(name: str) -> object:
    """Import Starlette and uvicorn on first use."""
    if name == "create_app":
        from cyllama.server.app import create_app

        return create_app
    if name == "serve":
        from cyllama.server.run import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
