"""AUTOMATIC1111's API: the programs that use it, and what each field does."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
import webuiapi
from PIL import Image, ImageDraw
from server.a1111_clients import IMAGE, KRITA, MASK, OPEN_WEBUI, SILLY_TAVERN, Call
from server.conftest import KEY, png
from server.running import Server
from starlette.exceptions import HTTPException

from cyllama.sd import read_parameters
from cyllama.server.http.errors import error_body
from cyllama.server.routes.automatic1111 import SDAPI_FIELDS

BODY = {"prompt": "a large red circle on yellow", "width": 64, "height": 64, "steps": 2, "seed": 1}
SIZE = (64, 64)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def mask_of(box: tuple[int, int, int, int], size: tuple[int, int] = (128, 128)) -> Image.Image:
    """Return a mask that is white in a box."""
    found = Image.new("L", size)
    ImageDraw.Draw(found).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    return found


def png_of(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return encoded(file.getvalue())


def noise(size: tuple[int, int] = (128, 128)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def api(sd_server: Server) -> Iterator[webuiapi.WebUIApi]:
    """Return the client of the package webuiapi, which sends Basic credentials."""
    found = webuiapi.WebUIApi(port=sd_server.port, username="user", password=KEY, steps=2)
    yield found
    found.session.close()


def post(server: Server, path: str, body: Any, **headers: str) -> Any:
    return server.post(f"/sdapi/v1/{path}", body, headers={"Authorization": f"Bearer {KEY}", **headers})


def images(response: Any) -> list[Image.Image]:
    assert response.status_code == 200, response.text[:500]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in response.json()["images"]]


def generated(server: Server, path: str = "txt2img", **fields: Any) -> np.ndarray:
    (found,) = images(post(server, path, {**BODY, **fields}))
    return np.asarray(found)


def refused(server: Server, path: str = "txt2img", **fields: Any) -> str:
    """Return the name of the field in the error."""
    response = post(server, path, {**BODY, **fields})
    assert response.status_code == 400, response.text[:300]
    return str(response.json()["error"]["param"])


# ----------------------------------------------------------------------------------------- programs


def test_webuiapi_lists_what_the_server_has(api: webuiapi.WebUIApi) -> None:
    assert api.util_get_model_names() == ["more", "shapes"]
    assert {"Euler", "Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names())
    assert {"automatic", "karras"} <= set(api.util_get_scheduler_names())
    upscalers = [item["name"] for item in api.get_upscalers()]
    assert upscalers == ["None", "Lanczos", "Nearest", "R-ESRGAN 4x+ Anime6B"]
    assert "Latent (nearest-exact)" in [item["name"] for item in api.get_latent_upscale_modes()]
    assert [item["path"] for item in api.get_loras()] == ["styles/ink.safetensors"]
    styles = {item["name"]: item for item in api.get_prompt_styles()}
    assert styles["Blue"] == {"name": "Blue", "prompt": "a large {prompt} on blue", "negative_prompt": "red"}
    assert styles["Twice"]["negative_prompt"] == ""
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert api.get_memory()["ram"]["total"] > 0 and api.get_cmd_flags()["api"] is True
    for empty in (api.get_sd_vae, api.get_hypernetworks, api.get_face_restorers):
        assert empty() == []
    assert api.get_embeddings()["loaded"] == {}
    assert api.refresh_checkpoints() is None and api.get_realesrgan_models()[0]["scale"] == 4


def test_webuiapi_generates_with_default_bodies(api: webuiapi.WebUIApi) -> None:
    result = api.txt2img(prompt="a large red circle on yellow", seed=7, n_iter=2, width=64, height=64)
    assert [image.size for image in result.images] == [SIZE, SIZE]
    assert result.info["all_seeds"] == [7, 8] and result.info["sampler_name"] == "Euler a"
    assert "Seed: 8" in result.images[1].info["parameters"]
    changed = api.img2img([result.image], prompt="a blue square", width=64, height=64, denoising_strength=0.9)
    assert changed.image.size == SIZE and changed.image.tobytes() != result.image.tobytes()
    assert "init_images" not in changed.parameters


def test_webuiapi_generates_in_two_passes(api: webuiapi.WebUIApi) -> None:
    result = api.txt2img(prompt="a red circle", width=64, height=64, enable_hr=True, hr_scale=1.5)
    assert result.image.size == (96, 96)
    assert result.info["extra_generation_params"]["hires_upscaler"] == "Latent"
    network = {"hr_upscaler": "R-ESRGAN 4x+ Anime6B", "hr_resize_x": 32, "hr_second_pass_steps": 1}
    small = api.txt2img(prompt="a red circle", width=16, height=16, enable_hr=True, **network)
    assert small.image.size == (32, 32) and small.info["extra_generation_params"]["hires_upscaler"] == "Model"


def test_webuiapi_inpaints(api: webuiapi.WebUIApi) -> None:
    image, box = noise(), (40, 32, 88, 80)
    result = api.img2img([image], mask_image=mask_of(box), prompt="a red circle", width=64, height=64, mask_blur=0)
    before, after = np.asarray(image), np.asarray(result.image)
    assert before.shape == after.shape
    changed = (before != after).any(axis=2)
    inside = np.asarray(mask_of(box)) > 0
    assert changed[inside].mean() > 0.9 and not changed[~inside].any()


def test_webuiapi_enlarges(api: webuiapi.WebUIApi) -> None:
    image = noise((24, 16))
    assert api.extra_single_image(image).image.tobytes() == image.tobytes()  # by default no upscaler
    nearest = api.extra_single_image(image, upscaler_1="Nearest")
    assert nearest.image.tobytes() == image.resize((48, 32), Image.Resampling.NEAREST).tobytes()
    assert "Nearest" in nearest.info
    network = api.extra_single_image(image, upscaler_1="R-ESRGAN 4x+ Anime6B", upscaling_resize=4).image
    assert network.size == (96, 64)
    assert network.tobytes() != image.resize((96, 64), Image.Resampling.LANCZOS).tobytes()
    two = api.extra_batch_images(
        [image, noise((20, 20))],
        upscaler_1="Lanczos",
        resize_mode=1,
        upscaling_resize_w=40,
        upscaling_resize_h=30,
    )
    assert [item.size for item in two.images] == [(40, 30), (40, 30)]


def test_webuiapi_reads_parameters(api: webuiapi.WebUIApi) -> None:
    image = api.txt2img(prompt="a red circle", seed=5, width=64, height=64).image
    found = api.png_info(image).json
    assert found["info"].startswith("a red circle\nSteps: 2") and found["items"]["parameters"] == found["info"]
    assert found["parameters"]["Prompt"] == "a red circle" and found["parameters"]["Size-1"] == "64"
    assert found["parameters"]["CFG scale"] == "7" and found["parameters"]["Seed"] == "5"
    assert api.png_info(noise()).json == {"info": "", "items": {"parameters": ""}, "parameters": {}}


def test_webuiapi_changes_the_model(api: webuiapi.WebUIApi) -> None:
    assert api.util_get_current_model() == "shapes"
    try:
        api.util_set_model("more")
        assert api.util_get_current_model() == "more"
        assert api.txt2img(width=64, height=64).info["sd_model_name"] == "more"
        other = webuiapi.WebUIApi(baseurl=api.baseurl, username="another user", password=KEY)
        assert other.util_get_current_model() == "shapes"  # options belong to an account
        other.session.close()
        result = api.txt2img(width=64, height=64, override_settings={"sd_model_checkpoint": "shapes"})
        assert result.info["sd_model_name"] == "shapes" and api.util_get_current_model() == "more"
    finally:
        api.set_options({"sd_model_checkpoint": "shapes"})
    api.util_wait_for_ready(0.1)


def test_webuiapi_reports_progress_and_interrupts(sd_server: Server, api: webuiapi.WebUIApi) -> None:
    found: list[Any] = []
    other = webuiapi.WebUIApi(baseurl=api.baseurl, username="user", password=KEY)
    long = {"prompt": "a red circle", "steps": 150, "width": 512, "height": 512}
    thread = threading.Thread(target=lambda: found.append(api.txt2img(**long)))
    thread.start()
    sd_server.wait_until(lambda: other.get_progress()["current_image"] is not None)
    now = other.get_progress()
    assert 0 < now["progress"] < 1 and now["state"]["job_count"] == 1 and now["eta_relative"] > 0
    assert other.interrupt() == {}
    thread.join(60)
    assert found[0].info["interrupted"] and found[0].image.size == (512, 512)
    other.util_wait_for_ready(0.1)
    other.session.close()


@pytest.mark.parametrize("name", ["open-webui", "silly-tavern", "krita"])
def test_recorded_programs(sd_server: Server, name: str) -> None:
    calls: list[Call] = {"open-webui": OPEN_WEBUI, "silly-tavern": SILLY_TAVERN, "krita": KRITA}[name]
    headers = {"Authorization": f"Basic {encoded(f'{name}:{KEY}'.encode())}", "User-Agent": name}
    options: dict[str, Any] = {}
    for call in calls:
        if call.body is None:
            response = sd_server.get(call.path, headers=headers)
        else:
            body = {**options, "sd_model_checkpoint": "more"} if isinstance(call.body, str) else filled(call.body)
            response = sd_server.post(call.path, body, headers=headers)
        assert response.status_code == 200, (call.path, response.text[:300])
        value = response.json()
        for item in value if isinstance(value, list) else [value] if call.reads else []:
            assert set(call.reads) <= set(item), call.path
        if call.path == "/sdapi/v1/options" and call.body is None:
            options = value
        if "images" in call.reads:
            assert len(images(response)) == 1
    model = sd_server.get("/sdapi/v1/options", headers=headers).json()["sd_model_checkpoint"]
    assert model == ("more" if name == "open-webui" else "shapes")


def filled(body: Any) -> Any:
    """Return a body with images in the places that stand for them."""
    if body is IMAGE or body is MASK:
        return encoded(png("green", SIZE)) if body is IMAGE else png_of(mask_of((16, 16, 48, 48), SIZE))
    if isinstance(body, dict):
        return {key: filled(value) for key, value in body.items()}
    return [filled(item) for item in body] if isinstance(body, list) else body


# ------------------------------------------------------------------------------------------- fields


NEUTRAL: list[dict[str, Any]] = [
    {"hr_scale": 2, "hr_upscaler": "Latent", "hr_resize_x": 0, "denoising_strength": 0.7, "hr_prompt": ""},
    {"override_settings": {}, "override_settings_restore_afterwards": True, "s_noise": 1, "s_churn": 0.0},
    {"clip_skip": 1, "seed": "1", "steps": 2.0, "batch_size": "1", "send_images": "true"},
    {"subseed": 1234, "subseed_strength": 0, "seed_resize_from_h": -1, "seed_resize_from_w": 0},
    {"script_name": None, "script_args": ["x"], "alwayson_scripts": {"ADetailer": {"args": [False]}}},
    {"refiner_checkpoint": "None", "refiner_switch_at": 0.8, "restore_faces": 0, "tiling": False, "styles": []},
    {"scheduler": "automatic", "hr_sampler_name": "Heun", "hr_scheduler": "Karras"},
    {"distilled_cfg_scale": 3.5, "hr_additional_modules": [], "scheduler": "Automatic", "sampler_name": ""},
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("s_noise", {"s_noise": 1.1}),
    ("subseed", {"subseed": 3, "subseed_strength": 0.5}),
    ("restore_faces", {"restore_faces": True}),
    ("tiling", {"tiling": True}),
    ("script_name", {"script_name": "x/y plot"}),
    ("alwayson_scripts", {"alwayson_scripts": {"ADetailer": {"args": [True, {"ad_model": "x"}]}}}),
    ("alwayson_scripts", {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True}]}}}),
    ("refiner_checkpoint", {"refiner_checkpoint": "x"}),
    ("hr_scale", {"enable_hr": True, "hr_scale": 0.5}),
    ("hr_scale", {"enable_hr": True, "hr_scale": 16.0, "width": 512, "height": 512}),
    ("hr_upscaler", {"enable_hr": True, "hr_upscaler": "SwinIR 4x"}),
    ("hr_sampler_name", {"enable_hr": True, "hr_sampler_name": "Heun", "sampler_name": "Euler"}),
    ("hr_prompt", {"enable_hr": True, "hr_prompt": "other"}),
    ("hr_second_pass_steps", {"enable_hr": True, "hr_second_pass_steps": 10_000}),
    ("enable_hr", {"enable_hr": True, "width": None, "height": None}),
    ("styles", {"styles": ["No such style"]}),
    ("styles", {"styles": ["Blue"] * 17}),
    ("styles", {"styles": ["Twice"] * 16, "prompt": "x" * 1000}),
    ("seed", {"seed": 1 << 62}),
    ("seed", {"seed": 1e300}),
    ("seed", {"seed": "forty-two"}),
    ("steps", {"steps": 2.5}),
    ("mask", {"mask": "iVBOR"}),
    ("unknwon", {"unknwon": 0}),
    ("outdir_samples", {"override_settings": {"outdir_samples": "/tmp"}}),
    ("sd_vae", {"override_settings": {"sd_vae": "other.safetensors"}}),
    ("img2img_color_correction", {"override_settings": {"img2img_color_correction": True}}),
    ("force_task_id", {"force_task_id": "x" * 1000}),
    ("batch_size", {"batch_size": 2, "n_iter": 1000}),
]


@pytest.mark.parametrize("fields", NEUTRAL, ids=lambda fields: next(iter(fields)))
def test_neutral_values_change_nothing(sd_server: Server, fields: dict[str, Any], plain: np.ndarray) -> None:
    assert (generated(sd_server, **fields) == plain).all()


@pytest.fixture(scope="module")
def plain(sd_server: Server) -> np.ndarray:
    return generated(sd_server)


@pytest.mark.parametrize(("name", "fields"), REFUSED, ids=[f"{i}-{name}" for i, (name, _) in enumerate(REFUSED)])
def test_refuses_by_name(sd_server: Server, name: str, fields: dict[str, Any]) -> None:
    response = post(sd_server, "txt2img", {**BODY, **fields})
    error = response.json()["error"]
    assert response.status_code == 400 and (name == error["param"] or name in error["message"]), response.text


ON = {"enable_hr": True, "mask": "x", "upscaler_2": "Lanczos", "extras_upscaler_2_visibility": 0.5, "resize_mode": 1}
REQUIRED = {"init_images": ["x"], "image": "x", "imageList": [{"data": "x"}], "id_task": "x"}
WRONG = ({"": [{"": 1.5}]}, "?", 0.25, [[]])


@pytest.mark.parametrize("path", SDAPI_FIELDS)
def test_refuses_wrong_types_by_name(path: str) -> None:
    form = SDAPI_FIELDS[path]
    body = {name: value for name, value in {**REQUIRED, **ON}.items() if name in form.by_name}
    assert form.check(body) == body
    for field in form.fields:
        wrong = [value for value in WRONG if not jsonschema.Draft202012Validator(field.schema).is_valid(value)]
        assert field.ignored or wrong, field.name
        for value in wrong:
            if not field.ignored:
                with pytest.raises(HTTPException) as info:
                    form.check({**body, field.name: value})
                assert error_body(info.value)["param"].startswith(field.name)
    for name in form.unsupported:
        with pytest.raises(HTTPException):
            form.check({**body, name: "something", form.switches.get(name, name): True})


def test_fields_have_effects(sd_server: Server, plain: np.ndarray) -> None:
    for fields in (
        {"negative_prompt": "yellow"},
        {"seed": "2"},
        {"sampler_name": "Heun"},
        {"sampler_index": "Heun"},
        {"cfg_scale": 5},
        {"steps": "3"},
        {"styles": ["Blue"]},
    ):
        assert (generated(sd_server, **fields) != plain).any(), fields
    assert (generated(sd_server, steps=4, scheduler="Karras") != generated(sd_server, steps=4)).any()
    heun = generated(sd_server, sampler_name="Heun", sampler_index="Euler a")
    assert (heun == generated(sd_server, sampler_name="Heun")).all()
    styled = post(sd_server, "txt2img", {**BODY, "styles": ["Blue"]})
    info = json.loads(styled.json()["info"])
    assert info["prompt"] == f"a large {BODY['prompt']} on blue" and info["negative_prompt"] == "red"
    silent = post(sd_server, "txt2img", {**BODY, "send_images": False}).json()
    assert silent["images"] == [] and json.loads(silent["info"])["all_seeds"] == [1]


def test_formats_are_options(sd_server: Server) -> None:
    for name, kind in (("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")):
        (found,) = images(post(sd_server, "txt2img", {**BODY, "override_settings": {"samples_format": name}}))
        assert found.format == kind
    low, high = (
        len(images(post(sd_server, "txt2img", {**BODY, "override_settings": settings}))[0].fp.read())  # type: ignore[union-attr]
        for settings in ({"samples_format": "jpg", "jpeg_quality": quality} for quality in (5, 95))
    )
    assert low < high


def test_kept_overrides_are_options(sd_server: Server) -> None:
    user = {"Authorization": f"Basic {encoded(f'keeper:{KEY}'.encode())}"}
    overrides = {"sd_model_checkpoint": "more", "samples_format": "webp"}
    body = {**BODY, "override_settings": overrides, "override_settings_restore_afterwards": False}
    assert post(sd_server, "txt2img", body, **user).status_code == 200
    options = sd_server.get("/sdapi/v1/options", headers=user).json()
    assert options["sd_model_checkpoint"] == "more" and options["samples_format"] == "webp"
    assert post(sd_server, "options", {"sd_model_checkpoint": "nothing"}, **user).status_code == 404
    error = post(sd_server, "options", {"samples_format": "tiff"}, **user).json()["error"]
    assert error["param"] == "samples_format"
    assert sd_server.get("/sdapi/v1/options", headers=user).json() == options


# ---------------------------------------------------------------------------------- images and masks


def img2img(server: Server, image: Image.Image, mask: Image.Image | None = None, **fields: Any) -> np.ndarray:
    given = {} if mask is None else {"mask": png_of(mask)}
    return generated(server, "img2img", init_images=[png_of(image)], **{**given, "denoising_strength": 0.9, **fields})


def test_resize_modes(sd_server: Server) -> None:
    """An image of 2:1 is stretched, cropped or extended; a low strength keeps it."""
    image = Image.new("RGB", (128, 64), "red")
    ImageDraw.Draw(image).rectangle((96, 0, 127, 63), fill="blue")
    stretched, cropped, extended = (
        img2img(sd_server, image, resize_mode=mode, denoising_strength=0.01).astype(int) for mode in (0, 1, 2)
    )

    def is_blue(pixels: np.ndarray, x: int, y: int) -> bool:
        return bool(pixels[y, x, 2] > pixels[y, x, 0])

    assert is_blue(stretched, 60, 32) and not is_blue(stretched, 40, 32)
    assert not is_blue(cropped, 60, 32)  # only the middle half of the width is seen
    assert is_blue(extended, 60, 32) and is_blue(extended, 60, 2) and not is_blue(extended, 40, 2)
    assert refused(sd_server, "img2img", init_images=[png_of(image)], resize_mode=3) == "resize_mode"


def test_mask_fields(sd_server: Server) -> None:
    image, box = noise(), (48, 40, 80, 72)
    mask = mask_of(box)
    before, inside = np.asarray(image), np.asarray(mask) > 0
    base = {"mask_blur": 0, "inpaint_full_res": True}

    def changed(**fields: Any) -> np.ndarray:
        found = img2img(sd_server, image, fields.pop("other", mask), **{**base, **fields})
        assert found.shape == before.shape
        return (found != before).any(axis=2)

    assert not changed()[~inside].any()
    inverted = changed(inpainting_mask_invert=1, inpaint_full_res=False, width=128, height=128)
    assert not inverted[inside].any() and inverted[~inside].mean() > 0.9
    blurred = changed(mask_blur=4)
    assert blurred[~inside].any() and not blurred[:20].any()
    sideways = changed(mask_blur_x=4, mask_blur_y=0, mask_blur=None)
    assert sideways[50, 44] and not sideways[36, 60]
    gray = Image.fromarray(np.asarray(mask) // 4)  # 63: black if it is rounded
    assert not changed(other=gray, width=128, height=128).any()
    assert changed(other=gray, mask_round=False).any()


def test_mask_fill_and_area_have_effects(sd_server: Server) -> None:
    image, mask = noise(), mask_of((48, 40, 80, 72))
    found = [
        img2img(sd_server, image, mask, mask_blur=0, denoising_strength=0.1, steps=4, **fields)
        for fields in (
            {},
            {"inpainting_fill": 1},
            {"inpaint_full_res_padding": 32},
            {"inpaint_full_res": False, "width": 128, "height": 128},
        )
    ]
    assert all((a != b).any() for i, a in enumerate(found) for b in found[:i])
    for field, value in (("inpainting_fill", 2), ("inpaint_full_res_padding", -1), ("mask_blur", 1000)):
        name = refused(sd_server, "img2img", init_images=[png_of(image)], mask=png_of(mask), **{field: value})
        assert name == field
    parameters = post(
        sd_server, "img2img", {**BODY, "init_images": [png_of(image)], "include_init_images": True}
    ).json()["parameters"]
    assert parameters["init_images"] == [png_of(image)]


def test_images_are_checked(sd_server: Server) -> None:
    assert refused(sd_server, "img2img") == "init_images"
    assert refused(sd_server, "img2img", init_images=[]) == "init_images"
    assert refused(sd_server, "img2img", init_images=[png_of(noise())] * 2) == "init_images"
    assert refused(sd_server, init_images=[png_of(noise())]) == "init_images"
    for path, name in (("png-info", "image"), ("extra-single-image", "image")):
        for value in ("/etc/passwd", "http://127.0.0.1:1/a.png", encoded(b"text"), 5, None):
            response = post(sd_server, path, {name: value})
            assert response.status_code == 400 and response.json()["error"]["param"] == name, value
    other = post(
        sd_server, "img2img", {**BODY, "init_images": [png_of(noise())], "mask": png_of(mask_of((0, 0, 9, 9), SIZE))}
    )
    assert other.status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"upscaler_1": "LDSR"},
        {"upscaler_1": "Lanczos", "upscaling_resize": 100},
        {"upscaler_1": "Lanczos", "upscaling_resize": 16},
        {"upscaler_2": "Lanczos", "extras_upscaler_2_visibility": 0.5},
        {"upscaler_1": "Lanczos", "gfpgan_visibility": 0.5},
        {"upscaler_1": "Lanczos", "codeformer_visibility": 1},
        {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 10_000},
        {"upscaler_1": "Lanczos", "resize_mode": 2},
    ],
)
def test_refuses_to_enlarge(sd_server: Server, fields: dict[str, Any]) -> None:
    response = post(sd_server, "extra-single-image", {"image": png_of(noise((100, 100))), **fields})
    assert response.status_code == 400, response.text[:200]


def test_enlarging_fields_have_effects(sd_server: Server) -> None:
    image = noise((30, 20))

    def enlarged(**fields: Any) -> Image.Image:
        body = {"image": png_of(image), "upscaler_1": "Nearest", **fields}
        response = post(sd_server, "extra-single-image", body)
        assert response.status_code == 200, response.text
        return Image.open(io.BytesIO(base64.b64decode(response.json()["image"])))

    assert enlarged(upscaling_resize=3).size == (90, 60)
    size = {"resize_mode": 1, "upscaling_resize_w": 40, "upscaling_resize_h": 40}
    assert enlarged(**size).size == (40, 40) and enlarged(**size, upscaling_crop=False).size == (60, 40)
    half = np.asarray(enlarged(upscaler_2="Lanczos", extras_upscaler_2_visibility=0.5), int)
    nearest, lanczos = (np.asarray(enlarged(upscaler_1=name), int) for name in ("Nearest", "Lanczos"))
    assert abs(half - (nearest + lanczos) / 2).max() <= 1 and (nearest != lanczos).any()
    hidden = post(sd_server, "extra-single-image", {"image": png_of(image), "show_extras_results": False})
    assert "image" not in hidden.json()


def test_large_images_are_no_text(sd_server: Server) -> None:
    image = png_of(noise((1000, 1000)))
    assert len(image) > 2_000_000  # more than the limit on text
    assert post(sd_server, "png-info", {"image": image}).status_code == 200
    body = {"imageList": [{"data": image, "name": "a"}], "upscaler_1": "Lanczos", "upscaling_resize": 0.5}
    assert len(images(post(sd_server, "extra-batch-images", body))) == 1


def test_reads_parameters_of_jpeg_files(sd_server: Server, tmp_path: Any) -> None:
    body = {**BODY, "override_settings": {"samples_format": "jpg"}}
    data = base64.b64decode(post(sd_server, "txt2img", body).json()["images"][0])
    (tmp_path / "a.jpg").write_bytes(data)
    text = read_parameters(tmp_path / "a.jpg")
    assert post(sd_server, "png-info", {"image": encoded(data)}).json()["info"] == text
