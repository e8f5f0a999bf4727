"""GGUF files: read, change, write, and reject damaged files."""

from __future__ import annotations

import io
import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.errors import ClosedError, EngineError, ModelLoadError, UnsupportedError
from cyllama.llama import GGUFContext, LlamaModel, TensorType

TYPES = {
    "u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "u32": np.uint32, "i32": np.int32,
    "u64": np.uint64, "i64": np.int64, "f32": np.float32, "f64": np.float64, "bool": np.bool_,
}  # fmt: skip


def header(n_tensors: int = 0, n_kv: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<Iqq", version, n_tensors, n_kv)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def again(context: GGUFContext, folder: Path) -> GGUFContext:
    path = folder / "again.gguf"
    context.write(path)
    return GGUFContext.from_file(path)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return type(a) is type(b) and a == b


# ------------------------------------------------------------------------------------- reading


def test_reads_a_model_file(smol_path: Path) -> None:
    with GGUFContext.from_file(smol_path) as file:
        assert file.version == 3 and file.alignment == 32 and file.data_offset % 32 == 0
        assert file["general.architecture"] == "llama"
        assert file["llama.block_count"] == 30 and file.type_of("llama.block_count") == "u32"
        assert file.type_of("tokenizer.ggml.tokens") == "arr[str]"
        assert len(file["tokenizer.ggml.tokens"]) == 49152
        assert file["tokenizer.ggml.token_type"].dtype == np.int32
        assert file.n_kv == len(file) == len(file.keys()) == len(file.metadata()) == len(list(file))
        assert "no.such.key" not in file and file.get("no.such.key", 5) == 5
        info = file.tensor_info("token_embd.weight")
        assert info.shape == (49152, 576) and info in file.tensors()
        assert file.tensor_data("output_norm.weight").shape == (576,)
        assert len(file.tensors()) == file.n_tensors == 272
        with pytest.raises(KeyError):
            file["no.such.key"]
        with pytest.raises(KeyError):
            file.tensor_data("no.such.tensor")
    with pytest.raises(ClosedError):
        file.keys()


def test_reads_paths_bytes_and_files(tiny_path: Path) -> None:
    data = tiny_path.read_bytes()
    contexts = [
        GGUFContext.from_file(tiny_path),
        GGUFContext.from_bytes(data),
        GGUFContext.from_fileobj(io.BytesIO(data)),
    ]
    with tiny_path.open("rb") as f:
        contexts.append(GGUFContext.from_fileobj(f))
    for context in contexts[1:]:
        assert context.keys() == contexts[0].keys() and context.tensors() == contexts[0].tensors()
        for info in context.tensors():
            assert np.array_equal(context.tensor_data(info.name), contexts[0].tensor_data(info.name))


def test_reads_inside_a_larger_file(tiny_path: Path) -> None:
    f = io.BytesIO(b"before" + tiny_path.read_bytes())
    f.seek(6)
    assert GGUFContext.from_fileobj(f).tensor_data("output_norm.weight").shape == (32,)


def test_copy_is_identical(tiny_path: Path, tmp_path: Path) -> None:
    """Regression: loaded tensors were written from uninitialized memory."""
    for i, context in enumerate((GGUFContext.from_file(tiny_path), GGUFContext.from_bytes(tiny_path.read_bytes()))):
        context.write(tmp_path / f"{i}.gguf")
        assert (tmp_path / f"{i}.gguf").read_bytes() == tiny_path.read_bytes()


def test_overwrites_its_own_file(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path.read_bytes())
    context = GGUFContext.from_file(path)
    before = context.tensor_data("token_embd.weight")
    context.set("general.description", "much longer metadata " * 100)
    context.write(path)
    assert np.array_equal(context.tensor_data("token_embd.weight"), before)
    context.write(path)
    assert np.array_equal(GGUFContext.from_file(path).tensor_data("token_embd.weight"), before)
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


# ------------------------------------------------------------------------------------- metadata

SCALARS = st.one_of(
    st.booleans(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**64 - 1), st.floats(width=32),
)  # fmt: skip
KEYS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda key: key != "general.alignment"
)


