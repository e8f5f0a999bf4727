"""MtmdContext: loading, capabilities, files that do not match, lifetimes."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from llava.support import changed, pixels

import cyllama
from cyllama.errors import CancelledError, ClosedError, InUseError, ModelLoadError, UnsupportedError
from cyllama.llama import LlamaContext, LlamaModel
from cyllama.llava import Bitmap, GenAudioType, MtmdContext, MtmdContextParams, default_marker, get_cap_from_file


def test_capabilities_of_the_context(mtmd: MtmdContext, smol_model: LlamaModel, ctx: LlamaContext) -> None:
    assert (mtmd.support_vision, mtmd.support_audio, mtmd.support_video) == (True, False, True)
    assert mtmd.audio_sample_rate is None
    assert mtmd.marker == default_marker() == "<__media__>"
    assert mtmd.n_embd == smol_model.n_embd == 576
    assert not mtmd.decode_use_mrope and not mtmd.decode_use_non_causal()
    assert mtmd.model_can_chat(ctx)
    assert mtmd.gen_audio_info == {"type": GenAudioType.NONE, "sample_rate": 0, "model_variant": ""}
    assert "vision" in repr(mtmd)


def test_capabilities_of_a_file(mmproj_path: Path, smol_path: Path, tmp_path: Path) -> None:
    assert get_cap_from_file(mmproj_path) == {"vision": True, "audio": False}
    with pytest.raises(ModelLoadError, match="expected a projector"):
        get_cap_from_file(smol_path)
    with pytest.raises(FileNotFoundError):
        get_cap_from_file(tmp_path / "none.gguf")


def test_progress_and_cancel_of_loading(mmproj_path: Path, smol_model: LlamaModel) -> None:
    seen: list[float] = []
    params = MtmdContextParams(progress_callback=seen.append, n_threads=1, use_gpu=False, warmup=False)
    with MtmdContext(mmproj_path, smol_model, params):
        assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > 2
    with pytest.raises(CancelledError):
        MtmdContext(mmproj_path, smol_model, MtmdContextParams(progress_callback=lambda part: part < 0.5))
    with pytest.raises(ZeroDivisionError):
        MtmdContext(mmproj_path, smol_model, MtmdContextParams(progress_callback=lambda part: 1 / 0))
    event = threading.Event()
    event.set()
    with pytest.raises(CancelledError):
        MtmdContext(mmproj_path, smol_model, cancel=event)


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"n_threads": 0}, ValueError, "n_threads is 0"),
        ({"n_threads": "2"}, TypeError, "n_threads is '2'"),
        ({"image_min_tokens": 0}, ValueError, "image_min_tokens is 0"),
        ({"image_min_tokens": 9, "image_max_tokens": 4}, ValueError, "image_min_tokens is 9, expected"),
        ({"batch_max_tokens": 2**40}, ValueError, "batch_max_tokens is 1099511627776"),
        ({"media_marker": ""}, ValueError, "media_marker is ''"),
        ({"media_marker": "a\0b"}, ValueError, "media_marker has a null character"),
        ({"device": "nothing"}, ValueError, "device is 'nothing', expected one of .*CPU"),
        ({"flash_attn_type": "maybe"}, ValueError, "flash_attn_type is 'maybe'"),
        ({"use_gpu": "yes"}, TypeError, "use_gpu is 'yes'"),
        ({"cb_eval": 1}, TypeError, "cb_eval is 1"),
        ({"progress_callback": 1}, TypeError, "progress_callback is 1"),
    ],
)
def test_rejects_invalid_parameters(
    mmproj_path: Path, smol_model: LlamaModel, params: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        MtmdContext(mmproj_path, smol_model, MtmdContextParams(**params))


def test_suggests_the_closest_parameter() -> None:
    with pytest.raises(AttributeError, match="did you mean 'n_threads'"):
        MtmdContextParams().n_thread = 1


def test_custom_marker(mmproj_path: Path, smol_model: LlamaModel) -> None:
    with MtmdContext(mmproj_path, smol_model, MtmdContextParams(media_marker="[pic]")) as mtmd:
        assert mtmd.marker == "[pic]"
        chunks = mtmd.tokenize("a [pic] b <__media__>", [Bitmap.from_pixels(pixels())])
        assert [chunk.type.name for chunk in chunks] == ["TEXT", "IMAGE", "TEXT"]


# ---------------------------------------------------------------------------------- invalid files


def test_rejects_files_that_are_not_projectors(smol_model: LlamaModel, smol_path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MtmdContext(tmp_path / "none.gguf", smol_model)
    with pytest.raises(IsADirectoryError):
        MtmdContext(tmp_path, smol_model)
    for name, content in (("empty.gguf", b""), ("text.gguf", b"hello"), ("noise.gguf", b"GGUF" + os.urandom(200))):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelLoadError):
            MtmdContext(path, smol_model)
    with pytest.raises(ModelLoadError, match="'llama', expected a projector"):
        MtmdContext(smol_path, smol_model)


def test_rejects_projector_as_model(mmproj_path: Path) -> None:
    with pytest.raises(ModelLoadError):
        LlamaModel(mmproj_path)


def test_rejects_projector_of_another_model(mmproj_path: Path, tiny_model: LlamaModel) -> None:
    with pytest.raises(ModelLoadError, match=r"mismatch between text model \(n_embd = \d+\) and mmproj"):
        MtmdContext(mmproj_path, tiny_model)


@pytest.mark.parametrize("kept", [0.001, 0.5, 0.99])
def test_rejects_truncated_projector(mmproj_path: Path, smol_model: LlamaModel, tmp_path: Path, kept: float) -> None:
    data = mmproj_path.read_bytes()
    path = tmp_path / "part.gguf"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ModelLoadError, match="truncated|GGUF|read"):
        MtmdContext(path, smol_model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip.vision.patch_size", 0),
        ("clip.vision.image_size", 0),
        ("clip.vision.image_size", 2**31),
        ("clip.vision.attention.head_count", 0),
        ("clip.vision.block_count", 2**20),
        ("clip.vision.projector.scale_factor", 0),
        ("clip.projector_type", "no such projector"),
        ("clip.has_vision_encoder", False),
        ("clip.vision.embedding_length", 385),
        ("clip.vision.projection_dim", 7),
        ("clip.vision.attention.head_count", 7),
        ("clip.vision.block_count", 13),
        ("clip.vision.patch_size", 15),
    ],
)
def test_invalid_metadata_raises(
    mmproj_path: Path, smol_model: LlamaModel, tmp_path: Path, key: str, value: object
) -> None:
    """Loading or encoding raises an exception, or encoding works."""

    def change(file: cyllama.llama.GGUFContext) -> None:
        file.set(key, value, file.type_of(key) if key in file else None)

    path = changed(mmproj_path, tmp_path / "changed.gguf", change)
    try:
        mtmd = MtmdContext(path, smol_model)
    except ModelLoadError:
        return
    with mtmd:
        try:
            chunks = mtmd.tokenize("<__media__>", [Bitmap.from_pixels(pixels())])
            mtmd.encode(next(chunk for chunk in chunks if chunk.type.name == "IMAGE"))
        except (cyllama.errors.EngineError, ValueError):
            return
    assert key in ("clip.vision.projection_dim", "clip.vision.block_count")


def test_rejects_projector_without_a_tensor(mmproj_path: Path, smol_model: LlamaModel, tmp_path: Path) -> None:
    path = changed(mmproj_path, tmp_path / "less.gguf", without=("v.blk.3.ffn_up.weight",))
    with pytest.raises(ModelLoadError, match="v.blk.3.ffn_up.weight"):
        MtmdContext(path, smol_model)


# ---------------------------------------------------------------------------------- lifetimes


def test_parents_cannot_be_closed_before_children(mmproj_path: Path, smol_path: Path) -> None:
    model = LlamaModel(smol_path)
    mtmd = MtmdContext(mmproj_path, model)
    with pytest.raises(InUseError, match="LlamaModel cannot be closed: 1"):
        model.close()
    lazy = Bitmap.lazy(mtmd, lambda i: None)
    with pytest.raises(InUseError, match="MtmdContext cannot be closed: 1"):
        mtmd.close()
    lazy.close()
    mtmd.close()
    mtmd.close()
    model.close()
    for use in (lambda: mtmd.support_vision, lambda: mtmd.tokenize("a"), lambda: mtmd.get_output_embd()):
        with pytest.raises(ClosedError):
            use()
    assert repr(mtmd) == "<MtmdContext (closed)>"


def test_children_keep_their_parents_alive(mmproj_path: Path, smol_path: Path) -> None:
    model = LlamaModel(smol_path)
    mtmd = MtmdContext(mmproj_path, model)
    gone = weakref.ref(model) if hasattr(model, "__weakref__") else None
    chunks = mtmd.tokenize("x <__media__>", [Bitmap.from_pixels(pixels())])
    image = chunks[1]
    del model, mtmd
    gc.collect()
    assert gone is None or gone() is not None
    assert image.context.encode(image).shape == (image.n_tokens, 576)


def test_cannot_be_pickled(mtmd: MtmdContext) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(mtmd)


def test_rejects_other_types(mmproj_path: Path, smol_model: LlamaModel, mtmd: MtmdContext) -> None:
    with pytest.raises(TypeError):
        MtmdContext(mmproj_path, "model")
    with pytest.raises(TypeError):
        MtmdContext(mmproj_path, smol_model, {"n_threads": 1})
    with pytest.raises(TypeError):
        MtmdContext(7, smol_model)
    with pytest.raises(TypeError):
        mtmd.encode_chunk(None)
    with pytest.raises(TypeError):
        mtmd.decode_use_non_causal("chunk")
    with pytest.raises(TypeError):
        mtmd.model_can_chat(smol_model)


def test_use_after_fork_raises(mtmd: MtmdContext) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            mtmd.tokenize("a")
            os.write(write, b"no error")
        except UnsupportedError:
            os.write(write, b"rejected")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 20) == b"rejected"
    os.close(read)
    os.close(write)


def test_memory_does_not_leak(mmproj_path: Path, smol_model: LlamaModel) -> None:
    """One context that is not freed would take 100 MB."""

    def resident() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise AssertionError

    def once() -> None:
        with MtmdContext(mmproj_path, smol_model) as mtmd:
            for chunk in mtmd.tokenize("<__media__>", [Bitmap.from_pixels(pixels())]):
                if chunk.type.name == "IMAGE":
                    assert np.isfinite(mtmd.encode(chunk)).all()

    once()
    before = resident()
    for _ in range(6):
        once()
    assert resident() - before < 100_000
