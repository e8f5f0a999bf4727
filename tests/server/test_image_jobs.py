"""Image jobs belong to their callers: progress, previews, interruption, and the images before it."""

from __future__ import annotations

import base64
import io
import json
import threading
from typing import Any

import pytest
import requests
from PIL import Image
from server.conftest import KEY, OTHER_KEY
from server.running import Server

from cyllama.server.http.clients import account_name, basic_credentials, caller_name, client_name
from cyllama.server.http.current_job import Job

LONG = {"prompt": "a large red circle on yellow", "width": 512, "height": 512, "steps": 150, "seed": 3}


class Client:
    """A program that uses the server, with one request in the background."""

    def __init__(self, server: Server, **headers: str) -> None:
        self.server, self.headers = server, {"Authorization": f"Bearer {KEY}", **headers}
        self.responses: list[requests.Response] = []
        self._thread: threading.Thread | None = None

    def start(self, body: Any, path: str = "/sdapi/v1/txt2img", **headers: str) -> None:
        """Send a request, and wait until the server has it."""
        before = self.queue_size()

        def run() -> None:
            self.responses.append(self.server.post(path, body, headers={**self.headers, **headers}))

        self._thread = threading.Thread(target=run)
        self._thread.start()
        self.server.wait_until(lambda: self.queue_size() > before)

    def finish(self) -> requests.Response:
        assert self._thread is not None
        self._thread.join(120)
        return self.responses[-1]

    def queue_size(self) -> int:
        return int(self.get("/queue/status")["queue_size"])

    def get(self, path: str) -> Any:
        response = self.server.get(path, headers=self.headers)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None) -> Any:
        response = self.server.post(path, body or {}, headers=self.headers)
        assert response.status_code == 200, response.text
        return response.json()

    def progress(self, query: str = "") -> Any:
        return self.get(f"/sdapi/v1/progress{query}")

    def is_sampling(self) -> bool:
        return bool(self.progress()["current_image"])


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def info(response: requests.Response) -> Any:
    assert response.status_code == 200, response.text[:300]
    return json.loads(response.json()["info"])


