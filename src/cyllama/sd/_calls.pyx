"""The process-wide lock of the engine, and the callbacks of the running call."""

import os
import threading

import numpy as np

from libc.stdlib cimport free
from libc.string cimport memcpy
from libcpp cimport bool as cbool

from cyllama._native._core cimport start_call
from cyllama._native._handle cimport CallState, check_range
from cyllama.sd cimport libsd as lib

from cyllama._cancel import POLL_SECONDS
from cyllama.errors import InUseError
from cyllama._params import enum_value
from cyllama.sd._enums import PreviewMode

_turn = threading.Lock()
_owner = 0


def _after_fork() -> None:
    """Replace the lock in a child process, which does not have the thread that held it."""
    global _turn, _owner
    _turn = threading.Lock()
    _owner = 0


os.register_at_fork(after_in_child=_after_fork)


cdef cbool _on_progress(int step, int steps, float seconds, void * state) noexcept nogil:
    return (<EngineCall> state).on_progress(step, steps, seconds)


cdef cbool _on_tiles(int tile, int tiles, float seconds, void * state) noexcept nogil:
    return (<EngineCall> state).on_tiles(tile, tiles, seconds)


cdef cbool _on_poll(void * state) noexcept nogil:
    return (<EngineCall> state).poll()


cdef void _on_preview(int step, int count, lib.sd_image_t * frames, cbool is_noisy, void * state) noexcept nogil:
    (<EngineCall> state).on_preview(step, count, frames, is_noisy)


cdef class EngineCall(CallState):
    """A call of the engine, with its `cancel` event and its callbacks.

    The engine has one set of callbacks per process, so only one call runs between :meth:`begin` and :meth:`end`.
    """

    def __cinit__(self, cancel=None, progress=None):
        self._interval = 1
        self.hooks.progress = _on_progress
        self.hooks.tiles = NULL
        self.hooks.poll = _on_poll
        self.hooks.preview = _on_preview
        self.hooks.state = <void *> self
        self.hooks.preview_mode = lib.PREVIEW_NONE
        self.hooks.preview_denoised = True
        self.hooks.preview_noisy = False

    cdef int bind_tiles(self, object tiles) except -1:
        """Report tiles separately from steps; None ignores tiles."""
        if tiles is not None and not callable(tiles):
            raise TypeError(f"tile_progress is {tiles!r}, expected a callable (tile, tiles, seconds)")
        self._tiles = tiles
        self.hooks.tiles = _on_tiles
        return 0

    cdef int bind_preview(self, object preview, object mode, object interval, object denoised, object noisy) except -1:
        if preview is None:
            return 0
        if not callable(preview):
            raise TypeError(f"preview is {preview!r}, expected a callable (step, frames, is_noisy)")
        check_range(interval, "preview_interval", 1, 2**31 - 1)
        for name, value in (("preview_denoised", denoised), ("preview_noisy", noisy)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}, expected True or False")
        self._preview = preview
        self._interval = interval
        self.hooks.preview_mode = <lib.preview_t> <int> enum_value(PreviewMode, mode, "preview_mode")
        self.hooks.preview_denoised = denoised
        self.hooks.preview_noisy = noisy
        return 0

    cdef int begin(self) except -1:
        """Acquire the lock, without the GIL; checks `cancel` while waiting."""
        global _owner
        if _owner == threading.get_ident():
            raise InUseError("the engine was called from a callback of its own running call")
        while not self._stop and not _turn.acquire(timeout=POLL_SECONDS):
            self._poll_gil()
        if self._stop:
            self.finish()
        _owner = threading.get_ident()
        start_call()
        return 0

    cdef int end(self) noexcept:
        global _owner
        _owner = 0
        _turn.release()
        return 0

    cdef bint stopped(self) noexcept:
        """Return whether the call was cancelled or a callback raised."""
        return self._stop

    cdef bint on_progress(self, int step, int steps, float seconds) noexcept nogil:
        if self._stopped():
            return False
        with gil:
            return self._on_progress_gil(step, steps, seconds)

    cdef bint on_tiles(self, int tile, int tiles, float seconds) noexcept nogil:
        if self._stopped():
            return False
        with gil:
            return self._call_gil(self._tiles, tile, tiles, seconds)

    cdef int on_preview(self, int step, int count, lib.sd_image_t * frames, bint is_noisy) noexcept nogil:
        if not self._stopped():
            with gil:
                self._on_preview_gil(step, count, frames, is_noisy)
        return 0

    cdef bint _on_progress_gil(self, int step, int steps, float seconds) noexcept:
        self._steps = steps
        return self._call_gil(self._callback, step, steps, seconds)

    cdef bint _call_gil(self, object callback, int step, int steps, float seconds) noexcept:
        try:
            if callback is not None and callback(step, steps, seconds) is False:
                self._cancelled = True
                self._stop = True
        except BaseException as e:
            self.error = e
            self._stop = True
        self._poll_gil()
        return not self._stop

    cdef int _on_preview_gil(self, int step, int count, lib.sd_image_t * frames, bint is_noisy) noexcept:
        # Second-order samplers evaluate the model between steps and report these with a negative number. Keep the last.
        if step < 0 and step != -self._steps:
            return 0
        step = abs(step)
        if step % self._interval != 0 and step != self._steps:
            return 0
        try:
            images = [copy_image(&frames[i]) for i in range(count)]
            if self._preview(step, images, bool(is_noisy)) is False:
                self._cancelled = True
                self._stop = True
        except BaseException as e:
            self.error = e
            self._stop = True
        return 0


cdef object copy_image(lib.sd_image_t * image):
    """Copy an image to an array (height, width, channels) of uint8."""
    cdef size_t size = <size_t> image.width * image.height * image.channel
    pixels = np.empty((image.height, image.width, image.channel), np.uint8)
    cdef unsigned char[:, :, ::1] view
    cdef void * target
    if size:
        view = pixels
        target = &view[0, 0, 0]
        with nogil:
            memcpy(target, image.data, size)
    return pixels


cdef list take_images(lib.sd_image_t * images, int count):
    """Copy the images and free those of the engine, even if copying fails."""
    cdef int i
    try:
        return [copy_image(&images[i]) for i in range(count)]
    finally:
        for i in range(count):
            free(images[i].data)
        free(images)
