"""The context: a loaded model, and the pictures and videos that it makes."""

cimport cython
from libc.stdlib cimport free

from cyllama._native._core cimport engine_error
from cyllama._native._handle cimport Handle
from cyllama.sd cimport libsd as lib
from cyllama.sd cimport libshim as shim
from cyllama.sd._calls cimport EngineCall, take_images
from cyllama.sd._fill cimport Memory, fill_context, fill_image, fill_sample, fill_video

from cyllama._native import _core as native
from cyllama.errors import EngineError, ImageGenerationError, ModelLoadError, OutOfMemoryError, UnsupportedError
from cyllama.sd._enums import SampleMethod, Scheduler, enum_value
from cyllama.sd.params import SDContextParams

# Families that have tables for the schedule AYS.
_AYS = ("SD 1.x", "SDXS (512-DS)", "Instruct-Pix2Pix", "SDXL", "SVD")


def engine_failed(kind: type, what: str, function: str) -> Exception:
    """The error for a call that gave nothing: the engine's reason is in its log."""
    log = native.last_log()
    reason = f": {log[-1].split(' - ', 1)[-1].strip()}" if log else ""
    if any("failed to allocate" in line or "alloc compute" in line or "no memory" in line for line in log):
        kind = OutOfMemoryError
    return engine_error(kind, what + reason, "sd", function, None)


