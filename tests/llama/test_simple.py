"""Greedy completion: the original example, `simple`, and equality with the native program."""

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


def test_examples_run_and_generate_the_same_text() -> None:
    outputs = [script(name) for name in ("simple.py", "simple_highlevel.py")]
    for out in outputs:
        assert "The capital of France is Paris" in out
        assert re.search(r"decoded \d+ tokens in [\d.]+ s, speed: [\d.]+ t/s", out)
    low, high = (out.rsplit("\ndecoded", 1)[0].removeprefix("<|endoftext|>").strip() for out in outputs)
    assert low == high


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_equals_llama_simple(bin_dir: Path, smol_path: Path, prompt: str) -> None:
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


def test_greedy_text_is_equal_on_every_cpu_variant(smol_path: Path) -> None:
    """The prompts have confident answers: with nearly equal logits, rounding differs between variants."""
    if len(variants()) == 1:
        pytest.skip("this build has one CPU variant; CYLLAMA_CPU_VARIANTS=all builds all")
    texts, rejected = {}, []
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
            rejected.append(name)
    assert "x64" in texts and len(texts) > 1
    assert "Paris" in texts["x64"]
    assert len(set(texts.values())) == 1, texts


def test_result_fields(smol_model: LlamaModel) -> None:
    pieces: list[str] = []
    result = simple(smol_model, "The capital of France is", 16, on_piece=pieces.append)
    assert len(result.tokens) == result.n_decoded == 16
    assert "".join(pieces) == result.text
    assert result.n_prompt == 5
    assert result.tokens_per_second > 0
    assert simple(smol_model, "The capital of France is", 0).text == ""
    assert not smol_model.closed


def test_rejects_bad_arguments(smol_model: LlamaModel) -> None:
    with pytest.raises(ValueError, match="n_predict is -1"):
        simple(smol_model, "x", -1)
    with pytest.raises(ValueError, match="prompt is empty"):
        simple(smol_model, "")


def test_exception_of_on_piece_is_raised(smol_model: LlamaModel) -> None:
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
import time
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
model = LlamaModel({path!r})
ctx = LlamaContext(model, LlamaContextParams(n_ctx=8192, n_batch=8192))
for _ in range({tries}):
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
    """The shortest of three latencies is below 0.5 s; decoding the prompt takes far longer."""
    code = CTRL_C.format(path=str(smol_path), tries=3)
    latencies = []
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.5)  # the prompt is being decoded
            sent = time.time()
            child.send_signal(signal.SIGINT)
            reply, interrupted = child.stdout.readline().split()
            assert reply == "interrupted"
            latencies.append(float(interrupted) - sent)
        assert child.stdout.readline() == "works\n"
    assert child.returncode == 0 and min(latencies) < 0.5


def test_ctrl_c_while_loading(smol_path: Path) -> None:
    """The progress callback checks signals."""
    from cyllama.llama import LlamaModelParams

    def interrupt(progress: float) -> None:
        if progress > 0.3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        LlamaModel(smol_path, LlamaModelParams(progress_callback=interrupt, load_mode="none"))


def test_releases_the_gil_while_computing(smol_path: Path) -> None:
    """Another thread runs while the model is loaded and a prompt is decoded."""
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
        simple(smol_path, "Once upon a time " * 100, 4)
    finally:
        stop.set()
        thread.join()
    assert len(beats) > 10 * (time.monotonic() - start)
