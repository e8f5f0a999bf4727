"""Detection of model families, and reading of valid and damaged headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from cyllama._native._gguf import GGUFContext
from cyllama.errors import ModelLoadError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import SDContext, detect
from cyllama.sd._tensor_header import TensorFile, read_tensors
from cyllama.sd.families import FAMILIES, family_of, is_diffusion_model_only, version_of

UNET = "model.diffusion_model."
CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
CLIP2 = "cond_stage_model.model.token_embedding.weight"
CONV = (3, 3, 4, 320)


def unet(channels: int = 4, *more: str) -> dict[str, tuple[int, ...]]:
    names = (UNET + "input_blocks.0.0.weight", *(UNET + name for name in more))
    return {name: (3, 3, channels, 320) if name.endswith("input_blocks.0.0.weight") else (8,) for name in names}


MIDDLE = "middle_block.1.norm.weight"
SDXL = {"conditioner.embedders.1.model.ln_final.weight": (8,)}
CASES = {
    "SD 1.x": unet(4, MIDDLE) | {CLIP: (768, 49408)},
    "SD 1.x Inpaint": unet(9, MIDDLE) | {CLIP: (768, 49408)},
    "Instruct-Pix2Pix": unet(8, MIDDLE) | {CLIP: (768, 49408)},
    "SD 1.x Tiny UNet": unet(4, "output_blocks.7.1.x") | {CLIP: (768, 49408)},
    "SDXS (512-DS)": unet(4) | {CLIP: (768, 49408)},
    "SD 2.x": unet(4, MIDDLE) | {CLIP2: (1024, 49408)},
    "SD 2.x Inpaint": unet(9, MIDDLE) | {CLIP2: (1024, 49408)},
    "SD 2.x Tiny UNet": unet(4) | {CLIP2: (1024, 49408)},
    "SDXS (09)": unet(4)
    | {CLIP2: (1024, 49408), UNET + "output_blocks.7.1.transformer_blocks.0.attn1.to_k.weight": (1024, 1024)},
    "SDXL": unet(4, MIDDLE) | SDXL,
    "SDXL Inpaint": unet(9, MIDDLE) | SDXL,
    "SDXL Instruct-Pix2Pix": unet(8, MIDDLE) | SDXL,
    "SDXL (SSD1B)": unet(4, "output_blocks.3.1.transformer_blocks.1.x") | SDXL,
    "SDXL (Vega)": unet(4) | SDXL,
    "SVD": unet(8, "input_blocks.8.0.time_mixer.mix_factor"),
    "SD3.x": {UNET + "joint_blocks.0.x_block.attn.qkv.weight": (8,)},
    "Flux": {UNET + "double_blocks.0.img_attn.qkv.weight": (8,), UNET + "img_in.weight": (64, 3072)},
    "Flux Fill": {UNET + "double_blocks.0.x": (8,), UNET + "img_in.weight": (384, 3072)},
    "Flux Control": {UNET + "double_blocks.0.x": (8,), UNET + "img_in.weight": (128, 3072)},
    "Flex.2": {UNET + "double_blocks.0.x": (8,), UNET + "img_in.weight": (196, 3072)},
    "Ovis Image": {UNET + "double_blocks.0.img_mlp.gate_proj.weight": (8,)},
    "Chroma Radiance": {UNET + "double_blocks.0.x": (8,), UNET + "nerf_final_layer_conv.norm.scale": (8,)},
    "Flux.2": {UNET + "double_stream_modulation_img.lin.weight": (8,), UNET + "single_blocks.47.linear1.weight": (8,)},
    "Flux.2 klein": {UNET + "double_stream_modulation_img.lin.weight": (8,), UNET + "double_blocks.0.x": (8,)},
    "Wan 2.x": {UNET + "blocks.0.cross_attn.norm_k.weight": (8,), UNET + "patch_embedding.weight": (2, 2, 1, 16, 1536)},
    "Wan 2.2 I2V": {
        UNET + "blocks.0.cross_attn.norm_k.weight": (8,),
        UNET + "patch_embedding.weight": (2, 2, 1, 36, 5120),
    },
    "Wan 2.2 TI2V": {
        UNET + "blocks.0.cross_attn.norm_k.weight": (8,),
        UNET + "patch_embedding.weight": (2, 2, 1, 48 * 3072),
    },
    "Qwen Image": {UNET + "transformer_blocks.0.img_mod.1.weight": (8,)},
    "Anima": {UNET + "net.llm_adapter.blocks.0.cross_attn.q_proj.weight": (8,)},
    "Z-Image": {UNET + "cap_embedder.0.weight": (8,)},
    "Ernie Image": {UNET + "layers.0.adaLN_sa_ln.weight": (8,)},
}


@pytest.mark.parametrize("version", sorted(CASES))
def test_detects_the_family(version: str) -> None:
    assert version_of(CASES[version]) == version
    assert family_of(version).name == version and version in FAMILIES


def test_all_families_have_a_case() -> None:
    assert set(CASES) == set(FAMILIES)


def test_families_are_those_of_the_engine(request: pytest.FixtureRequest) -> None:
    source = Path(request.config.rootpath) / "thirdparty/stable-diffusion.cpp/src/stable-diffusion.cpp"
    text = source.read_text()
    table = text[text.index("model_version_to_str[] = {") :]
    names = table[table.index("{") + 1 : table.index("};")]
    assert {name.strip().strip('"') for name in names.split(",") if name.strip()} == set(FAMILIES)


@pytest.mark.parametrize("version", sorted(CASES))
def test_the_engine_detects_the_same_family(version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The engine logs the family before it reports missing weights."""
    from cyllama import log
    from cyllama.sd import SDContextParams

    path = tmp_path / "a.safetensors"
    tensors = {}
    for name, shape in CASES[version].items():
        tensors[name] = np.broadcast_to(np.zeros(1, np.float16), shape[::-1])
    _write_sparse(tensors, path)
    log.set_level("info")
    try:
        with pytest.raises(ModelLoadError), caplog.at_level("INFO", "cyllama.sd"):
            SDContext(SDContextParams(model_path=path))
    finally:
        log.set_level(None)
    assert f"Version: {version}" in " ".join(" ".join(caplog.messages).split())
    found = detect(path)
    assert found is not None and found.name == version


