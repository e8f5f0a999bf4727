"""The context of a loaded model, which generates images and videos."""

cimport cython
from libc.stdlib cimport free

from cyllama._native._core cimport engine_error
from cyllama._native._handle cimport Handle
from cyllama.sd cimport libsd as lib
from cyllama.sd cimport libshim as shim
from cyllama.sd._calls cimport EngineCall, take_images
from cyllama._native._c_memory cimport CMemory
from cyllama.sd._fill cimport fill_context, fill_image, fill_sample, fill_video

from cyllama._native import _core as native
from cyllama._params import enum_value
from cyllama.errors import EngineError, ImageGenerationError, ModelLoadError, UnsupportedError
from cyllama.sd._enums import SampleMethod, Scheduler
from cyllama.sd._errors import failure_reason
from cyllama.sd.params import SDContextParams

# Families with a table for the AYS scheduler.
_AYS = ("SD 1.x", "SDXS (512-DS)", "Instruct-Pix2Pix", "SDXL", "SVD")


def engine_failed(kind: type, what: str, function: str) -> Exception:
    """Return the exception for a call without a result, with the reason that the engine logged."""
    log = native.last_log()
    reason = failure_reason(log)
    return engine_error(kind, f"{what}: {reason}" if reason else what, "sd", function, None)


