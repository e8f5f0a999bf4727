"""scripts/cpu_variants.py: its tables are those of ggml, and it chooses the variant that ggml loads."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import cyllama

ROOT = Path(__file__).resolve().parents[2]
GGML = ROOT / "thirdparty" / "llama.cpp" / "ggml" / "src"
SCORES = {"x86_64": "ggml-cpu/arch/x86/cpu-feats.cpp", "aarch64": "ggml-cpu/arch/arm/cpu-feats.cpp"}
HASWELL = "fma f16c sse4_2 bmi2 avx avx2"
SKYLAKE = f"{HASWELL} avx512f avx512cd avx512vl avx512dq avx512bw"


@pytest.fixture(scope="module")
def variants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cpu_variants", ROOT / "scripts" / "cpu_variants.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def defined(text: str) -> dict[str, tuple[str, ...]]:
    """Return the variants and features that ggml's CMake code defines."""
    found = re.findall(r"ggml_add_cpu_backend_variant\(([\w.]+)([^)]*)\)", text)
    return {name: tuple(features.split()) for name, features in found if name != "tag_name"}


def test_variants_match_ggml(variants: ModuleType) -> None:
    ggml = defined((GGML / "CMakeLists.txt").read_text())
    others = re.compile(r"android_|apple_|power\d|z1\d|arch15|riscv")
    wanted = {name: set(features) for name, features in ggml.items() if not others.match(name)}
    ours = variants.VARIANTS["x86_64"] | variants.VARIANTS["aarch64"]
    assert {name: set(features) for name, features in ours.items()} == wanted


@pytest.mark.parametrize("kind", ["x86_64", "aarch64"])
def test_features_are_ordered_by_score(kind: str, variants: ModuleType) -> None:
    source = (GGML / SCORES[kind]).read_text()
    scores = re.findall(r"#if(?:def|\s+defined\()\s*GGML_(?:USE_)?(\w+)\)?[^#]*?score \+= ([\d<]+)", source)
    weight = {name: eval(value) for name, value in scores}
    order = [name for name in variants.FLAGS[kind] if name != "AMX_TILE"]  # comes with AMX_INT8, has no score
    assert len(weight) == len(order)
    assert order == sorted(weight, key=lambda name: weight[name])


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "x64"),
        ("sse4_2 avx", "sandybridge"),
        (HASWELL, "haswell"),
        (f"{HASWELL} avx_vnni", "alderlake"),
        (f"{HASWELL} avx512f avx512cd", "haswell"),  # AVX-512 without the parts that ggml needs
        (SKYLAKE, "skylakex"),
        (f"{SKYLAKE} avx512vbmi avx512_vnni avx512_bf16 avx_vnni", "zen4"),
        (f"{SKYLAKE} avx512vbmi avx512_vnni avx512_bf16 amx_tile amx_int8", "sapphirerapids"),
    ],
)
def test_chooses_the_best_variant_for_a_processor(flags: str, name: str, variants: ModuleType) -> None:
    assert variants.best("x86_64", flags.split()) == name


def test_chooses_the_variant_that_ggml_loads(variants: ModuleType) -> None:
    kind = variants.machine()
    if not kind:
        pytest.skip("the tables have no variants for this machine")
    built = [
        path.stem.partition("ggml-cpu-")[2] for path in (Path(cyllama.__file__).parent / "lib").glob("*ggml-cpu-*")
    ]
    expected = variants.best(kind, variants.processor_flags(), built)
    assert cyllama.build_info()["cpu"]["variant"] == expected


@pytest.mark.parametrize(("files", "reason"), [((), "no CPU backend"), (("libggml-cpu-zen9.so",), "zen9")])
def test_import_error_names_the_variants_of_the_build(files: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"not a library")
    code = f"from pathlib import Path; from cyllama._native import _core; _core.LIB = Path({str(tmp_path)!r}); _core.devices()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ") and reason in last


def test_wheel_has_a_variant_for_every_processor(variants: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "machine", lambda: "x86_64")
    everything = variants.chosen("all", pytest.fail)
    assert "x64" in everything
    assert set(everything) | set(variants.NEAR_TWINS) == set(variants.VARIANTS["x86_64"])


def test_rejects_an_unknown_variant(variants: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "machine", lambda: "x86_64")
    said: list[str] = []
    variants.chosen("haswell,pentium", said.append)
    assert len(said) == 1 and "'pentium'" in said[0] and "haswell" in said[0]
    assert variants.chosen("haswell,zen4", pytest.fail) == ["haswell", "zen4"]
