"""The command line: commands, exit codes, error lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cyllama
from cyllama import models
from cyllama.cli import COMMANDS, main

INFO = {
    "version": "1.2",
    "engines": {"llama": {"version": "b11312", "commit": "0c1e57098", "source": "llama_cpp_python 0.3.36"}, "sd": None},
    "backends": [{"name": "cpu", "loaded": True}, {"name": "vulkan", "loaded": False, "reason": "no driver"}],
    "devices": ["CPU"],
    "none": [],
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\nimport runpy; runpy.run_module("
    code += "'cyllama', run_name='__main__', alter_sys=True)"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CYLLAMA_CACHE", str(tmp_path))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def error_line(capsys: pytest.CaptureFixture[str], *, lines: int = 1) -> str:
    found = capsys.readouterr().err.splitlines()
    assert len(found) == lines, found
    return found[0]


def test_prints_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cyllama {cyllama.__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: cyllama {name}" in capsys.readouterr().out


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modles"]) == 2
    assert "did you mean models?" in error_line(capsys, lines=2)
    assert main(["zzzz"]) == 2
    assert "'zzzz'" in error_line(capsys, lines=2)
    assert main(["models", "fetch"]) == 2
    assert main(["--no-such-option"]) == 2


def test_models_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["name", "kind", "size", "state", "use"]
    for model, line in zip(models.list_models(), shown[1:], strict=True):
        assert model.name in line and model.kind in line and model.use in line
    assert main(["models", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [model.name for model in models.list_models()]
    assert rows[0]["installed"] is False and rows[0]["path"].endswith(models.list_models()[0].file)


def test_models_path_get_and_remove(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert main(["models", "path", "vocab-llama-spm"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert not path.exists() and path.is_relative_to(cache)
    assert main(["models", "get", "vocab-llama-spm"]) == 0
    assert Path(capsys.readouterr().out.strip()) == path and path.exists()
    assert main(["models", "remove", "vocab-llama-spm"]) == 0
    assert capsys.readouterr().out == "vocab-llama-spm: removed\n" and not path.exists()
    assert main(["models", "remove", "vocab-llama-spm"]) == 0
    assert "not in the cache" in capsys.readouterr().out


def test_models_get_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "get", lambda name, verify=False: f"got {name}")
    assert main(["models", "get", "--all"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"got {model.name}" for model in models.list_models()]
    assert main(["models", "get"]) == 1
    assert "--all" in error_line(capsys)


def test_failure_prints_one_line_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "get", "smolm2"]) == 1
    error = error_line(capsys)
    assert error.startswith("cyllama: ") and "'smolm2'" in error and "did you mean smollm2" in error


def test_ctrl_c_exits_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "get", interrupt)
    assert main(["models", "get", "smollm2"]) == 130
    assert error_line(capsys) == "cyllama: interrupted"


def test_info_prints_json_and_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cyllama.__dict__, "build_info", lambda: INFO)
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == INFO
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version:", "1.2"]
    assert "  name vulkan, loaded no, reason no driver" in lines
    assert lines[-1].split() == ["none:", "none"]


def test_info_of_this_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["version"] == cyllama.__version__


def test_runs_as_a_module() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"cyllama {cyllama.__version__}\n")
    failed = run("models", "path", "none")
    assert failed.returncode == 1 and "Traceback" not in failed.stderr


def test_closed_stdout_prints_no_traceback() -> None:
    code = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    code += "from cyllama.cli import main; sys.exit(main(['models', 'list', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert error == b""


def test_imports_only_the_module_of_the_command() -> None:
    code = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    code += (
        "from cyllama.cli import main\nassert main(['models', 'path', 'smollm2']) == 0\n"
        "assert 'cyllama.cli.info' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
