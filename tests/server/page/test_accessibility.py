"""The page for everyone: axe-core's rules, targets, contrast, the keyboard alone, small windows."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from server.conftest import JFK, png
from server.page.browsing import audit
from server.page.conftest import SIZES, VARIANTS, Opener, Scheme
from server.page.driving import ask, chunk, drop, open_tab, pick_model, script_chat, set_setting

TABS = ("Chat", "Transcribe", "Images")
SMALLEST = 44  # pixels of a target
CONTRAST = 3.0  # of the border of a field with its background
RESPONSE = "# Title\n\n[link](https://example.org)\n\n```python\nprint(1)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quotation"


@pytest.fixture(params=VARIANTS)
def full(request: pytest.FixtureRequest, opened: Opener) -> Page:
    """Open the page with content in all its panels."""
    size, scheme = request.param.split("-")
    return fill(opened(*SIZES[size], scheme=scheme))


def fill(page: Page) -> Page:
    call = {"index": 0, "id": "1", "function": {"name": "weather", "arguments": "{}"}}
    script_chat(page, [chunk(reasoning_content="thought", content=RESPONSE)], [chunk(content="x", tool_calls=[call])])
    page.route("**/v1/audio/transcriptions", lambda route: route.fulfill(json={
        "duration": 11.0, "language": "english",
        "segments": [{"start": 0.0, "end": 2.0, "text": "And so"}, {"start": 2.0, "end": 4.0, "text": "my fellow"}],
        "words": [{"word": w, "start": i, "end": i + 1} for i, w in enumerate(("And", "so", "my", "fellow"))],
    }))  # fmt: skip
    set_setting(page, system="Be brief.")
    ask(page, "one")
    page.locator("summary").first.click()
    ask(page, "two")
    pick_model(page, "seeing")
    drop(page, "main", ("red.png", "image/png", png("red", (64, 48))), ("a.txt", "text/plain", b"x"))
    expect(page.locator("#chat-attached li")).to_have_count(1)
    open_tab(page, "Transcribe")
    drop(page, "main", ("jfk.wav", "audio/wav", JFK.read_bytes()))
    expect(page.locator(".word")).to_have_count(4)
    open_tab(page, "Images")
    drop(page, "main", ("blue.png", "image/png", png("blue", (128, 128))))
    expect(page.locator("#image-mask")).to_be_visible()
    page.evaluate(
        """async () => { const {addImage} = await import("/gallery.js");
            const canvas = document.createElement("canvas"), blob = await new Promise((done) => canvas.toBlob(done));
            await addImage(blob, {prompt: "a circle", seed: "1", model: "m"}); }"""
    )
    open_tab(page, "Chat")
    return page


def small_targets(page: Page) -> list[str]:
    """Return the controls that are smaller than a finger; links and words in a text are exempt."""
    found: list[str] = page.evaluate(
        """(least) => [...document.querySelectorAll("button, .button, select, input, textarea, summary, .check, [role=tab]")]
            .filter((e) => e.checkVisibility() && !e.matches(".word, .hidden, .check input"))
            .filter((e) => { const box = e.getBoundingClientRect(); return box.height < least - 0.5 || box.width < least - 0.5; })
            .map((e) => `${e.outerHTML.slice(0, 120)} ${JSON.stringify(e.getBoundingClientRect())}`)""",
        SMALLEST,
    )
    return found


def weak_borders(page: Page) -> list[str]:
    """Return the fields whose border has too little contrast with the background."""
    found: list[str] = page.evaluate(
        """(least) => {
            const light = (colour) => {
                const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const back = light(getComputedStyle(document.body).backgroundColor);
            return [...document.querySelectorAll("select, textarea, input:not([type=checkbox], [type=range], [type=file])")]
                .filter((e) => e.checkVisibility())
                .filter((e) => { const [a, b] = [back, light(getComputedStyle(e).borderTopColor)].sort((x, y) => x - y); return (b + 0.05) / (a + 0.05) < least; })
                .map((e) => e.outerHTML.slice(0, 120));
        }""",
        CONTRAST,
    )
    return found


def test_full_page_is_accessible(full: Page) -> None:
    """Each panel and each dialog, with content."""
    problems = []
    for name in (*TABS, "Chats", "Settings"):
        if name in TABS:
            open_tab(full, name)
        elif name == "Chats":
            open_tab(full, "Chat")
            if not full.locator("#chats").is_visible():
                full.get_by_role("button", name="Chats").click()
        else:
            full.get_by_role("button", name="Settings").click()
        found = [*audit(full, target_size=True), *small_targets(full), *weak_borders(full)]
        if full.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append("the page scrolls sideways")
        problems += [f"{name}: {problem}" for problem in found]
    assert problems == []


def test_measures_find_problems(page: Page) -> None:
    page.evaluate(
        """() => { document.documentElement.style.setProperty("--edge", "var(--line)");
            document.documentElement.style.setProperty("--target", "36px");
            document.getElementById("model").removeAttribute("aria-label"); }"""
    )
    assert weak_borders(page) and small_targets(page)
    assert any("select-name" in problem for problem in audit(page, target_size=True))


def test_empty_page_is_accessible(opened: Opener) -> None:
    assert audit(opened(*SIZES["phone"]), target_size=True) == []


def test_send_is_visible_above_the_keyboard_of_a_phone(opened: Opener) -> None:
    """The keyboard leaves less than half of the height."""
    page = opened(390, 780)
    assert "interactive-widget=resizes-content" in page.locator("meta[name=viewport]").get_attribute("content")
    page.get_by_label("Message", exact=True).focus()
    page.set_viewport_size({"width": 390, "height": 340})
    for name in ("Send", "Dictate"):
        expect(page.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
    expect(page.get_by_label("Message", exact=True)).to_be_in_viewport(ratio=1)


def press_until(page: Page, key: str, locator: str, most: int = 60) -> None:
    """Press a key until an element is focused."""
    for _ in range(most):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", locator):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{locator} is not reached by {key}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_works_by_keyboard_alone(opened: Opener, size: str, scheme: Scheme) -> None:
    """A chat with edits and settings, a transcript and an image, without a pointer."""
    page = opened(*SIZES[size], scheme=scheme)
    script_chat(page, "first", "second")
    press_until(page, "Tab", "#chat-text")
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .actions")).to_be_visible()
    press_until(page, "Shift+Tab", ".message.user .actions button:last-child")
    page.keyboard.press("Enter")
    page.keyboard.type(" more")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .content")).to_have_text("second")
    press_until(page, "Shift+Tab", "#settings-open")
    page.keyboard.press("Enter")
    expect(page.get_by_label("System prompt", exact=True)).to_be_focused()
    page.keyboard.type("Be brief.")
    page.keyboard.press("Escape")
    expect(page.locator("#settings-open")).to_be_focused()
    press_until(page, "Shift+Tab", "#chats-toggle")
    if page.locator("#chats-toggle").get_attribute("aria-expanded") == "false":
        page.keyboard.press("Enter")
    press_until(page, "Shift+Tab", ".chat-link")
    page.keyboard.press("Enter")
    press_until(page, "Shift+Tab", "#tab-chat")
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Images")).to_be_focused()
    press_until(page, "Tab", "#image-text")
    page.keyboard.type("a circle")
    press_until(page, "Tab", "#image-steps")
    page.keyboard.type("2")
    press_until(page, "Tab", "#image-generate")
    page.keyboard.press("Enter")
    expect(page.locator("#image-caption")).to_be_visible()
    press_until(page, "Tab", "#gallery button")
    page.keyboard.press("Enter")
    press_until(page, "Shift+Tab", "#image-again")


def test_file_buttons_open_by_keyboard(page: Page) -> None:
    page.on("filechooser", lambda chooser: None)  # Chromium must know of the interception before the first key
    for tab, label in (("Transcribe", "#audio-file-button"), ("Images", "#image-file-button")):
        open_tab(page, tab)
        page.locator(label).focus()
        with page.expect_file_chooser():
            page.keyboard.press("Enter")


def test_arrow_keys_move_between_tabs(page: Page) -> None:
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Transcribe")).to_be_focused()
    expect(page.locator("#panel-audio")).to_be_visible()
    page.keyboard.press("Home")
    expect(page.get_by_role("tab", name="Chat")).to_be_focused()
