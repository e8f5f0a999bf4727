"""Settings of chats on the page: sampling, system prompt, JSON mode, tools."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect
from server.page.driving import ask, chunk, script_chat, set_setting

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = [
    chunk(tool_calls=[{"index": 0, "id": "call-1", "type": "function", "function": {"name": "weather", "arguments": ""}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"city":'}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": ' "Rome"}'}}]),
    chunk("tool_calls"),
]  # fmt: skip


def test_sends_the_settings(page: Page) -> None:
    asked = script_chat(page, "fine")
    ask(page, "one")
    assert set(asked[0]) == {"model", "messages", "stream", "stream_options"}
    set_setting(page, **{"system": "Be brief.", "temperature": "0.5", "top-p": "0.9", "max-tokens": "20", "seed": "7"})
    modes = page.locator("#chat-modes")
    expect(modes).to_have_text("System prompt · temperature 0.5 · top p 0.9 · at most 20 · seed 7")
    page.reload()  # the browser keeps them
    expect(modes).to_contain_text("temperature 0.5")
    ask(page, "two")
    wanted = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 20, "seed": 7}
    assert {name: asked[-1][name] for name in wanted} == wanted
    assert asked[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Reset").click()
    page.keyboard.press("Escape")
    expect(modes).to_be_empty()


def test_the_server_takes_all_settings(page: Page) -> None:
    set_setting(page, **{"system": "Answer in JSON.", "top-p": "0.9", "max-tokens": "12", "seed": "7"})
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("JSON mode").check()
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#chat-modes")).to_contain_text("JSON mode")
    ask(page, "Name a colour.")
    expect(page.locator(".message.assistant .content")).to_contain_text("{")
    expect(page.locator(".message.assistant .usage")).to_contain_text("maximum length")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_rejects_a_setting_out_of_range(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Top p").fill("3")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_visible()  # the browser shows the range
    page.keyboard.press("Escape")
    page.get_by_label("Message", exact=True).fill("one")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("Top p")
    expect(page.get_by_label("Message", exact=True)).to_have_value("one")


def test_shows_calls_and_sends_their_results(page: Page) -> None:
    asked = script_chat(page, CALL, "It is sunny.")
    set_setting(page, tools=json.dumps([WEATHER]))
    expect(page.locator("#chat-modes")).to_contain_text("1 tool")
    ask(page, "How is the weather in Rome?")
    assert asked[0]["tools"] == [{"type": "function", "function": WEATHER}]
    expect(page.locator(".call code")).to_have_text('weather({"city": "Rome"})')
    page.get_by_label("Result of weather").fill("sunny")
    page.get_by_role("button", name="Send results").click()
    expect(page.locator(".message.assistant .content").last).to_have_text("It is sunny.")
    call, result = asked[1]["messages"][1:]
    assert call["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'
    assert result == {"role": "tool", "tool_call_id": "call-1", "content": "sunny"}


def test_names_tools_that_are_not_json(page: Page) -> None:
    set_setting(page, tools="[{")
    page.get_by_label("Message", exact=True).fill("one")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("tools")