@st.composite
def arrays(draw: Any) -> np.ndarray:
    name = draw(st.sampled_from(sorted(TYPES)))
    data = draw(st.binary(max_size=64))
    itemsize = np.dtype(TYPES[name]).itemsize
    if name == "bool":
        return np.frombuffer(data, np.uint8) > 100
    return np.frombuffer(data[: len(data) // itemsize * itemsize], TYPES[name])


@settings(max_examples=150, deadline=None)
@given(
    values=st.dictionaries(
        KEYS,
        st.one_of(SCALARS, arrays(), st.lists(SCALARS.filter(lambda v: isinstance(v, str)), min_size=1)),
        max_size=8,
    )
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    context = GGUFContext.empty()
    for key, value in values.items():
        context[key] = value
    assert context.keys() == list(values)
    copy = again(context, tmp_path_factory.mktemp("gguf"))
    assert copy.keys() == list(values)
    for key, value in values.items():
        assert copy.type_of(key) == context.type_of(key)
        for found in (context[key], copy[key]):
            if isinstance(value, float):
                assert found == value or value != value
            else:
                assert same(found, value)


@pytest.mark.parametrize("name", TYPES)
def test_every_type(name: str, tmp_path: Path) -> None:
    dtype = np.dtype(TYPES[name])
    if dtype.kind in "iu":
        values = [np.iinfo(dtype).min, np.iinfo(dtype).max, 1]
    else:
        values = [True, False, True] if name == "bool" else [0.5, -1.0, 2.0]
    context = GGUFContext.empty()
    for i, value in enumerate(values):
        context.set(f"scalar{i}", value, name)
    context.set("list", values, f"arr[{name}]")
    context.set("array", np.array(values, dtype))
    context.set("none", [], f"arr[{name}]")
    for c in (context, again(context, tmp_path)):
        assert [c[f"scalar{i}"] for i in range(3)] == values
        assert c["list"].tolist() == c["array"].tolist() == values and c["list"].dtype == dtype
        assert c.type_of("list") == c.type_of("array") == c.type_of("none") == f"arr[{name}]"
        assert len(c["none"]) == 0


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "bool"), (5, "i32"), (-5, "i32"), (2**31, "i64"), (2**63, "u64"), (0.5, "f32"), ("x", "str"),
        ([True], "arr[bool]"), ([5], "arr[i32]"), ([1, 2**40], "arr[i64]"), ([1, 2**63], "arr[u64]"),
        ([0.5, 1], "arr[f32]"), (["x"], "arr[str]"), (("x", "y"), "arr[str]"), (np.zeros(2, "u2"), "arr[u16]"),
        (np.array(["x"]), "arr[str]"),
    ],
)  # fmt: skip
def test_inferred_types(value: Any, kind: str) -> None:
    context = GGUFContext.empty()
    context["key"] = value
    assert context.type_of("key") == kind
    assert np.array_equal(context["key"], value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (256, "u8"), (-1, "u32"), (2**31, "i32"), (2**64, "u64"), (1.5, "i32"), ("x", "u8"), (5, "str"), (1, "bool"),
        (1e300, "f32"), ([1.5], "arr[i32]"), ([300], "arr[u8]"), ([2], "arr[bool]"), (["a\0"], "arr[str]"),
        ([1e300], "arr[f32]"), ([[1]], "arr[i32]"), ([5], "arr[str]"), (5, "nope"), (5, "arr"), ([5], "arr[nope]"),
        ([5], "arr[arr]"), ("a\0", "str"), (None, None), (object(), None), (2**70, None), ({}, None), (b"x", None),
        ([1, "a"], None), ([None], None), ("\ud800", None),
    ],
)  # fmt: skip
def test_rejects_invalid_values(value: Any, kind: str | None) -> None:
    context = GGUFContext.empty()
    with pytest.raises((TypeError, ValueError)):
        context.set("key", value, kind)
    assert "key" not in context


