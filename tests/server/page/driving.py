"""Steps that tests of the page share."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from playwright.sync_api import Page, Route, expect

__all__ = ["TIMEOUT", "ask", "chunk", "drop", "open_tab", "pick_model", "script_chat", "set_setting", "wait_until"]

TIMEOUT = 60_000  # milliseconds, for models on a busy machine
CHAT = "**/v1/chat/completions"


def pick_model(page: Page, model: str) -> None:
    page.locator("#model").select_option(model)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def set_setting(page: Page, **values: str) -> None:
    """Set fields of the chat's settings, by the end of their ids; greedy sampling by default."""
    page.get_by_role("button", name="Settings").click()
    for name, value in ({"temperature": "0"} | values).items():
        page.locator(f"#chat-{name}").fill(value)
    page.get_by_role("button", name="Close").click()


def ask(page: Page, text: str) -> None:
    """Send a message and wait for the end of the response."""
    responses = page.locator(".message.assistant .actions")
    count = responses.count()
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")
    expect(responses).to_have_count(count + 1)


def wait_until(page: Page, condition: str, argument: Any = None) -> None:
    """Wait until a function of JavaScript returns true; the page's policy forbids Playwright's own way."""
    end = time.monotonic() + TIMEOUT / 1000
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, f"the condition did not become true: {condition}"
        page.wait_for_timeout(30)


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a chunk of a streamed completion."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def script_chat(page: Page, *responses: str | Iterable[Mapping[str, Any]]) -> list[Any]:
    """Answer the page's requests in this order, and the last one again and again: texts, or chunks.

    What a small model would never write is tested so. The requests are appended to the returned list.
    """
    left = [[chunk(content=one), chunk("stop")] if isinstance(one, str) else list(one) for one in responses]
    asked: list[Any] = []

    def answer(route: Route) -> None:
        asked.append(route.request.post_data_json)
        chunks = left.pop(0) if len(left) > 1 else left[0]
        body = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
        route.fulfill(body=body, content_type="text/event-stream")

    page.route(CHAT, answer)
    return asked


def drop(page: Page, selector: str, *files: tuple[str, str, bytes]) -> None:
    """Drop files (name, type, content) on an element; the browser's own action must be prevented."""
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, type, base64] of files) {
                const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
                transfer.items.add(new File([bytes], name, {type}));
            }
            return transfer;
        }""",
        [[name, kind, base64.b64encode(content).decode()] for name, kind, content in files],
    )
    prevented = page.evaluate(
        """([selector, dataTransfer]) => !document.querySelector(selector)
            .dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}))""",
        [selector, transfer],
    )
    assert prevented
