"""`make docs`: builds without warnings or network access, and describes every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import docs_pages
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_is_described(site: Path) -> None:
    found = {
        anchor for page in (site / "api").glob("*.html") for anchor in re.findall(r'id="([^"]+)"', page.read_text())
    }
    described = docs_pages.homes()
    assert len(described) > 300
    assert [name for name, home in described.items() if home not in found] == []


def test_compiled_classes_have_docstrings(site: Path) -> None:
    page = (site / "api" / "llama.html").read_text()
    entry = page.split('id="cyllama.llama.LlamaBatch"')[1].split('id="cyllama.llama.LlamaBatchExt"')[0]
    assert "llama_batch_init" in entry


def test_pages_load_nothing_from_the_network(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    loaded = r"""<(?:link|script|img)\b[^>]*\b(?:href|src)=["']?(?:https?:)?//[^>]*>"""
    assert {tag for page in pages for tag in re.findall(loaded, page.read_text())} == set()