@pytest.mark.parametrize("key", ["", "a\0b", 5, None])
def test_rejects_invalid_keys(key: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        GGUFContext.empty().set(key, 1)


def test_replace_and_remove() -> None:
    context = GGUFContext.empty()
    context["a"], context["b"] = 1, 2
    context["a"] = "text"
    assert context.keys() == ["b", "a"] and context["a"] == "text"
    del context["a"]
    context.remove("b")
    assert len(context) == 0
    with pytest.raises(KeyError):
        context.remove("b")


def test_copy_from(tiny_path: Path) -> None:
    source, copy = GGUFContext.from_file(tiny_path), GGUFContext.empty()
    copy["own"] = 1
    copy.copy_from(source)
    assert copy.keys() == ["own", *source.keys()]
    assert all(same(copy[key], source[key]) for key in source)
    source.copy_from(source)
    assert source.keys() == copy.keys()[1:]


def test_reads_invalid_utf8(tmp_path: Path) -> None:
    data = header(n_kv=1) + text(b"\xff\xfe") + struct.pack("<I", 8) + text(b"\xfa")
    context = GGUFContext.from_bytes(data)
    assert context.metadata() == {"\udcff\udcfe": "\udcfa"}
    context["\udcff\udcfe"] = context["\udcff\udcfe"]
    assert again(context, tmp_path).metadata() == context.metadata()


# ------------------------------------------------------------------------------------ alignment


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment(alignment: int, tmp_path: Path) -> None:
    context = GGUFContext.empty(alignment)
    for i in range(3):
        context.add_tensor(f"t{i}", np.full(5, i, np.float32))
    copy = again(context, tmp_path)
    assert copy.alignment == alignment and copy["general.alignment"] == alignment
    assert [copy.tensor_data(f"t{i}").tolist() for i in range(3)] == [[i] * 5 for i in range(3)]


def test_alignment_cannot_change(tmp_path: Path) -> None:
    """The engine would pad with the old alignment and write an unreadable file."""
    context = GGUFContext.empty()
    for value, kind in ((64, "u32"), ([64], None), (64, "i32")):
        with pytest.raises(UnsupportedError):
            context.set("general.alignment", value, kind)
    wide = GGUFContext.empty(64)
    wide["general.name"] = "wide"
    with pytest.raises(UnsupportedError):
        wide.remove("general.alignment")
    context.copy_from(wide)
    assert context.keys() == ["general.name"]
    context["general.name"] = "narrow"
    wide.copy_from(context)
    assert wide["general.alignment"] == 64 and wide["general.name"] == "narrow"
    for bad in (0, 3, -8, 2**21, 1.5):
        with pytest.raises((TypeError, ValueError)):
            GGUFContext.empty(bad)


# -------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 4), (2, 3, 4, 5)])
def test_tensors(dtype: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    context = GGUFContext.empty()
    context.add_tensor("plain", data)
    context.add_tensor("swapped", data.astype(data.dtype.newbyteorder(">")))
    context.add_tensor("transposed", data.T)
    copy = again(context, tmp_path)
    assert copy.tensor_data("plain").dtype == data.dtype
    assert np.array_equal(copy.tensor_data("plain"), data) and np.array_equal(copy.tensor_data("swapped"), data)
    assert np.array_equal(copy.tensor_data("transposed"), data.T)


def test_quantized_tensors(smol_path: Path, tmp_path: Path) -> None:
    source, context = GGUFContext.from_file(smol_path), GGUFContext.empty()
    info = next(info for info in source.tensors() if info.type is TensorType.Q4_1 and len(info.shape) == 2)
    rows = source.tensor_data(info.name).reshape(info.shape[0], -1)
    context.add_tensor("w", rows, info.type)
    found = again(context, tmp_path).tensor_info("w")
    assert (found.type, found.shape, found.size) == (info.type, info.shape, info.size)
    assert np.array_equal(again(context, tmp_path).tensor_data("w"), rows.reshape(-1))


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("", np.zeros(3, "f4"), None), ("x" * 128, np.zeros(3, "f4"), None), ("a\0", np.zeros(3, "f4"), None),
        ("x", np.zeros(0, "f4"), None), ("x", np.float32(1), None), ("x", np.zeros((1,) * 5, "f4"), None),
        ("x", np.zeros(3, "c8"), None), ("x", np.zeros(3, "u4"), None), ("x", np.array(["a"]), None),
        ("x", np.zeros(17, "u1"), "q8_0"), ("x", np.zeros(34, "f4"), "q8_0"), ("x", np.zeros(34, "u1"), "nope"),
        ("taken", np.zeros(3, "f4"), None),
    ],
)  # fmt: skip
def test_rejects_invalid_tensors(name: str, data: Any, kind: str | None) -> None:
    context = GGUFContext.empty()
    context.add_tensor("taken", np.ones(1, np.float32))
    with pytest.raises((TypeError, ValueError)):
        context.add_tensor(name, data, kind)
    assert context.n_tensors == 1


