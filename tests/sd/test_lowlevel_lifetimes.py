"""SDContext: invalid files, closing, threads, forks and leaks."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.process import heartbeat
from sd.support import flux_params, small

import cyllama
from cyllama.errors import (
    ClosedError,
    ImageGenerationError,
    InUseError,
    ModelLoadError,
    UnsupportedError,
)
from cyllama.llama import GGUFContext
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd import (
    SDContext,
    SDContextParams,
    Upscaler,
    VideoGenParams,
    convert,
)

# ------------------------------------------------------------------------------------------ bad models


def load(path: Path, **more: object) -> SDContext:
    return SDContext(SDContextParams(model_path=path, **more))


def test_rejects_files_that_are_not_models(flux_path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.gguf")
    for name, content in (
        ("empty.safetensors", b""),
        ("text.safetensors", b"this is not a model\n" * 100),
        ("noise.ckpt", np.random.default_rng(0).bytes(100_000)),
        ("header.safetensors", struct.pack("<Q", 2**62) + b"{}"),
        ("json.safetensors", struct.pack("<Q", 10) + b'{"a": [1]}' + bytes(100)),
        ("magic.gguf", b"GGUF" + bytes(100)),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelLoadError, match="cannot load the model") as caught:
            load(path)
        assert caught.value.engine == "sd" and caught.value.function == "new_sd_ctx"


def test_rejects_truncated_files(flux_path: Path, tmp_path: Path) -> None:
    whole = flux_path.read_bytes()
    for size in (10, 1000, 20_000, 100_000, len(whole) // 2, len(whole) - 100):
        path = tmp_path / f"{size}.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(ModelLoadError):
            SDContext(flux_params(path, vae_decode_only=False))
        path.unlink()


def parts(path: Path, prefixes: tuple[str, ...], destination: Path) -> Path:
    """Write the tensors with some prefixes to another file."""
    source, target = GGUFContext.from_file(path), GGUFContext.empty()
    for info in source.tensors():
        if info.name.startswith(prefixes):
            data = source.tensor_data(info.name)
            if data.dtype == np.uint8:
                target.add_tensor(info.name, data.reshape(info.shape[0], -1), info.type)
            else:
                target.add_tensor(info.name, data)
    target.write(destination)
    return destination


def test_rejects_models_without_a_component(flux_path: Path, tmp_path: Path) -> None:
    no_text = parts(flux_path, ("model.diffusion_model.", "tae."), tmp_path / "no_text.gguf")
    with pytest.raises(ModelLoadError, match="no text encoder"):
        SDContext(flux_params(no_text))
    with pytest.raises(ModelLoadError, match="first_stage_model|tensors"):
        load(flux_path)  # no auto-encoder under that name
    only_text = parts(flux_path, ("text_encoders.",), tmp_path / "only_text.gguf")
    with pytest.raises(ModelLoadError):
        load(only_text)
    no_heads = tmp_path / "no_heads.safetensors"
    write_safetensors({"model.diffusion_model.double_blocks.0.img_mod.lin.weight": np.zeros((4, 4), np.float32),
                       "text_encoders.clip_l.transformer.text_model.x": np.zeros(4, np.float32)}, no_heads)  # fmt: skip
    with pytest.raises(ModelLoadError, match="attention heads|cannot load"):
        load(no_heads)


def test_rejects_a_truncated_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    write_safetensors({"model.diffusion_model.img_in.weight": np.zeros((256, 64), np.float16)}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError):
        load(path)


def test_rejects_a_checkpoint_with_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.system, (f"touch {tmp_path}/ran",))

    path = tmp_path / "evil.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(ModelLoadError):
        load(path)
    raw = tmp_path / "evil.pt"
    raw.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelLoadError):
        load(raw)
    assert not (tmp_path / "ran").exists()


def test_rejects_invalid_context_parameters(flux_path: Path, tmp_path: Path) -> None:
    for bad, message in (
        ({"n_threads": 0}, "n_threads is 0"),
        ({"wtype": 41}, "wtype is 41"),
        ({"rng_type": 3}, "rng_type is 3"),
        ({"prediction": "nonsense"}, "prediction is 'nonsense'"),
        ({"lora_apply_mode": 3}, "lora_apply_mode is 3"),
        ({"tensor_type_rules": "x"}, "the rule 'x'"),
        ({"tensor_type_rules": "x=q99"}, "the rule 'x=q99'"),
        ({"max_vram": float("nan")}, "max_vram is nan"),
        ({"vae_decode_only": 1}, "vae_decode_only is 1"),
        ({"vae_path": ""}, "vae_path"),
        ({"vae_path": tmp_path}, "a directory"),
        ({"vae_path": tmp_path / "none"}, "none"),
    ):
        with pytest.raises((TypeError, ValueError, OSError), match=message):
            SDContext(flux_params(flux_path, **bad))


# ------------------------------------------------------------------------------------------- lifetimes


def test_decode_only_context_rejects_images(flux_path: Path, base_image: np.ndarray) -> None:
    with SDContext(flux_params(flux_path)) as context:
        with pytest.raises(ImageGenerationError, match="loaded without its encoder"):
            context.generate_image(small(init_image=base_image))
        np.testing.assert_array_equal(context.generate_image(small())[0], base_image)


def test_freed_weights_reject_a_second_call(flux_path: Path, base_image: np.ndarray) -> None:
    with SDContext(flux_params(flux_path, free_params_immediately=True)) as context:
        np.testing.assert_array_equal(context.generate_image(small())[0], base_image)
        with pytest.raises(UnsupportedError, match="free_params_immediately"):
            context.generate_image(small())


def test_image_model_rejects_videos(flux: SDContext) -> None:
    with pytest.raises(UnsupportedError, match=r"\(Flux\)"):
        flux.generate_video(VideoGenParams(prompt="a cat"))


def test_closed_context_raises_closed_error(flux_path: Path) -> None:
    context = SDContext(flux_params(flux_path))
    context.close()
    context.close()
    assert context.closed and repr(context) == "<SDContext (closed)>"
    for call in (
        lambda: context.generate_image(small()),
        lambda: context.generate_video(VideoGenParams()),
        lambda: context.version_name,
        lambda: context.supports_image_generation,
        lambda: context.supports_video_generation,
        lambda: context.default_sample_method,
        lambda: context.default_scheduler(),
        context.__enter__,
    ):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(context)


def test_concurrent_calls_of_a_context_raise_in_use_error(flux: SDContext) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold(step: int, total: int, seconds: float) -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=lambda: flux.generate_image(small(), progress=hold))
    thread.start()
    assert inside.wait(30)
    try:
        with pytest.raises(InUseError, match="one thread at a time"):
            flux.generate_image(small())
        with pytest.raises(InUseError, match="while a call is running"):
            flux.close()
    finally:
        leave.set()
        thread.join(60)


def test_two_contexts_wait_for_each_other(flux: SDContext, flux_path: Path, base_image: np.ndarray) -> None:
    events: list[str] = []
    results: list[np.ndarray] = []
    with SDContext(flux_params(flux_path)) as other:

        def run(context: SDContext, name: str) -> None:
            results.extend(context.generate_image(small(), progress=lambda *_: events.append(name)))

        threads = [threading.Thread(target=run, args=pair) for pair in ((flux, "a"), (other, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert len(results) == 2
    for result in results:
        np.testing.assert_array_equal(result, base_image)
    assert "".join(events) in ("aaaabbbb", "bbbbaaaa")


def test_call_from_a_callback_raises_in_use_error(flux: SDContext, flux_path: Path) -> None:
    with SDContext(flux_params(flux_path)) as other:
        with pytest.raises(InUseError, match="from a callback"):
            flux.generate_image(small(), progress=lambda *_: other.generate_image(small()))


def test_use_after_fork_raises(flux: SDContext) -> None:
    child = os.fork()
    if child == 0:
        try:
            flux.generate_image(small())
        except UnsupportedError:
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_leak(flux: SDContext, flux_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(flux_path.read_bytes()[:-1000])

    def round_trip() -> None:
        request = small(width=64, height=64, batch_size=2, sampling={"steps": 2})
        flux.generate_image(request, preview=lambda *_: None, preview_mode="vae")
        with pytest.raises(ModelLoadError):
            SDContext(flux_params(broken, vae_decode_only=False))
        SDContext(flux_params(flux_path)).close()

    trim = ctypes.CDLL(None).malloc_trim
    for _ in range(2):
        round_trip()
    gc.collect()
    trim(0)
    before = rss()
    for _ in range(4):
        round_trip()
    gc.collect()
    trim(0)
    assert rss() - before < 3_000_000


@pytest.mark.parametrize("what", ["load", "image", "upscale", "convert"])
def test_releases_the_gil(flux: SDContext, flux_path: Path, tmp_path: Path, what: str) -> None:
    """A second Python thread makes progress during the call."""
    network = cyllama.models.get("realesrgan-x4plus-anime")
    base_image = np.zeros((48, 48, 3), np.uint8)
    with Upscaler(network) as upscaler:
        calls: dict[str, Callable[[], object]] = {
            "load": lambda: SDContext(flux_params(flux_path)).close(),
            "image": lambda: flux.generate_image(small(width=192, height=192)),
            "upscale": lambda: upscaler.upscale(base_image),
            "convert": lambda: convert(flux_path, tmp_path / "a.gguf", output_type="q8_0"),
        }
        with heartbeat() as heart:
            begin = time.perf_counter()
            calls[what]()
            seconds = time.perf_counter() - begin
    assert heart.beats > 50 * seconds and heart.longest < seconds / 2


def test_does_not_write_to_stdout(flux_path: Path) -> None:
    code = (
        "import sys\n"
        "from cyllama.sd import *\n"
        "path = sys.argv[1]\n"
        "with SDContext(SDContextParams(model_path=path, taesd_path=path)) as context:\n"
        "    context.generate_image(ImageGenParams(prompt='x', width=64, height=64,\n"
        "                                          sample_params=SampleParams(steps=2)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(flux_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""
