"""``cyllama doctor`` for this installation and for broken ones."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

import cyllama
from cyllama import models
from cyllama._native import engine_label
from cyllama.cli import doctor, main


def diagnosed(capsys: pytest.CaptureFixture[str], code: int) -> dict:
    assert main(["doctor", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_reports_this_installation(capsys: pytest.CaptureFixture[str]) -> None:
    found = diagnosed(capsys, 0)
    info = cyllama.build_info()
    assert found["package"]["version"] == cyllama.__version__ and found["package"]["executable"] == sys.executable
    assert found["build"]["cpu"] == info["cpu"] and found["build"]["engines"] == info["engines"]
    assert found["engines"] == {name: {"loads": True} for name in ("llama", "llava", "whisper", "sd")}
    assert found["problems"] == [] and 0 < found["memory"]["free"] <= found["memory"]["total"]
    assert set(found["models"]["installed"]) == {
        model.name for model in models.list_models() if models.installed(model.name)
    }
    assert {"av", "cli", "hub"} <= set(found["extras"])
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    labels = [engine_label(engine) for engine in info["engines"].values()]
    for text in (
        cyllama.__version__,
        info["cpu"]["variant"],
        "CPU: ",
        "whisper  loads",
        "extras",
        "no problems",
        *labels,
    ):
        assert text in shown


def test_reports_missing_models_and_read_only_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYLLAMA_CACHE", str(tmp_path / "cache"))
    found = diagnosed(capsys, 0)
    assert found["models"]["installed"] == [] and found["models"]["folder"] == str(tmp_path / "cache")
    assert set(found["models"]["available"]) == {model.name for model in models.list_models()}
    assert any("cyllama models get NAME" in hint for hint in found["hints"])
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)  # the tests may run as root
    found = diagnosed(capsys, 1)
    assert found["problems"] == [
        f"the model folder {tmp_path}/cache is not writable; set CYLLAMA_CACHE to a writable folder"
    ]


def test_reports_engine_that_does_not_load(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyllama.sd", None)
    found = diagnosed(capsys, 1)
    assert found["engines"]["sd"]["loads"] is False and found["engines"]["whisper"]["loads"] is True
    (problem,) = found["problems"]
    assert problem.startswith("the engine sd cannot be loaded: ") and problem.endswith("reinstall cyllama")
    assert main(["doctor"]) == 1
    assert "sd       DOES NOT LOAD: " in capsys.readouterr().out


def test_reports_broken_build(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict:
        raise cyllama.ABIMismatchError("sd was built against another ggml\nmore")

    monkeypatch.setitem(cyllama.__dict__, "build_info", broken)
    found = diagnosed(capsys, 1)
    assert found["problems"] == ["cannot check the build: sd was built against another ggml; reinstall cyllama"]
    assert main(["doctor"]) == 1
    assert "1 problem" in capsys.readouterr().out


def test_reports_backends_and_devices(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    info = cyllama.build_info()
    info["devices"] = []
    info["backends"] = [{"name": "vulkan", "loaded": False, "reason": "libvulkan.so.1 is missing"}]
    monkeypatch.setitem(cyllama.__dict__, "build_info", lambda: info)
    found = diagnosed(capsys, 1)
    assert found["problems"] == ["the CPU backend is missing; reinstall cyllama"]
    assert "the backend vulkan is not in use: libvulkan.so.1 is missing" in found["hints"]
    assert any("no GPU" in hint for hint in found["hints"])


def test_reports_missing_extras(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=1.26", 'av>=13; extra == "av"', 'no-such-package[more]>=1; extra == "cli"', "a; extra == 'odd'"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    found = diagnosed(capsys, 0)
    assert found["extras"] == {
        "av": {"about": doctor.EXTRAS["av"], "missing": []},
        "cli": {"about": "shell completion", "missing": ["no-such-package"]},
        "odd": {"about": "", "missing": ["a"]},
    }
    assert "the extra cli (shell completion) is not installed: pip install no-such-package" in found["hints"]


def test_reports_missing_metadata(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def missing(name: str) -> str:
        if name == "cyllama":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.delitem(cyllama.__dict__, "__version__", raising=False)
    found = diagnosed(capsys, 1)
    assert found["package"]["version"] == "of unknown version"
    assert any("metadata" in problem and "reinstall cyllama" in problem for problem in found["problems"])