@cython.no_gc_clear  # freeing needs the fields
cdef class SDContext(Handle):
    """A loaded diffusion model.

    Parameters
    ----------
    params : SDContextParams
        At least ``model_path`` or ``diffusion_model_path``.
    progress : callable, optional
        Called with (tensors done, tensors in total, seconds for each); False cancels.
    cancel : object with ``is_set()``, optional
        Such as ``threading.Event``.

    Raises
    ------
    TypeError, ValueError
        A parameter is wrong; nothing was loaded.
    FileNotFoundError
    ModelLoadError
        Not a model, truncated, or without a part that it needs, such as a text encoder.
    CancelledError
        Within 0.2 seconds and one tensor.

    Notes
    -----
    Releases the GIL. Only one call of the engine runs in a process; others wait, see :meth:`generate_image`.
    Thread safety: one thread at a time, another one gets InUseError. Source: ``new_sd_ctx``, stable-diffusion.h.
    """

    cdef lib.sd_ctx_t * _ptr
    cdef readonly object params
    cdef bint _frees_parts
    cdef bint _spent

    def __cinit__(self, params=None, *, progress=None, cancel=None):
        cdef lib.sd_ctx_params_t c_params
        cdef Memory _memory = fill_context(params, &c_params)  # lives as long as c_params
        if params is None or (params.model_path is None and params.diffusion_model_path is None):
            raise ValueError("params has neither model_path nor diffusion_model_path")
        native.load_backends()
        self.params = params
        self._frees_parts = c_params.free_params_immediately
        cdef EngineCall call = EngineCall(cancel, progress)
        call.begin()
        try:
            with nogil:
                self._ptr = shim.load_context(&c_params, call.hooks)
        except EngineError as error:
            call.finish()
            raise ModelLoadError(f"cannot load the model: {error.message}", engine="sd", function="new_sd_ctx",
                                 log=error.log) from error
        finally:
            call.end()
        if call.stopped():
            if self._ptr != NULL:
                self._release()
            call.finish()
        if self._ptr == NULL:
            raise engine_failed(ModelLoadError, "cannot load the model", "new_sd_ctx")
        self._opened("SDContext", None)

    def __init__(self, params: SDContextParams, *, progress=None, cancel=None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.sd_ctx_t * c_ctx = self._ptr
        self._ptr = NULL
        with nogil:
            lib.free_sd_ctx(c_ctx)
        return 0

    @property
    def version_name(self) -> str:
        """The model's family as the engine calls it, such as ``"SD 1.x"`` or ``"Flux"``."""
        self._check()
        return lib.sd_ctx_version_name(self._ptr).decode()

    @property
    def supports_image_generation(self) -> bool:
        """Whether the model makes pictures. Source: ``sd_ctx_supports_image_generation``, stable-diffusion.h."""
        self._check()
        return lib.sd_ctx_supports_image_generation(self._ptr)

    @property
    def supports_video_generation(self) -> bool:
        """Whether the model makes videos. Source: ``sd_ctx_supports_video_generation``, stable-diffusion.h."""
        self._check()
        return lib.sd_ctx_supports_video_generation(self._ptr)

    @property
    def default_sample_method(self) -> int:
        """The model's sampler, a SampleMethod. Source: ``sd_get_default_sample_method``, stable-diffusion.h."""
        self._check()
        return SampleMethod(<int> lib.sd_get_default_sample_method(self._ptr))

    def default_scheduler(self, sample_method: int | str | None = None) -> int:
        """The scheduler for a sampler (None: the model's), a Scheduler.

        Source: ``sd_get_default_scheduler``, stable-diffusion.h.
        """
        self._check()
        method = self.default_sample_method if sample_method is None else sample_method
        cdef int c_method = enum_value(SampleMethod, method, "sample_method")
        return Scheduler(<int> lib.sd_get_default_scheduler(self._ptr, <lib.sample_method_t> c_method))

    def generate_image(self, params, *, progress=None, tile_progress=None, preview=None,
                       preview_mode: int | str = "proj", preview_interval: int = 1, preview_denoised: bool = True,
                       preview_noisy: bool = False, cancel=None) -> list:
        """Make pictures.

        Parameters
        ----------
        params : ImageGenParams
        progress : callable, optional
            Called with (step, steps, seconds for each), from step 0 on, for each picture and each pass. False cancels.
        tile_progress : callable, optional
            Called with (tile, tiles, seconds) when the VAE encodes or decodes in tiles. False cancels.
        preview : callable, optional
            Called with (step, frames, is_noisy), frames a list of uint8 arrays (height, width, 3). False cancels.
        preview_mode : PreviewMode, number or name
            ``"proj"`` is a cheap projection of the latents; ``"tae"`` and ``"vae"`` decode.
        preview_interval : int
            Steps from one preview to the next; the last step is always shown.
        preview_denoised, preview_noisy : bool
            Which latents are shown: the estimate of the result, and what goes into the model.
        cancel : object with ``is_set()``, optional

        Returns
        -------
        list of ndarray, shape (height, width, 3), uint8
            ``batch_count`` pictures. The engine rounds width and height up to a multiple of 8 to 64.

        Raises
        ------
        TypeError, ValueError
            A parameter is wrong; the engine was not called.
        ImageGenerationError, OutOfMemoryError
        UnsupportedError
            The model makes videos, or its parts were freed after the first call (``free_params_immediately``).
        CancelledError
            Also while waiting. The context stays usable.
        Exception
            What `progress` or `preview` raises arrives here.

        Notes
        -----
        The engine has one set of callbacks for the process: calls queue, without the GIL. Cancelling and Ctrl-C are
        obeyed between the operations of a graph on the CPU (they are looked at each 50 ms), between steps and tiles
        on a GPU. Releases the GIL. Source: ``generate_image``, stable-diffusion.h.
        """
        self._check_can("pictures", lib.sd_ctx_supports_image_generation(self._ptr) if self._open else True)
        cdef lib.sd_img_gen_params_t c_params
        cdef Memory _memory = fill_image(params, &c_params)  # lives as long as c_params
        self._check_schedule(<int> c_params.sample_params.scheduler)
        cdef EngineCall call = EngineCall(cancel, progress)
        call.bind_tiles(tile_progress)
        call.bind_preview(preview, preview_mode, preview_interval, preview_denoised, preview_noisy)
        cdef lib.sd_image_t * images = self._generate(call, &c_params, NULL, NULL)
        return take_images(images, c_params.batch_count)

    def generate_video(self, params, *, progress=None, tile_progress=None, preview=None,
                       preview_mode: int | str = "proj", preview_interval: int = 1, preview_denoised: bool = True,
                       preview_noisy: bool = False, cancel=None) -> list:
        """Make the frames of a video.

        Parameters
        ----------
        params : VideoGenParams
        progress, tile_progress, preview, preview_mode, preview_interval, preview_denoised, preview_noisy, cancel
            As in :meth:`generate_image`; previews have all frames.

        Returns
        -------
        list of ndarray, shape (height, width, 3), uint8
            The frames. The engine rounds their number down to 4 n + 1.

        Raises
        ------
        TypeError, ValueError, ImageGenerationError, OutOfMemoryError, UnsupportedError, CancelledError
            As in :meth:`generate_image`.

        Notes
        -----
        Releases the GIL. Source: ``generate_video``, stable-diffusion.h.
        """
        self._check_can("videos", lib.sd_ctx_supports_video_generation(self._ptr) if self._open else True)
        cdef lib.sd_vid_gen_params_t c_params
        cdef Memory _memory = fill_video(params, &c_params)  # lives as long as c_params
        self._check_schedule(<int> c_params.sample_params.scheduler)
        cdef EngineCall call = EngineCall(cancel, progress)
        call.bind_tiles(tile_progress)
        call.bind_preview(preview, preview_mode, preview_interval, preview_denoised, preview_noisy)
        cdef int count = 0
        cdef lib.sd_image_t * images = self._generate(call, NULL, &c_params, &count)
        return take_images(images, count)

    def _check_can(self, what: str, able: bool) -> None:
        self._check()
        if self._spent:
            raise UnsupportedError("the context was loaded with free_params_immediately=True and its parts are freed "
                                   "after the first call; load it again, or without that")
        if not able:
            raise UnsupportedError(f"the model ({self.version_name}) does not make {what}")

    def _check_schedule(self, scheduler: int) -> None:
        if scheduler == <int> lib.AYS_SCHEDULER and not self.version_name.startswith(_AYS):
            raise ValueError(f"scheduler is 'ays', which has no table for this model ({self.version_name})")

    cdef lib.sd_image_t * _generate(self, EngineCall call, lib.sd_img_gen_params_t * image,
                                    lib.sd_vid_gen_params_t * video, int * count) except NULL:
        """Run one of the two; never gives NULL."""
        cdef lib.sd_image_t * images = NULL
        self._begin()
        try:
            call.begin()
            try:
                self._spent = self._frees_parts
                with nogil:
                    if image != NULL:
                        images = shim.run_image(self._ptr, image, call.hooks)
                    else:
                        images = shim.run_video(self._ptr, video, count, call.hooks)
            except Exception as error:
                # a stopped text encoder ends in an assertion, and leaves nothing behind
                if not call.stopped():
                    if isinstance(error, EngineError):
                        self._failed(error)
                    raise
            finally:
                call.end()
        finally:
            self._end()
        if call.stopped():
            if images != NULL:
                take_images(images, count[0] if count != NULL else image.batch_count)
            call.finish()
        if images == NULL:
            function = "generate_image" if image != NULL else "generate_video"
            raise engine_failed(ImageGenerationError, "nothing was made", function)
        return images

    def __repr__(self) -> str:
        return f"<SDContext {self.version_name}>" if self._open else "<SDContext (closed)>"


cdef str _take_text(char * text):
    """The engine's text as a string; frees it."""
    if text == NULL:
        raise MemoryError()
    try:
        return text.decode("utf-8", "replace")
    finally:
        free(text)


def sd_ctx_params_to_str(params) -> str:
    """SDContextParams as the engine prints them. Source: same name, stable-diffusion.h."""
    cdef lib.sd_ctx_params_t c_params
    cdef Memory _memory = fill_context(params, &c_params)
    return _take_text(lib.sd_ctx_params_to_str(&c_params))


def sd_sample_params_to_str(params) -> str:
    """SampleParams as the engine prints them. Source: same name, stable-diffusion.h."""
    cdef lib.sd_sample_params_t c_params
    cdef Memory _memory = fill_sample(params, &c_params)
    return _take_text(lib.sd_sample_params_to_str(&c_params))


def sd_img_gen_params_to_str(params) -> str:
    """ImageGenParams as the engine prints them. Source: same name, stable-diffusion.h."""
    cdef lib.sd_img_gen_params_t c_params
    cdef Memory _memory = fill_image(params, &c_params)
    return _take_text(lib.sd_img_gen_params_to_str(&c_params))
