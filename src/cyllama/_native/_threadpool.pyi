from typing import Final

from cyllama._native._handle import Handle


class ThreadPool(Handle):
    n_threads: Final[int]

    def __init__(self, n_threads: int, *, cpus: list | None=None, strict_cpu: bool=False, priority: int=0, poll: int=0) -> None: ...
