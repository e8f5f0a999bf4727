"""The declarations match the headers, and check_declarations.py finds what does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LLAMA, COMMON = "src/cyllama/llama/libllama.pxd", "src/cyllama/llama/libcommon.pxd"
MODEL, REASONS = "src/cyllama/llama/_model.pyx", "scripts/unwrapped.toml"


def declarations(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "check_declarations.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def copied(folder: Path) -> Path:
    """Return a copy of the sources, to be changed."""
    ignore = shutil.ignore_patterns("*.so", "lib", "__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignore)
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "unwrapped.toml", folder / "scripts")
    return folder


# File, old text, new text and expected message. All changes are checked at once, because the compiler takes seconds.
DAMAGE = [
    (LLAMA, "int32_t llama_model_n_embd(", "int64_t llama_model_n_embd(", "llama_model_n_embd"),
    (LLAMA, "uint32_t n_batch", "int64_t n_batch", "n_batch"),
    (LLAMA, "uint32_t n_ubatch", "uint32_t n_ubadge", "n_ubadge"),
    (LLAMA, "LLAMA_POOLING_TYPE_MEAN", "LLAMA_POOLING_TYPE_MEEN", "LLAMA_POOLING_TYPE_MEEN"),
    (LLAMA, "bool llama_supports_mmap()", "bool llama_supports_nmap()", "llama_supports_nmap"),
    (LLAMA, "        LLAMA_ROPE_TYPE_NORM\n", "        LLAMA_VOCAB_TYPE_SPM\n", "LLAMA_VOCAB_TYPE_SPM is no constant"),
    (LLAMA, "ctypedef uint32_t llama_state_seq_flags", "ctypedef int llama_state_seq_flags", "is another type"),
    (LLAMA, "progress_callback)(float", "progress_callback)(double", "llama_progress_callback is another type"),
    (LLAMA, "struct llama_adapter_lora:", "struct llama_nothing:", "llama_nothing"),
    (LLAMA, "void (* reset)", "int (* reset)", "llama_sampler_i::reset has another type"),
    (LLAMA, "const unsigned int LLAMA_DEFAULT_SEED", "const int LLAMA_DEFAULT_SEED", "narrowing"),
    (COMMON, "string schema_to_grammar(", "int schema_to_grammar(", "schema_to_grammar returns another type"),
    (COMMON, "void silence_common_log(", "void silence_common_logs(", "silence_common_logs"),
    (COMMON, "float tensor_split", "double tensor_split", "common_params::tensor_split has another type"),
    (MODEL, "lib.llama_model_n_swa(", "len('lib.llama_model_n_swa()') + len(", "llama_model_n_swa is neither"),
    (MODEL, "lib.llama_model_is_hybrid(", "len(  # lib.llama_model_is_hybrid(\n", "llama_model_is_hybrid is neither"),
    (
        MODEL,
        "lib.llama_model_has_decoder(",
        "len(",
        "llama_model_has_decoder is neither wrapped nor in scripts/unwrapped.toml",
    ),
    (REASONS, '["gguf.h"]', 'llama_decode = "no"\n["gguf.h"]', "llama_decode is in scripts/unwrapped.toml, but it is"),
    (REASONS, '["gguf.h"]', 'llama_gone = "no"\n["gguf.h"]', "llama_gone is in scripts/unwrapped.toml, but not in"),
]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Return the result of the check after all changes."""
    root = copied(tmp_path_factory.mktemp("damaged"))
    for file, old, new, _ in DAMAGE:
        path = root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
    return declarations("--root", root, "--engine", "llama")


@pytest.mark.parametrize(("file", "new", "message"), [(file, new, message) for file, _, new, message in DAMAGE])
def test_finds_wrong_declarations(
    damaged: subprocess.CompletedProcess[str],
    file: str,
    new: str,
    message: str,
    unchanged: subprocess.CompletedProcess[str],
) -> None:
    assert damaged.returncode == 1
    assert message in damaged.stdout and message not in unchanged.stdout


@pytest.fixture(scope="module")
def unchanged() -> subprocess.CompletedProcess[str]:
    """Return the result of the check of the unchanged package."""
    return declarations()


def test_declarations_match_the_headers(unchanged: subprocess.CompletedProcess[str]) -> None:
    assert unchanged.returncode == 0, unchanged.stdout
    assert "libllama.pxd" in unchanged.stdout and "llama.h: " in unchanged.stdout


def test_missing_functions_can_be_allowed(tmp_path: Path) -> None:
    copy = copied(tmp_path)
    (copy / "scripts" / "unwrapped.toml").write_text("")
    done = declarations("--root", copy, "--engine", "llama", "--allow-missing")
    assert done.returncode == 0, done.stdout
    assert "llama_get_model is neither wrapped nor in" in done.stdout


def test_compares_two_versions(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "include").mkdir(parents=True)
    header = (ROOT / "thirdparty/llama.cpp/include/llama.h").read_text()
    (tmp_path / "old/include/llama.h").write_text(header)
    header = header.replace("llama_supports_rpc", "llama_supports_everything")
    (tmp_path / "new/include/llama.h").write_text(
        header.replace("bool llama_supports_mlock", "int llama_supports_mlock")
    )
    out = declarations("--engine", "llama", "--diff", tmp_path / "old", tmp_path / "new").stdout
    assert "appeared: bool llama_supports_everything(void)" in out
    assert "vanished: bool llama_supports_rpc(void)  (used by the package)" in out
    assert "changed: int llama_supports_mlock(void)  (used by the package)" in out


def test_ignores_names_of_parameters(tmp_path: Path) -> None:
    header = (ROOT / "thirdparty/llama.cpp/include/llama.h").read_text()
    for name, text in (
        ("old", header),
        ("new", header.replace("const struct llama_model * model", "const struct llama_model * m")),
    ):
        (tmp_path / name / "include").mkdir(parents=True)
        (tmp_path / name / "include" / "llama.h").write_text(text)
    assert (tmp_path / "old/include/llama.h").read_text() != (tmp_path / "new/include/llama.h").read_text()
    done = declarations("--diff", tmp_path / "old", tmp_path / "new", "--engine", "llama")
    assert "changed" not in done.stdout and "touched declarations: none" in done.stdout


@pytest.mark.parametrize("variable", ["CC", "CXX"])
def test_error_without_a_compiler(variable: str) -> None:
    done = declarations("--engine", "whisper", **{variable: "no-such-compiler"})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "there is no compiler 'no-such-compiler'" in done.stderr
