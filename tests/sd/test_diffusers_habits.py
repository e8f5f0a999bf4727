"""Programs written for diffusers: loaders, calls, lists of prompts, generators, callbacks, LoRAs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyllama.compat import diffusers
from cyllama.errors import CancelledError, ModelLoadError, UnsupportedError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import StableDiffusion

SMALL = {"width": 64, "height": 64, "num_inference_steps": 1}


class Generator:
    """What torch.Generator has."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def initial_seed(self) -> int:
        return self._seed


@pytest.fixture(scope="module")
def pipe(flux_path: Path) -> Iterator[StableDiffusion]:
    with StableDiffusion.from_pretrained(flux_path, torch_dtype="float32") as model:
        yield model


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_call_generates_images(pipe: StableDiffusion) -> None:
    out = pipe("a red circle", generator=Generator(7), **SMALL)
    expected = pipe.txt2img("a red circle", width=64, height=64, steps=1, seed=7)
    assert out.seeds == [7] and len(out.images) == 1
    np.testing.assert_array_equal(pixels(out.images[0]), pixels(expected[0]))


def test_call_uses_an_image_and_a_mask(pipe: StableDiffusion) -> None:
    image, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 0)
    changed = pipe("x", image=image, strength=0.9, generator=1, num_inference_steps=2)
    expected = pipe.img2img("x", image, strength=0.9, seed=1, steps=2)
    np.testing.assert_array_equal(pixels(changed[0]), pixels(expected[0]))
    kept = pipe("x", image=image, mask_image=mask, generator=1, num_inference_steps=2)
    np.testing.assert_array_equal(pixels(kept[0]), pixels(image))  # the mask is black


def test_folders_of_both_versions_of_transformers_are_equal(tmp_path: Path) -> None:
    """Load two incomplete models: the engine recognises the version by the text encoder, and misses the same tensors."""
    messages = []
    for names in ("text_model.embeddings", "embeddings"):
        folder = tmp_path / names
        tensors = {
            "unet/diffusion_pytorch_model": {"conv_in.weight": np.zeros((320, 4, 3, 3), np.float16)},
            "vae/diffusion_pytorch_model": {"decoder.conv_in.bias": np.zeros(512, np.float16)},
            "text_encoder/model": {f"{names}.token_embedding.weight": np.zeros((49408, 768), np.float16)},
        }
        for name, values in tensors.items():
            (folder / name).parent.mkdir(parents=True)
            write_safetensors(values, folder / f"{name}.safetensors")
        with pytest.raises(ModelLoadError) as error:
            StableDiffusion.from_pretrained(folder)
        messages.append(str(error.value).replace(names, ""))
    assert messages[0] == messages[1]
    assert "version" not in messages[0]


def test_text_encoders_of_both_versions_of_transformers_are_equal(flux_path: Path, tmp_path: Path) -> None:
    """Replace the token embeddings of the text encoder by those of a separate file."""
    images = []
    for names in ("text_model.embeddings", "embeddings"):
        path = tmp_path / f"{names}.safetensors"
        write_safetensors({f"{names}.token_embedding.weight": np.zeros((49408, 768), np.float16)}, path)
        with StableDiffusion(flux_path, clip_l=path) as model:
            images.append(pixels(model.txt2img("a red circle", width=64, height=64, steps=1, seed=7)[0]))
    with StableDiffusion(flux_path) as model:
        images.append(pixels(model.txt2img("a red circle", width=64, height=64, steps=1, seed=7)[0]))
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[1] != images[2]).any()


def test_lists_of_prompts_give_images_in_order(pipe: StableDiffusion) -> None:
    out = pipe(["a", "b"], negative_prompt=["c", "d"], num_images_per_prompt=2, generator=5, cfg_scale=2.0, **SMALL)
    assert out.seeds == [5, 6, 7, 8] and len(out.images) == len(out.infotexts) == 4
    single = pipe("b", negative_prompt="d", generator=7, cfg_scale=2.0, **SMALL)
    np.testing.assert_array_equal(pixels(out[2]), pixels(single[0]))
    assert "b" in out.infotexts[3].splitlines()[0]


