"""Responses on the page: Markdown, code, reasoning; hostile text is inert."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from server.page.driving import ask, chunk, script_chat

MARKDOWN = """# A title

Some *emphasis*, `code` and [a link](https://example.org/x "title").

```python
print("<b>")
```

| a | b |
|---|--:|
| 1 | 2 |

1. one
2. two

> a quotation
"""
HOSTILE = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg onload='window.hit = 1'><animate onbegin='window.hit = 1' attributeName=x dur=1s></svg>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "<a href='javascript:window.hit = 1'>click</a>",
    "[click](javascript:window.hit=1)",
    "[click](JaVaScRiPt&colon;window.hit=1)",
    "[click](data:text/html,<script>opener.hit=1</script>)",
    "[click](vbscript:x)",
    "![x](https://evil.example/a.png)",
    '![x" onerror="window.hit=1](https://evil.example/a.png)',
    '[x](https://example.org/"onmouseover="window.hit=1)',
    "<style>body { display: none }</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<form action=https://evil.example><input name=key><button>Apply</button></form>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.hit=1&gt;'>",
    "```html\n<script>window.hit = 1</script>\n```",
    "```x\" onmouseover=\"window.hit=1\ncode\n```",
    "<div id=notice>fake</div><input id=chat-text>",
]  # fmt: skip


def content(page: Page) -> str:
    return str(page.locator(".message.assistant .content").last.inner_html())


def test_renders_markdown(page: Page) -> None:
    script_chat(page, MARKDOWN)
    ask(page, "one")
    found = page.locator(".message.assistant .content")
    expect(found.get_by_role("heading", name="A title")).to_be_visible()
    expect(found.locator("em")).to_have_text("emphasis")
    expect(found.locator("pre code")).to_have_text('print("<b>")\n')
    expect(found.locator("td")).to_have_text(["1", "2"])
    expect(found.locator("ol li")).to_have_text(["one", "two"])
    expect(found.locator("blockquote")).to_have_text("a quotation")
    link = found.get_by_role("link", name="a link")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(link).to_have_attribute("target", "_blank")


def test_copies_a_code_block(page: Page) -> None:
    script_chat(page, MARKDOWN)
    ask(page, "one")
    expect(page.locator(".code-head span")).to_have_text("python")
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == 'print("<b>")'


def test_renders_a_streamed_text_as_the_whole_text(page: Page) -> None:
    """A later definition of a link changes an earlier block."""
    text = MARKDOWN + "\nA [reference][r].\n\n* list\n\n[r]: https://example.org/r\n"
    script_chat(page, text, [*(chunk(content=c) for c in text), chunk("stop")])
    ask(page, "one")
    whole = content(page)
    ask(page, "two")
    assert content(page) == whole
    expect(page.get_by_role("link", name="reference")).to_have_count(2)


def test_hostile_text_is_inert(page: Page) -> None:
    """No script runs, no element but those of Markdown exists; the fixture checks that no other host is asked."""
    url = page.url
    script_chat(page, *HOSTILE, "end")
    for _ in HOSTILE:
        ask(page, "one")
    found = page.locator(".message.assistant .content")
    expect(found).to_have_count(len(HOSTILE))
    for link in found.get_by_role("link").all():
        assert (link.get_attribute("href") or "https:").startswith("https:")
        link.dispatch_event("mouseover")
    names = page.evaluate(
        """() => [...document.querySelectorAll(".message.assistant .content *")].flatMap((e) =>
            [e.tagName, ...[...e.attributes].map((a) => a.name).filter((n) => n.startsWith("on"))])"""
    )
    allowed = {"DIV", "SPAN", "BUTTON", "P", "A", "PRE", "CODE", "BR", "STRONG", "EM"}
    assert set(names) <= allowed
    assert page.evaluate("window.hit") is None
    assert page.url == url and page.locator("#notice").count() == 1
    expect(page.locator("body")).to_be_visible()
    assert "&lt;script&gt;" in page.locator(".message.assistant .content").first.inner_html()  # shown as text


@pytest.mark.parametrize(
    "text",
    [">" * 20_000, "[" * 20_000, "*a **b " * 5_000, "`" * 30_000 + "x", "- " * 5_000, "|" * 20_000, "![" * 10_000,
     "x" * 300_000, "<" * 20_000, "\n".join(" " * i + "- a" for i in range(400))],
    ids=["quotes", "brackets", "emphasis", "ticks", "lists", "table", "images", "long", "tags", "nested"],
)  # fmt: skip
def test_extreme_text_leaves_the_page_usable(page: Page, text: str) -> None:
    page.set_default_timeout(20_000)
    script_chat(page, text, "fine")
    ask(page, "one")
    ask(page, "two")
    expect(page.locator(".message.assistant .content").last).to_have_text("fine")


def test_folds_reasoning(page: Page) -> None:
    asked = script_chat(page, [chunk(reasoning_content="a hidden thought"), chunk(content="the result"), chunk("stop")])
    ask(page, "one")
    expect(page.locator(".message.assistant .content")).to_have_text("the result")
    thought = page.get_by_text("a hidden thought")
    expect(thought).to_be_hidden()
    page.locator("summary", has_text="Reasoning").click()
    expect(thought).to_be_visible()
    ask(page, "two")
    assert "thought" not in str(asked[-1]["messages"])
