"""Conversations that the browser keeps: list, search, export, delete, memory."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect
from server.page.driving import ask, script_chat

TITLES = "#chats-list .chat-link"


def show_chats(page: Page) -> None:
    """Show the list, which covers the messages of a phone."""
    if not page.locator("#chats").is_visible():
        page.get_by_role("button", name="Chats").click()


def hide_chats(page: Page) -> None:
    """Hide the list on a phone."""
    if (page.viewport_size or {})["width"] < 1024 and page.locator("#chats").is_visible():
        page.get_by_role("button", name="Chats").click()


def start_chats(page: Page, *questions: str) -> None:
    for question in questions:
        page.get_by_role("button", name="New chat").click()
        ask(page, question)
    show_chats(page)


def test_lists_and_opens_conversations(page: Page) -> None:
    script_chat(page, "about cats", "about dogs", "more")
    start_chats(page, "first question", "second question")
    expect(page.locator(TITLES)).to_have_text(["second question", "first question"])
    page.get_by_role("button", name="first question", exact=True).click()
    expect(page.locator(".message.assistant .content")).to_have_text("about cats")
    expect(page.locator(".message.assistant .actions")).to_be_in_viewport()
    expect(page.locator("[aria-current=true]")).to_have_text("first question")
    ask(page, "go on")
    expect(page.locator(TITLES)).to_have_text(["first question", "second question"])  # the newest first
    page.reload()
    expect(page.locator(TITLES)).to_have_count(2)


def test_searches_in_all_messages(page: Page) -> None:
    script_chat(page, "about cats and trees", "about dogs")
    start_chats(page, "first question", "second question")
    search = page.get_by_label("Search conversations")
    search.fill("TREES about")
    expect(page.locator(TITLES)).to_have_text(["first question"])
    search.fill("giraffe")
    expect(page.locator(TITLES)).to_have_count(0)
    search.fill("")
    expect(page.locator(TITLES)).to_have_count(2)


def test_exports_all_conversations(page: Page, tmp_path: Path) -> None:
    script_chat(page, "about cats", "about dogs")
    start_chats(page, "first question", "second question")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export all as JSON").click()
    waiting.value.save_as(tmp_path / "chats.json")
    found = json.loads((tmp_path / "chats.json").read_text())
    texts = {chat["title"]: [message["content"] for message in chat["messages"]] for chat in found}
    assert texts == {
        "first question": ["first question", "about cats"],
        "second question": ["second question", "about dogs"],
    }


def test_deletes_a_conversation_after_a_question(page: Page) -> None:
    script_chat(page, "about cats", "about dogs")
    start_chats(page, "first question", "second question")
    questions = []
    page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Delete first question").click()
    expect(page.locator(TITLES)).to_have_count(2)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete second question").click()
    expect(page.locator(TITLES)).to_have_text(["first question"])
    expect(page.locator(".message")).to_have_count(0)  # it was open
    assert questions
    page.reload()
    expect(page.locator(TITLES)).to_have_text(["first question"])
    expect(page.locator(".message")).to_have_count(0)


def test_opening_another_conversation_ends_the_response_there(page: Page) -> None:
    """A response never lands in another conversation than its question."""
    script_chat(page, "about cats")
    start_chats(page, "first question")
    page.unroute_all()
    hide_chats(page)
    page.get_by_role("button", name="New chat").click()
    page.get_by_label("Message", exact=True).fill("Write a very long story about a dragon, with many chapters.")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".message.assistant .content")).not_to_be_empty()
    show_chats(page)
    page.get_by_role("button", name="first question", exact=True).click()
    expect(page.locator(".message.assistant .content")).to_have_text("about cats")
    expect(page.locator(TITLES)).to_have_count(2)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    expect(page.locator(".message")).to_have_count(2)
    show_chats(page)
    page.get_by_role("button", name="Write a very long story").first.click()
    expect(page.locator(".message.stopped")).to_be_visible()


def test_memory_is_flat_over_many_chats(page: Page) -> None:
    script_chat(page, "# A title\n\n" + "Some *text* with `code`.\n\n```python\nprint(1)\n```\n\n" * 10)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def measure() -> tuple[float, float]:
        for _ in range(2):
            session.send("HeapProfiler.collectGarbage")
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return metrics["JSHeapUsedSize"], metrics["Nodes"]

    # chats are started in the page: steps through the browser's protocol would take minutes
    many = """async (count) => {
        const text = document.getElementById("chat-text"), until = async (ready) => {
            while (!ready()) await new Promise((wake) => setTimeout(wake, 5));
        };
        for (let i = 0; i < count; i += 1) {
            document.getElementById("chat-new").click();
            text.value = `question ${i}`;
            document.getElementById("chat-send").click();
            await until(() => document.querySelector(".message.assistant .actions"));
        }
    }"""
    page.evaluate(many, 60)
    heap, nodes = measure()
    page.evaluate(many, 140)
    later_heap, later_nodes = measure()
    for _ in range(20):  # the page's timers keep nodes for a while
        if later_nodes < nodes * 1.15:
            break
        page.wait_for_timeout(250)
        later_heap, later_nodes = measure()
    assert later_nodes < nodes * 1.15
    assert later_heap < heap + 1_500_000
    expect(page.locator(TITLES)).to_have_count(50)
    expect(page.locator("#chats-count")).to_contain_text("150")