def _write_sparse(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file whose data is a hole."""
    header, end = {}, 0
    for name, data in tensors.items():
        size = data.size * 2
        header[name] = {"dtype": "F16", "shape": list(data.shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def test_detects_the_generated_model(flux_path: Path, flux: SDContext) -> None:
    found = detect(flux_path)
    assert found is not None and found.name == flux.version_name == "Flux"
    assert (found.steps, found.cfg_scale, found.guidance, found.width) == (20, 1.0, 3.5, 1024)


def test_detects_distilled_variants_of_flux() -> None:
    def kind(*names: str, width: int = 3072) -> tuple[int, float, float | None]:
        tensors = {**dict.fromkeys(names, (8,)), "img_in.weight": (64, width)}
        family = family_of("Flux", TensorFile("gguf", tensors))
        return family.steps, family.cfg_scale, family.guidance

    assert kind("double_blocks.0.x", "guidance_in.in_layer.weight") == (20, 1.0, 3.5)
    assert kind("double_blocks.0.x") == (4, 1.0, None)  # schnell
    assert kind("double_blocks.0.x", width=256) == (20, 3.0, None)  # not distilled
    assert kind("distilled_guidance_layer.in_proj.weight") == (26, 4.0, None)  # Chroma


def test_size_of_the_metadata_is_the_default() -> None:
    file = TensorFile("safetensors", {}, {"modelspec.resolution": "768x512"})
    assert (family_of("SD 1.x", file).width, family_of("SD 1.x", file).height) == (768, 512)
    odd = TensorFile("safetensors", {}, {"modelspec.resolution": "large"})
    assert family_of("SD 1.x", odd).width == 512


def test_detects_a_diffusion_model_alone() -> None:
    names = {name.removeprefix(UNET): shape for name, shape in CASES["Flux"].items()}
    assert is_diffusion_model_only(TensorFile("gguf", names))
    assert not is_diffusion_model_only(TensorFile("gguf", CASES["Flux"]))
    assert not is_diffusion_model_only(TensorFile("gguf", {"some.weight": (8,)}))
    assert version_of({"some.weight": (8,)}) is None


# -------------------------------------------------------------------------------------------- headers


def test_reads_safetensors_and_gguf_headers(tmp_path: Path, flux_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors({"a": np.zeros((2, 3), np.float32)}, path)
    file = read_tensors(path)
    assert file is not None and file.tensors == {"a": (3, 2)} and file.format == "safetensors"
    file = read_tensors(flux_path)
    assert file is not None and len(file.tensors) == 390 and file.metadata["general.architecture"] == "flux"
    assert file.tensors["model.diffusion_model.img_in.weight"] == (64, 256)


def test_reads_a_diffusers_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="unet"):
        read_tensors(tmp_path)
    for name, key in (("unet", "down_blocks.0.x"), ("text_encoder", "text_model.embeddings.token_embedding.weight")):
        (tmp_path / name).mkdir()
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        write_safetensors({key: np.zeros((4, 768), np.float32)}, tmp_path / name / f"{stem}.safetensors")
    found = detect(tmp_path)
    assert found is not None and found.name == "SDXS (512-DS)"


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a": 3}',
        b'{"a": {"shape": [1]}}',
        b'{"a": {"shape": [1], "data_offsets": [0, 400]}}',
        b'{"a": {"shape": "x", "data_offsets": [0, 4]}}',
        b"{" * 60000,
    ],
)
def test_rejects_damaged_safetensors(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    with pytest.raises(ModelLoadError, match="damaged header"):
        read_tensors(path)


def test_reads_gguf_tensors_of_five_dimensions(tmp_path: Path) -> None:
    """ggml's reader rejects them, and video models have them: a reason for the parser of headers."""
    names = {name: shape for name, shape in CASES["Wan 2.x"].items()}
    path = tmp_path / "wan.gguf"
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(names), 0))
        for name, shape in names.items():
            raw = name.encode()
            file.write(struct.pack("<Q", len(raw)) + raw + struct.pack("<I", len(shape)))
            file.write(struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", 1, 0))
    with pytest.raises(ModelLoadError):
        GGUFContext.from_file(path)
    file_header = read_tensors(path)
    assert file_header is not None and file_header.tensors == names
    family = detect(path)
    assert family is not None and family.name == "Wan 2.x"


def test_rejects_damaged_gguf(tmp_path: Path, flux_path: Path) -> None:
    with open(flux_path, "rb") as file:
        head = file.read(4000)
    path = tmp_path / "a.gguf"
    for raw in (head[:10], head[:30], head[:1000], head[:8] + b"\xff" * 100, head[:24] + b"\xff" * 100):
        path.write_bytes(raw)
        with pytest.raises(ModelLoadError, match="damaged header"):
            read_tensors(path)


def test_other_formats_have_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for raw in (b"", b"PK\3\4 and so on", b"\x80\2nonsense"):
        path.write_bytes(raw)
        assert read_tensors(path) is None and detect(path) is None
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none")
