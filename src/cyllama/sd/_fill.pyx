"""Parameters into the engine's structs: the engine's defaults first, then what was given, checked."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free

from cyllama.sd cimport libsd as lib

from cyllama._native import _core
from cyllama.sd._enums import Scheduler
from cyllama.sd._fields import check_same_size, checked
from cyllama.sd.params import (
    CacheParams,
    Embedding,
    GuidanceParams,
    HiresParams,
    ImageGenParams,
    Lora,
    PhotoMakerParams,
    SampleParams,
    SDContextParams,
    SDTilingParams,
    SlgParams,
    VideoGenParams,
)

# These schedules divide by steps - 1, or look into a table that begins with two steps.
_TWO_STEPS = (int(Scheduler.KARRAS), int(Scheduler.EXPONENTIAL), int(Scheduler.GITS))
# These interpolate, and lose their way in more steps.
_TABLES = (int(Scheduler.AYS), int(Scheduler.GITS))
MAX_STEPS = 1000


@cython.no_gc_clear  # __dealloc__ frees what the list names
cdef class Memory:
    """What a C struct points to; lives as long as the struct is used."""

    def __cinit__(self):
        self._keep = []
        self._addresses = []

    cdef void * alloc(self, size_t count, size_t size) except NULL:
        cdef void * p = PyMem_Calloc(max(count, 1), size)
        if p == NULL:
            raise MemoryError()
        self._addresses.append(<size_t> p)
        return p

    cdef const char * text(self, bytes value) except NULL:
        self._keep.append(value)
        return value

    cdef lib.sd_image_t image(self, object array):
        self._keep.append(array)
        return c_image(array)

    cdef lib.sd_image_t * images(self, list arrays) except NULL:
        cdef lib.sd_image_t * c = <lib.sd_image_t *> self.alloc(len(arrays), sizeof(lib.sd_image_t))
        for i, array in enumerate(arrays):
            c[i] = self.image(array)
        return c

    def __dealloc__(self):
        for address in self._addresses:
            PyMem_Free(<void *> <size_t> address)


cdef lib.sd_image_t c_image(object array):
    """The pixels of a checked array (height, width, channels); it must outlive the struct."""
    cdef const unsigned char[:, :, ::1] view = array
    cdef lib.sd_image_t c
    c.height = view.shape[0]
    c.width = view.shape[1]
    c.channel = view.shape[2]
    c.data = <lib.uint8_t *> &view[0, 0, 0]
    return c


cdef int _fill_paths(dict v, lib.sd_ctx_params_t * c, Memory memory) except -1:
    if "model_path" in v:
        c.model_path = memory.text(v["model_path"])
    if "clip_l_path" in v:
        c.clip_l_path = memory.text(v["clip_l_path"])
    if "clip_g_path" in v:
        c.clip_g_path = memory.text(v["clip_g_path"])
    if "clip_vision_path" in v:
        c.clip_vision_path = memory.text(v["clip_vision_path"])
    if "t5xxl_path" in v:
        c.t5xxl_path = memory.text(v["t5xxl_path"])
    if "llm_path" in v:
        c.llm_path = memory.text(v["llm_path"])
    if "llm_vision_path" in v:
        c.llm_vision_path = memory.text(v["llm_vision_path"])
    if "diffusion_model_path" in v:
        c.diffusion_model_path = memory.text(v["diffusion_model_path"])
    if "high_noise_diffusion_model_path" in v:
        c.high_noise_diffusion_model_path = memory.text(v["high_noise_diffusion_model_path"])
    if "vae_path" in v:
        c.vae_path = memory.text(v["vae_path"])
    if "taesd_path" in v:
        c.taesd_path = memory.text(v["taesd_path"])
    if "control_net_path" in v:
        c.control_net_path = memory.text(v["control_net_path"])
    if "photo_maker_path" in v:
        c.photo_maker_path = memory.text(v["photo_maker_path"])
    if "tensor_type_rules" in v:
        c.tensor_type_rules = memory.text(v["tensor_type_rules"])
    return 0


cdef int _fill_embeddings(list embeddings, lib.sd_ctx_params_t * c, Memory memory) except -1:
    cdef lib.sd_embedding_t * c_embeddings = <lib.sd_embedding_t *> memory.alloc(
        len(embeddings), sizeof(lib.sd_embedding_t))
    for i, embedding in enumerate(embeddings):
        v = checked(embedding, Embedding, f"embeddings[{i}]")
        if not v.get("name") or "path" not in v:
            raise ValueError(f"embeddings[{i}] is {embedding!r}, expected a name and a path")
        c_embeddings[i].name = memory.text(v["name"])
        c_embeddings[i].path = memory.text(v["path"])
    c.embeddings = c_embeddings
    c.embedding_count = len(embeddings)
    return 0


cdef Memory fill_context(object params, lib.sd_ctx_params_t * c):
    cdef Memory memory = Memory()
    v = checked(params, SDContextParams, "params")
    lib.sd_ctx_params_init(c)
    _fill_paths(v, c, memory)
    _fill_embeddings(v.get("embeddings", []), c, memory)
    c.vae_decode_only = v.get("vae_decode_only", c.vae_decode_only)
    c.free_params_immediately = v.get("free_params_immediately", False)  # the engine's True allows one picture only
    c.n_threads = v.get("n_threads", _core.get_threads())
    c.wtype = <lib.sd_type_t> <int> v.get("wtype", <int> c.wtype)
    c.rng_type = <lib.rng_type_t> <int> v.get("rng_type", <int> c.rng_type)
    c.sampler_rng_type = <lib.rng_type_t> <int> v.get("sampler_rng_type", <int> c.sampler_rng_type)
    c.prediction = <lib.prediction_t> <int> v.get("prediction", <int> c.prediction)
    c.lora_apply_mode = <lib.lora_apply_mode_t> <int> v.get("lora_apply_mode", <int> c.lora_apply_mode)
    c.offload_params_to_cpu = v.get("offload_params_to_cpu", c.offload_params_to_cpu)
    c.enable_mmap = v.get("enable_mmap", c.enable_mmap)
    c.keep_clip_on_cpu = v.get("keep_clip_on_cpu", c.keep_clip_on_cpu)
    c.keep_control_net_on_cpu = v.get("keep_control_net_on_cpu", c.keep_control_net_on_cpu)
    c.keep_vae_on_cpu = v.get("keep_vae_on_cpu", c.keep_vae_on_cpu)
    c.flash_attn = v.get("flash_attn", c.flash_attn)
    c.diffusion_flash_attn = v.get("diffusion_flash_attn", c.diffusion_flash_attn)
    c.tae_preview_only = v.get("tae_preview_only", c.tae_preview_only)
    c.diffusion_conv_direct = v.get("diffusion_conv_direct", c.diffusion_conv_direct)
    c.vae_conv_direct = v.get("vae_conv_direct", c.vae_conv_direct)
    c.circular_x = v.get("circular_x", c.circular_x)
    c.circular_y = v.get("circular_y", c.circular_y)
    c.force_sdxl_vae_conv_scale = v.get("force_sdxl_vae_conv_scale", c.force_sdxl_vae_conv_scale)
    c.chroma_use_dit_mask = v.get("chroma_use_dit_mask", c.chroma_use_dit_mask)
    c.chroma_use_t5_mask = v.get("chroma_use_t5_mask", c.chroma_use_t5_mask)
    c.chroma_t5_mask_pad = v.get("chroma_t5_mask_pad", c.chroma_t5_mask_pad)
    c.qwen_image_zero_cond_t = v.get("qwen_image_zero_cond_t", c.qwen_image_zero_cond_t)
    c.max_vram = v.get("max_vram", c.max_vram)
    return memory


cdef int _fill_guidance(object params, lib.sd_guidance_params_t * c, Memory memory) except -1:
    cdef int * layers
    v = checked(params, GuidanceParams, "guidance")
    c.txt_cfg = v.get("txt_cfg", c.txt_cfg)
    c.img_cfg = v.get("img_cfg", c.img_cfg)
    c.distilled_guidance = v.get("distilled_guidance", c.distilled_guidance)
    slg = checked(v.get("slg"), SlgParams, "slg")
    c.slg.layer_start = slg.get("layer_start", c.slg.layer_start)
    c.slg.layer_end = slg.get("layer_end", c.slg.layer_end)
    c.slg.scale = slg.get("scale", c.slg.scale)
    if "layers" in slg:
        layers = <int *> memory.alloc(len(slg["layers"]), sizeof(int))
        for i, layer in enumerate(slg["layers"]):
            layers[i] = layer
        c.slg.layers = layers
        c.slg.layer_count = len(slg["layers"])
    return 0


cdef int _fill_sample(object params, str name, lib.sd_sample_params_t * c, Memory memory) except -1:
    cdef float * sigmas
    v = checked(params, SampleParams, name)
    _fill_guidance(v.get("guidance"), &c.guidance, memory)
    c.scheduler = <lib.scheduler_t> <int> v.get("scheduler", <int> c.scheduler)
    c.sample_method = <lib.sample_method_t> <int> v.get("sample_method", <int> c.sample_method)
    c.sample_steps = v.get("sample_steps", c.sample_steps)
    c.eta = v.get("eta", c.eta)
    c.shifted_timestep = v.get("shifted_timestep", c.shifted_timestep)
    c.flow_shift = v.get("flow_shift", c.flow_shift)
    if "custom_sigmas" in v:
        sigmas = <float *> memory.alloc(len(v["custom_sigmas"]), sizeof(float))
        for i, sigma in enumerate(v["custom_sigmas"]):
            sigmas[i] = sigma
        c.custom_sigmas = sigmas
        c.custom_sigmas_count = len(v["custom_sigmas"])
    return 0


cdef Memory fill_sample(object params, lib.sd_sample_params_t * c):
    cdef Memory memory = Memory()
    lib.sd_sample_params_init(c)
    _fill_sample(params, "params", c, memory)
    return memory


cdef int check_steps(lib.sd_sample_params_t * c) except -1:
    """What the schedules assert on, or read beside their tables for."""
    if c.sample_steps < 1:
        raise ValueError(f"sample_steps is {c.sample_steps}, expected 1 to {MAX_STEPS}")
    if c.custom_sigmas_count == 0 and c.sample_steps < 2 and <int> c.scheduler in _TWO_STEPS:
        raise ValueError(f"sample_steps is 1, the scheduler {Scheduler(<int> c.scheduler).name.lower()} "
                         "needs at least 2")
    return 0


cdef int _fill_tiling(object params, lib.sd_tiling_params_t * c) except -1:
    v = checked(params, SDTilingParams, "vae_tiling_params")
    c.enabled = v.get("enabled", c.enabled)
    c.tile_size_x = v.get("tile_size_x", c.tile_size_x)
    c.tile_size_y = v.get("tile_size_y", c.tile_size_y)
    c.target_overlap = v.get("target_overlap", c.target_overlap)
    c.rel_size_x = v.get("rel_size_x", c.rel_size_x)
    c.rel_size_y = v.get("rel_size_y", c.rel_size_y)
    return 0


cdef int _fill_cache(object params, lib.sd_cache_params_t * c, Memory memory) except -1:
    v = checked(params, CacheParams, "cache")
    c.mode = <lib.sd_cache_mode_t> <int> v.get("mode", <int> c.mode)
    c.reuse_threshold = v.get("reuse_threshold", c.reuse_threshold)
    c.start_percent = v.get("start_percent", c.start_percent)
    c.end_percent = v.get("end_percent", c.end_percent)
    if c.start_percent >= c.end_percent:
        raise ValueError(f"start_percent is {c.start_percent}, expected less than end_percent ({c.end_percent})")
    c.error_decay_rate = v.get("error_decay_rate", c.error_decay_rate)
    c.use_relative_threshold = v.get("use_relative_threshold", c.use_relative_threshold)
    c.reset_error_on_compute = v.get("reset_error_on_compute", c.reset_error_on_compute)
    c.Fn_compute_blocks = v.get("Fn_compute_blocks", c.Fn_compute_blocks)
    c.Bn_compute_blocks = v.get("Bn_compute_blocks", c.Bn_compute_blocks)
    c.residual_diff_threshold = v.get("residual_diff_threshold", c.residual_diff_threshold)
    c.max_warmup_steps = v.get("max_warmup_steps", c.max_warmup_steps)
    c.max_cached_steps = v.get("max_cached_steps", c.max_cached_steps)
    c.max_continuous_cached_steps = v.get("max_continuous_cached_steps", c.max_continuous_cached_steps)
    c.taylorseer_n_derivatives = v.get("taylorseer_n_derivatives", c.taylorseer_n_derivatives)
    c.taylorseer_skip_interval = v.get("taylorseer_skip_interval", c.taylorseer_skip_interval)
    if "scm_mask" in v:
        c.scm_mask = memory.text(v["scm_mask"])
    c.scm_policy_dynamic = v.get("scm_policy_dynamic", c.scm_policy_dynamic)
    c.spectrum_w = v.get("spectrum_w", c.spectrum_w)
    c.spectrum_m = v.get("spectrum_m", c.spectrum_m)
    c.spectrum_lam = v.get("spectrum_lam", c.spectrum_lam)
    c.spectrum_window_size = v.get("spectrum_window_size", c.spectrum_window_size)
    c.spectrum_flex_window = v.get("spectrum_flex_window", c.spectrum_flex_window)
    c.spectrum_warmup_steps = v.get("spectrum_warmup_steps", c.spectrum_warmup_steps)
    c.spectrum_stop_percent = v.get("spectrum_stop_percent", c.spectrum_stop_percent)
    return 0


cdef int _fill_loras(list loras, const lib.sd_lora_t ** c_list, lib.uint32_t * c_count, Memory memory) except -1:
    cdef lib.sd_lora_t * c = <lib.sd_lora_t *> memory.alloc(len(loras), sizeof(lib.sd_lora_t))
    for i, lora in enumerate(loras):
        v = checked(lora, Lora, f"loras[{i}]")
        if "path" not in v:
            raise ValueError(f"loras[{i}] is {lora!r}, expected a path")
        c[i].path = memory.text(v["path"])
        c[i].multiplier = v.get("multiplier", 1.0)
        c[i].is_high_noise = v.get("is_high_noise", False)
    c_list[0] = c
    c_count[0] = len(loras)
    return 0


cdef int _fill_hires(object params, lib.sd_img_gen_params_t * c, Memory memory) except -1:
    cdef lib.sd_hires_params_t * h = &c.hires
    v = checked(params, HiresParams, "hires")
    h.enabled = v.get("enabled", h.enabled)
    h.upscaler = <lib.sd_hires_upscaler_t> <int> v.get("upscaler", <int> h.upscaler)
    if "model_path" in v:
        h.model_path = memory.text(v["model_path"])
    h.scale = v.get("scale", h.scale)
    h.target_width = v.get("target_width", h.target_width)
    h.target_height = v.get("target_height", h.target_height)
    h.steps = v.get("steps", h.steps)
    h.denoising_strength = v.get("denoising_strength", h.denoising_strength)
    h.upscale_tile_size = v.get("upscale_tile_size", h.upscale_tile_size)
    if not h.enabled:
        return 0
    if h.upscaler == lib.SD_HIRES_UPSCALER_MODEL and h.model_path == NULL:
        raise ValueError("hires.upscaler is Model, expected a hires.model_path as well")
    # the engine makes more steps and leaves the first ones out
    cdef int steps = <int> ((h.steps if h.steps > 0 else c.sample_params.sample_steps) / h.denoising_strength)
    cdef int scheduler = <int> c.sample_params.scheduler
    if (scheduler in _TWO_STEPS and steps < 2) or (scheduler in _TABLES and steps > MAX_STEPS):
        raise ValueError(f"the second pass has a schedule of {steps} steps (steps / denoising_strength), the scheduler "
                         f"{Scheduler(scheduler).name.lower()} takes 2 to {MAX_STEPS}")
    return 0


cdef int _fill_photo_maker(object params, lib.sd_pm_params_t * c, Memory memory) except -1:
    v = checked(params, PhotoMakerParams, "pm_params")
    c.style_strength = v.get("style_strength", c.style_strength)
    if "id_embed_path" in v:
        c.id_embed_path = memory.text(v["id_embed_path"])
    if "id_images" in v:
        c.id_images = memory.images(v["id_images"])
        c.id_images_count = len(v["id_images"])
    return 0


def _check_references(images: list, resize: bool) -> None:
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        if resize and max(width, height) > 64 * min(width, height):
            raise ValueError(f"ref_images[{i}] has {width}x{height} pixels, expected sides of at most 1 to 64")
        if not resize and (width % 16 or height % 16):
            raise ValueError(f"ref_images[{i}] has {width}x{height} pixels, expected multiples of 16 "
                             "(or auto_resize_ref_image=True)")


cdef Memory fill_image(object params, lib.sd_img_gen_params_t * c):
    cdef Memory memory = Memory()
    v = checked(params, ImageGenParams, "params")
    lib.sd_img_gen_params_init(c)
    _fill_loras(v.get("loras", []), &c.loras, &c.lora_count, memory)
    c.prompt = memory.text(v.get("prompt", b""))
    c.negative_prompt = memory.text(v.get("negative_prompt", b""))
    c.clip_skip = v.get("clip_skip", c.clip_skip)
    c.width = v.get("width", c.width)
    c.height = v.get("height", c.height)
    for name in ("init_image", "mask_image", "control_image"):
        check_same_size(v.get(name), name, c.width, c.height)
    if "mask_image" in v and "init_image" not in v:
        raise ValueError("mask_image was given without init_image")
    if "init_image" in v:
        c.init_image = memory.image(v["init_image"])
    if "mask_image" in v:
        c.mask_image = memory.image(v["mask_image"])
    if "control_image" in v:
        c.control_image = memory.image(v["control_image"])
    c.auto_resize_ref_image = v.get("auto_resize_ref_image", c.auto_resize_ref_image)
    c.increase_ref_index = v.get("increase_ref_index", c.increase_ref_index)
    if v.get("ref_images"):
        _check_references(v["ref_images"], c.auto_resize_ref_image)
        c.ref_images = memory.images(v["ref_images"])
        c.ref_images_count = len(v["ref_images"])
    _fill_sample(v.get("sample_params"), "sample_params", &c.sample_params, memory)
    check_steps(&c.sample_params)
    c.strength = v.get("strength", c.strength)
    c.seed = v.get("seed", c.seed)
    c.batch_count = v.get("batch_count", c.batch_count)
    c.control_strength = v.get("control_strength", c.control_strength)
    _fill_photo_maker(v.get("pm_params"), &c.pm_params, memory)
    _fill_tiling(v.get("vae_tiling_params"), &c.vae_tiling_params)
    _fill_cache(v.get("cache"), &c.cache, memory)
    _fill_hires(v.get("hires"), c, memory)
    return memory


cdef Memory fill_video(object params, lib.sd_vid_gen_params_t * c):
    cdef Memory memory = Memory()
    v = checked(params, VideoGenParams, "params")
    lib.sd_vid_gen_params_init(c)
    _fill_loras(v.get("loras", []), &c.loras, &c.lora_count, memory)
    c.prompt = memory.text(v.get("prompt", b""))
    c.negative_prompt = memory.text(v.get("negative_prompt", b""))
    c.clip_skip = v.get("clip_skip", c.clip_skip)
    c.width = v.get("width", c.width)
    c.height = v.get("height", c.height)
    for name in ("init_image", "end_image"):
        check_same_size(v.get(name), name, c.width, c.height)
    for i, frame in enumerate(v.get("control_frames", [])):
        check_same_size(frame, f"control_frames[{i}]", c.width, c.height)
    if "init_image" in v:
        c.init_image = memory.image(v["init_image"])
    if "end_image" in v:
        c.end_image = memory.image(v["end_image"])
    if v.get("control_frames"):
        c.control_frames = memory.images(v["control_frames"])
        c.control_frames_size = len(v["control_frames"])
    _fill_sample(v.get("sample_params"), "sample_params", &c.sample_params, memory)
    check_steps(&c.sample_params)
    _fill_sample(v.get("high_noise_sample_params"), "high_noise_sample_params", &c.high_noise_sample_params, memory)
    c.moe_boundary = v.get("moe_boundary", c.moe_boundary)
    c.strength = v.get("strength", c.strength)
    c.seed = v.get("seed", c.seed)
    c.video_frames = v.get("video_frames", c.video_frames)
    c.vace_strength = v.get("vace_strength", c.vace_strength)
    _fill_tiling(v.get("vae_tiling_params"), &c.vae_tiling_params)
    _fill_cache(v.get("cache"), &c.cache, memory)
    return memory


def check_request(params: ImageGenParams | VideoGenParams) -> None:
    """Check every parameter, as the engine's call would before it computes; no model is needed.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
    """
    cdef lib.sd_img_gen_params_t c_picture
    cdef lib.sd_vid_gen_params_t c_video
    if isinstance(params, VideoGenParams):
        fill_video(params, &c_video)
    else:
        fill_image(params, &c_picture)
