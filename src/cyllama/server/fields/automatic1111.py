"""Fields of AUTOMATIC1111's API: which of them have an effect, and the values with which others change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyllama.server.fields.field import Field, RouteFields
from cyllama.server.fields.form import FormFields
from cyllama.server.fields.sampling import BOOLEAN, TEXT, list_of, one_of

__all__ = [
    "CHECKPOINT",
    "CLIP_LAYERS",
    "COLOURS",
    "EXTRAS",
    "EXTRAS_BATCH",
    "FIRST_PASS",
    "FORMAT",
    "IMG2IMG",
    "INFO",
    "JPEG_QUALITY",
    "PROGRESS",
    "SETTINGS",
    "TXT2IMG",
    "VAE",
]

NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}
OBJECT = {"type": "object"}
SIDE = {"type": "integer", "minimum": 8, "maximum": 16384}
COUNT = {"type": "integer", "minimum": 1, "maximum": 1024}
FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
PIXELS = {"type": "integer", "minimum": 0, "maximum": 4096}
NOTHING = ("", "None")
DEFAULT = ("", "None", "Automatic", "automatic")

CHECKPOINT, VAE, CLIP_LAYERS = "sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers"
FORMAT, JPEG_QUALITY = "samples_format", "jpeg_quality"
COLOURS = "img2img_color_correction"

SETTINGS = FormFields(
    "Set options for the next requests of this account (address, key, and user of Basic authentication).",
    (
        Field(CHECKPOINT, TEXT, "Name or alias of the model."),
        Field(VAE, TEXT, "`Automatic` or the VAE of the model; a model of the server has one VAE."),
        Field(
            CLIP_LAYERS, {"type": "integer", "minimum": 1, "maximum": 12}, "As `clip_skip`; 1 is the model's default."
        ),
        Field(FORMAT, one_of("png", "jpg", "jpeg", "webp"), "Format of the images."),
        Field(JPEG_QUALITY, {"type": "integer", "minimum": 1, "maximum": 100}, "Quality of `jpg` and `webp`."),
    ),
    {COLOURS: "the colours of results are not corrected"},
    neutral={VAE: ("Automatic", "None", ""), CHECKPOINT: ("",), COLOURS: (False,)},
)

NOT_SAVED = "The server does not save images."

COMMON = (
    Field("prompt", TEXT, "What to show; `<lora:NAME:WEIGHT>` adds a LoRA."),
    Field("negative_prompt", TEXT, "What not to show."),
    Field(
        "styles",
        {**list_of(TEXT), "maxItems": 16},
        "Names of styles of the configuration, which complete both prompts.",
    ),
    Field("seed", INTEGER, "Seed of the first image, the next ones count up; -1: a random one."),
    Field("sampler_name", TEXT, "Sampler, such as `Euler a`; default: the model's."),
    Field("sampler_index", TEXT, "As `sampler_name`, which comes first."),
    Field("scheduler", TEXT, "Schedule, such as `Karras`; default: the model's."),
    Field("batch_size", COUNT, "Number of images; multiplied by `n_iter`."),
    Field("n_iter", COUNT, "Number of batches."),
    Field("steps", COUNT, "Steps; default: the model's."),
    Field("cfg_scale", NUMBER, "Guidance; default: the model's."),
    Field("distilled_cfg_scale", NUMBER, "Distilled guidance of models that have it, as in Forge."),
    Field("width", SIDE, "Width in pixels, given together with `height`; default: the model's, or that of the image."),
    Field("height", SIDE, "Height in pixels."),
    Field("eta", NUMBER, "Noise that the sampler adds."),
    Field("clip_skip", {"type": "integer", "minimum": -1, "maximum": 12}, "Layer of CLIP, as in SD.Next."),
    Field("override_settings", OBJECT, "Options for this request, as of `/sdapi/v1/options`."),
    Field("override_settings_restore_afterwards", BOOLEAN, "False: keep `override_settings` for the next requests."),
    Field("alwayson_scripts", OBJECT, "Scripts that are turned off; others are refused by name."),
    Field("send_images", BOOLEAN, "False: return `info` without images."),
    Field("force_task_id", TEXT, "Id of the job, for `/internal/progress` and `id_task`."),
    Field("save_images", BOOLEAN, NOT_SAVED, ignored=True),
    Field("do_not_save_samples", BOOLEAN, NOT_SAVED, ignored=True),
    Field("do_not_save_grid", BOOLEAN, NOT_SAVED, ignored=True),
    Field("url", {}, "SillyTavern sends its settings with the request.", ignored=True),
    Field("auth", {}, "SillyTavern sends its settings with the request.", ignored=True),
)
HIRES = (
    Field("enable_hr", BOOLEAN, "A second pass in a larger size; needs `width` and `height`."),
    Field("hr_scale", {"type": "number", "minimum": 1, "maximum": 16}, "How many times larger; default: 2."),
    Field("hr_upscaler", TEXT, "How the first image is enlarged, as listed by `latent-upscale-modes` and `upscalers`."),
    Field("hr_second_pass_steps", {**INTEGER, "minimum": 0}, "Steps of the second pass; 0: as many as the first."),
    Field("hr_resize_x", {**SIDE, "minimum": 0}, "Width after the second pass; 0: in proportion."),
    Field("hr_resize_y", {**SIDE, "minimum": 0}, "Height after the second pass; 0: in proportion."),
)
FROM_IMAGE = (
    Field("init_images", list_of(TEXT, 1), "One image as base64 or data URL.", required=True),
    Field("mask", TEXT, "Image of the same size: white where to generate."),
    Field("denoising_strength", FRACTION, "How much the image may change."),
    Field("image_cfg_scale", NUMBER, "Guidance by the image, of edit models."),
    Field("resize_mode", one_of(0, 1, 2), "Fit to `width` and `height`: 0 stretches, 1 crops, 2 extends the edges."),
    Field("mask_blur", {"type": "number", "minimum": 0, "maximum": 64}, "Blur of the mask in pixels; default: 4."),
    Field("mask_blur_x", {"type": "number", "minimum": 0, "maximum": 64}, "Blur in one direction."),
    Field("mask_blur_y", {"type": "number", "minimum": 0, "maximum": 64}, "Blur in the other direction."),
    Field("mask_round", BOOLEAN, "True (default): make the mask black and white before it is blurred."),
    Field("inpainting_mask_invert", {**INTEGER, "minimum": 0, "maximum": 1}, "1: generate where the mask is black."),
    Field("inpainting_fill", one_of(0, 1), "Start under the mask: 0 (default) with the colours around it, 1 as it is."),
    Field("inpaint_full_res", BOOLEAN, "True (default): generate the masked part in the whole size, and paste it."),
    Field("inpaint_full_res_padding", PIXELS, "Pixels around the masked part that are seen."),
    Field("include_init_images", BOOLEAN, "True: return the images with `parameters`."),
)
UNSUPPORTED = {
    "subseed_strength": "seeds are not mixed",
    "seed_resize_from_h": "noise is not resized",
    "seed_resize_from_w": "noise is not resized",
    "restore_faces": "there is no face restoration",
    "tiling": "it is a setting of the model (circular_x, circular_y)",
    "s_churn": "the samplers have no churn",
    "s_tmax": "the samplers have no churn",
    "s_tmin": "the samplers have no churn",
    "s_noise": "the samplers add noise of weight 1",
    "s_min_uncond": "guidance is computed in every step",
    "refiner_checkpoint": "there is no second model",
    "disable_extra_networks": "leave the LoRAs out of the prompt",
    "script_name": "there are no scripts",
    "infotext": "send the parameters as fields",
    "comments": "it is a field of responses",
    "firstpass_image": "send it to img2img",
    "hr_checkpoint_name": "both passes use one model",
    "hr_sampler_name": "both passes use one sampler",
    "hr_scheduler": "both passes use one schedule",
    "hr_prompt": "both passes use one prompt",
    "hr_negative_prompt": "both passes use one prompt",
    "hr_additional_modules": "a model of the server has its modules",
    "firstphase_width": "width is the size of the first pass",
    "firstphase_height": "height is the size of the first pass",
    "subseed": "seeds are not mixed",
    "refiner_switch_at": "there is no second model",
    "script_args": "there are no scripts",
}
NEUTRAL: dict[str, tuple[object, ...]] = {
    "sampler_name": DEFAULT,
    "sampler_index": DEFAULT,
    "scheduler": DEFAULT,
    "styles": ([],),
    "distilled_cfg_scale": (3.5,),
    "clip_skip": (0, 1, -1),
    "subseed_strength": (0,),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "restore_faces": (False,),
    "tiling": (False,),
    "s_churn": (0,),
    "s_tmax": (0,),
    "s_tmin": (0,),
    "s_noise": (1,),
    "s_min_uncond": (0,),
    "refiner_checkpoint": NOTHING,
    "disable_extra_networks": (False,),
    "script_name": NOTHING,
    "infotext": ("",),
    "comments": ({},),
    "firstpass_image": ("",),
    "enable_hr": (False,),
    "hr_upscaler": ("",),
    "hr_resize_x": (0,),
    "hr_resize_y": (0,),
    "hr_checkpoint_name": (*NOTHING, "Use same checkpoint"),
    "hr_sampler_name": (*NOTHING, "Use same sampler"),
    "hr_scheduler": (*NOTHING, "Use same scheduler"),
    "hr_prompt": ("",),
    "hr_negative_prompt": ("",),
    "hr_additional_modules": ([], ["Use same choices"]),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "image_cfg_scale": (0, 1.5),
    "mask": ("",),
    "initial_noise_multiplier": (0, 1),
    "latent_mask": ("",),
    "init_images": ([],),
}
# Fields that belong to another one, with which they have no effect while it is off.
SWITCHES = {
    "subseed": "subseed_strength",
    "refiner_switch_at": "refiner_checkpoint",
    "script_args": "script_name",
    **{field.name: "enable_hr" for field in HIRES[1:]},
    **{name: "enable_hr" for name in UNSUPPORTED if name.startswith(("hr_", "firstphase_"))},
}
OF_IMAGES = {"initial_noise_multiplier": "noise has the weight 1", "latent_mask": "send mask"}
FIRST_PASS = {
    "hr_sampler_name": "sampler_name",
    "hr_scheduler": "scheduler",
    "hr_prompt": "prompt",
    "hr_negative_prompt": "negative_prompt",
}
"""Fields of the second pass, which must have the value of the field of the first pass."""

TXT2IMG = FormFields(
    "Generate images from a text, in AUTOMATIC1111's form.",
    (*COMMON, *HIRES, Field("denoising_strength", FRACTION, "With `enable_hr`: change by the second pass.")),
    UNSUPPORTED,
    neutral=NEUTRAL,
    switches={**SWITCHES, "denoising_strength": "enable_hr"},
)
IMG2IMG = FormFields(
    "Generate images from an image and a text, or a part of it, in AUTOMATIC1111's form.",
    (*COMMON, *FROM_IMAGE),
    {**UNSUPPORTED, **OF_IMAGES, "enable_hr": "it belongs to txt2img"},
    neutral=NEUTRAL,
    switches={
        **SWITCHES,
        **{field.name: "mask" for field in FROM_IMAGE if field.name.startswith(("mask_", "inpaint"))},
    },
)

UPSCALING = (
    Field("upscaler_1", TEXT, "Name of `/sdapi/v1/upscalers`; `None` (default) changes nothing."),
    Field("upscaler_2", TEXT, "A second one, blended with the first by `extras_upscaler_2_visibility`."),
    Field("extras_upscaler_2_visibility", FRACTION, "Weight of the second one; default: 0."),
    Field("resize_mode", one_of(0, 1), "0: enlarge by `upscaling_resize`. 1: to the given size."),
    Field("upscaling_resize", {"type": "number", "minimum": 0.125, "maximum": 16}, "Factor; default: 2."),
    Field("upscaling_resize_w", SIDE, "Width with `resize_mode` 1; default: 512."),
    Field("upscaling_resize_h", SIDE, "Height with `resize_mode` 1; default: 512."),
    Field("upscaling_crop", BOOLEAN, "With `resize_mode` 1: crop to the size (default), or fit into it."),
    Field("show_extras_results", BOOLEAN, "False: return no image."),
    Field("force_task_id", TEXT, "Id of the job, for `/internal/progress` and `id_task`."),
)
NO_FACES = {
    "gfpgan_visibility": "there is no face restoration",
    "codeformer_visibility": "there is no face restoration",
    "codeformer_weight": "there is no face restoration",
    "upscale_first": "there is no face restoration",
}
EXTRAS_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "upscaler_1": ("None", ""),
    "upscaler_2": ("None", ""),
    "extras_upscaler_2_visibility": (0,),
    "gfpgan_visibility": (0,),
    "codeformer_visibility": (0,),
    "resize_mode": (0,),
}
EXTRAS_SWITCHES = {
    "codeformer_weight": "codeformer_visibility",
    "upscale_first": "gfpgan_visibility",
    "upscaling_resize_w": "resize_mode",
    "upscaling_resize_h": "resize_mode",
    "upscaling_crop": "resize_mode",
    "extras_upscaler_2_visibility": "upscaler_2",
    "upscaler_2": "extras_upscaler_2_visibility",
}


def _extras(summary: str, images: Field) -> FormFields:
    fields = (images, *UPSCALING)
    return FormFields(summary, fields, NO_FACES, neutral=EXTRAS_NEUTRAL, switches=EXTRAS_SWITCHES)


FILE: Mapping[str, Any] = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": TEXT, "name": TEXT},
    "additionalProperties": False,
}
EXTRAS = _extras("Enlarge an image.", Field("image", TEXT, "The image as base64 or data URL.", required=True))
EXTRAS_BATCH = _extras(
    "Enlarge several images.", Field("imageList", list_of(FILE, 1), "The images: `data`, `name`.", required=True)
)
INFO = RouteFields(
    "Read the parameters in an image file.",
    (Field("image", TEXT, "The file as base64 or data URL.", required=True),),
)
PROGRESS = FormFields(
    "Report the progress of a job by its id.",
    (
        Field("id_task", TEXT, "Id of the job: `force_task_id`, or the header `x-job-id`.", required=True),
        Field("live_preview", BOOLEAN, "False: no preview."),
        Field("id_live_preview", INTEGER, "Number of the last preview that the client has; the same one is left out."),
    ),
)
