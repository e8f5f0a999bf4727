"""Parameter classes: unknown names, the check of values, and the way of each field to C, flags, types and tables."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cyllama.llama.params
import cyllama.llava.params
import cyllama.sd.params
import cyllama.whisper.params
from cyllama._param_kinds import kind_of
from cyllama._params import CHECKS, Params, checked, names_of
from cyllama.cli import command_parser
from cyllama.sd import ImageOptions, VideoOptions
from cyllama.sd._option_types import ImageOptionsDict, VideoOptionsDict
from cyllama.server.image_jobs import NOT_IN_REQUESTS, OPTIONS
from cyllama.whisper import TranscribeOptions
from cyllama.whisper._option_types import TranscribeOptionsDict

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINES = (cyllama.llama.params, cyllama.llava.params, cyllama.sd.params, cyllama.whisper.params)
CLASSES = [
    value
    for engine in ENGINES
    for value in vars(engine).values()
    if isinstance(value, type) and issubclass(value, Params) and value.__module__ == engine.__name__
]
# The extension modules that fill the structs.
FILLING = (
    "cyllama.llama._model",
    "cyllama.llama._context",
    "cyllama.llama._quantize",
    "cyllama.llama._sampler",
    "cyllama.llava._context",
    "cyllama.llava._bitmap",
    "cyllama.sd._fill",
    "cyllama.whisper._fill",
    "cyllama.whisper._model",
    "cyllama.whisper._vad",
    "cyllama.whisper._parakeet",
    "cyllama.whisper._parakeet_state",
)
READERS = {
    name.removeprefix("_read_"): function
    for module in FILLING
    for name, function in vars(importlib.import_module(module)).items()
    if name.startswith("_read_")
}


def sample(field: dataclasses.Field[Any], path: Path) -> Any:
    """Return a valid value other than zero."""
    kind, limits = kind_of(str(field.type), field.metadata), field.metadata
    low = 1 if limits["low"] is None else max(1, limits["low"])
    high = 1000 if limits["high"] is None or math.isinf(limits["high"]) else limits["high"]
    if kind == "int":
        return min(int(high), int(low) + 2)
    if kind == "float":
        return (max(0, low if low <= high else 0) + min(high, 4)) / 2 if high > 1 else high / 2
    if kind == "enum":
        return sorted(limits["enum"])[-1]
    return {
        "bool": True,
        "text": "1,0",
        "path": path,
        "ints": [3, 4],
        "floats": [2.0, 1.0],
    }.get(kind)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.__name__ in READERS], ids=lambda cls: cls.__name__)
def test_every_field_reaches_the_c_struct(cls: type[Params], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    read = READERS[cls.__name__]
    reachable = {field.name for field in dataclasses.fields(cls) if field.metadata["c"] is not None}
    for field in dataclasses.fields(cls):
        value = sample(field, path)
        kind = kind_of(str(field.type), field.metadata)
        if field.name not in reachable or value is None or kind in ("params", "list", "image", "images"):
            continue
        given = {field.name: checked_value(cls, field.name, value)}
        found = read(given)
        expected = given[field.name]
        if kind == "float":
            assert found[field.name] == pytest.approx(expected, rel=1e-6), field.name
        else:
            assert found[field.name] == expected, field.name
        others = {name: other for name, other in found.items() if name != field.name and other}
        assert not others, f"{field.name} sets {others} as well"


def checked_value(cls: type[Params], name: str, value: Any) -> Any:
    """Check a value without the others that it may need."""
    lone = cls(**{name: value})
    try:
        return checked(lone, cls)[name]
    except ValueError as error:
        if name in str(error) or "need" in str(error) or "expected" in str(error):
            field = cls.__dataclass_fields__[name]
            return CHECKS[kind_of(str(field.type), field.metadata)](value, name, field.metadata)
        raise


def test_nested_parameters_and_lists_reach_the_c_struct(tmp_path: Path) -> None:
    from cyllama.sd import ImageGenParams, Lora

    (tmp_path / "a").write_bytes(b"x")
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    params = ImageGenParams(loras=[Lora(path=tmp_path / "a")] * 3, ref_images=images)
    found = READERS["ImageGenParams"](checked(params, ImageGenParams))
    assert (found["loras"], found["ref_images"]) == (3, 2)
    text = ImageGenParams(
        sample_params=cyllama.sd.params.SampleParams(steps=7, guidance=cyllama.sd.params.GuidanceParams(guidance=2.5))
    ).to_str()
    assert "sample_steps: 7" in text and "distilled_guidance: 2.50" in text


def test_every_class_with_a_c_struct_is_filled() -> None:
    source = "".join((ROOT / "src" / "cyllama" / name).read_text() for name in
                     ("llama/params.py", "llava/params.py", "sd/params.py", "whisper/params.py"))  # fmt: skip
    assert set(re.findall(r"class (\w+)\(.*\bc=", source)) == READERS.keys()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_rejects_unknown_names(cls: type[Params]) -> None:
    name = sorted(names_of(cls))[0]
    with pytest.raises(TypeError, match=f"{cls.__name__} has no option '{name}x'; did you mean"):
        cls(**{name + "x": 1})
    params = cls()
    with pytest.raises(AttributeError, match=f"{cls.__name__} has no option '{name}x'; did you mean"):
        setattr(params, name + "x", 1)
    setattr(params, name, None)


def test_suggests_the_name_of_an_alias() -> None:
    with pytest.raises(TypeError, match="did you mean 'steps'"):
        cyllama.sd.params.SampleParams(sample_steps=3)


def test_repr_shows_what_was_given() -> None:
    params = cyllama.sd.params.SampleParams(steps=3, eta=0.5)
    assert repr(params) == "SampleParams(steps=3, eta=0.5)"
    assert params.to_dict() == {"steps": 3, "eta": 0.5}
    assert repr(cyllama.sd.params.Lora(path="a")) == "Lora(path='a')"


@pytest.mark.parametrize(
    ("value", "error"),
    [(True, TypeError), (2.5, TypeError), ("3", TypeError), (0, ValueError), (513, ValueError)],
)
def test_rejects_invalid_numbers(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="^n_threads is "):
        cyllama.llama.params.LlamaContextParams(n_threads=value).check()


def test_none_is_the_default() -> None:
    params = cyllama.sd.params.Lora(path=__file__, multiplier=None)
    assert checked(params, cyllama.sd.params.Lora)["multiplier"] == 1.0


@pytest.mark.parametrize(
    ("command", "options"),
    [("txt2img", ImageOptions), ("txt2vid", VideoOptions), ("transcribe", TranscribeOptions)],
)
def test_every_option_has_a_flag(command: str, options: type[Params]) -> None:
    parser = command_parser(command)
    parser.shows_all = True
    flags = parser.format_help()
    for field in dataclasses.fields(options):
        if field.metadata["flag"] and kind_of(str(field.type), field.metadata) != "params":
            assert f"--{field.name.replace('_', '-')}" in flags, field.name


@pytest.mark.parametrize(
    ("keywords", "options"),
    [(ImageOptionsDict, ImageOptions), (VideoOptionsDict, VideoOptions), (TranscribeOptionsDict, TranscribeOptions)],
)
def test_every_option_is_a_keyword(keywords: type, options: type[Params]) -> None:
    assert names_of(options) <= set(keywords.__annotations__)


@pytest.mark.parametrize("options", [ImageOptions, VideoOptions, TranscribeOptions])
def test_every_option_is_documented(options: type[Params]) -> None:
    text = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    found = re.search(rf"<!-- options: {options.__name__} -->(.*?)<!-- end -->", text, re.DOTALL)
    assert found is not None
    assert names_of(options) <= set(re.findall(r"^\| `(\w+)`", found[1], re.MULTILINE))


def test_server_takes_every_scalar_option_of_images() -> None:
    scalars = {"int", "float", "str", "int | str"}
    names = {f.name for f in dataclasses.fields(ImageOptions) if str(f.type).removesuffix(" | None") in scalars}
    assert set(OPTIONS) == names - NOT_IN_REQUESTS - {"output_type"}
    assert len(OPTIONS) > 15
