"""The build: progress, configuration, and system packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "scripts" / "system_packages.sh"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return scripts/superbuild.py with a temporary build folder."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import superbuild

    monkeypatch.setattr(superbuild, "ROOT", tmp_path)
    monkeypatch.setattr(superbuild, "ENGINES", tmp_path / "engines")
    monkeypatch.setattr(superbuild, "CONFIGURATION", tmp_path / "engines" / "configuration.json")
    return superbuild


def test_progress_shows_count_and_estimate(build: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    progress = build.Progress("compiled")
    for done in range(501):
        progress.show(done, 500, "03:00")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert "250 of 500" in lines[5] and "03:00" in lines[5]
    assert "500 of 500" in lines[-1] and "left" not in lines[-1]


def test_output_of_a_step_goes_to_the_log(
    build: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = "print('@1 2 00:05@ one'); print('a warning'); print('@2 2 00:00@ two'); raise SystemExit(3)"
    log = tmp_path / "log"
    assert not build.run_logged([sys.executable, "-c", code], log, build.Progress("compiled"))
    assert log.read_text().splitlines() == ["[1/2] one", "a warning", "[2/2] two"]
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("first", ["FAILED: [code=1] a.o", "a.cpp:1:2: error: no such thing", "CMake Error at x:1"])
def test_end_of_log_begins_with_the_error(build: ModuleType, tmp_path: Path, first: str) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(["[1/2] one"] * 100 + [first, "more"]))
    assert build.end_of(log).splitlines() == [first, "more"]


def test_build_folder_keeps_variants_and_programs(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(build, "run_logged", lambda command, log: commands.append(command) or True)

    def configured(tools: bool, *variants: str) -> tuple[bool, list[str]]:
        build.configure("cmake", ["-DA=1"], tools, list(variants))
        (build.ENGINES / "build.ninja").touch()
        found = json.loads(build.CONFIGURATION.read_text())
        return found["tools"], found["variants"]

    assert configured(False, "zen4") == (False, ["zen4"])
    assert configured(False, "zen4") == (False, ["zen4"]) and len(commands) == 1
    assert configured(True, "haswell", "zen4") == (True, ["haswell", "zen4"])
    assert configured(False, "zen4") == (True, ["haswell", "zen4"]) and len(commands) == 2
    assert "-DGGML_CPU_VARIANTS=haswell;zen4" in commands[1] and "-DCYLLAMA_TOOLS=ON" in commands[1]


def test_failed_configuration_is_not_recorded(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_logged(command: list[str], log: Path) -> bool:
        log.write_text("CMake Error: nothing to do\n")
        return False

    monkeypatch.setattr(build, "run_logged", run_logged)
    with pytest.raises(SystemExit, match="configuring the engines failed"):
        build.configure("cmake", [], False, ["zen4"])
    assert "CMake Error: nothing to do" in capsys.readouterr().out
    assert not build.CONFIGURATION.exists()


def install_packages(folder: Path, user: int, apt_fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the script without the programs that the tests need, and with an apt-get that only logs its arguments."""
    for name, text in {
        "id": f"echo {user}",
        "apt-get": f'echo "$@" >> {folder}/apt.log; exit {int(apt_fails)}',
    }.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", str(PACKAGES), "test"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_root_installs_the_system_packages_of_the_tests(tmp_path: Path) -> None:
    done = install_packages(tmp_path, user=0)
    assert done.returncode == 0
    update, install = (tmp_path / "apt.log").read_text().splitlines()
    assert update.startswith("update") and install.startswith("install")
    assert {"chromium", "ffmpeg", "fish", "zsh", "fonts-dejavu-core"} <= set(install.split())


@pytest.mark.parametrize(("user", "apt_fails"), [(1000, False), (0, True)])
def test_prints_the_command_if_installation_fails(tmp_path: Path, user: int, apt_fails: bool) -> None:
    done = install_packages(tmp_path, user, apt_fails)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "apt-get install" in done.stderr and "chromium" in done.stderr
    assert (tmp_path / "apt.log").exists() == (user == 0)


def test_installs_nothing_if_everything_exists(tmp_path: Path) -> None:
    for name in ("chromium", "ffmpeg", "fish", "zsh"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    done = install_packages(tmp_path, user=0)
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "apt.log").exists()


def test_make_targets_use_existing_groups() -> None:
    import tomllib

    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    named = {word.partition(".group-")[2] for word in (ROOT / "Makefile").read_text().split() if ".group-" in word}
    assert named - {"%:"} <= set(groups), os.fspath(ROOT)
