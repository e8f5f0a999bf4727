"""Chromium, and axe-core's rules for accessible pages."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["audit", "chromium"]

AXE = (Path(__file__).parent / "axe.min.js").read_text()
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Run the system's Chromium for the length of the block."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "the tests of pages need Chromium (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*QUIET, *arguments])
        yield browser
        browser.close()


def audit(page: Page, **rules: bool) -> list[str]:
    """Return the serious violations of axe-core's rules; `rules` turns rules on or off (``target_size=True``)."""
    page.evaluate(AXE)
    chosen = {name.replace("_", "-"): {"enabled": enabled} for name, enabled in rules.items()}
    result: Any = page.evaluate(
        "async (rules) => (await axe.run(document, {resultTypes: ['violations'], rules})).violations", chosen
    )
    return [
        f"{found['impact']}: {found['id']}: {node['html'][:200]}"
        for found in result
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]
