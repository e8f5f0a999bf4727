import os

from cyllama._native._handle import Handle

MAX_PIXELS = 2 ** 29

class Upscaler(Handle):
    def __init__(self, esrgan_path: str | bytes | os.PathLike, *, offload_params_to_cpu: bool=False, direct: bool=False, n_threads: int | None=None, tile_size: int=128, cancel=None) -> None: ...
    @property
    def factor(self) -> int: ...
    def upscale(self, image, *, progress=None, cancel=None) -> object: ...
