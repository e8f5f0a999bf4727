"""Requests that programs send to AUTOMATIC1111's API, recorded from their sources; sizes and steps are smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["KRITA", "OPEN_WEBUI", "SILLY_TAVERN", "Call"]

IMAGE = object()
"""Stands for an image in base64 in a body."""
MASK = object()


@dataclass(frozen=True)
class Call:
    """A request, and the keys that the program reads from its response.

    Attributes
    ----------
    path : str
    body : object
        None: a GET.
    reads : tuple of str
        Keys of the response, or of each item of a list.
    """

    path: str
    body: Any = None
    reads: tuple[str, ...] = ()


OPTIONS = Call("/sdapi/v1/options", reads=("sd_model_checkpoint",))

# Open WebUI: verify the address, list the models, change the model (all options are sent back), generate.
OPEN_WEBUI = [
    OPTIONS,
    Call("/sdapi/v1/sd-models", reads=("title", "model_name")),
    Call("/sdapi/v1/options", "the options, with the model"),
    OPTIONS,
    Call(
        "/sdapi/v1/txt2img",
        {
            "prompt": "a red circle",
            "batch_size": 1,
            "width": 64,
            "height": 64,
            "steps": 2,
            "negative_prompt": "text",
            "cfg_scale": 7.0,
            "sampler_name": "Euler a",
            "scheduler": "Karras",
        },
        ("images", "info"),
    ),
]

# SillyTavern: connect, fill its menus, choose a model and wait, generate; it sends its settings as well.
SILLY_TAVERN = [
    OPTIONS,
    Call("/sdapi/v1/sd-models", reads=("title",)),
    Call("/sdapi/v1/samplers", reads=("name",)),
    Call("/sdapi/v1/schedulers", reads=("name",)),
    Call("/sdapi/v1/upscalers", reads=("name",)),
    Call("/sdapi/v1/latent-upscale-modes", reads=("name",)),
    Call("/sdapi/v1/sd-vae"),
    Call("/sdapi/v1/options", {"sd_model_checkpoint": "shapes"}),
    Call("/sdapi/v1/progress", reads=("progress", "state")),
    OPTIONS,
    Call(
        "/sdapi/v1/txt2img",
        {
            "url": "http://localhost:7860",
            "auth": "user:key",
            "prompt": "a red circle",
            "negative_prompt": "text",
            "sampler_name": "Euler a",
            "scheduler": "normal",
            "steps": 2,
            "cfg_scale": 7,
            "width": 64,
            "height": 64,
            "restore_faces": False,
            "enable_hr": False,
            "hr_upscaler": "Latent",
            "hr_scale": 2,
            "hr_additional_modules": [],
            "denoising_strength": 0.7,
            "hr_second_pass_steps": 0,
            "seed": "42",
            "override_settings": {"CLIP_stop_at_last_layers": 1},
            "override_settings_restore_afterwards": True,
            "clip_skip": 1,
            "save_images": True,
            "send_images": True,
            "do_not_save_grid": False,
            "do_not_save_samples": False,
        },
        ("images",),
    ),
    Call("/sdapi/v1/interrupt", {}),
]

# A plugin of Krita: connect, fill its menus, hires to the canvas, inpaint a selection, enlarge.
COMMON = {
    "prompt": "a red circle",
    "negative_prompt": "",
    "seed": -1,
    "sampler_name": "Euler",
    "steps": 2,
    "cfg_scale": 7.0,
    "batch_size": 1,
    "n_iter": 1,
    "alwayson_scripts": {"ControlNet": {"args": [{"enabled": False, "module": "none", "model": "None"}]}},
    "override_settings": {"sd_model_checkpoint": "shapes", "sd_vae": "None", "img2img_color_correction": False},
    "override_settings_restore_afterwards": False,
}
KRITA = [
    Call("/queue/status"),
    *(
        Call(f"/sdapi/v1/{name}")
        for name in (
            "sd-models",
            "sd-vae",
            "samplers",
            "upscalers",
            "face-restorers",
            "prompt-styles",
            "scripts",
            "loras",
            "embeddings",
            "hypernetworks",
            "options",
        )
    ),
    Call(
        "/sdapi/v1/txt2img",
        {
            **COMMON,
            "enable_hr": True,
            "hr_upscaler": "Latent (nearest)",
            "hr_second_pass_steps": 1,
            "denoising_strength": 0.7,
            "hr_resize_x": 96,
            "hr_resize_y": 96,
            "width": 64,
            "height": 64,
        },
        ("images", "info", "parameters"),
    ),
    Call("/sdapi/v1/progress?skip_current_image=false", reads=("progress", "state", "current_image")),
    Call(
        "/sdapi/v1/img2img",
        {
            **COMMON,
            "width": 64,
            "height": 64,
            "init_images": [IMAGE],
            "mask": MASK,
            "denoising_strength": 0.75,
            "mask_blur": 4,
            "inpainting_mask_invert": 0,
            "inpainting_fill": 1,
            "inpaint_full_res": 1,
            "inpaint_full_res_padding": 8,
        },
        ("images", "info"),
    ),
    Call(
        "/sdapi/v1/extra-single-image",
        {"image": IMAGE, "upscaling_resize": 2, "upscaler_1": "Lanczos", "resize_mode": 0},
        ("image",),
    ),
]
