"""Videos in OpenAI's form: jobs in the background that belong to their client.

The smallest video model of the engine has 4 GB, so a model that returns frames stands for it; `sd.test_architectures`
generates with the real one.
"""

from __future__ import annotations

import base64
import contextlib
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import openai
import pytest
from openai import OpenAI
from PIL import Image
from server.conftest import png
from server.running import Server
from starlette.testclient import TestClient

from cyllama.errors import CancelledError
from cyllama.models.converters.esrgan import write_safetensors
from cyllama.sd.families import FAMILIES
from cyllama.sd.results import VideoResult
from cyllama.server import ModelEntry, ServerConfig, create_app
from cyllama.server.limits import Limits
from cyllama.server.state import ServerState

# OpenAI ends its own service; the client's methods remain the form that other servers have
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
KEYS = ("first-key", "second-key")


class Model:
    """Returns frames of one colour: that of the first frame, or black."""

    family = FAMILIES["Wan 2.x"]

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.going = threading.Event()
        self.going.set()
        self.error: Exception | None = None

    def txt2vid(self, prompt: str, **options: Any) -> VideoResult[Image.Image]:
        return self.img2vid(prompt, np.zeros((32, 48, 3), np.uint8), **options)

    def img2vid(self, prompt: str, image: np.ndarray, **options: Any) -> VideoResult[Image.Image]:
        self.calls.append({"prompt": prompt, "image": image, **options})
        options["on_step"](1, 2, 0.1)
        while not self.going.wait(0.01):
            if options["cancel"].is_set():
                raise CancelledError("cancelled")
        if self.error is not None:
            raise self.error
        size = options.get("width", 48), options.get("height", 32)
        colour = tuple(int(value) for value in image[0, 0])
        frames = [Image.new("RGB", size, colour) for _ in range(options.get("frames", 5))]
        return VideoResult(frames, options.get("fps", 16), {"seed": 1})


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    found = Model()
    monkeypatch.setattr(ServerState, "use_sd", lambda self, entry, cancel: contextlib.nullcontext(found))
    return found


@pytest.fixture
def clients(model: Model, tmp_path: Path) -> Iterator[tuple[OpenAI, OpenAI]]:
    """Return clients with two keys."""
    file, prefix = tmp_path / "wan.safetensors", "model.diffusion_model."
    names = {"blocks.0.cross_attn.norm_k.weight": (8,), "patch_embedding.weight": (1536, 16, 1, 2, 2)}
    write_safetensors({prefix + name: np.zeros(shape, np.float32) for name, shape in names.items()}, file)
    entry = ModelEntry(name="waves", kind="sd", model=file)
    limits = Limits(videos=4, video_frames=65)
    config = ServerConfig(models=[entry], api_keys=KEYS, allowed_hosts=["testserver"], limits=limits)
    with TestClient(create_app(config)) as web:
        yield tuple(  # type: ignore[misc]
            OpenAI(base_url="http://testserver/v1", api_key=key, http_client=web, max_retries=0) for key in KEYS
        )
        model.going.set()


def ended(client: OpenAI, video_id: str) -> Any:
    end = time.monotonic() + 60
    while (job := client.videos.retrieve(video_id)).status not in ("completed", "failed"):
        assert time.monotonic() < end
        time.sleep(0.01)
    return job


