"""A lack of memory is an OutOfMemoryError, with each engine, and memory is returned when an engine is closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cyllama._native.failures import OUT_OF_MEMORY, failure_type
from cyllama.errors import EngineError, ImageGenerationError, ModelLoadError, OutOfMemoryError

SOURCES = Path(__file__).resolve().parents[2] / "thirdparty"
OF_THE_SYSTEM = ("Cannot allocate memory", "Resource temporarily unavailable", "std::bad_alloc", "not enough memory")

ENGINES = {
    "llm": (
        "from cyllama import LLM\nmodel = models.get('tiny-random-llama')",
        "LLM(model, n_ctx=4096, check_memory=False).complete('a b c', max_tokens=4)",
    ),
    "context": (
        "from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel\nmodel = models.get('tiny-random-llama')",
        "LlamaContext(LlamaModel(model), LlamaContextParams(n_ctx=65536))",
    ),
    "whisper": (
        "from cyllama.whisper import Whisper\nmodel = models.get('tiny.en')",
        "Whisper(model)(np.zeros(80_000, np.float32))",
    ),
    "sd": (
        "from cyllama.sd import StableDiffusion\nmodel = models.get('tiny-shapes')",
        "StableDiffusion(model).txt2img('a red circle', steps=2, width=256, height=256)",
    ),
}
LIMITED = """
import os, resource, sys
import numpy as np
import cyllama
from cyllama import models
{prepare}
cyllama.set_threads(2)
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, resource.RLIM_INFINITY))
try:
    {run}
    print("done")
except MemoryError as error:
    print("memory", type(error).__name__)
except Exception as error:
    print("other", type(error).__name__, error)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("mebibytes", [4, 16, 64, 128, 192])
@pytest.mark.parametrize("name", ENGINES)
def test_limited_address_space_is_out_of_memory(name: str, mebibytes: int) -> None:
    prepare, run = ENGINES[name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = LIMITED.format(prepare=prepare, run=run)
    command = [sys.executable, "-c", code, str(mebibytes)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[0] in ("memory", "done"), done.stdout
    if mebibytes == 4:
        assert done.stdout.split()[0] == "memory"


@pytest.mark.parametrize("phrase", [phrase for phrase in OUT_OF_MEMORY if phrase not in OF_THE_SYSTEM])
def test_upstream_has_the_phrase(phrase: str) -> None:
    folders = ("llama.cpp/src", "llama.cpp/ggml/src", "stable-diffusion.cpp/src")
    files = [
        path for folder in folders for path in (SOURCES / folder).rglob("*") if path.suffix in (".c", ".cpp", ".hpp")
    ]
    assert len(files) > 100
    assert any(phrase in path.read_text(errors="replace") for path in files)


@pytest.mark.parametrize("phrase", OUT_OF_MEMORY)
def test_phrases_become_out_of_memory_error(phrase: str) -> None:
    log = ("ggml_extend.hpp:1914 - first", f"model.cpp:850  - {phrase} 'x'", "model.cpp:900  - last")
    assert failure_type(ModelLoadError, "cannot load", log) is OutOfMemoryError
    assert failure_type(EngineError, f"mmap failed: {phrase}", ()) is OutOfMemoryError


def test_other_messages_keep_the_type() -> None:
    log = ("model.cpp:12   - unknown tensor",)
    assert failure_type(ImageGenerationError, "the engine returned no image", log) is ImageGenerationError


CLOSED = """
import threading
import numpy as np
from cyllama import models
from cyllama.whisper import Whisper

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

audio = np.random.default_rng(0).normal(0, 0.1, 16_000 * 8).astype(np.float32)
with Whisper("tiny.en") as first:
    first(audio, temperature=0.0)  # imports what a transcription needs
before = resident()
whisper = Whisper("tiny.en")
threads = [threading.Thread(target=whisper, args=(audio,), kwargs={"temperature": 0.0}) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
whisper.close()
print(resident() - before)
"""


def test_closed_engine_returns_the_memory_of_threads() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], capture_output=True, text=True, env=environment, timeout=300, check=True
    )
    assert int(done.stdout) < 100  # malloc keeps the free end of each thread's heap; six states have 300