OTHERS = {
    "other key": {"Authorization": f"Bearer {OTHER_KEY}"},
    "other user": basic("other", KEY),
    "other program": {"User-Agent": "other program"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_two_clients_do_not_see_or_stop_each_other(sd_server: Server, name: str) -> None:
    first, second = Client(sd_server), Client(sd_server, **OTHERS[name])
    job_id = f"task({name})"
    first.start({**LONG, "force_task_id": job_id})
    sd_server.wait_until(first.is_sampling)
    own = first.progress()
    assert own["state"]["job"] == job_id and own["state"]["sampling_steps"] == 150 and 0 < own["progress"] < 1
    queries = [""] if name == "other program" else ["", f"?id_task={job_id}"]  # the id is known to the account
    for query in queries:
        seen = second.progress(query)
        assert seen["current_image"] is None and seen["progress"] == 0 and seen["state"]["job"] == ""
        assert seen["state"]["job_count"] == 1  # the queue is busy
        second.post(f"/sdapi/v1/interrupt{query}")
        second.post(f"/sdapi/v1/skip{query}")
    second.start(LONG)
    waiting = second.progress()
    assert waiting["state"]["job"] not in ("", job_id) and waiting["progress"] == 0
    second.post("/sdapi/v1/interrupt")
    stopped = second.finish()
    assert stopped.status_code == 400 and stopped.json()["error"]["code"] == "interrupted"
    step = first.progress()["state"]["sampling_step"]
    sd_server.wait_until(lambda: first.progress()["state"]["sampling_step"] > step)  # it goes on
    assert not first.progress()["state"]["interrupted"]
    first.post("/sdapi/v1/interrupt")
    assert info(first.finish())["interrupted"] is True


def test_several_jobs_of_a_caller_are_known_by_their_ids(sd_server: Server) -> None:
    """Two clients may have one name; without an id none of them sees or stops the job of the other."""
    client, twin = Client(sd_server), Client(sd_server)
    client.start({**LONG, "force_task_id": "one"})
    twin.start({"prompt": "a circle", "size": "512x512", "steps": 150}, "/v1/images/generations", **{"X-Job-Id": "two"})
    sd_server.wait_until(lambda: client.progress("?id_task=one")["current_image"] is not None)
    assert client.progress()["state"]["job"] == "" and client.progress()["current_image"] is None
    assert client.get("/internal/pending-tasks") == {"size": 2, "tasks": ["one", "two"]}
    client.post("/sdapi/v1/interrupt")
    assert not client.progress("?id_task=one")["state"]["interrupted"]
    again = client.server.post("/sdapi/v1/txt2img", {**LONG, "force_task_id": "two"}, headers=client.headers)
    assert again.status_code == 409
    twin.post("/sdapi/v1/interrupt?id_task=two")
    assert twin.finish().status_code == 400
    client.post("/sdapi/v1/interrupt?id_task=one")
    assert info(client.finish())["interrupted"]
    for state in (client.progress("?id_task=one"), client.progress("?id_task=never")):
        assert state["state"]["job"] == "" and state["state"]["job_count"] == 0


def test_progress_by_id(sd_server: Server) -> None:
    client = Client(sd_server)
    body = {"id_task": "task(abc)", "id_live_preview": -1}
    unknown = client.post("/internal/progress", body)
    assert not (unknown["active"] or unknown["queued"] or unknown["completed"])
    client.start({**LONG, "force_task_id": "task(abc)"})
    sd_server.wait_until(lambda: client.post("/internal/progress", body)["live_preview"] is not None)
    active = client.post("/internal/progress", body)
    assert active["active"] and 0 < active["progress"] < 1 and active["id_live_preview"] > 0
    assert active["live_preview"].startswith("data:image/png;base64,")
    assert client.post("/internal/progress", {**body, "live_preview": False})["live_preview"] is None
    other = Client(sd_server, Authorization=f"Bearer {OTHER_KEY}")
    seen = other.post("/internal/progress", body)
    assert not (seen["active"] or seen["queued"] or seen["completed"]) and seen["live_preview"] is None
    assert other.get("/internal/pending-tasks")["tasks"] == []
    waiting = Client(sd_server)
    waiting.start({**LONG, "force_task_id": "next"})
    assert waiting.post("/internal/progress", {"id_task": "next"})["queued"]
    for client_, name in ((waiting, "next"), (client, "task(abc)")):
        client_.post(f"/sdapi/v1/interrupt?id_task={name}")
        client_.finish()
    sd_server.wait_until(lambda: client.post("/internal/progress", body)["completed"])
    missing = sd_server.post("/internal/progress", {}, headers=client.headers)
    assert missing.status_code == 400 and missing.json()["error"]["param"] == "id_task"


def test_interrupt_returns_the_finished_images(sd_server: Server) -> None:
    client = Client(sd_server)
    client.start({**LONG, "width": 256, "height": 256, "steps": 6, "batch_size": 2, "n_iter": 2})
    sd_server.wait_until(lambda: client.progress()["state"]["job_no"] == 2)
    assert 0.5 <= client.progress()["progress"] < 0.75 and client.progress()["state"]["job_count"] == 4
    client.post("/sdapi/v1/interrupt")
    response = client.finish()
    found = info(response)
    assert found["all_seeds"] == [3, 4] and found["interrupted"] and found["steps"] == 6
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in response.json()["images"]]
    assert len(images) == 2 and len(found["infotexts"]) == 2
    assert ["Seed: 3" in images[0].info["parameters"], "Seed: 4" in images[1].info["parameters"]] == [True, True]


def test_interrupt_in_the_first_image_returns_its_preview(sd_server: Server) -> None:
    client = Client(sd_server)
    client.start(LONG)
    sd_server.wait_until(client.is_sampling)
    client.post("/sdapi/v1/interrupt")
    response = client.finish()
    found = info(response)
    assert found["interrupted"] and found["all_seeds"] == [] and found["prompt"] == LONG["prompt"]
    (image,) = [Image.open(io.BytesIO(base64.b64decode(text))) for text in response.json()["images"]]
    assert image.size == (512, 512)


def test_skip_continues_with_the_next_image(sd_server: Server) -> None:
    client = Client(sd_server)
    client.start({**LONG, "width": 256, "height": 256, "steps": 6, "batch_size": 2})
    sd_server.wait_until(client.is_sampling)
    client.post("/sdapi/v1/skip")
    found = info(client.finish())
    assert found["all_seeds"] == [4] and not found["interrupted"]


# ------------------------------------------------------------------------------------- without a server


def test_progress_counts_images_and_passes() -> None:
    job = Job(threading.Event(), images=2, passes=2)
    seen = []
    for image in range(2):
        job.begin_image(image)
        for _ in range(2):
            for step in (0, 1, 2):
                job.on_step(step, 2, 0.1)
                seen.append(job.fraction)
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1
    assert seen[5] == 0.5


def scope_of(address: str, **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "client": (address, 1234), "headers": raw}


def test_names_of_callers() -> None:
    plain = scope_of("192.0.2.1", user_agent="a")
    assert caller_name(plain) == caller_name(scope_of("192.0.2.1", user_agent="a"))
    others = [
        scope_of("192.0.2.2", user_agent="a"),
        scope_of("192.0.2.1", user_agent="b"),
        scope_of("192.0.2.1", user_agent="a", authorization=basic("u", "p")["Authorization"]),
        {**plain, "cyllama.key": 1},
    ]
    names = [caller_name(scope) for scope in (plain, *others)]
    assert len(set(names)) == len(names) and {len(name) for name in names} == {64}
    assert account_name(others[1]) == account_name(plain) != account_name(others[2])
    assert client_name(others[2]) == client_name(plain)  # limits do not depend on the user


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (basic("user", "key")["Authorization"], ("user", "key")),
        (basic("", "a:b")["Authorization"], ("", "a:b")),
        ("bAsIc " + base64.b64encode("ü:ö".encode()).decode(), ("ü", "ö")),
        ("Basic " + base64.b64encode("ü:ö".encode("latin-1")).decode(), ("ü", "ö")),
        ("Basic", None),
        ("Basic ", None),
        ("Basic !!!", None),
        ("Basic " + base64.b64encode(b"no colon").decode(), None),
        ("Bearer user:key", None),
        ("", None),
    ],
)
def test_basic_credentials(value: str, expected: tuple[str, str] | None) -> None:
    assert basic_credentials(value) == expected
