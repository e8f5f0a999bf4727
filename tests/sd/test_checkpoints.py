"""Pickle checkpoints: those of tensors are read, those that cost too much are rejected before the engine reads them."""

from __future__ import annotations

import collections
import io
import math
import pickle
import struct
import sys
import time
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama.errors import ModelLoadError
from cyllama.sd import StableDiffusion, _pickle_check, convert, detect, upscale
from cyllama.sd._pickle_check import MAX_DEPTH, MAX_OPCODES, check_checkpoint
from cyllama.sd._tensor_header import read_tensors
from cyllama.sd.params import Embedding, HiresParams, Lora, SDContextParams

PROTO = b"\x80\x02"
MAGIC = 0x1950A86A20F9469CFC6C


class FloatStorage:
    """The name that pickles of PyTorch have."""

    def __init__(self, values: np.ndarray | None = None, key: str = "") -> None:
        self.values, self.key = values, key


def _rebuild_tensor_v2(*_: object) -> None:
    pass


class Tensor:
    def __init__(self, values: np.ndarray, key: str) -> None:
        self.storage, self.shape = FloatStorage(values, key), values.shape

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        strides = tuple(math.prod(self.shape[i + 1 :]) for i in range(len(self.shape)))
        return _rebuild_tensor_v2, (self.storage, 0, self.shape, strides, False, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        if isinstance(value, FloatStorage) and value.values is not None:
            return "storage", FloatStorage, value.key, "cpu", value.values.size
        return None


def torch_pickle(value: object, protocol: int = 2) -> bytes:
    """Return a value as PyTorch pickles it."""
    out = io.BytesIO()
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FloatStorage, "__module__", "torch")
        patch.setattr(_rebuild_tensor_v2, "__module__", "torch._utils")
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(out, protocol).dump(value)
    return out.getvalue()


def zipped(data: bytes, tensors: dict[str, Tensor] | None = None, entries: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data)
        for tensor in (tensors or {}).values():
            archive.writestr(zipfile.ZipInfo(f"archive/data/{tensor.storage.key}"), tensor.storage.values.tobytes())
        for i in range(entries):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{i}"), b"")
    return out.getvalue()


def raw(data: bytes) -> bytes:
    return data


