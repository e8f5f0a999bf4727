"""Servers that the tests share, and data for requests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from data.sounds import JFK
from openai import OpenAI
from PIL import Image
from server.live import SPEECH, LiveClient, live_client
from server.running import ENDLESS, Server, running_server

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "thirdparty" / "llama.cpp" / "models" / "templates" / "Qwen-Qwen2.5-7B-Instruct.jinja"
KEY = "test-key"
OTHER_KEY = "other-key"

CONFIG = f"""
api_keys = ["{KEY}"]

[limits]
body = "8 MiB"
pixels = 1048576
audio_seconds = 600
audio_queue = 8
image_queue = 8

# a small prompt cache ("cache-ram", in MiB), so that the memory of the server settles quickly
[models.smol]
model = "smollm2-135m-instruct"
aliases = ["gpt-4o-mini"]
n_ctx = 8192
n_parallel = 8
preload = true
options = {{ "cache-ram" = 8 }}

[models.tools]
model = "smollm2-135m-instruct"
n_ctx = 4096
n_parallel = 2
options = {{ "chat-template-file" = "{TEMPLATE}", "cache-ram" = 8 }}

# a KV cache for each slot: in a shared one, the position of other tokens changes the last bits
[models.apart]
model = "smollm2-135m-instruct"
n_ctx = 2048
n_parallel = 2
options = {{ "no-kv-unified" = true, "cache-ram" = 8 }}

[models.tiny]
model = "tiny-random-llama"
n_ctx = 4096
n_parallel = 4
options = {{ "cache-ram" = 8 }}

[models.minilm]
model = "minilm-l6"
embedding = true

[models.reranker]
model = "tiny-random-reranker"
reranking = true

[models.speech]
kind = "whisper"
model = "tiny.en"

[models.shapes]
kind = "sd"
model = "tiny-shapes"
"""

# two diffusion models, for programs that use AUTOMATIC1111's API
IMAGES = f"""
api_keys = ["{KEY}", "{OTHER_KEY}"]

[limits]
pixels = 1048576
image_queue = 16

[models.shapes]
kind = "sd"
model = "tiny-shapes"
n_threads = 1
lora_dir = "loras"

[models.more]
kind = "sd"
model = "tiny-shapes"
n_threads = 1

[upscalers]
"R-ESRGAN 4x+ Anime6B" = "realesrgan-x4plus-anime"

[image_styles.Twice]
prompt = "{{prompt}} {{prompt}}"

[image_styles.Blue]
prompt = "a large {{prompt}} on blue"
negative_prompt = "red"
"""


# models with random weights, for what depends on rules and not on meaning; one thread each, because they are so small
RANDOM = f"""
api_keys = ["{KEY}"]

[models.plain]
model = "tiny-random-llama"
aliases = ["gpt-4o-mini"]
n_ctx = 2048
n_parallel = 4
n_threads = 1
chat_template = "{{% for m in messages %}}[{{{{ m.role }}}}] {{{{ m.content }}}} {{% endfor %}}[assistant]"

[models.tools]
model = "tiny-random-llama"
n_ctx = 8192
n_parallel = 4
n_threads = 1
options = {{ "chat-template-file" = "{TEMPLATE}", "no-kv-unified" = true }}

[models.minilm]
model = "minilm-l6"
embedding = true

[models.reranker]
model = "tiny-random-reranker"
reranking = true
"""


@pytest.fixture(scope="session")
def random_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with random models and an API key."""
    file = tmp_path_factory.mktemp("random") / "models.toml"
    file.write_text(RANDOM)
    with running_server("--config", file) as found:
        yield found
        assert found.process.poll() is None, "".join(found.errors)
        assert not [line for line in found.errors if "Traceback" in line], "".join(found.errors)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with all engines and an API key."""
    file = tmp_path_factory.mktemp("server") / "models.toml"
    file.write_text(CONFIG)
    # texts are compared, so the number of threads must not change
    with running_server("--config", file, environment={"GGML_TEAM_FIXED": "1"}) as found:
        yield found
        assert found.process.poll() is None, "".join(found.errors)
        assert not [line for line in found.errors if "Traceback" in line], "".join(found.errors)


@pytest.fixture(scope="session")
def sd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with two diffusion models and two API keys."""
    folder = tmp_path_factory.mktemp("sd")
    (folder / "loras" / "styles").mkdir(parents=True)
    (folder / "loras" / "styles" / "ink.safetensors").touch()
    (folder / "models.toml").write_text(IMAGES)
    with running_server("--config", folder / "models.toml") as found:
        yield found
        assert found.process.poll() is None, "".join(found.errors)
        assert not [line for line in found.errors if "Traceback" in line], "".join(found.errors)


@pytest.fixture(scope="session")
def key() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[OpenAI]:
    """Return OpenAI's client."""
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a configuration with the smallest model, which can generate without end."""
    file = tmp_path_factory.mktemp("endless") / "models.toml"
    file.write_text(ENDLESS)
    return file


@pytest.fixture(scope="session")
def tiny_server(endless: Path) -> Iterator[Server]:
    """Start a server with the smallest model and low limits."""
    limits = ["--max-text-queue", 3, "--max-header-seconds", 1, "--max-body-seconds", 2, "--max-body", "1MiB"]
    limits += ["--max-connections", 40, "--max-send-seconds", 2]
    with running_server("--config", endless, *limits) as found:
        yield found


@pytest.fixture(scope="session")
def low_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with one speech model and low limits."""
    file = tmp_path_factory.mktemp("live") / "models.toml"
    file.write_text(SPEECH)
    limits = ["--max-live-sessions", 6, "--max-live-bytes", 300_000, "--max-send-seconds", 1]
    with running_server("--config", file, *limits, "--max-client-connections", 8) as found:
        yield found
        assert found.process.poll() is None, "".join(found.errors)
        assert not [line for line in found.errors if "Traceback" in line], "".join(found.errors)


@pytest.fixture
def low(low_server: Server) -> Iterator[LiveClient]:
    """Open a session of live transcription; it must end by itself when the client has gone."""
    with live_client(low_server) as found:
        yield found
    low_server.wait_until(lambda: low_server.metric("cyllama_live_sessions") == 0)


@pytest.fixture(scope="session")
def speech() -> bytes:
    """Return a WAV file of 11 seconds of speech."""
    return JFK.read_bytes()


def png(colour: str = "white", size: tuple[int, int] = (128, 128), mode: str = "RGB") -> bytes:
    """Return a PNG file of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()
