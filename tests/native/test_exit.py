"""The end of the interpreter while other threads compute: calls are stopped, no thread crashes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from data.sounds import JFK

START = """
import logging, os, sys, threading, time
import numpy as np
import cyllama
from cyllama import LLM, errors, log, models

def run(work):
    started = threading.Event()
    def target():
        started.set()
        work()
    threading.Thread(target=target, daemon=True).start()
    started.wait()
    time.sleep(0.2)

def debug_log():
    logging.basicConfig(level=1, stream=open(os.devnull, "w"))
    log.set_level("debug")
"""
SOUND = "np.random.default_rng(0).normal(0, 0.1, 16_000 * 120).astype('f4')"
TEXT = """
llm = LLM("tiny-random-llama", n_ctx=2048, n_parallel=2, ctx_shift=True, options={"no-kv-unified": True})
def generate():
    llm.complete("x", max_tokens=1_000_000, ignore_eos=True)
"""
CONTEXT = """
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
model = LlamaModel(models.get("tiny-random-llama"))
def decode():
    ctx = LlamaContext(model, LlamaContextParams(n_ctx=2048, n_batch=2048))
    while True:
        ctx.memory.clear()
        ctx.decode(LlamaBatch.from_tokens([1] * 2000))
"""
# Each leaves a daemon thread, or a suspended iterator, that works when the main thread ends.
LEFT = {
    "text": TEXT + "run(generate)",
    "text in four threads, with a debug log": "debug_log()\n" + TEXT + "for _ in range(4):\n    run(generate)",
    "a stream in the main thread": TEXT
    + "stream = llm.complete('x', max_tokens=1_000_000, ignore_eos=True, stream=True)\nnext(stream)",
    "a stream in a thread": TEXT
    + """
def read():
    for part in llm.complete("x", max_tokens=1_000_000, ignore_eos=True, stream=True):
        pass
run(read)
""",
    "a thread that ignores errors": TEXT
    + """
def repeat():
    while True:
        try:
            generate()
        except Exception:
            pass
run(repeat)
""",
    "loading": "run(lambda: LLM('smollm2-135m-instruct'))",
    "loading, with progress": "run(lambda: LLM('smollm2-135m-instruct', on_progress=lambda part: time.sleep(0.02)))",
    "embeddings": "llm = LLM('minilm-l6', embedding=True)\n"
    "def embed():\n    while True:\n        llm.embed(['some words'] * 100)\nrun(embed)",
    "decoding": CONTEXT + "run(decode)",
    "tokenizing": CONTEXT
    + "def work():\n    while True:\n        model.vocab.tokenize('some words ' * 50_000)\nrun(work)",
    "a sampler in Python": CONTEXT
    + """
from cyllama.llama import LlamaSampler, TokenDataArray
class Mine:
    def apply(self, array):
        array.selected = 0
chain = LlamaSampler()
chain.add_custom(Mine())
array = TokenDataArray(np.arange(8, dtype=np.int32), np.zeros(8, np.float32))
def work():
    while True:
        chain.apply(array)
run(work)
""",
    "quantizing": """
from cyllama.llama import LlamaQuantizeParams, llama_model_quantize
params = LlamaQuantizeParams(allow_requantize=True, ftype="q4_k_m")
run(lambda: llama_model_quantize(models.get("smollm2-135m-instruct"), "q.gguf", params))
""",
    "speech": f"""
from cyllama.whisper import Whisper
whisper = Whisper("tiny.en")
run(lambda: whisper({SOUND}, on_segment=lambda segment: None))
""",
    "segments that are not taken": f"""
from cyllama.whisper import Whisper
segments, info = Whisper("tiny.en").transcribe({SOUND})
run(lambda: next(segments, None))
""",
    "images": """
from cyllama.sd import StableDiffusion
sd = StableDiffusion("tiny-shapes")
run(lambda: sd.txt2img("a red circle", steps=50, on_step=lambda *a: None, on_preview=lambda *a: None))
""",
    "images in two threads": """
from cyllama.sd import StableDiffusion
sd = [StableDiffusion("tiny-shapes") for _ in range(2)]
for one in sd:
    run(lambda one=one: one.txt2img("a red circle", steps=50))
""",
    "images and text": TEXT + "import cyllama.llava\n" + "run(generate)",
    "a task of asyncio": TEXT
    + """
import asyncio
async def main():
    asyncio.create_task(llm.acomplete("x", max_tokens=1_000_000, ignore_eos=True))
    await asyncio.sleep(0.2)
asyncio.run(main())
""",
    "a loop of asyncio that is not closed": TEXT
    + """
import asyncio
loop = asyncio.new_event_loop()
task = loop.create_task(llm.acomplete("x", max_tokens=1_000_000, ignore_eos=True))
loop.run_until_complete(asyncio.sleep(0.2))
""",
}


def ended(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", *options, "-c", START + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("left", LEFT)
def test_ends_while_a_thread_computes(left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        done = ended(LEFT[left])
        errors = [line for line in done.stderr.splitlines() if "Task was destroyed" not in line]
        assert done.returncode == 0, (done.returncode, done.stderr)
        assert left.startswith("a loop") or not errors, done.stderr


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError('in the main thread')", 1),
        (
            "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nos.kill(os.getpid(), 15)\ntime.sleep(9)",
            5,
        ),
        ("import signal\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)", -2),
    ],
)
def test_keeps_the_exit_status(end: str, status: int) -> None:
    for work in (TEXT + "run(generate)\n", CONTEXT + "run(decode)\n"):
        assert ended(work + end).returncode == status


def test_a_signal_ends_a_call_of_the_main_thread() -> None:
    handler = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
    later = "threading.Timer(0.3, os.kill, (os.getpid(), 15)).start()\n"
    assert ended(TEXT + handler + later + "generate()").returncode == 5


def test_exit_handlers_of_the_program_can_compute() -> None:
    code = "import atexit\natexit.register(lambda: print(len(llm.complete('x', max_tokens=5, ignore_eos=True).text)))\n"
    done = ended(TEXT + code + "run(generate)")
    assert (done.returncode, done.stderr, bool(done.stdout.strip())) == (0, "", True)


def test_calls_end_with_system_exit_in_other_threads() -> None:
    code = """
def record():
    try:
        generate()
    except BaseException as error:
        print(type(error).__name__, flush=True)
run(record)
"""
    done = ended(TEXT + code)
    assert (done.returncode, done.stdout.split()) == (0, ["SystemExit"])


def test_a_call_that_does_not_stop_delays_the_end_for_a_limited_time() -> None:
    code = f"""
from cyllama._native import _exit
from cyllama.whisper import Whisper
_exit.WAIT_SECONDS = 0.5
whisper = Whisper("tiny.en")
reached = threading.Event()
def block(segment):
    reached.set()
    threading.Event().wait()
threading.Thread(target=lambda: whisper({str(JFK)!r}, on_segment=block), daemon=True).start()
if not reached.wait(60):
    sys.exit("no segment")
sys.exit(7)
"""
    started = time.monotonic()
    assert ended(code).returncode == 7
    assert time.monotonic() - started < 100


def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent() -> None:
    code = """
run(generate)
pid = os.fork()
if pid == 0:
    sys.exit(4)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    assert ended(TEXT + code, "-W", "ignore").returncode == 4
