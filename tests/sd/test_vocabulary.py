"""The compact vocabularies equal those of upstream's headers."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sd_vocabulary

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "thirdparty" / "stable-diffusion.cpp" / "src" / "tokenizers" / "vocab"
PROGRAM = """
#include "tokenizers/vocab/vocab.h"
#include <fstream>
int main(int, char ** argv) {
    const std::string folder = argv[1];
    std::ofstream(folder + "/clip_merges_utf8_c_str") << load_clip_merges();
    std::ofstream(folder + "/qwen2_merges_utf8_c_str") << load_qwen2_merges();
    std::ofstream(folder + "/mistral_merges_utf8_c_str") << load_mistral_merges();
    std::ofstream(folder + "/mistral_vocab_json_utf8_c_str") << load_mistral_vocab_json();
    std::ofstream(folder + "/t5_tokenizer_json_str") << load_t5_tokenizer_json();
    std::ofstream(folder + "/umt5_tokenizer_json_str") << load_umt5_tokenizer_json();
}
"""


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the vocabularies of sd_vocabulary.cpp by the names of upstream's arrays."""
    folder = tmp_path_factory.mktemp("vocabulary")
    sd_vocabulary.main(HEADERS, folder / "files")
    (folder / "dump.cpp").write_text(PROGRAM)
    compiler = shutil.which("c++") or "c++"
    definition = f'-DCYLLAMA_VOCABULARY="{folder / "files"}"'
    sources = [str(ROOT / "thirdparty" / "sd_vocabulary.cpp"), str(folder / "dump.cpp")]
    command = [
        compiler,
        "-std=c++17",
        "-O1",
        definition,
        f"-I{HEADERS.parents[1]}",
        *sources,
        "-o",
        str(folder / "dump"),
    ]
    subprocess.run(command, check=True)
    (folder / "found").mkdir()
    subprocess.run([folder / "dump", folder / "found"], check=True)
    return {path.name: path.read_bytes() for path in (folder / "found").iterdir()}


@pytest.fixture(scope="module")
def upstream() -> dict[str, bytes]:
    return sd_vocabulary.arrays(HEADERS)


def test_restores_every_vocabulary(restored: dict[str, bytes], upstream: dict[str, bytes]) -> None:
    assert set(restored) == set(upstream)


@pytest.mark.parametrize("name", ["clip_merges_utf8_c_str", "qwen2_merges_utf8_c_str", "mistral_merges_utf8_c_str"])
def test_merges_are_equal(name: str, restored: dict[str, bytes], upstream: dict[str, bytes]) -> None:
    assert restored[name] == upstream[name]


def test_mistral_token_ids_are_equal(restored: dict[str, bytes], upstream: dict[str, bytes]) -> None:
    name = "mistral_vocab_json_utf8_c_str"
    assert json.loads(restored[name]) == json.loads(upstream[name])


@pytest.mark.parametrize("name", ["t5_tokenizer_json_str", "umt5_tokenizer_json_str"])
def test_token_scores_are_equal_as_floats(name: str, restored: dict[str, bytes], upstream: dict[str, bytes]) -> None:
    def read(raw: bytes) -> tuple[Any, ...]:
        data = json.loads(raw)
        vocabulary = [(token, struct.pack("<f", score), type(score)) for token, score in data["model"]["vocab"]]
        return vocabulary, data["model"]["unk_id"], data["pre_tokenizer"]

    assert read(restored[name]) == read(upstream[name])
