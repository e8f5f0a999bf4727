"""Workers of ``cyllama batch`` on a Ray cluster; needs ``cyllama[ray]``."""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cyllama.batch.ray_arguments import ray_arguments
from cyllama.errors import CyllamaError
from cyllama.pipelines import model_size
from cyllama.server.batches.requests import Reply
from cyllama.server.batches.workers import LocalWorker
from cyllama.server.config import ServerConfig

__all__ = ["RayWorker", "ray_workers"]

LOCAL = "local"
RETRIES = 2  # of a request whose actor ends; Ray sends it again when the actor has started


class RayWorker:
    """An actor with the server's application.

    Parameters
    ----------
    actor : ray.actor.ActorHandle
        Of `LocalWorker`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def request(self, url: str, body: bytes) -> Reply:
        """Return the response to a request.

        Raises
        ------
        ConnectionError
            The actor has ended; Ray starts it again.
        """
        try:
            found: Reply = await self._actor.request.remote(url, body)
        except RayActorError as error:
            with contextlib.suppress(RayActorError):
                await self._actor.__ray_ready__.remote()
            raise ConnectionResetError(f"the actor has ended: {error}") from None
        return found

    async def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)


def ray_workers(address: str, config: ServerConfig, parallel: int, count: int | None = None) -> list[RayWorker]:
    """Start workers on a Ray cluster, and wait until they are ready.

    Parameters
    ----------
    address : str
        As of ``ray.init``: ``"auto"``, ``"ray://host:port"``; ``"local"``: a new cluster on this machine.
    config : ServerConfig
        Its files must exist on every node.
    parallel : int
        Requests that each worker runs at the same time.
    count : int, optional
        Number of workers; by default one on each node that has enough memory.

    Raises
    ------
    ConnectionError
        There is no cluster at the address.
    ValueError
        No node has enough memory for the models.
    CyllamaError
        A worker does not start.
    """
    if not ray.is_initialized():
        ray.init(None if address == LOCAL else address, log_to_driver=False, logging_level="error")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    need = sum(model_size(entry.kind, entry.model, **entry.settings) for entry in config.models)
    chosen = ray_arguments((), {}, need=need, nodes=[node["Resources"] for node in nodes], batch_size=1, gpus=None)
    remote = ray.remote(
        num_cpus=chosen["num_cpus"],
        num_gpus=chosen["num_gpus"],
        memory=chosen["memory"],
        max_restarts=-1,
        max_task_retries=RETRIES,
        max_concurrency=parallel + 1,
    )(LocalWorker)
    actors = []
    for i in range(count or chosen["concurrency"]):
        place = NodeAffinitySchedulingStrategy(nodes[i % len(nodes)]["NodeID"], soft=True)
        actors.append(remote.options(scheduling_strategy=place).remote(config, parallel))
    try:
        ray.get([actor.__ray_ready__.remote() for actor in actors])
    except Exception as error:
        raise CyllamaError(f"a worker does not start: {error}") from error
    return [RayWorker(actor) for actor in actors]
