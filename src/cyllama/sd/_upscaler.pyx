"""Upscale images with an ESRGAN network."""

import os

cimport cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport free

from cyllama._native._core cimport engine_error
from cyllama._native._handle cimport Handle, check_range, path_bytes
from cyllama.sd cimport libsd as lib
from cyllama.sd cimport libshim as shim
from cyllama.sd._calls cimport EngineCall, copy_image
from cyllama.sd._fill cimport c_image

from cyllama._native import _core as native
from cyllama.errors import EngineError, ImageGenerationError, ModelLoadError
from cyllama.sd._context import engine_failed
from cyllama.sd._pickle_check import check_checkpoint
from cyllama._params import check_image

# The engine counts the pixels of the result with 32-bit integers.
MAX_PIXELS = 2**29


@cython.no_gc_clear  # freeing needs the fields
cdef class Upscaler(Handle):
    """An ESRGAN network.

    Parameters
    ----------
    esrgan_path : path
        RealESRGAN or ESRGAN: safetensors, GGUF or checkpoint.
    offload_params_to_cpu : bool
        Keep the weights in RAM and load them to the GPU when needed.
    direct : bool
        Use direct convolutions.
    n_threads : int, optional
        1 to 512; default: the thread budget.
    tile_size : int
        Side of a tile in pixels, 8 to 4096; 0 processes the whole image at once.
    cancel : object with ``is_set()``, optional

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ModelLoadError, CancelledError

    Notes
    -----
    Releases the GIL. Thread safety: one thread at a time; a concurrent call raises InUseError.
    Source: ``new_upscaler_ctx``, stable-diffusion.h.
    """

    cdef lib.upscaler_ctx_t * _ptr

    def __cinit__(self, esrgan_path, *, offload_params_to_cpu=False, direct=False, n_threads=None, tile_size=128,
                  cancel=None):
        cdef bytes raw = path_bytes(esrgan_path, "esrgan_path")
        for name, value in (("offload_params_to_cpu", offload_params_to_cpu), ("direct", direct)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}, expected True or False")
        n_threads = native.get_threads() if n_threads is None else n_threads
        check_range(n_threads, "n_threads", 1, 512)
        if tile_size != 0:
            check_range(tile_size, "tile_size", 8, 4096)
        check_checkpoint(raw)
        cdef const char * c_path = raw
        cdef bint c_offload = offload_params_to_cpu
        cdef bint c_direct = direct
        cdef int c_threads = n_threads
        cdef int c_tile = tile_size
        native.load_backends()
        cdef EngineCall call = EngineCall(cancel, None)
        call.begin()
        try:
            with nogil:
                self._ptr = shim.load_upscaler(c_path, c_offload, c_direct, c_threads, c_tile, call.hooks)
        except EngineError as error:
            call.finish()
            raise engine_error(ModelLoadError, f"cannot load {os.fsdecode(raw)}: {error.message}", "sd",
                               "new_upscaler_ctx", None) from error
        finally:
            call.end()
        if call.stopped():
            if self._ptr != NULL:
                self._release()
            call.finish()
        if self._ptr == NULL:
            raise engine_failed(ModelLoadError, f"cannot load {os.fsdecode(raw)}", "new_upscaler_ctx")
        self._opened("Upscaler", None)

    def __init__(self, esrgan_path: str | bytes | os.PathLike, *, offload_params_to_cpu: bool = False,
                 direct: bool = False, n_threads: int | None = None, tile_size: int = 128, cancel=None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.upscaler_ctx_t * c_ctx = self._ptr
        self._ptr = NULL
        with nogil:
            lib.free_upscaler_ctx(c_ctx)
        return 0

    @property
    def factor(self) -> int:
        """Scale factor: 1, 2 or 4. Source: ``get_upscale_factor``, stable-diffusion.h."""
        self._check()
        return lib.get_upscale_factor(self._ptr)

    def upscale(self, image, *, progress=None, cancel=None) -> object:
        """Upscale an image by :attr:`factor`.

        Parameters
        ----------
        image : ndarray, shape (height, width, 3), uint8
        progress : callable, optional
            Called with (tile, tiles, seconds for each tile) if the image is larger than a tile; False cancels.
        cancel : object with ``is_set()``, optional

        Returns
        -------
        ndarray, shape (height * factor, width * factor, 3), uint8

        Raises
        ------
        TypeError, ValueError, ImageGenerationError, OutOfMemoryError, CancelledError

        Notes
        -----
        `cancel` is checked between the operations of a graph on the CPU, and between tiles on a GPU. Releases the GIL.
        Source: ``upscale``, stable-diffusion.h.
        """
        self._check()
        pixels = check_image(image, "image")
        cdef int factor = lib.get_upscale_factor(self._ptr)
        if pixels.shape[0] * pixels.shape[1] * factor * factor > MAX_PIXELS:
            raise ValueError(f"image has {pixels.shape[1]}x{pixels.shape[0]} pixels, "
                             f"the result would have more than {MAX_PIXELS}")
        cdef lib.sd_image_t c_input = c_image(pixels)
        cdef lib.sd_image_t c_output
        cdef EngineCall call = EngineCall(cancel, progress)
        c_output.data = NULL
        self._begin()
        try:
            call.begin()
            try:
                with nogil:
                    c_output = shim.run_upscale(self._ptr, c_input, <uint32_t> factor, call.hooks)
            except EngineError as error:
                call.finish()
                self._failed(error)
                raise
            finally:
                call.end()
        finally:
            self._end()
        try:
            call.finish()
            if c_output.data == NULL:
                raise engine_failed(ImageGenerationError, "cannot upscale the image", "upscale")
            return copy_image(&c_output)
        finally:
            free(c_output.data)
