"""Comparison with the native program llama-mtmd-cli: greedy texts and embeddings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from llava.support import shape

from cyllama.llava import Bitmap, Llava, MtmdBatch, MtmdContext

MARK = "----- response -----"
QUESTIONS = ["What is in this picture?", "Name the shape and its colour.", "Write a story about it."]


def native(bin_dir: Path, model: Path, mmproj: Path, images: list[Path], prompt: str, dump: Path) -> tuple[str, Path]:
    command = [bin_dir / "llama-mtmd-cli", "-m", model, "--mmproj", mmproj, "-p", prompt, "-n", "32", "--temp", "0",
               "-t", "2", "-c", "1024"]  # fmt: skip
    for image in images:
        command += ["--image", image]
    environment = {**os.environ, "MTMD_TEST_RESPONSE_MARKER": MARK, "MTMD_DEBUG_EMBEDDINGS": str(dump)}
    done = subprocess.run(command, capture_output=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode(errors="replace").split(MARK)[-1].strip(), dump


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("names", [("circle", "red"), ("square", "blue")])
def test_text_equals_native(
    bin_dir: Path,
    smol_path: Path,
    mmproj_path: Path,
    llava: Llava,
    tmp_path: Path,
    names: tuple[str, str],
    question: str,
) -> None:
    path = tmp_path / "image.png"
    shape(*names).save(path)
    text, _ = native(bin_dir, smol_path, mmproj_path, [path], question, tmp_path / "dump")
    response = llava.ask(question, path, max_tokens=32)
    assert response.text.strip() == text
    assert llava.ask(question, path, max_tokens=32).text == response.text


def test_text_about_two_images_equals_native(
    bin_dir: Path, smol_path: Path, mmproj_path: Path, llava: Llava, tmp_path: Path
) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    shape("triangle", "green", size=300).save(paths[0])
    shape("circle", "yellow", size=150).save(paths[1])
    # text between them: the program encodes neighbours in one batch, whose products round otherwise
    prompt = "Compare <__media__> and <__media__>."
    text, _ = native(bin_dir, smol_path, mmproj_path, paths, prompt, tmp_path / "dump")
    assert llava.ask(["Compare ", paths[0], " and ", paths[1], "."], max_tokens=32).text.strip() == text


@pytest.mark.parametrize("size", [224, 90, 640])
def test_embeddings_equal_native(
    bin_dir: Path, smol_path: Path, mmproj_path: Path, mtmd: MtmdContext, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "image.png"
    shape("square", "green", size=size).save(path)
    _, dump = native(bin_dir, smol_path, mmproj_path, [path], "x", tmp_path / "dump")
    n_tokens, n_embd = np.fromfile(dump, np.int32, 2)
    theirs = np.fromfile(dump, np.float32, offset=8).reshape(-1, n_embd)
    chunks = mtmd.tokenize("<__media__>", [Bitmap.from_pixels(np.asarray(shape("square", "green", size=size)))])
    images = [chunk for chunk in chunks if chunk.type.name == "IMAGE"]
    assert n_tokens == images[0].n_tokens
    with MtmdBatch(mtmd) as batch:
        for chunk in images:
            assert batch.add_chunk(chunk)
        batch.encode()
        ours = np.concatenate([batch.get_output_embd(chunk) for chunk in images])
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
