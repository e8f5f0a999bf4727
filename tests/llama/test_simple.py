"""The package's main job: the original example, the one-call form, and equality with the native program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import cyllama
from cyllama.errors import CancelledError
from cyllama.llama import LlamaModel, simple

TESTS = Path(__file__).resolve().parents[1]
PROMPTS = ["The capital of France is", "Once upon a time", "def fibonacci(n):", "Zürich ist 🎉"]

pytestmark = pytest.mark.usefixtures("fixed_team")


def script(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, name, *arguments], cwd=TESTS, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["simple.py", "simple_highlevel.py"])
def test_the_example_runs_as_written(name: str) -> None:
    out = script(name)
    assert "The capital of France is Paris" in out
    assert re.search(r"decoded \d+ tokens in [\d.]+ s, speed: [\d.]+ t/s", out)


def test_both_examples_write_the_same_text() -> None:
    texts = [
        script(name, "Once upon a time", "40").rsplit("\n\n", 1)[0] for name in ("simple.py", "simple_highlevel.py")
    ]
    assert texts[0].removeprefix("<|endoftext|>").strip() == texts[1].rsplit("\ndecoded", 1)[0].strip()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_equals_the_native_programs(bin_dir: Path, smol_path: Path, prompt: str) -> None:
    native = subprocess.run(
        [bin_dir / "llama-simple", "-m", smol_path, "-n", "48", prompt], capture_output=True, check=True
    ).stdout
    ours = simple(smol_path, prompt, 48)
    assert (prompt + ours.text).encode() in native.replace(b"<|endoftext|>", b"")


def variants() -> list[str]:
    """CPU variants that this machine can run."""
    names = sorted(
        p.stem.removeprefix("libggml-cpu-") for p in (Path(cyllama.__file__).parent / "lib").glob("*ggml-cpu-*")
    )
    return names


QUESTIONS = ["What is the capital of France?", "What color is the sky?", "Name three fruits.", "What is 2+2?"]
ON_A_VARIANT = """
import sys, cyllama
from cyllama.llama import LlamaModel, llama_chat_apply_template, simple
try:
    cyllama.devices()
except ImportError as e:
    sys.exit(f"cannot run: {e}")
model = LlamaModel(sys.argv[1])
texts = [simple(model, llama_chat_apply_template("chatml", [("user", q)]), 24).text for q in sys.argv[2:]]
print(cyllama.build_info()["cpu"]["variant"], ascii(texts))
"""


def test_greedy_text_is_the_same_on_every_cpu_variant(smol_path: Path) -> None:
    """For questions whose answer the model is sure of; where two tokens are nearly as likely, rounding decides."""
    if len(variants()) == 1:
        pytest.skip("this build has one CPU variant; CYLLAMA_CPU_VARIANTS=all builds all")
    texts, refused = {}, []
    for name in variants():
        done = subprocess.run(
            [sys.executable, "-c", ON_A_VARIANT, str(smol_path), *QUESTIONS],
            env=os.environ | {"CYLLAMA_CPU_VARIANT": name},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            variant, text = done.stdout.split(" ", 1)
            assert variant == name
            texts[name] = text
        else:
            assert "cannot run" in done.stderr, done.stderr
            refused.append(name)
    assert "x64" in texts and len(texts) > 1
    assert "Paris" in texts["x64"]
    assert len(set(texts.values())) == 1, texts


def test_tokens_and_figures(smol_model: LlamaModel) -> None:
    pieces: list[str] = []
    result = simple(smol_model, "The capital of France is", 16, on_piece=pieces.append)
    assert len(result.tokens) == result.n_decoded == 16
    assert "".join(pieces) == result.text
    assert result.n_prompt == 5
    assert result.tokens_per_second > 0
    assert simple(smol_model, "The capital of France is", 0).text == ""
    assert not smol_model.closed


def test_bad_arguments(smol_model: LlamaModel) -> None:
    with pytest.raises(ValueError, match="n_predict is -1"):
        simple(smol_model, "x", -1)
    with pytest.raises(ValueError, match="prompt is empty"):
        simple(smol_model, "")


def test_on_piece_that_raises(smol_model: LlamaModel) -> None:
    def stop(piece: str) -> None:
        raise StopIteration(piece)

    with pytest.raises(StopIteration):
        simple(smol_model, "Once", 16, on_piece=stop)


def test_cancel(smol_model: LlamaModel) -> None:
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(CancelledError):
        simple(smol_model, "Once upon a time " * 1000, 16, cancel=cancel)


CTRL_C = """
import sys, time, cyllama
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
model = LlamaModel({path!r})
ctx = LlamaContext(model, LlamaContextParams(n_ctx=8192, n_batch=8192))
print("ready", flush=True)
try:
    ctx.decode(LlamaBatch.from_tokens([1] * 6000))
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
ctx.memory.clear()
ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
print("works", flush=True)
"""


def test_ctrl_c_during_a_long_prompt(smol_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CTRL_C.format(path=str(smol_path))], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(1.0)
    sent = time.time()
    child.send_signal(signal.SIGINT)
    answer = child.stdout.readline().split()
    assert answer[0] == "interrupted"
    assert float(answer[1]) - sent < 0.5  # the promised latency, a tenth of which it takes
    assert child.stdout.readline() == "works\n"
    child.stdout.close()
    assert child.wait() == 0


def test_ctrl_c_while_loading(smol_path: Path) -> None:
    """The progress callback looks at signals, too."""
    from cyllama.llama import LlamaModelParams

    def interrupt(progress: float) -> None:
        if progress > 0.3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        LlamaModel(smol_path, LlamaModelParams(progress_callback=interrupt, load_mode="none"))


def test_the_gil_is_free_while_computing(smol_path: Path) -> None:
    """Another thread goes on counting while the model is loaded and a prompt is read."""
    beats: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            beats.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=beat)
    thread.start()
    start = time.monotonic()
    try:
        simple(smol_path, "Once upon a time " * 300, 4)
    finally:
        stop.set()
        thread.join()
    assert len(beats) > 10 * (time.monotonic() - start)
