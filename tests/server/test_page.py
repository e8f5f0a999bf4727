"""The page in a real browser, on the real server."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from server.conftest import JFK, KEY, png
from server.running import Server

DESKTOP, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 780}
PATIENCE = 120_000  # milliseconds, for models on a busy machine
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
              f"--use-file-for-fake-audio-capture={JFK}"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "the tests of the page need Chromium (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=[*QUIET, *MICROPHONE])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page with its key given; afterwards: nothing failed in it, and it asked nobody else."""
    yield from opened(browser, server, DESKTOP)


@pytest.fixture
def phone(browser: Browser, server: Server) -> Iterator[Page]:
    yield from opened(browser, server, PHONE)


def opened(browser: Browser, server: Server, size: dict[str, int]) -> Iterator[Page]:
    context = browser.new_context(viewport=size, permissions=["microphone"])  # type: ignore[arg-type]
    found = context.new_page()
    found.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    asked: list[str] = []
    failures: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.on("pageerror", lambda error: failures.append(str(error)))
    found.goto(server.url)
    found.get_by_label("This server asks for an API key").fill(KEY)
    found.get_by_role("button", name="Use it").click()
    expect(found.locator("#chat-model option").first).to_be_attached()
    yield found
    context.close()
    assert not failures
    assert not [url for url in asked if not url.startswith((server.url, "data:", "blob:"))]


def choose_chat(page: Page, model: str) -> None:
    """A model, which says the likeliest."""
    page.locator("#chat-model").select_option(model)
    page.get_by_label("Temperature").fill("0")


def drop(page: Page, selector: str, name: str, kind: str, content: bytes) -> None:
    """Drop a file, as with the mouse."""
    transfer = page.evaluate_handle(
        """([name, type, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type}));
            return transfer;
        }""",
        [name, kind, list(content)],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def test_without_the_key_the_page_asks_for_it(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.get_by_label("This server asks for an API key").fill("a wrong one")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("alert")).to_contain_text("key", timeout=PATIENCE)
    expect(page.locator("#chat-model option")).to_have_count(0)
    page.close()


def test_chat_streams_an_answer_and_remembers(page: Page) -> None:
    choose_chat(page, "smol")
    field = page.get_by_label("Message")
    field.fill("What is the capital of France? Answer with one word.")
    field.press("Enter")
    answers = page.locator(".message.assistant")
    expect(answers.locator(".facts")).to_contain_text("tokens", timeout=PATIENCE)
    expect(answers).to_contain_text("Paris")
    expect(field).to_be_focused()
    field.fill("And of Italy?")
    page.get_by_role("button", name="Send").click()
    expect(answers).to_have_count(2)
    expect(answers.nth(1).locator(".facts")).to_contain_text("tokens", timeout=PATIENCE)
    expect(answers.nth(1)).to_contain_text("Rome")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".message")).to_have_count(0)


def test_stop_keeps_what_was_said_and_frees_the_server(page: Page, server: Server, key: dict[str, str]) -> None:
    choose_chat(page, "smol")
    page.get_by_label("Message").fill("Write a very long story about a dragon, with many chapters.")
    page.get_by_label("Message").press("Enter")
    expect(page.locator(".message.assistant")).to_have_text(re.compile(r".{40}", re.DOTALL))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".message.assistant.stopped")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()

    def is_idle() -> bool:
        return not any(slot["is_processing"] for slot in server.get("/slots?model=smol", headers=key).json())

    server.wait_until(is_idle)