def test_type_and_data_of_a_tensor(tmp_path: Path) -> None:
    """Changing a tensor's type moves the tensors after it; their data must not change."""
    first = GGUFContext.empty()
    for i in range(3):
        first.add_tensor(f"t{i}", np.full(64, i, np.float32))
    context = again(first, tmp_path)
    context.set_tensor_type("t1", "f16")
    assert context.tensor_data("t2").tolist() == [2.0] * 64
    with pytest.raises(ModelLoadError):
        context.write(tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
    with pytest.raises(ValueError):
        context.set_tensor_data("t1", np.zeros(64, np.float32))
    context.set_tensor_data("t1", np.full(64, 9, np.float16))
    context.write(tmp_path / "out.gguf")
    copy = GGUFContext.from_file(tmp_path / "out.gguf")
    assert [copy.tensor_data(f"t{i}").tolist() for i in range(3)] == [[0.0] * 64, [9.0] * 64, [2.0] * 64]
    with pytest.raises(ValueError):
        context.set_tensor_type("t1", "q4_K")
    with pytest.raises(KeyError):
        context.set_tensor_type("nope", "f16")


# -------------------------------------------------------------------------------------- writing


def test_metadata_only(tiny_path: Path, tmp_path: Path) -> None:
    source = GGUFContext.from_file(tiny_path)
    source.write(tmp_path / "meta.gguf", only_meta=True)
    meta = GGUFContext.from_file(tmp_path / "meta.gguf")
    assert meta.tensors() == source.tensors() and meta.meta_size == len(meta.meta_data())
    assert (tmp_path / "meta.gguf").read_bytes() == source.meta_data()
    with pytest.raises(EngineError):
        meta.tensor_data("output_norm.weight")
    with pytest.raises(EngineError):
        meta.write(tmp_path / "whole.gguf")
    assert os.listdir(tmp_path) == ["meta.gguf"]


def test_rejects_unwritable_paths(tmp_path: Path) -> None:
    context = GGUFContext.empty()
    with pytest.raises(FileNotFoundError):
        context.write(tmp_path / "no" / "folder.gguf")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        context.write(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


def test_permissions_of_a_new_file(tmp_path: Path) -> None:
    GGUFContext.empty().write(tmp_path / "a.gguf")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.gguf").stat().st_mode == (tmp_path / "b").stat().st_mode


# ------------------------------------------------------------------------------------- damaged


def read_all(context: GGUFContext) -> None:
    context.metadata()
    for info in context.tensors():
        context.tensor_data(info.name)
    context.meta_data()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"G", b"GGUF", b"GGUX" + bytes(20), header(version=0), header(version=1), header(version=9),
        header(version=0x03000000), header(-1, 0), header(0, -1), header(2**62, 0), header(0, 2**62), header(5, 0),
        header(0, 5), header(n_kv=1) + struct.pack("<Q", 2**63), header(n_kv=1) + text(b""),
        header(n_kv=1) + text(b"k") + struct.pack("<I", 99), header(n_kv=1) + text(b"k") + struct.pack("<I", 13),
        header(n_kv=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1), header(n_kv=1) + text(b"k") + struct.pack("<IIQ", 9, 4, 2**61),
        header(n_kv=1) + text(b"k") + struct.pack("<IIQ", 9, 8, 2**30),
        header(n_kv=1) + text(b"general.alignment") + struct.pack("<II", 4, 0),
        header(n_kv=1) + text(b"general.alignment") + struct.pack("<II", 4, 48),
        header(n_kv=1) + text(b"general.alignment") + struct.pack("<IQ", 10, 32),
        header(n_kv=2) + (text(b"k") + struct.pack("<II", 4, 1)) * 2,
        header(1) + text(b"t" * 200) + struct.pack("<IqIQ", 1, 4, 0, 0) + bytes(64),
        header(1) + text(b"t") + struct.pack("<IqIQ", 1, -4, 0, 0) + bytes(64),
        header(1) + text(b"t") + struct.pack("<IqIQ", 1, 2**62, 0, 0) + bytes(64),
        header(1) + text(b"t") + struct.pack("<IqIQ", 1, 4, 4, 0) + bytes(64),
        header(1) + text(b"t") + struct.pack("<IqIQ", 1, 4, 999, 0) + bytes(64),
        header(1) + text(b"t") + struct.pack("<IqIQ", 1, 4, 0, 64) + bytes(64),
        header(1) + text(b"t") + struct.pack("<I", 5) + bytes(128),
        header(1) + text(b"t") + struct.pack("<IqqqqIQ", 4, 2**31, 2**31, 2**31, 2**31, 0, 0) + bytes(64),
        header(1) + text(b"t") + struct.pack("<IqIQ", 1, 64, 0, 0) + bytes(64),
    ],
)  # fmt: skip
def test_rejects_damaged_files(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    for load in (lambda: GGUFContext.from_file(path), lambda: GGUFContext.from_bytes(data),
                 lambda: GGUFContext.from_fileobj(io.BytesIO(data))):  # fmt: skip
        with pytest.raises(ModelLoadError):
            load()
    with pytest.raises(ModelLoadError):
        LlamaModel(path)


def test_error_message_has_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(header(version=9))
    with pytest.raises(ModelLoadError, match="version 9") as caught:
        GGUFContext.from_file(path)
    assert caught.value.log


def test_rejects_missing_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GGUFContext.from_file(tmp_path / "none.gguf")
    with pytest.raises(IsADirectoryError):
        GGUFContext.from_file(tmp_path)
    with pytest.raises(TypeError):
        GGUFContext()


def test_every_truncation(tiny_path: Path) -> None:
    data = tiny_path.read_bytes()
    end = GGUFContext.from_bytes(data).data_offset
    for size in [*range(0, 300), *range(300, len(data), 30_011), len(data) - 40]:
        if size != end:
            with pytest.raises(ModelLoadError):
                GGUFContext.from_bytes(data[:size])


@pytest.mark.parametrize("seed", range(200))
def test_random_corruption(seed: int, tiny_path: Path, tmp_path: Path) -> None:
    """Random content is read or rejected."""
    source = random.Random(seed)
    data = bytearray(tiny_path.read_bytes())
    end = GGUFContext.from_file(tiny_path).data_offset
    places = [(0, 64), (0, 4096), (0, end), (end - 4096, end)]
    for _ in range(source.choice([1, 2, 10, 200])):
        low, high = source.choice(places)
        at = source.randrange(low, high)
        data[at : at + source.choice([1, 4, 8])] = source.choice([b"\xff", b"\0", source.randbytes(8)])
    path = tmp_path / "corrupt.gguf"
    path.write_bytes(data)
    for load in (lambda: GGUFContext.from_file(path), lambda: GGUFContext.from_bytes(bytes(data))):
        try:
            context = load()
        except ModelLoadError:
            continue
        read_all(context)