def test_generators_give_each_image_a_seed(pipe: StableDiffusion) -> None:
    out = pipe("a", generator=[Generator(9), 3], num_images_per_prompt=2, **SMALL)
    assert out.seeds == [9, 3]
    np.testing.assert_array_equal(pixels(out[1]), pixels(pipe("a", generator=3, **SMALL)[0]))
    first = pipe("a", generator=np.random.default_rng(1), **SMALL).seeds
    assert first == pipe("a", generator=np.random.default_rng(1), **SMALL).seeds


@pytest.mark.parametrize(
    ("prompt", "options", "error", "words"),
    [
        (["a", "b"], {"negative_prompt": ["c"]}, ValueError, "negative_prompt has 1 items"),
        (["a", "b"], {"generator": [1]}, ValueError, "generator has 1 items"),
        ([], {}, ValueError, "prompt has 0 items"),
        (["a"] * 1000, {}, ValueError, "prompt has 1000 items"),
        (["a", 3], {}, TypeError, "list of strings"),
        ("a", {"generator": "x"}, TypeError, "generator is 'x'"),
        ("a", {"generator": 1, "seed": 1}, TypeError, "given twice"),
        ("a", {"num_inference_step": 1}, TypeError, "num_inference_steps"),
        ("a", {"callback_on_step_end_tensor_inputs": ["latents"]}, TypeError, "callback_on_step_end"),
        ("a", {"image": [Image.new("RGB", (64, 64))] * 2}, ValueError, "image has 2 items"),
    ],
)
def test_wrong_calls_are_named(
    pipe: StableDiffusion, prompt: object, options: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        pipe(prompt, **options)  # type: ignore[arg-type]


def test_callback_sees_the_steps_and_stops(pipe: StableDiffusion) -> None:
    seen = []

    def stop(sd, step, timestep, kwargs):
        seen.append((step, sd.num_timesteps))
        sd._interrupt = step == 1
        return kwargs

    with pytest.raises(CancelledError):
        pipe("x", callback_on_step_end=stop, **{**SMALL, "num_inference_steps": 4})
    assert seen == [(0, 4), (1, 4)]


def test_callback_cannot_change_what_the_engine_does_not_read(pipe: StableDiffusion) -> None:
    def guidance(sd, step, timestep, kwargs):
        sd._guidance_scale = 0.0

    def latents(sd, step, timestep, kwargs):
        return {"latents": None}

    with pytest.raises(AttributeError, match="_guidance_scale"):
        pipe("x", callback_on_step_end=guidance, **SMALL)
    with pytest.raises(TypeError, match="'latents'"):
        pipe("x", callback_on_step_end=latents, **SMALL)


# ----------------------------------------------------------------------------------------- loaders


def test_loads_files_as_diffusers_does(flux_path: Path, tmp_path: Path) -> None:
    with StableDiffusion.from_single_file(flux_path, safety_checker=None, use_safetensors=True) as model:
        assert model.to("cpu") is model
        with pytest.raises(UnsupportedError, match="cuda"):
            model.to("cuda:0")
    with StableDiffusion.from_pretrained("tiny-flux-random", local_files_only=True) as model:
        assert model.family.name == "Flux"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"safety_checker": object()}, UnsupportedError, "safety_checker"),
        ({"variant": "fp16"}, UnsupportedError, "torch_dtype"),
        ({"torch_dtype": "int8"}, ValueError, "torch_dtype is 'int8'"),
        ({"torch_dtype": "float16", "wtype": "q8_0"}, TypeError, "given twice"),
        ({"local_file_only": True}, TypeError, "local_file_only"),
        ({"scheduler": object()}, UnsupportedError, "option of a call"),
    ],
)
def test_wrong_options_of_loaders_are_named(flux_path: Path, options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        StableDiffusion.from_pretrained(flux_path, **options)


def test_names_of_the_hub_and_urls(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="local_files_only"):
        StableDiffusion.from_pretrained("org/none", local_files_only=True)
    with pytest.raises(OSError, match="hf:org/repo@v1"):  # tests have no hub
        StableDiffusion.from_pretrained("org/repo", revision="v1")
    with pytest.raises(OSError, match="hf:org/repo/a/b.safetensors"):
        StableDiffusion.from_single_file("https://huggingface.co/org/repo/blob/main/a/b.safetensors")
    with pytest.raises(ValueError, match="give its path"):
        StableDiffusion.from_single_file("https://example.com/a.safetensors")


# -------------------------------------------------------------------------------------------- LoRAs


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of rank 4 for one layer."""
    random = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("lora") / "strong.safetensors"
    name = "lora_unet_single_blocks_0_linear1"
    tensors = {
        f"{name}.lora_down.weight": random.normal(size=(4, 256)).astype(np.float32) / 16,
        f"{name}.lora_up.weight": random.normal(size=(1792, 4)).astype(np.float32),
    }
    write_safetensors(tensors, path)
    return path


def test_loaded_lora_changes_all_following_calls(pipe: StableDiffusion, lora: Path) -> None:
    plain = pixels(pipe("x", generator=1, **SMALL)[0])
    expected = pixels(pipe.txt2img("x", seed=1, loras=[(lora, 0.5)], steps=1, width=64, height=64)[0])
    pipe.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name="style")
    try:
        assert pipe.get_active_adapters() == ["style"]
        pipe.set_adapters("style", 0.5)
        np.testing.assert_array_equal(pixels(pipe("x", generator=1, **SMALL)[0]), expected)
        np.testing.assert_array_equal(pixels(pipe.txt2img("x", seed=1, steps=1, width=64, height=64)[0]), expected)
        assert (expected != plain).any()
        pipe.set_adapters([])
        np.testing.assert_array_equal(pixels(pipe("x", generator=1, **SMALL)[0]), plain)
        with pytest.raises(ValueError, match="no adapter 'other', expected one of style"):
            pipe.set_adapters(["other"])
        with pytest.raises(ValueError, match="adapter_weights has 2"):
            pipe.set_adapters(["style"], [1.0, 2.0])
        with pytest.raises(ValueError, match="in use"):
            pipe.load_lora_weights(str(lora), adapter_name="style")
    finally:
        pipe.unload_lora_weights()
    np.testing.assert_array_equal(pixels(pipe("x", generator=1, **SMALL)[0]), plain)


def test_wrong_loras_are_named(pipe: StableDiffusion, tmp_path: Path, lora: Path) -> None:
    shutil.copy(lora, tmp_path)
    with pytest.raises(ValueError, match="weight_name"):
        pipe.load_lora_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        pipe.load_lora_weights(tmp_path, weight_name="none.safetensors")
    with pytest.raises(TypeError, match="dict"):
        pipe.load_lora_weights({"a": 1})  # type: ignore[arg-type]
    assert pipe.get_active_adapters() == []


# --------------------------------------------------------------------------------- names of pipelines


@pytest.fixture(scope="module")
def pipeline(flux_path: Path) -> Iterator[diffusers.DiffusionPipeline]:
    with diffusers.AutoPipelineForText2Image.from_pretrained(flux_path) as model:
        yield model


def test_names_of_pipelines_are_one_loaded_model(pipeline: diffusers.DiffusionPipeline) -> None:
    assert {getattr(diffusers, name) for name in diffusers.__all__} == {type(pipeline)}
    assert diffusers.AutoPipelineForImage2Image.from_pipe(pipeline) is pipeline
    with pytest.raises(TypeError, match="str"):
        diffusers.StableDiffusionPipeline.from_pipe("tiny-shapes")  # type: ignore[arg-type]
    assert pipeline("x", generator=7, **SMALL).images[0].size == (64, 64)


def test_members_without_a_counterpart_say_what_to_do(pipeline: diffusers.DiffusionPipeline) -> None:
    for name, words in (("enable_model_cpu_offload", "offload_params_to_cpu"), ("scheduler", "sampler=")):
        with pytest.raises(AttributeError, match=words):
            getattr(pipeline, name)
    with pytest.raises(AttributeError, match="no attribute 'unet'"):
        _ = pipeline.unet
    with pytest.raises(UnsupportedError, match="sampler="):
        pipeline.scheduler = object()
    with pytest.raises(UnsupportedError, match="not checked"):
        pipeline.safety_checker = object()
    pipeline.safety_checker = None
