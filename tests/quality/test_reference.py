"""`make docs`: builds without warnings or network access, describes every public name, its links and pages work."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import docs_pages
import pytest
from server.page.browsing import audit, chromium

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


# ------------------------------------------------------------------------------------------- links


class _Links(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.targets = {""}, set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        self.targets |= {value for name in ("href", "src") if (value := given.get(name))}


def test_links_lead_to_files_and_anchors(site: Path) -> None:
    """Also those that the theme and the generator of the reference write, which MkDocs does not check."""
    pages = {page: _Links(page.read_text()) for page in site.rglob("*.html")}
    checked, broken = 0, []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or page.name == "404.html":  # its links are absolute
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            file = file / "index.html" if file.is_dir() else file
            found = pages.get(file)
            anchor = unquote(parts.fragment)
            if not file.is_file() or (found is not None and anchor not in found.anchors):
                broken.append(f"{page.relative_to(site)}: {target}")
            checked += 1
    assert broken == [] and checked > 1000


# ----------------------------------------------------------------------------------- accessibility


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Serve the site on this machine."""
    handler = functools.partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(site: Path, address: str, scheme: Literal["light", "dark"]) -> None:
    """No page has a serious or critical violation of axe-core's rules; the reference is tested in one scheme."""
    names = (page.relative_to(site).as_posix() for page in site.rglob("*.html"))
    pages = sorted(name for name in names if scheme == "light" or not name.startswith("api/"))
    problems = []
    with chromium() as browser:
        tab = browser.new_page(color_scheme=scheme, reduced_motion="reduce")
        for page in pages:
            tab.goto(f"{address}/{page}")
            problems += [f"{page}: {problem}" for problem in audit(tab)]
    assert problems == [] and len(pages) > 30
