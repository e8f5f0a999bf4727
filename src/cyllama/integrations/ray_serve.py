"""The server as a Ray Serve deployment: replicas, autoscaling, streaming; needs ``cyllama[ray]``.

>>> from ray import serve
>>> from cyllama.integrations.ray_serve import build_app
>>> serve.run(build_app({"config": "models.toml", "num_replicas": 2}))              # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from cyllama.server import ServerConfig, create_app

__all__ = ["build_app", "deployment"]

REQUESTS = 256  # of a replica, running and waiting; the server has queues and limits of its own
HEALTH_SECONDS = 5.0


def deployment(config: ServerConfig, **options: Any) -> serve.Deployment:
    """Return the server as a deployment.

    Parameters
    ----------
    config : ServerConfig
        Its files must exist on every node. `host`, `port` and the limits on connections belong to Ray Serve's proxies.
    **options
        Of ``serve.deployment``: ``num_replicas``, ``autoscaling_config``, ``ray_actor_options``,
        ``max_ongoing_requests``, ``request_router_config``, ...

    Raises
    ------
    ValueError
        The configuration has a `batch_folder`, which replicas cannot share.
    """
    if config.batch_folder is not None:
        raise ValueError("batch_folder is set, expected none: replicas cannot share a folder; use cyllama batch --ray")

    def build() -> ASGIApp:  # Ray Serve calls it in each replica
        return create_app(config)

    chosen = {"name": "cyllama", "max_ongoing_requests": REQUESTS, "health_check_period_s": HEALTH_SECONDS, **options}
    made: serve.Deployment = serve.deployment(**chosen)(serve.ingress(build)(_Server))
    return made


class _Server:
    """The class of the replicas; Ray Serve adds the application."""


def build_app(arguments: Mapping[str, Any]) -> serve.Application:
    """Return the application, for ``serve.run`` and for ``serve run cyllama.integrations.ray_serve:build_app``.

    Parameters
    ----------
    arguments : mapping
        ``config``: a TOML file or the contents of one; the others are those of `deployment`.

    Raises
    ------
    ValueError, TypeError
        The configuration is invalid.
    """
    options = dict(arguments)
    given = options.pop("config", None)
    if isinstance(given, Mapping):
        config = ServerConfig.from_dict(given)
    elif given is not None:
        config = ServerConfig.from_file(given)
    else:
        raise ValueError("config is missing, expected a TOML file or the contents of one")
    app: serve.Application = deployment(config, **options).bind()
    return app
