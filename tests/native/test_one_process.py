"""Four engines in one process share one ggml, beside the ggml of another package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cyllama import _native
from cyllama.errors import ABIMismatchError

IMPORTS = "import cyllama.llama, cyllama.llava._core, cyllama.whisper._core, cyllama.sd._core, cyllama._native._core"


def run(code: str, **kwargs: object) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_engines_share_one_ggml() -> None:
    out = run(
        IMPORTS + "; cyllama._native._core.load_backends()\n"
        "import re; maps = open('/proc/self/maps').read()\n"
        "print(sorted(set(re.findall(r'\\S*ggml\\S*\\.so\\S*', maps))))"
    )
    files = [Path(name).name for name in re.findall(r"'([^']+)'", out)]
    assert [name for name in files if "ggml-base" in name] == ["libcyllama-ggml-base.so"]
    assert [name for name in files if name == "libcyllama-ggml.so"] == ["libcyllama-ggml.so"]
    assert len([name for name in files if "ggml-cpu" in name]) == 1


def test_all_engines_share_one_registry() -> None:
    out = run(
        IMPORTS + "\n"
        "print(*{m.registry_address() for m in (cyllama._native._core, cyllama.llava._core, cyllama.whisper._core, "
        "cyllama.sd._core)})\n"
        "print(cyllama.llama.llama_print_system_info().split('|')[0] == "
        "cyllama.whisper.system_info().split('|')[0].replace('WHISPER : COREML = 0 ', 'x') or 'differs')"
    )
    assert len(out.splitlines()[0].split()) == 1


def test_every_engine_has_version_and_system_info() -> None:
    import cyllama.llama
    import cyllama.llava
    import cyllama.sd
    import cyllama.whisper

    assert re.match(r"\d+\.\d+", cyllama.whisper.version())
    assert cyllama.llama.llama_version() == cyllama.llava.version()
    assert cyllama.sd.version()
    for features in (cyllama.llama.llama_print_system_info(), cyllama.whisper.system_info(), cyllama.sd.system_info()):
        for feature in _native.cpu_features()[:3]:
            assert feature in features


STAND_IN = """
#include <stdlib.h>
#define TRAP(name) void name(void) { abort(); }
TRAP(ggml_init) TRAP(ggml_free) TRAP(ggml_backend_load) TRAP(ggml_backend_reg_count) TRAP(ggml_graph_compute)
TRAP(ggml_backend_dev_by_type) TRAP(llama_model_load_from_file) TRAP(llama_decode) TRAP(llama_backend_init)
"""


def test_other_ggml_in_the_process_has_no_effect(tmp_path: Path, tiny_path: Path) -> None:
    source = tmp_path / "stand_in.c"
    source.write_text(STAND_IN)
    libraries = []
    for soname in (
        "libggml-base.so.0",
        "libggml.so.0",
        "libllama.so.0",
        "libggml-base.so",
        "libggml.so",
        "libllama.so",
    ):
        library = tmp_path / soname
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", library, source], check=True)
        libraries.append(str(library))
    code = (
        f"import ctypes; kept = [ctypes.CDLL(path) for path in {libraries!r}]\n"
        "import cyllama\n"
        f"print(cyllama.llama.simple({str(tiny_path)!r}, 'Once upon a time', 8).tokens)"
    )
    alone = run(f"import cyllama; print(cyllama.llama.simple({str(tiny_path)!r}, 'Once upon a time', 8).tokens)")
    assert run(code) == alone
    assert len(alone.split(",")) >= 8


def test_rejects_modules_of_another_ggml() -> None:
    version, size, max_name = _native._core.abi()
    assert max_name == 128
    with pytest.raises(ABIMismatchError, match="other was built for ggml"):
        _native._core.check_abi("other", (version, size + 8, max_name))


def test_build_info_names_engines_backends_and_devices() -> None:
    info = _native.build_info()
    assert set(info["engines"]) == {"llama", "whisper", "sd"}
    for engine in info["engines"].values():
        assert set(engine) == {"version", "commit", "source"}
        assert _native.engine_label(engine).startswith(engine["version"])
    assert info["ggml"]["version"].count(".") == 2
    assert info["cpu"]["variant"] in {b["name"].removeprefix("cpu-") for b in info["backends"] if b["loaded"]}
    assert {"rpc"} <= {b["name"] for b in info["backends"] if b["loaded"]}
    assert any(d["type"] == "cpu" and d["memory_total"] > 0 for d in info["devices"])


def test_import_of_the_package_loads_no_engine() -> None:
    out = run("import sys, cyllama; print([n for n in sys.modules if n.startswith('cyllama.') and n.count('.') > 1])")
    assert out.strip() == "[]"
