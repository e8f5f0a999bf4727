"""Builds with sanitizers: separate from the normal build, and every report is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sanitizers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return scripts/sanitizers.py."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import sanitizers

    return sanitizers


@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_build_has_its_own_folder(kind: str) -> None:
    code = "import superbuild as s; print(s.ENGINES.relative_to(s.ROOT), s.LIB.relative_to(s.ROOT), *s.COMPILE_OPTIONS)"
    environment = {**os.environ, "CYLLAMA_SANITIZE": kind, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    engines, lib, *options = done.stdout.split()
    folder = f"build/sanitize-{kind.partition(',')[0]}"
    assert engines == f"{folder}/engines" and lib == f"{folder}/python/cyllama/lib"
    assert f"-fsanitize={kind}" in options and "-D_FORTIFY_SOURCE=2" not in options


def test_rejects_unknown_kind(sanitizers: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"'memory'.*address,undefined thread"):
        sanitizers.build_folder("memory")


def test_links_the_package_without_its_extensions(
    sanitizers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, folder = tmp_path / "src" / "cyllama", tmp_path / "python"
    for name in ("__init__.py", "llama/llm.py", "llama/_llama.so", "lib/libx.so", "__pycache__/x.pyc"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    own = folder / "cyllama" / "llama" / "_llama.so"
    own.parent.mkdir(parents=True)
    own.write_text("own")
    monkeypatch.setattr(sanitizers, "PACKAGE", package)

    def links() -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()}

    sanitizers.link_package(folder)
    assert links() == {"cyllama/__init__.py", "cyllama/llama/llm.py"} and own.read_text() == "own"
    (package / "llama" / "llm.py").unlink()
    sanitizers.link_package(folder)
    assert links() == {"cyllama/__init__.py"} and own.exists()


@pytest.mark.parametrize(("report", "status", "expected"), [("", 0, 0), ("", 3, 3), ("a race", 0, 1)])
def test_a_report_is_an_error(
    sanitizers: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    report: str,
    status: int,
    expected: int,
) -> None:
    table = tmp_path / "python" / "cyllama" / "lib" / "modules.txt"
    table.parent.mkdir(parents=True)
    table.write_text("")
    monkeypatch.setattr(sanitizers, "ROOT", tmp_path)
    monkeypatch.setattr(sanitizers, "build_folder", lambda kind: tmp_path)
    monkeypatch.setattr(sanitizers, "environment", lambda kind, reports: {"REPORTS": str(reports)})
    code = "import os, sys; [open(os.environ['REPORTS'] + '/report.1', 'w').write(x) for x in sys.argv[2:]]; "
    command = [sys.executable, "-c", code + "sys.exit(int(sys.argv[1]))", str(status), *([report] if report else [])]
    assert sanitizers.main(["thread", *command]) == expected
    assert report in capfd.readouterr().out


@pytest.mark.parametrize("name", ["undefined.txt", "thread.txt"])
def test_each_suppression_has_a_reason(name: str) -> None:
    lines = (ROOT / "tests" / "native" / "sanitizers" / name).read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("#"):
            assert ":" in line and before.startswith("#"), f"{line} has no comment above"
