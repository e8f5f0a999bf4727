"""Objects that a program does not close produce no output when they are deleted, or when the program ends."""

from __future__ import annotations

import subprocess
import sys

import pytest
from data.sounds import JFK

# Each creates and uses `thing`.
LEFT = {
    "LlamaContext": """
from cyllama.llama import LlamaContext, LlamaModel
thing = LlamaContext(LlamaModel(cyllama.models.get("tiny-random-llama")))
""",
    "LLM": """
from cyllama import LLM
thing = LLM("tiny-random-llama", n_ctx=256)
thing.complete("a", max_tokens=2)
""",
    "a stream": """
from cyllama import LLM
thing = LLM("tiny-random-llama", n_ctx=256).complete("a", max_tokens=100, ignore_eos=True, stream=True)
next(thing)
""",
    "Llama": """
from cyllama.compat import Llama
thing = Llama(model_path=str(cyllama.models.get("tiny-random-llama")), n_ctx=256)
thing("a", max_tokens=2)
""",
    "Llava": """
from PIL import Image
from cyllama.llava import Llava
thing = Llava("smollm2-135m-instruct", "vision-dinov2s", n_ctx=512)
thing.ask("What?", images=Image.new("RGB", (28, 28)), max_tokens=2)
""",
    "a stream of Llava": """
from cyllama.llava import Llava
thing = Llava("smollm2-135m-instruct", "vision-dinov2s", n_ctx=512).ask("What?", max_tokens=9, stream=True)
next(thing)
""",
    "Whisper": """
from cyllama.whisper import Whisper
thing = Whisper("tiny.en")
thing.transcribe(JFK)
""",
    "StreamingTranscriber": """
from cyllama.whisper import AudioStream, StreamingTranscriber, Whisper
thing = StreamingTranscriber(Whisper("tiny.en"), step=1.0)
list(thing.feed(AudioStream(JFK).read(0, 2)))
""",
    "a late segment": """
from cyllama.whisper import Whisper
thing, info = Whisper("tiny.en").transcribe(JFK)
next(iter(thing))
""",
    "StableDiffusion": """
from cyllama.sd import StableDiffusion
thing = StableDiffusion("tiny-shapes")
thing.txt2img("a red circle", steps=1, width=64, height=64)
""",
    "ModelPool": """
from cyllama.pipelines import ModelPool
thing = ModelPool()
with thing.use("llm", "tiny-random-llama", n_ctx=256) as llm:
    llm.complete("a", max_tokens=2)
""",
    "the pipelines' own pool": """
from PIL import Image
from cyllama.pipelines import caption
model, projector = "smollm2-135m-instruct", "vision-dinov2s"
thing = caption(
    Image.new("RGB", (28, 28)), llm_model=model, mmproj=projector, llava_options={"max_tokens": 2}
)
""",
}


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)"])
@pytest.mark.parametrize("name", LEFT)
def test_exits_without_output(name: str, end: str) -> None:
    deleted = "" if end else f"{LEFT[name]}\ndel thing\n"
    code = f"import cyllama\nJFK = {str(JFK)!r}\n{deleted}{LEFT[name]}\n{end}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
