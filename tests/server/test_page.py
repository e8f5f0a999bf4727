"""The web page in Chromium, with the server of all engines."""

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
TIMEOUT = 120_000  # milliseconds, for models on a busy machine
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
    """Open the page with its key; check at the end that no script failed and no request went to another host."""
    yield from open_page(browser, server, DESKTOP)


@pytest.fixture
def phone(browser: Browser, server: Server) -> Iterator[Page]:
    yield from open_page(browser, server, PHONE)


def open_page(browser: Browser, server: Server, size: dict[str, int]) -> Iterator[Page]:
    context = browser.new_context(viewport=size, permissions=["microphone"])  # type: ignore[arg-type]
    found = context.new_page()
    found.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    urls: list[str] = []
    failures: list[str] = []
    found.on("request", lambda request: urls.append(request.url))
    found.on("pageerror", lambda error: failures.append(str(error)))
    found.goto(server.url)
    found.get_by_label("This server requires an API key").fill(KEY)
    found.get_by_role("button", name="Apply").click()
    expect(found.locator("#chat-model option").first).to_be_attached()
    yield found
    context.close()
    assert not failures
    assert not [url for url in urls if not url.startswith((server.url, "data:", "blob:"))]


def choose_chat(page: Page, model: str) -> None:
    """Select a model, and greedy sampling."""
    page.locator("#chat-model").select_option(model)
    page.get_by_label("Temperature").fill("0")


def drop(page: Page, selector: str, name: str, kind: str, content: bytes) -> None:
    """Drop a file."""
    transfer = page.evaluate_handle(
        """([name, type, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type}));
            return transfer;
        }""",
        [name, kind, list(content)],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def test_requires_a_valid_key(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(server.url)
    page.get_by_label("This server requires an API key").fill("a wrong one")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("key", timeout=TIMEOUT)
    expect(page.locator("#chat-model option")).to_have_count(0)
    page.close()


def test_chat_streams_and_keeps_the_conversation(page: Page) -> None:
    choose_chat(page, "smol")
    field = page.get_by_label("Message")
    field.fill("What is the capital of France? Answer with one word.")
    field.press("Enter")
    responses = page.locator(".message.assistant")
    expect(responses.locator(".usage")).to_contain_text("tokens", timeout=TIMEOUT)
    expect(responses).to_contain_text("Paris")
    expect(field).to_be_focused()
    field.fill("And of Italy?")
    page.get_by_role("button", name="Send").click()
    expect(responses).to_have_count(2)
    expect(responses.nth(1).locator(".usage")).to_contain_text("tokens", timeout=TIMEOUT)
    expect(responses.nth(1)).to_contain_text("Rome")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".message")).to_have_count(0)


def test_stop_keeps_the_partial_response_and_frees_the_slot(page: Page, server: Server, key: dict[str, str]) -> None:
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