def state_dict(n: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    return {
        f"first_stage_model.block.{i}.weight": Tensor(rng.normal(size=(3, 4)).astype("f4"), str(i)) for i in range(n)
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_checkpoints_of_tensors(tmp_path: Path, protocol: int) -> None:
    tensors = state_dict(50)
    path, found = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    meta = {"epoch": 3, "state_dict": collections.OrderedDict(tensors), "rate": 0.5, "on": True, "none": None}
    path.write_bytes(zipped(torch_pickle(meta, protocol), tensors))
    convert(path, found, convert_name=False)
    header = read_tensors(found)
    assert header is not None and header.tensors == dict.fromkeys(tensors, (4, 3))


def test_reads_checkpoints_without_zip(tmp_path: Path) -> None:
    tensors = state_dict(9)
    parts = [torch_pickle(part) for part in (MAGIC, 1001, {"little_endian": True}, tensors, sorted("012345678"))]
    storages = b"".join(struct.pack("<q", 12) + tensors[name].storage.values.tobytes() for name in sorted(tensors))
    path, found = tmp_path / "model.pt", tmp_path / "model.safetensors"
    path.write_bytes(b"".join(parts) + storages)
    convert(path, found, convert_name=False)
    header = read_tensors(found)
    assert header is not None and set(header.tensors) == set(tensors)


def test_accepts_as_many_tensors_as_models_have(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(zipped(torch_pickle(collections.OrderedDict(state_dict(6000))), entries=6000))
    check_checkpoint(path)


NESTED = PROTO + b")" + b"\x85" * 20_000 + b"."
BOMBS: dict[str, tuple[bytes, str]] = {
    "nested tuples": (NESTED, f"deeper than {MAX_DEPTH}"),
    "nested lists": (PROTO + b"]" * 50_000 + b"a" * 49_999 + b".", f"deeper than {MAX_DEPTH}"),
    "nested dicts": (PROTO + b"}N" * 5_000 + b"Ns" * 4_999 + b".", f"deeper than {MAX_DEPTH}|values|opcodes"),
    "a list in itself": (PROTO + b"]" + b"2a" * 40 + b".", "values"),
    "a value of the memo in itself": (PROTO + b"]q\0" + b"h\0aq\0" * 40 + b".", "values"),
    "a dict in itself": (PROTO + b"}q\0" + b"(Nh\0uq\0" * 40 + b".", "values|deeper"),
    "a set in itself": (PROTO + b"\x8f\x94" + b"(h\0\x90\x94" * 10 + b"2\x85\x86" * 40 + b".", "values|deeper"),
    "copies of a text": (
        PROTO + b"X" + struct.pack("<I", 10**7) + b"a" * 10**7 + b"".join(b"r" + struct.pack("<i", i) for i in range(999)) + b".",
        "copies|values",
    ),
    "many opcodes": (PROTO + b"N0" * MAX_OPCODES + b".", "opcodes"),
    "many marks": (PROTO + b"(" * MAX_OPCODES + b"t" * MAX_OPCODES + b".", "opcodes"),
}  # fmt: skip


@pytest.mark.parametrize("form", [raw, zipped])
@pytest.mark.parametrize("name", BOMBS)
def test_rejects_checkpoints_that_cost_too_much(name: str, form: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data, limit = BOMBS[name]
    path = tmp_path / "model.ckpt"
    path.write_bytes(form(data))
    start = time.thread_time()
    with pytest.raises(ModelLoadError, match=limit):
        StableDiffusion(path)
    assert time.thread_time() - start < 60  # without the check: hours, and gigabytes


def test_rejects_large_pickles_in_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(zipped(bytes(65 << 20)))
    with pytest.raises(ModelLoadError, match="bytes"):
        StableDiffusion(path)
    path.write_bytes(zipped(torch_pickle(state_dict(90)), entries=90))
    check_checkpoint(path)
    monkeypatch.setattr(_pickle_check, "MAX_SEARCHES", 8000)
    with pytest.raises(ModelLoadError, match="tensors"):
        StableDiffusion(path)
    monkeypatch.setattr(_pickle_check, "MAX_ENTRIES", 90)
    with pytest.raises(ModelLoadError, match="91 entries"):
        StableDiffusion(path)


def test_rejects_archives_with_two_directories(tmp_path: Path) -> None:
    """zipfile corrects the start of the directory by the bytes before the archive; the engine does not."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(bytes(100) + zipped(torch_pickle(state_dict(2))))
    with pytest.raises(ModelLoadError, match="directory"):
        StableDiffusion(path)


def test_safetensors_files_are_not_checked_as_archives(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4) + zipped(NESTED))
    check_checkpoint(path)
    assert detect(path) is not None or read_tensors(path) is not None


@pytest.mark.parametrize("name", [field for field in SDContextParams.__dataclass_fields__ if field.endswith("_path")])
def test_checks_each_file_of_a_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "part.pth"
    path.write_bytes(zipped(NESTED))
    with pytest.raises(ModelLoadError, match="part.pth"):
        SDContextParams(**{name: path}).check()


def test_checks_other_files(tmp_path: Path) -> None:
    path, image = tmp_path / "part.pt", np.zeros((8, 8, 3), np.uint8)
    path.write_bytes(NESTED)
    calls: list[Callable[[], object]] = [
        lambda: Lora(path=path).check(),
        lambda: Embedding(name="a", path=path).check(),
        lambda: HiresParams(model_path=path).check(),
        lambda: upscale(image, path),
        lambda: convert(path, tmp_path / "out.gguf"),
    ]
    for call in calls:
        with pytest.raises(ModelLoadError, match="part.pt"):
            call()
    assert [found.name for found in tmp_path.iterdir()] == ["part.pt"]


@pytest.mark.parametrize(
    "data", [b"", b"\x80", PROTO, PROTO + b"X\xff", PROTO + b"h\1.", b"PK\5\6", b"PK\3\4" + bytes(99)]
)
def test_damaged_files_are_left_to_the_engine(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(data)
    check_checkpoint(path)
    with pytest.raises(ModelLoadError):
        StableDiffusion(path)