@cython.no_gc_clear  # freeing needs the fields
cdef class SDContext(Handle):
    """A loaded diffusion model.

    Parameters
    ----------
    params : SDContextParams
        At least ``model_path`` or ``diffusion_model_path``.
    progress : callable, optional
        Called with (tensors done, tensors in total, seconds for each tensor); False cancels.
    cancel : object with ``is_set()``, optional

    Raises
    ------
    TypeError, ValueError
        A parameter is invalid; nothing was loaded.
    FileNotFoundError
    ModelLoadError
        The file is not a model, is truncated, or lacks a component such as a text encoder.
    CancelledError
        Raised within 0.2 seconds and one tensor.

    Notes
    -----
    Releases the GIL. The process runs one call of the engine at a time; others wait, see :meth:`generate_image`.
    Thread safety: one thread at a time; a concurrent call raises InUseError. Source: ``new_sd_ctx``.
    """

    cdef lib.sd_ctx_t * _ptr
    cdef readonly object params
    cdef bint _frees_parts
    cdef bint _spent

    def __cinit__(self, params=None, *, progress=None, cancel=None):
        cdef lib.sd_ctx_params_t c_params
        cdef CMemory _memory = fill_context(params, &c_params)  # lives as long as c_params
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
            raise engine_error(ModelLoadError, f"cannot load the model: {error.message}", "sd", "new_sd_ctx",
                               None) from error
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
        """The engine's name of the model family, such as ``"SD 1.x"`` or ``"Flux"``."""
        self._check()
        return lib.sd_ctx_version_name(self._ptr).decode()

    @property
    def supports_image_generation(self) -> bool:
        """Whether the model generates images. Source: ``sd_ctx_supports_image_generation``, stable-diffusion.h."""
        self._check()
        return lib.sd_ctx_supports_image_generation(self._ptr)

    @property
    def supports_video_generation(self) -> bool:
        """Whether the model generates videos. Source: ``sd_ctx_supports_video_generation``, stable-diffusion.h."""
        self._check()
        return lib.sd_ctx_supports_video_generation(self._ptr)

    @property
    def default_sample_method(self) -> int:
        """The model's default sampler. Source: ``sd_get_default_sample_method``, stable-diffusion.h."""
        self._check()
        return SampleMethod(<int> lib.sd_get_default_sample_method(self._ptr))

    def default_scheduler(self, sample_method: int | str | None = None) -> int:
        """Return the default scheduler for a sampler; None is the model's default sampler.

        Source: ``sd_get_default_scheduler``, stable-diffusion.h.
        """
        self._check()
        method = self.default_sample_method if sample_method is None else sample_method
        cdef int c_method = enum_value(SampleMethod, method, "sample_method")
        return Scheduler(<int> lib.sd_get_default_scheduler(self._ptr, <lib.sample_method_t> c_method))

    def generate_image(self, params, *, progress=None, tile_progress=None, preview=None,
                       preview_mode: int | str = "proj", preview_interval: int = 1, preview_denoised: bool = True,
                       preview_noisy: bool = False, cancel=None) -> list:
        """Generate images.

        Parameters
        ----------
        params : ImageGenParams
        progress : callable, optional
            Called with (step, steps, seconds for each step), from step 0, for each image and each pass. False cancels.
        tile_progress : callable, optional
            Called with (tile, tiles, seconds) if the VAE encodes or decodes in tiles. False cancels.
        preview : callable, optional
            Called with (step, frames, is_noisy); frames is a list of uint8 arrays (height, width, 3). False cancels.
        preview_mode : PreviewMode, number or name
            ``"proj"`` is a cheap projection of the latents; ``"tae"`` and ``"vae"`` decode.
        preview_interval : int
            Number of steps between previews; the last step always has a preview.
        preview_denoised, preview_noisy : bool
            Which latents to preview: the estimate of the result, and the input of the model.
        cancel : object with ``is_set()``, optional

        Returns
        -------
        list of ndarray, shape (height, width, 3), uint8
            ``batch_size`` images. The engine rounds width and height up to a multiple of 8 to 64.

        Raises
        ------
        TypeError, ValueError
            A parameter is invalid; the engine was not called.
        ImageGenerationError, OutOfMemoryError
        UnsupportedError
            The model generates videos, or its weights were freed after the first call (``free_params_immediately``).
        CancelledError
            Also raised while waiting. The context stays usable.
        Exception
            An exception of `progress` or `preview` is raised here.

        Notes
        -----
        The engine has one set of callbacks per process, so calls queue, without the GIL. `cancel` and Ctrl-C are
        checked every 50 ms between the operations of a graph on the CPU, and between steps and tiles on a GPU.
        Releases the GIL. Source: ``generate_image``, stable-diffusion.h.
        """
        self._check_can("images", lib.sd_ctx_supports_image_generation(self._ptr) if self._open else True)
        cdef lib.sd_img_gen_params_t c_params
        cdef CMemory _memory = fill_image(params, &c_params)  # lives as long as c_params
        self._check_schedule(<int> c_params.sample_params.scheduler)
        cdef EngineCall call = EngineCall(cancel, progress)
        call.bind_tiles(tile_progress)
        call.bind_preview(preview, preview_mode, preview_interval, preview_denoised, preview_noisy)
        cdef lib.sd_image_t * images = self._generate(call, &c_params, NULL, NULL)
        return take_images(images, c_params.batch_count)

    def generate_video(self, params, *, progress=None, tile_progress=None, preview=None,
                       preview_mode: int | str = "proj", preview_interval: int = 1, preview_denoised: bool = True,
                       preview_noisy: bool = False, cancel=None) -> list:
        """Generate the frames of a video.

        Parameters
        ----------
        params : VideoGenParams
        progress, tile_progress, preview, preview_mode, preview_interval, preview_denoised, preview_noisy, cancel
            See :meth:`generate_image`; a preview has all frames.

        Returns
        -------
        list of ndarray, shape (height, width, 3), uint8
            The frames. The engine rounds the number of frames down to 4 n + 1.

        Raises
        ------
        TypeError, ValueError, ImageGenerationError, OutOfMemoryError, UnsupportedError, CancelledError
            See :meth:`generate_image`.

        Notes
        -----
        Releases the GIL. Source: ``generate_video``, stable-diffusion.h.
        """
        self._check_can("videos", lib.sd_ctx_supports_video_generation(self._ptr) if self._open else True)
        cdef lib.sd_vid_gen_params_t c_params
        cdef CMemory _memory = fill_video(params, &c_params)  # lives as long as c_params
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
            raise UnsupportedError("free_params_immediately is True, which freed the weights after the first call; "
                                   "load the context again, or without it")
        if not able:
            raise UnsupportedError(f"the model ({self.version_name}) does not generate {what}")

    def _check_schedule(self, scheduler: int) -> None:
        if scheduler == <int> lib.AYS_SCHEDULER and not self.version_name.startswith(_AYS):
            raise ValueError(f"scheduler is 'ays', which has no table for this model ({self.version_name})")

    cdef lib.sd_image_t * _generate(self, EngineCall call, lib.sd_img_gen_params_t * image,
                                    lib.sd_vid_gen_params_t * video, int * count) except NULL:
        """Run the request that is not NULL; never returns NULL."""
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
                # a text encoder that was stopped fails an assertion, which leaves the context usable
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
            raise engine_failed(ImageGenerationError, "the engine returned no image", function)
        return images

    def __repr__(self) -> str:
        return f"<SDContext {self.version_name}>" if self._open else "<SDContext (closed)>"


cdef str _take_text(char * text):
    """Return the engine's string and free it."""
    if text == NULL:
        raise MemoryError()
    try:
        return text.decode("utf-8", "replace")
    finally:
        free(text)


def sd_ctx_params_to_str(params) -> str:
    """Return SDContextParams as the engine prints them. Source: same name, stable-diffusion.h."""
    cdef lib.sd_ctx_params_t c_params
    cdef CMemory _memory = fill_context(params, &c_params)
    return _take_text(lib.sd_ctx_params_to_str(&c_params))


def sd_sample_params_to_str(params) -> str:
    """Return SampleParams as the engine prints them. Source: same name, stable-diffusion.h."""
    cdef lib.sd_sample_params_t c_params
    cdef CMemory _memory = fill_sample(params, &c_params)
    return _take_text(lib.sd_sample_params_to_str(&c_params))


def sd_img_gen_params_to_str(params) -> str:
    """Return ImageGenParams as the engine prints them. Source: same name, stable-diffusion.h."""
    cdef lib.sd_img_gen_params_t c_params
    cdef CMemory _memory = fill_image(params, &c_params)
    return _take_text(lib.sd_img_gen_params_to_str(&c_params))
