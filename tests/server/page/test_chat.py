"""Chats on the page: streaming, stopping, regenerating, editing."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from server.conftest import KEY
from server.page.conftest import Opener
from server.page.driving import CHAT, TIMEOUT, ask, pick_model, script_chat, set_setting, wait_until
from server.running import Server

FRANCE = "What is the capital of France? Answer with one word."
LONG = "Write a very long story about a dragon, with many chapters."


def test_requires_a_valid_key(browser: Browser, site: Server) -> None:
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(site.url)
    page.get_by_label("This server requires an API key").fill("a wrong one")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("key", timeout=TIMEOUT)
    expect(page.locator("#model option")).to_have_count(0)
    page.get_by_label("This server requires an API key").fill(KEY)
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#model option")).not_to_have_count(0, timeout=TIMEOUT)
    page.close()


def test_streams_and_keeps_the_conversation(page: Page) -> None:
    set_setting(page)
    ask(page, FRANCE)
    responses, field = page.locator(".message.assistant"), page.get_by_label("Message", exact=True)
    expect(responses.locator(".content")).to_contain_text("Paris")
    expect(responses.locator(".usage")).to_have_text(re.compile(r"\d+ tokens, \d+\.\d tokens/s, \d+\.\d s"))
    expect(field).to_be_focused()
    ask(page, "And of Italy?")
    expect(responses.nth(1)).to_contain_text("Rome")
    page.reload()
    expect(responses).to_have_count(2)
    expect(responses.nth(1)).to_contain_text("Rome")
    ask(page, "And of Spain?")  # the conversation goes on
    expect(responses.nth(2)).to_contain_text("Madrid")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".message")).to_have_count(0)


def test_stop_keeps_the_partial_response_and_frees_the_slot(page: Page, site: Server, key: dict[str, str]) -> None:
    page.get_by_label("Message", exact=True).fill(LONG)
    page.get_by_label("Message", exact=True).press("Enter")
    content = page.locator(".message.assistant .content")
    expect(content).to_have_text(re.compile(r".{40}", re.DOTALL))
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".message.assistant.stopped .usage")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()

    def is_idle() -> bool:
        return not any(slot["is_processing"] for slot in site.get("/slots?model=smol", headers=key).json())

    site.wait_until(is_idle)
    text = content.inner_text()
    page.reload()
    expect(content).to_have_text(text, use_inner_text=True)


def test_shows_that_it_waits_for_the_first_token(page: Page) -> None:
    held: list[Route] = []
    page.route(CHAT, lambda route: held.append(route))
    page.get_by_label("Message", exact=True).fill(FRANCE)
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".waiting")).to_have_text("Waiting for the model ...")
    expect(page.locator(".waiting")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    held[0].continue_()
    expect(page.locator(".message.assistant .actions")).to_be_visible()
    expect(page.locator(".waiting")).to_have_count(0)


def test_regenerates_a_response(page: Page) -> None:
    asked = script_chat(page, "first", "second", "third")
    ask(page, "one")
    ask(page, "two")
    page.get_by_role("button", name="Regenerate").first.click()
    expect(page.locator(".message.assistant .content")).to_have_text(["third"])
    assert [message["content"] for message in asked[-1]["messages"]] == ["one"]


def test_keeps_the_response_when_it_cannot_be_regenerated(page: Page) -> None:
    script_chat(page, "first")
    ask(page, "one")
    page.unroute(CHAT)
    page.route(CHAT, lambda route: route.fulfill(status=503, json={"error": {"message": "too busy"}}))
    page.get_by_role("button", name="Regenerate").click()
    expect(page.get_by_role("alert")).to_have_text("too busy")
    expect(page.locator(".message.assistant .content")).to_have_text("first")


def test_edits_a_message(page: Page) -> None:
    asked = script_chat(page, "first", "second", "third")
    ask(page, "one")
    ask(page, "two")
    page.get_by_role("button", name="Edit").first.click()
    field = page.get_by_label("Edited message")
    expect(field).to_be_focused()
    field.press("Escape")
    expect(page.locator(".message.user .content")).to_have_text(["one", "two"])
    page.get_by_role("button", name="Edit").first.click()
    field.fill("three")
    field.press("Enter")
    expect(page.locator(".message.assistant .content")).to_have_text(["third"])
    assert [message["content"] for message in asked[-1]["messages"]] == ["three"]


def test_copies_a_message_as_it_was_written(page: Page) -> None:
    script_chat(page, "**bold** and `code`")
    ask(page, "one")
    page.locator(".message.assistant").get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator(".message.assistant").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "**bold** and `code`"


def test_copies_where_the_clipboard_is_not_available(page: Page) -> None:
    """As on a phone that opens the page of another machine without TLS."""
    script_chat(page, "text to copy")
    ask(page, "one")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.locator(".message.assistant").get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_label("Message", exact=True).press("Control+v")
    expect(page.get_by_label("Message", exact=True)).to_have_value("text to copy")


def test_an_error_puts_the_message_back(page: Page) -> None:
    page.route(CHAT, lambda route: route.fulfill(status=400, json={"error": {"message": "no such thing"}}))
    page.get_by_label("Message", exact=True).fill("a question")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_have_text("no such thing")
    expect(page.get_by_label("Message", exact=True)).to_have_value("a question")
    expect(page.locator(".message")).to_have_count(0)


def test_streaming_does_not_steal_the_scroll(opened: Opener) -> None:
    page = opened(height=400)
    pick_model(page, "tiny")
    set_setting(page, **{"max-tokens": "1500"}, temperature="1")
    log, end = page.locator("#chat-log"), page.get_by_role("button", name="Jump to the end")
    page.get_by_label("Message", exact=True).fill("Write.")
    page.get_by_label("Message", exact=True).press("Enter")
    grown = "(least) => document.getElementById('chat-log').scrollHeight > least"
    wait_until(page, grown, 900)
    is_at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 48"
    assert log.evaluate(is_at_end)
    expect(end).to_be_hidden()
    log.evaluate("log => { log.scrollTop = 30; }")
    height = log.evaluate("log => log.scrollHeight")
    wait_until(page, grown, height + 100)
    assert log.evaluate("log => log.scrollTop") == 30
    end.click()
    assert log.evaluate(is_at_end)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".message.stopped")).to_be_visible()
    assert log.evaluate(is_at_end)


def test_reads_a_response_aloud_with_a_local_voice(page: Page) -> None:
    """A voice that sends the text to another host is not used."""
    script_chat(page, "A first sentence. `Code` and **more**.")
    page.evaluate(
        """() => {
            window.spoken = [];
            const voices = [{lang: "en-US", localService: false, name: "remote"}, {lang: "en-US", localService: true, name: "own"}];
            window.SpeechSynthesisUtterance = class { constructor(text) { this.text = text; } };
            Object.defineProperty(window, "speechSynthesis", {value: {
                getVoices: () => voices, cancel: () => window.spoken.push("cancel"),
                speak: (utterance) => window.spoken.push([utterance.voice.name, utterance.text.trim()]),
            }});
        }"""
    )
    ask(page, "one")
    button = page.get_by_role("button", name="Read aloud")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    wait_until(page, "() => spoken.length === 3")
    spoken = page.evaluate("spoken")
    assert spoken == ["cancel", ["own", "A first sentence."], ["own", "Code and more."]]
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("voices", ["[]", "[{lang: 'en', localService: false}]"])
def test_says_when_there_is_no_local_voice(page: Page, voices: str) -> None:
    script_chat(page, "A sentence.")
    page.evaluate(
        f"Object.defineProperty(window, 'speechSynthesis', {{value: {{getVoices: () => {voices}, cancel: () => {{}}}}}})"
    )
    ask(page, "one")
    page.get_by_role("button", name="Read aloud").click()
    expect(page.get_by_role("alert")).to_contain_text("voices")
    expect(page.get_by_role("button", name="Read aloud")).to_have_attribute("aria-pressed", "false")
