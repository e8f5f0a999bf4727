"""Images and audio in messages."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect
from server.conftest import JFK, png
from server.page.driving import CHAT, drop, pick_model, script_chat, set_setting

RED = ("red.png", "image/png", png("red", (224, 224)))
BROKEN = ("broken.png", "image/png", b"not an image")


@pytest.fixture
def seeing(page: Page) -> Page:
    pick_model(page, "seeing")
    return page


@pytest.fixture
def audio_page(page: Page) -> Page:
    """Let the page think that a model accepts audio; no small one does."""

    def change(route: Route) -> None:
        found = route.fetch().json()
        found["data"][0]["architecture"]["input_modalities"] = ["text", "audio"]
        route.fulfill(json=found)

    page.route("**/v1/models", change)
    page.reload()
    expect(page.locator("#chat-attach-button")).to_be_visible()
    return page


def test_offers_attaching_only_to_models_that_see(page: Page) -> None:
    attach = page.locator("#chat-attach-button")
    expect(attach).to_be_hidden()
    expect(page.locator("#chat-hint")).to_contain_text("text only")
    drop(page, "#chat-log", RED)
    expect(page.get_by_role("alert")).to_contain_text("red.png")
    expect(page.locator("#chat-attached li")).to_have_count(0)
    pick_model(page, "seeing")
    expect(attach).to_be_visible()
    expect(page.locator("#chat-attach")).to_have_attribute("accept", "image/*")


def test_names_the_bad_file_among_good_ones(seeing: Page) -> None:
    drop(seeing, "#chat-log", RED, BROKEN, ("notes.xyz", "", b"?"), ("blue.png", "image/png", png("blue", (8, 8))))
    expect(seeing.locator("#chat-attached img")).to_have_count(2)
    expect(seeing.get_by_role("alert")).to_contain_text("broken.png")
    expect(seeing.get_by_role("alert")).to_contain_text("notes.xyz")
    seeing.get_by_role("button", name="Remove red.png").click()
    expect(seeing.locator("#chat-attached img")).to_have_count(1)


def test_sends_an_image_without_text(seeing: Page) -> None:
    set_setting(seeing, **{"max-tokens": "8"})
    seeing.locator("#chat-attach").set_input_files({"name": "red.png", "mimeType": "image/png", "buffer": RED[2]})
    expect(seeing.locator("#chat-attached img")).to_have_count(1)
    seeing.get_by_role("button", name="Send").click()
    expect(seeing.locator(".message.assistant .usage")).to_contain_text("tokens")
    expect(seeing.get_by_role("alert")).to_be_hidden()
    expect(seeing.locator(".message.user").get_by_role("img", name="red.png")).to_be_visible()
    seeing.reload()
    expect(seeing.locator(".message.user").get_by_role("img", name="red.png")).to_be_visible()


def test_stop_before_the_first_token_keeps_the_attachment(seeing: Page) -> None:
    seeing.route(CHAT, lambda route: None)  # no response comes
    drop(seeing, "#chat-log", RED)
    expect(seeing.locator("#chat-attached img")).to_have_count(1)
    seeing.get_by_label("Message", exact=True).fill("What is this?")
    seeing.get_by_role("button", name="Send").click()
    expect(seeing.locator(".waiting")).to_be_visible()
    seeing.get_by_role("button", name="Stop").click()
    expect(seeing.locator("#chat-attached img")).to_have_count(1)
    expect(seeing.get_by_label("Message", exact=True)).to_have_value("What is this?")
    expect(seeing.locator(".message")).to_have_count(0)


def test_editing_a_message_keeps_its_image(seeing: Page) -> None:
    asked = script_chat(seeing, "fine")
    drop(seeing, "#chat-log", RED)
    expect(seeing.locator("#chat-attached img")).to_have_count(1)
    seeing.get_by_label("Message", exact=True).fill("What?")
    seeing.get_by_role("button", name="Send").click()
    seeing.get_by_role("button", name="Edit").click()
    seeing.get_by_label("Edited message").fill("Which colour?")
    seeing.get_by_label("Edited message").press("Enter")
    expect(seeing.locator(".message.user .content")).to_have_text("Which colour?")
    expect(seeing.locator(".message.user img")).to_have_count(1)
    image, text = asked[-1]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and text["text"] == "Which colour?"


def test_sends_audio_to_a_model_with_audio_input(audio_page: Page) -> None:
    asked = script_chat(audio_page, "a speech")
    expect(audio_page.locator("#chat-attach")).to_have_attribute("accept", "audio/*")
    drop(audio_page, "#chat-log", ("jfk.wav", "audio/wav", JFK.read_bytes()))
    expect(audio_page.locator("#chat-attached audio")).to_have_count(1)
    audio_page.get_by_role("button", name="Send").click()
    expect(audio_page.locator(".message.user audio")).to_have_attribute("aria-label", "jfk.wav")
    expect(audio_page.locator(".message.assistant .content")).to_have_text("a speech")
    (part,) = asked[0]["messages"][0]["content"]
    assert part["type"] == "input_audio" and part["input_audio"]["format"] == "wav"
    assert re.match(r"UklGR[A-Za-z0-9+/]{1000}", part["input_audio"]["data"])  # RIFF


@pytest.mark.parametrize("tab", ["Chat", "Transcribe", "Images"])
def test_a_dropped_file_never_leaves_the_page(page: Page, tab: str) -> None:
    """`drop` checks that the browser's own action, opening the file, is prevented on the whole page."""
    page.get_by_role("tab", name=tab).click()
    for selector in ("body", "header", "#main"):
        drop(page, selector, ("page.html", "text/html", b"<h1>another page</h1>"))
        expect(page.get_by_role("alert")).to_contain_text("page.html")
    page.get_by_role("tab", name="Chat").click()
    page.get_by_role("button", name="Settings").click()
    drop(page, "dialog", ("page.html", "text/html", b"<h1>another page</h1>"))