def test_creates_and_downloads_a_video(clients: tuple[OpenAI, OpenAI], model: Model) -> None:
    client, _ = clients
    model.going.clear()
    job = client.videos.create(prompt="waves", model="waves", seconds="4", size="64x48", extra_body={"seed": 7})
    assert job.object == "video" and job.status in ("queued", "in_progress") and job.size == "64x48"
    with pytest.raises(openai.BadRequestError, match="expected completed"):
        client.videos.download_content(job.id)
    model.going.set()
    done = ended(client, job.id)
    assert (done.status, done.progress, done.error, done.prompt) == ("completed", 100, None, "waves")
    assert done.completed_at is not None and done.expires_at == done.completed_at + 3600
    assert model.calls[0]["frames"] == 65 and model.calls[0]["seed"] == 7
    data = client.videos.download_content(job.id).read()
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 65 and frames[0].shape == (48, 64, 3)
    with Image.open(io.BytesIO(client.videos.download_content(job.id, variant="thumbnail").read())) as image:
        assert image.size == (64, 48)
    with pytest.raises(openai.BadRequestError, match="variant"):
        client.videos.download_content(job.id, variant="spritesheet")
    assert client.videos.delete(job.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(job.id)


def test_starts_from_an_image(clients: tuple[OpenAI, OpenAI], model: Model) -> None:
    client, _ = clients
    url = "data:;base64," + base64.b64encode(png("red", (48, 32))).decode()
    for fields in (
        {"input_reference": ("a.png", png("red", (48, 32)))},
        {"extra_body": {"input_reference": {"image_url": url}}},
    ):
        job = client.videos.create(prompt="x", **fields)  # type: ignore[arg-type]
        assert ended(client, job.id).status == "completed"
        assert model.calls[-1]["image"][0, 0].tolist() == [255, 0, 0]
        client.videos.delete(job.id)
    bad = client.videos.create(prompt="x", input_reference=("a.svg", b"<svg/>"))
    failed = ended(client, bad.id)
    assert failed.status == "failed" and failed.error is not None and "SVG" in failed.error.message


def test_jobs_belong_to_their_client(clients: tuple[OpenAI, OpenAI], model: Model) -> None:
    first, second = clients
    mine = [first.videos.create(prompt=f"x{i}").id for i in range(2)]
    other = second.videos.create(prompt="y").id
    assert [job.id for job in first.videos.list()] == mine[::-1]
    assert [job.id for job in first.videos.list(order="asc", limit=1)] == mine
    assert [job.id for job in second.videos.list()] == [other]
    for call in (second.videos.retrieve, second.videos.delete, second.videos.download_content):
        with pytest.raises(openai.NotFoundError):
            call(mine[0])
    assert ended(first, mine[0]).status == "completed"
    with pytest.raises(openai.BadRequestError, match="after"):
        list(first.videos.list(after=other))


def test_jobs_are_limited_in_number(clients: tuple[OpenAI, OpenAI], model: Model) -> None:
    first, second = clients
    model.going.clear()
    ids = [first.videos.create(prompt="x").id for _ in range(2)]
    with pytest.raises(openai.RateLimitError, match=r"limits\.videos"):
        first.videos.create(prompt="x")
    second.videos.create(prompt="x")  # has a part of its own
    first.videos.delete(ids[0])
    first.videos.create(prompt="x")
    assert model.calls[0]["cancel"].is_set()


def test_errors_of_the_engine_end_the_job(clients: tuple[OpenAI, OpenAI], model: Model) -> None:
    client, _ = clients
    model.error = ValueError("the sampler is odd")
    failed = ended(client, client.videos.create(prompt="x").id)
    assert failed.status == "failed" and failed.error is not None and "odd" in failed.error.message
    long = ended(client, client.videos.create(prompt="x", seconds="12").id)
    assert long.error is not None and "limits.video_frames" in long.error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": " "}, "prompt"),
        ({"seconds": "long"}, "seconds"),
        ({"seconds": "0"}, "seconds"),
        ({"size": "huge"}, "size"),
        ({"size": "9000x9000"}, "size"),
        ({"extra_body": {"input_reference": {"file_id": "x"}}}, "input_reference.image_url"),
        ({"extra_body": {"n": 2}}, "n"),
        ({"extra_body": {"frames": 66}}, "frames"),
        ({"extra_body": {"control_image": "x"}}, "control_image"),
        ({"model": "other"}, "model"),
    ],
)
def test_rejects_other_values_by_name(clients: tuple[OpenAI, OpenAI], fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        clients[0].videos.create(**{"prompt": "x", **fields})
    assert error.value.status_code in (400, 404) and error.value.param == param  # type: ignore[attr-defined]


def test_videos_expire(clients: tuple[OpenAI, OpenAI], model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = clients
    job = ended(client, client.videos.create(prompt="x").id)
    monkeypatch.setattr("cyllama.server.video_jobs.time.time", lambda: job.completed_at + 3700)
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(job.id)
    assert list(client.videos.list()) == []


def test_image_model_is_rejected(server: Server, key: dict[str, str]) -> None:
    response = server.post("/v1/videos", {"prompt": "x", "model": "shapes"}, headers=key)
    assert response.status_code == 400 and response.json()["error"]["param"] == "model"
    assert "generates images, not videos" in response.text