def test_attaches_images_and_shows_errors(page: Page) -> None:
    choose_chat(page, "smol")
    drop(page, "#panel-chat", "red.png", "image/png", png("red", (64, 48)))
    expect(page.get_by_role("img", name="red.png")).to_be_visible()
    page.get_by_role("button", name="Remove red.png").click()
    expect(page.locator("#chat-attached li")).to_have_count(0)
    drop(page, "#panel-chat", "red.png", "image/png", png("red", (64, 48)))
    page.get_by_label("Message").fill("What is this?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_be_visible()  # the model is not multimodal
    expect(page.get_by_label("Message")).to_have_value("What is this?")
    expect(page.locator(".message")).to_have_count(0)
    drop(page, "#panel-chat", "broken.png", "image/png", b"not an image")
    expect(page.get_by_role("alert")).to_contain_text("broken.png")


def test_transcribes_a_dropped_file(page: Page) -> None:
    page.get_by_role("tab", name="Transcribe").click()
    drop(page, "#panel-audio", "jfk.wav", "audio/wav", JFK.read_bytes())
    expect(page.get_by_label("Transcript")).to_contain_text("ask what you can do for your country", timeout=TIMEOUT)
    expect(page.get_by_role("status").first).to_contain_text("0:11")
    page.get_by_role("button", name="Use in chat").click()
    expect(page.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true")
    assert "my fellow Americans" in page.get_by_label("Message").input_value()


def test_shows_that_a_file_is_not_audio(page: Page) -> None:
    page.get_by_role("tab", name="Transcribe").click()
    drop(page, "#panel-audio", "broken.wav", "audio/wav", b"not audio")
    expect(page.get_by_role("alert")).to_contain_text("cannot decode")
    expect(page.get_by_role("button", name="record")).to_be_enabled()


def test_shows_text_while_a_person_speaks(page: Page) -> None:
    """Chromium plays JFK's recording as the microphone."""
    page.get_by_role("tab", name="Transcribe").click()
    record, transcript = page.get_by_role("button", name="record"), page.get_by_label("Transcript")
    record.click()
    expect(record).to_have_attribute("aria-pressed", "true")
    expect(transcript).to_contain_text("fellow")
    record.click()
    expect(page.locator("#audio-status")).to_have_text("Transcribed while you spoke.")
    expect(record).to_have_attribute("aria-pressed", "false")
    expect(transcript).to_contain_text("fellow")
    expect(transcript.locator(".provisional:not(:empty)")).to_have_count(0)
    expect(page.locator("#audio-player")).to_be_visible()
    page.get_by_role("button", name="Use in chat").click()
    assert "fellow" in page.get_by_label("Message").input_value()


def test_dictates_into_a_message(page: Page) -> None:
    field, dictate = page.get_by_label("Message"), page.get_by_role("button", name="Dictate").first
    field.fill("He said:")
    dictate.click()
    expect(field).to_have_value(re.compile(r"^He said: .*fellow"))
    dictate.click()
    expect(field).to_be_focused()
    expect(field).to_have_value(re.compile(r"^He said: .*fellow"))


def test_transcribes_the_recording_without_a_websocket(page: Page) -> None:
    """As behind a proxy that does not support them."""
    page.evaluate("() => { window.WebSocket = undefined; }")
    page.get_by_role("tab", name="Transcribe").click()
    record = page.get_by_role("button", name="record")
    record.click()
    expect(record).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(4_000)  # of speech
    record.click()
    expect(page.get_by_role("status").first).to_contain_text("Duration")
    expect(page.get_by_label("Transcript")).to_contain_text("fellow")


def test_generates_an_image_with_previews(page: Page) -> None:
    page.get_by_role("tab", name="Images").click()
    page.get_by_label("Prompt").fill("a large red circle on white")
    page.get_by_label("Seed").fill("1")
    page.get_by_label("Steps").fill("16")
    alts = page.evaluate_handle(
        """() => {
            const alts = [];
            new MutationObserver(() => alts.push(document.getElementById("image-result").alt))
                .observe(document.getElementById("image-result"), {attributes: true});
            return alts;
        }"""
    )
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("link", name="Save")).to_be_visible(timeout=TIMEOUT)
    assert any(alt.startswith("Preview of") for alt in alts.json_value())
    source = page.get_by_role("img", name="a large red circle on white").get_attribute("src") or ""
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90)
    assert 0.1 < red.mean() < 0.8
    assert pixels[0, 0].min() > 200  # the corner is white


def test_stops_image_generation(page: Page) -> None:
    page.get_by_role("tab", name="Images").click()
    page.get_by_label("Prompt").fill("a blue square")
    page.get_by_label("Steps").fill("150")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.locator("#image-stop").click()
    expect(page.locator("#image-status")).to_have_text("Stopped.")
    expect(page.locator("#image-generate")).to_be_enabled()


def test_keyboard_reaches_all_controls(page: Page) -> None:
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Transcribe")).to_be_focused()
    expect(page.locator("#panel-audio")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Images")).to_be_focused()
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
        "chat-dictate",
        "chat-send",
    } <= reached


def test_all_controls_have_accessible_names(page: Page) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, [role=tab], audio, progress, img")]
            .filter((e) => !["AUDIO", "IMG"].includes(e.tagName) && !e.labels?.length && !e.textContent.trim()
                && !e.getAttribute("aria-label"))
            .map((e) => e.id || e.outerHTML)"""
    )
    assert unnamed == []


def test_phone_layout_has_no_horizontal_scrolling(phone: Page) -> None:
    for tab in ("Chat", "Transcribe", "Images"):
        phone.get_by_role("tab", name=tab).click()
        assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), tab


def test_screenshots(page: Page, phone: Page, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """``make screenshots`` writes them to the documentation."""
    folder = Path(request.config.getoption("--screenshots") or tmp_path)
    choose_chat(page, "smol")
    page.get_by_label("Message").fill("What is the capital of France? Answer with one word.")
    page.get_by_label("Message").press("Enter")
    expect(page.locator(".usage")).to_be_visible(timeout=TIMEOUT)
    page.screenshot(path=folder / "page-desktop.png")
    phone.get_by_role("tab", name="Images").click()
    phone.get_by_label("Prompt").fill("a large red circle on white")
    phone.get_by_label("Seed").fill("1")
    phone.locator("#image-generate").click()
    expect(phone.get_by_role("link", name="Save")).to_be_visible(timeout=TIMEOUT)
    phone.screenshot(path=folder / "page-phone.png")
    for name in ("page-desktop.png", "page-phone.png"):
        colours = Image.open(folder / name).convert("RGB").getcolors(1 << 24)
        assert colours is not None and len(colours) > 20
