"""Damage to the declarations that check_declarations.py must find, beyond test_checks.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LLAMA, COMMON, MODEL = "llama/libllama.pxd", "llama/libcommon.pxd", "llama/_model.pyx"


def declarations(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "check_declarations.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources of the package, to be damaged."""
    ignore = shutil.ignore_patterns("*.so", "lib", "__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignore)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "unwrapped.toml", tmp_path / "scripts")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            LLAMA,
            "        LLAMA_ROPE_TYPE_NORM\n",
            "        LLAMA_VOCAB_TYPE_SPM\n",
            "LLAMA_VOCAB_TYPE_SPM is no constant",
        ),
        (LLAMA, "ctypedef uint32_t llama_state_seq_flags", "ctypedef int llama_state_seq_flags", "is another type"),
        (LLAMA, "progress_callback)(float", "progress_callback)(double", "llama_progress_callback is another type"),
        (LLAMA, "struct llama_adapter_lora:", "struct llama_nothing:", "llama_nothing"),
        (LLAMA, "void (* reset)", "int (* reset)", "llama_sampler_i::reset has another type"),
        (LLAMA, "const unsigned int LLAMA_DEFAULT_SEED", "const int LLAMA_DEFAULT_SEED", "narrowing"),
        (COMMON, "string schema_to_grammar(", "int schema_to_grammar(", "schema_to_grammar returns another type"),
        (COMMON, "void silence_common_log(", "void silence_common_logs(", "silence_common_logs"),
        (COMMON, "float tensor_split", "double tensor_split", "common_params::tensor_split has another type"),
        (MODEL, "lib.llama_model_n_swa(", "len('lib.llama_model_n_swa()') + len(", "llama_model_n_swa is neither"),
        (MODEL, "lib.llama_model_n_swa(", "len(  # lib.llama_model_n_swa(\n", "llama_model_n_swa is neither"),
    ],
)
def test_damage_is_found(copy: Path, file: str, old: str, new: str, message: str) -> None:
    path = copy / "src" / "cyllama" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = declarations("--root", copy, "--engine", "llama")
    assert done.returncode == 1
    assert message in done.stdout


def test_missing_functions_can_be_allowed(copy: Path) -> None:
    (copy / "scripts" / "unwrapped.toml").write_text("")
    done = declarations("--root", copy, "--engine", "llama", "--allow-missing")
    assert done.returncode == 0, done.stdout
    assert "llama_get_model is neither wrapped nor in" in done.stdout


def test_another_name_of_a_parameter_is_no_change(tmp_path: Path) -> None:
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
def test_without_a_compiler_there_is_one_sentence(variable: str) -> None:
    done = declarations("--engine", "whisper", **{variable: "no-such-compiler"})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "there is no compiler 'no-such-compiler'" in done.stderr
