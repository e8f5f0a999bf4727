"""LoRAs in the prompts of requests: only those of a configured folder, and a few at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server.running import Server, running_server

from cyllama import models
from cyllama.sd.loras import split_prompt


@pytest.fixture(scope="module")
def image_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with two diffusion models; one has a folder of LoRAs, which is relative to the configuration."""
    folder = tmp_path_factory.mktemp("images")
    model = folder / "model.safetensors"
    model.symlink_to(models.get("tiny-shapes"))
    (folder / "loras" / "styles").mkdir(parents=True)
    for path in (folder / "outside.safetensors", folder / "loras" / "styles" / "ink.safetensors"):
        path.write_bytes(struct.pack("<Q", 2) + b"{}")
    (folder / "models.toml").write_text(
        '[models.closed]\nkind = "sd"\nmodel = "model.safetensors"\n'
        '[models.open]\nkind = "sd"\nmodel = "model.safetensors"\nlora_dir = "loras"\n'
    )
    with running_server("--config", folder / "models.toml") as found:
        yield found


def post(server: Server, prompt: str, model: str) -> Any:
    return server.post("/v1/images/generations", {"prompt": prompt, "model": model, "steps": 1, "size": "64x64"})


def message(response: Any) -> str:
    assert response.status_code == 400, response.text[:300]
    return str(response.json()["error"]["message"])


def test_rejects_loras_without_configured_folder(image_server: Server) -> None:
    """The library's default, the folder of the model, has files that a client must not name."""
    for name in ("outside", "model", "loras/styles/ink", "/etc/passwd", "../x"):
        found = message(post(image_server, f"a circle <lora:{name}:1>", "closed"))
        assert "lora_dir" in found and "closed" in found
        body = {"prompt": f"a circle <lora:{name}:1>", "override_settings": {"sd_model_checkpoint": "closed"}}
        assert "lora_dir" in message(image_server.post("/sdapi/v1/txt2img", body))


def test_finds_only_names_in_the_folder(image_server: Server) -> None:
    for name in ("outside", "model", "../outside", "../outside.safetensors", "/etc/passwd"):
        assert "does not exist" in message(post(image_server, f"a circle <lora:{name}:1>", "open"))
    found = post(image_server, "a circle <lora:ink:1>", "open")  # an empty file, which fits no model
    assert found.status_code != 200 and "does not exist" not in found.text


def test_field_of_loras_has_the_rules_of_prompts(image_server: Server) -> None:
    def sent(loras: Any, model: str = "open") -> Any:
        body = {"prompt": "a circle", "model": model, "steps": 1, "size": "64x64", "loras": loras}
        return image_server.post("/v1/images/generations", body)

    assert "lora_dir" in message(sent([{"name": "ink"}], "closed"))
    for name in ("outside", "../outside", "/etc/passwd", "styles/../../outside"):
        assert "does not exist" in message(sent([{"name": name}]))
    assert "limits.loras" in message(sent([{"name": "ink"}] * 9))
    found = sent([{"name": "ink", "weight": 0.5}])  # an empty file, which fits no model
    assert found.status_code != 200 and "does not exist" not in found.text
    for bad in ("ink", [1], [{}], [{"name": "a:b>"}], [{"name": "ink", "weight": "1"}], [{"name": "ink", "path": "x"}]):
        response = sent(bad)
        assert "loras" in message(response) and response.json()["error"]["param"].startswith("loras")
    assert sent([]).status_code == sent(None).status_code == 200


def test_limits_loras_of_a_prompt(image_server: Server) -> None:
    assert "limits.loras" in message(post(image_server, "<lora:ink:1>" * 9, "open"))


def test_searches_once_for_all_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    searches: list[Path] = []
    search = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: searches.append(self) or search(self, pattern))
    text, loras = split_prompt("x <lora:a:1> <lora:b:2>" + " <lora:a.safetensors:1>" * 50, tmp_path)
    assert text == "x" and len(loras) == 52 and loras[1].path == tmp_path / "b.safetensors"
    assert len(searches) == 1
    assert split_prompt("x", tmp_path) == ("x", []) and len(searches) == 1
