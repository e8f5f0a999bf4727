"""Screenshots of the page for the documentation."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect
from server.conftest import JFK
from server.page.conftest import Opener
from server.page.driving import ask, drop, open_tab, set_setting, wait_until

COLOURS = 256  # of a file; it is half as large as with all colours


def shoot(page: Page, path: Path) -> None:
    """Write a screenshot as a small file."""
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def test_screenshots(opened: Opener, screenshots: Path) -> None:
    """``make screenshots`` writes them to the documentation: a session with the models of the tests."""
    desktop, phone = opened(1280, 760), opened(390, 780, scheme="dark")
    set_setting(desktop)
    for question in (
        "What is the capital of France? Answer with one word.",
        "Write a Python function that adds two numbers.",
    ):
        ask(desktop, question)
    shoot(desktop, screenshots / "page-chat.png")
    open_tab(desktop, "Transcribe")
    drop(desktop, "main", ("jfk.wav", "audio/wav", JFK.read_bytes()))
    expect(desktop.locator(".word").first).to_be_visible()
    desktop.locator(".word").nth(7).click()
    wait_until(desktop, "() => document.querySelector('.word[aria-current]')")
    shoot(desktop, screenshots / "page-transcribe.png")
    open_tab(phone, "Images")
    for prompt in ("a large red circle on white", "a large blue square on white"):
        phone.locator("#image-text").fill(prompt)
        phone.locator("#image-seed").fill("1")
        phone.locator("#image-width").fill("128")
        phone.locator("#image-height").fill("128")
        phone.locator("#image-generate").click()
        expect(phone.get_by_role("img", name=prompt).first).to_be_visible()
        expect(phone.locator("#image-generate")).to_be_enabled()
    phone.locator("#gallery").scroll_into_view_if_needed()
    shoot(phone, screenshots / "page-phone.png")
    open_tab(desktop, "Images")
    desktop.locator("#image-text").fill("a large red circle on white")
    desktop.locator("#image-seed").fill("1")
    desktop.locator("#image-width").fill("128")
    desktop.locator("#image-height").fill("128")
    desktop.get_by_role("button", name="Generate").click()
    expect(desktop.locator("#image-caption")).to_be_visible()
    desktop.get_by_role("button", name="Start from it").click()
    desktop.get_by_label("Brush", exact=True).fill("30")
    desktop.get_by_label("Mask of what is generated anew").click()
    shoot(desktop, screenshots / "page-images.png")
    for file in ("page-chat.png", "page-transcribe.png", "page-phone.png", "page-images.png"):
        assert 5_000 < (screenshots / file).stat().st_size < 150_000
