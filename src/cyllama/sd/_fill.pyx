"""Fill the engine's structs: its defaults, then the checked parameters (see ``scripts/gen_fill.py``)."""

from cyllama._native._c_memory cimport CMemory
from cyllama._native.libfields cimport set_enum
from cyllama.sd cimport libsd as lib

from cyllama._native import _core
from cyllama._params import checked
from cyllama.sd._enums import Scheduler
from cyllama.sd.params import MAX_STEPS, ImageGenParams, SampleParams, SDContextParams, VideoGenParams

# These schedules divide by steps - 1, or read a table that begins with two steps.
_TWO_STEPS = (int(Scheduler.KARRAS), int(Scheduler.EXPONENTIAL), int(Scheduler.GITS))
# These interpolate in a table of MAX_STEPS steps.
_TABLES = (int(Scheduler.AYS), int(Scheduler.GITS))


cdef lib.sd_image_t c_image(object array, CMemory memory=None):
    """Return the pixels of a checked array (height, width, channels), which `memory` keeps or the caller."""
    cdef const unsigned char[:, :, ::1] view = array
    cdef lib.sd_image_t c
    c.height = view.shape[0]
    c.width = view.shape[1]
    c.channel = view.shape[2]
    c.data = <lib.uint8_t *> &view[0, 0, 0]
    if memory is not None:
        memory.keep(array)
    return c


cdef lib.sd_image_t * c_images(list arrays, CMemory memory) except NULL:
    cdef lib.sd_image_t * c = <lib.sd_image_t *> memory.alloc(len(arrays), sizeof(lib.sd_image_t))
    for i, array in enumerate(arrays):
        c[i] = c_image(array, memory)
    return c


include "Embedding.pxi"
include "SDContextParams.pxi"
include "SDTilingParams.pxi"
include "SlgParams.pxi"
include "GuidanceParams.pxi"
include "SampleParams.pxi"
include "PhotoMakerParams.pxi"
include "CacheParams.pxi"
include "Lora.pxi"
include "HiresParams.pxi"
include "ImageGenParams.pxi"
include "VideoGenParams.pxi"


cdef CMemory fill_context(object params, lib.sd_ctx_params_t * c):
    cdef CMemory memory = CMemory()
    values = checked(params, SDContextParams)
    lib.sd_ctx_params_init(c)
    c.free_params_immediately = False  # the engine's default allows one request only
    c.n_threads = _core.get_threads()
    fill_SDContextParams(values, c, memory)
    return memory


cdef CMemory fill_sample(object params, lib.sd_sample_params_t * c):
    cdef CMemory memory = CMemory()
    values = checked(params, SampleParams)
    lib.sd_sample_params_init(c)
    fill_SampleParams(values, c, memory)
    return memory


cdef CMemory fill_image(object params, lib.sd_img_gen_params_t * c):
    cdef CMemory memory = CMemory()
    values = checked(params, ImageGenParams)
    lib.sd_img_gen_params_init(c)
    c.prompt = c.negative_prompt = b""
    fill_ImageGenParams(values, c, memory)
    _check_steps(&c.sample_params)
    _check_cache(&c.cache)
    _check_hires(c)
    if "mask_image" in values and "init_image" not in values:
        raise ValueError("mask_image was given without init_image")
    for name in ("init_image", "mask_image", "control_image"):
        if name in values:
            _check_size(values[name], name, c.width, c.height)
    for i, image in enumerate(values.get("ref_images", ())):
        _check_reference(image, f"ref_images[{i}]", c.auto_resize_ref_image)
    return memory


cdef CMemory fill_video(object params, lib.sd_vid_gen_params_t * c):
    cdef CMemory memory = CMemory()
    values = checked(params, VideoGenParams)
    lib.sd_vid_gen_params_init(c)
    c.prompt = c.negative_prompt = b""
    fill_VideoGenParams(values, c, memory)
    _check_steps(&c.sample_params)
    _check_cache(&c.cache)
    for name in ("init_image", "end_image"):
        if name in values:
            _check_size(values[name], name, c.width, c.height)
    for i, frame in enumerate(values.get("control_frames", ())):
        _check_size(frame, f"control_frames[{i}]", c.width, c.height)
    return memory


cdef int _check_steps(lib.sd_sample_params_t * c) except -1:
    """Check what the schedules assert, or read outside of their tables for."""
    if c.sample_steps < 1:
        raise ValueError(f"steps is {c.sample_steps}, expected 1 to {MAX_STEPS}")
    if c.custom_sigmas_count == 0 and c.sample_steps < 2 and <int> c.scheduler in _TWO_STEPS:
        raise ValueError(f"steps is 1, the scheduler {Scheduler(<int> c.scheduler).name.lower()} needs at least 2")
    return 0


cdef int _check_cache(lib.sd_cache_params_t * c) except -1:
    if c.start_percent >= c.end_percent:
        raise ValueError(f"start_percent is {c.start_percent}, expected less than end_percent ({c.end_percent})")
    return 0


cdef int _check_hires(lib.sd_img_gen_params_t * c) except -1:
    cdef lib.sd_hires_params_t * h = &c.hires
    if not h.enabled:
        return 0
    if h.upscaler == lib.SD_HIRES_UPSCALER_MODEL and h.model_path == NULL:
        raise ValueError("hires.upscaler is Model, expected a hires.model_path as well")
    # the engine makes more steps and skips the first ones
    cdef int steps = <int> ((h.steps if h.steps > 0 else c.sample_params.sample_steps) / h.denoising_strength)
    cdef int scheduler = <int> c.sample_params.scheduler
    if (scheduler in _TWO_STEPS and steps < 2) or (scheduler in _TABLES and steps > MAX_STEPS):
        raise ValueError(f"the second pass has a schedule of {steps} steps (steps / denoising_strength), the scheduler "
                         f"{Scheduler(scheduler).name.lower()} takes 2 to {MAX_STEPS}")
    return 0


def _check_size(image: object, name: str, width: int, height: int) -> None:
    if image.shape[:2] != (height, width):
        raise ValueError(f"{name} has {image.shape[1]}x{image.shape[0]} pixels, expected {width}x{height}")


def _check_reference(image: object, name: str, resize: bool) -> None:
    height, width = image.shape[:2]
    if resize and max(width, height) > 64 * min(width, height):
        raise ValueError(f"{name} has {width}x{height} pixels, expected an aspect ratio of at most 64")
    if not resize and (width % 16 or height % 16):
        raise ValueError(f"{name} has {width}x{height} pixels, expected multiples of 16 (or resize_references=True)")


def check_request(params: ImageGenParams | VideoGenParams) -> None:
    """Check every parameter, as the engine's call does before it computes; no model is needed.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
    """
    cdef lib.sd_img_gen_params_t c_image_params
    cdef lib.sd_vid_gen_params_t c_video_params
    if isinstance(params, VideoGenParams):
        fill_video(params, &c_video_params)
    else:
        fill_image(params, &c_image_params)