def test_pictures_go_with_the_message_and_what_fails_is_told(page: Page) -> None:
    choose_chat(page, "smol")
    drop(page, "#panel-chat", "red.png", "image/png", png("red", (64, 48)))
    expect(page.get_by_role("img", name="red.png")).to_be_visible()
    page.get_by_role("button", name="Remove red.png").click()
    expect(page.locator("#chat-attached li")).to_have_count(0)
    drop(page, "#panel-chat", "red.png", "image/png", png("red", (64, 48)))
    page.get_by_label("Message").fill("What is this?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_be_visible()  # this model sees nothing, and the server says so
    expect(page.get_by_label("Message")).to_have_value("What is this?")
    expect(page.locator(".message")).to_have_count(0)
    drop(page, "#panel-chat", "broken.png", "image/png", b"no picture")
    expect(page.get_by_role("alert")).to_contain_text("broken.png")


def test_a_dropped_recording_is_read_and_used(page: Page) -> None:
    page.get_by_role("tab", name="Transcribe").click()
    drop(page, "#panel-sound", "jfk.wav", "audio/wav", JFK.read_bytes())
    expect(page.get_by_label("Transcript")).to_contain_text("ask what you can do for your country", timeout=PATIENCE)
    expect(page.get_by_role("status").first).to_contain_text("0:11")
    page.get_by_role("button", name="Ask about it").click()
    expect(page.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true")
    assert "my fellow Americans" in page.get_by_label("Message").input_value()


def test_what_is_no_recording_is_told(page: Page) -> None:
    page.get_by_role("tab", name="Transcribe").click()
    drop(page, "#panel-sound", "broken.wav", "audio/wav", b"no sound")
    expect(page.get_by_role("alert")).to_contain_text("cannot decode")
    expect(page.get_by_role("button", name="record")).to_be_enabled()


def test_the_microphone_is_heard(page: Page) -> None:
    page.get_by_role("tab", name="Transcribe").click()
    record = page.get_by_role("button", name="record")
    record.click()
    expect(record).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(11_000)  # the length of the recording that the browser plays to itself
    record.click()
    expect(page.get_by_label("Transcript")).to_contain_text("country", timeout=PATIENCE)


def test_a_picture_grows_and_is_what_the_prompt_said(page: Page) -> None:
    page.get_by_role("tab", name="Draw").click()
    page.get_by_label("What to draw").fill("a large red circle on white")
    page.get_by_label("Seed").fill("1")
    page.get_by_label("Steps").fill("60")
    seen = page.evaluate_handle(
        """() => {
            const seen = [];
            new MutationObserver(() => seen.push(document.getElementById("picture-image").alt))
                .observe(document.getElementById("picture-image"), {attributes: true});
            return seen;
        }"""
    )
    page.get_by_role("button", name="Draw", exact=True).last.click()
    expect(page.get_by_role("link", name="Save")).to_be_visible(timeout=PATIENCE)
    assert any(alt.startswith("Preview of") for alt in seen.json_value())
    source = page.get_by_role("img", name="a large red circle on white").get_attribute("src") or ""
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90)
    assert 0.1 < red.mean() < 0.8
    assert pixels[0, 0].min() > 200  # the corner is white


def test_drawing_can_be_stopped(page: Page) -> None:
    page.get_by_role("tab", name="Draw").click()
    page.get_by_label("What to draw").fill("a blue square")
    page.get_by_label("Steps").fill("150")
    page.get_by_role("button", name="Draw", exact=True).last.click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.locator("#picture-stop").click()
    expect(page.locator("#picture-words")).to_have_text("Stopped.")
    expect(page.locator("#picture-draw")).to_be_enabled()


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Transcribe")).to_be_focused()
    expect(page.locator("#panel-sound")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Draw")).to_be_focused()
    page.keyboard.press("Home")
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {
        "chat-model",
        "chat-clear",
        "chat-log",
        "chat-text",
        "chat-attach-label",
        "chat-speak",
        "chat-send",
    } <= reached


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, [role=tab], audio, progress, img")]
            .filter((e) => !["AUDIO", "IMG"].includes(e.tagName) && !e.labels?.length && !e.textContent.trim()
                && !e.getAttribute("aria-label"))
            .map((e) => e.id || e.outerHTML)"""
    )
    assert nameless == []


def test_a_phone_shows_it_all_without_scrolling_sideways(phone: Page) -> None:
    for tab in ("Chat", "Transcribe", "Draw"):
        phone.get_by_role("tab", name=tab).click()
        assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), tab


def test_screenshots(page: Page, phone: Page, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What the documentation shows (``make screenshots`` puts them there)."""
    folder = Path(request.config.getoption("--screenshots") or tmp_path)
    choose_chat(page, "smol")
    page.get_by_label("Message").fill("What is the capital of France? Answer with one word.")
    page.get_by_label("Message").press("Enter")
    expect(page.locator(".facts")).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=folder / "page-desktop.png")
    phone.get_by_role("tab", name="Draw").click()
    phone.get_by_label("What to draw").fill("a large red circle on white")
    phone.get_by_label("Seed").fill("1")
    phone.locator("#picture-draw").click()
    expect(phone.get_by_role("link", name="Save")).to_be_visible(timeout=PATIENCE)
    phone.screenshot(path=folder / "page-phone.png")
    for name in ("page-desktop.png", "page-phone.png"):
        colours = Image.open(folder / name).convert("RGB").getcolors(1 << 24)
        assert colours is not None and len(colours) > 20
