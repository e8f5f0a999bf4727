"""Transcription on the page: files, the microphone, seeking, subtitles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from server.conftest import JFK
from server.page.driving import drop, open_tab, wait_until

SPEECH = ("jfk.wav", "audio/wav", JFK.read_bytes())
TRANSCRIPT = "ask what you can do for your country"


@pytest.fixture
def transcribe(page: Page) -> Page:
    open_tab(page, "Transcribe")
    return page


def record_forms(page: Page) -> None:
    """Let `forms` be the fields of the forms that the page sends, with the names of files."""
    page.evaluate(
        """() => {
            const send = window.fetch;
            window.forms = [];
            window.fetch = (path, options) => {
                if (options?.body instanceof FormData) forms.push([...options.body].map(([name, value]) => [name, value.name ?? value]));
                return send(path, options);
            };
        }"""
    )


def test_transcribes_a_dropped_file(transcribe: Page, tmp_path: Path) -> None:
    """One transcription serves to test what the page does with it: copying, words that seek, subtitles."""
    drop(transcribe, "#panel-audio", SPEECH)
    expect(transcribe.get_by_label("Transcript", exact=True)).to_contain_text(TRANSCRIPT)
    expect(transcribe.locator("#audio-status")).to_contain_text("0:11")
    transcribe.get_by_role("button", name="Use in chat").click()
    expect(transcribe.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true")
    assert "my fellow Americans" in transcribe.get_by_label("Message", exact=True).input_value()
    open_tab(transcribe, "Transcribe")
    check_seeking(transcribe)
    check_subtitles(transcribe, tmp_path)


def check_seeking(transcribe: Page) -> None:
    """Seek with the pointer and with the keyboard."""
    time = "document.getElementById('audio-player').currentTime"
    word = transcribe.locator(".word", has_text="country").first
    word.click()
    wait_until(transcribe, f"() => {time} > 4")
    expect(word).to_have_attribute("aria-current", "true")
    transcribe.get_by_role("button", name="Play from 0:00").focus()
    transcribe.keyboard.press("Enter")
    wait_until(transcribe, f"() => {time} < 4")
    transcribe.keyboard.press("Tab")
    expect(transcribe.locator(".word").first).to_be_focused()
    for _ in range(3):
        transcribe.keyboard.press("ArrowRight")
    expect(transcribe.locator(".word").nth(3)).to_be_focused()
    transcribe.keyboard.press("ArrowDown")
    transcribe.keyboard.press("Enter")
    wait_until(transcribe, f"() => {time} > 4")


def check_subtitles(transcribe: Page, tmp_path: Path) -> None:
    """Copy the text, download subtitles."""
    transcribe.get_by_role("button", name="Copy text").click()
    expect(transcribe.get_by_role("button", name="Copied")).to_be_visible()
    assert TRANSCRIPT in transcribe.evaluate("navigator.clipboard.readText()")
    found = {}
    for format in ("SRT", "VTT"):
        with transcribe.expect_download() as waiting:
            transcribe.get_by_role("button", name=f"Download {format}").click()
        assert waiting.value.suggested_filename == f"jfk.{format.lower()}"
        waiting.value.save_as(tmp_path / format)
        found[format] = (tmp_path / format).read_text()
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\nAnd so", found["SRT"])
    assert re.match(r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\nAnd so", found["VTT"])
    times = [tuple(re.findall(r"[\d:,]{12}", line)) for line in found["SRT"].splitlines() if "-->" in line]
    assert all(start < end for start, end in times) and times == sorted(times)


def test_sends_the_language(transcribe: Page) -> None:
    transcribe.get_by_label("Language").select_option(label="German")
    record_forms(transcribe)
    drop(transcribe, "#panel-audio", SPEECH)
    expect(transcribe.get_by_role("alert")).to_contain_text("de")  # the model speaks English only
    assert ["language", "de"] in transcribe.evaluate("forms[0]")
    transcribe.reload()
    open_tab(transcribe, "Transcribe")
    expect(transcribe.get_by_label("Language")).to_have_value("de")


@pytest.mark.parametrize("name", ["book.m4b", "note.amr"])
def test_sends_what_the_browser_cannot_decode_to_the_server(transcribe: Page, name: str) -> None:
    """Browsers have no type for these files."""
    record_forms(transcribe)
    drop(transcribe, "#panel-audio", (name, "", b"not audio"))
    expect(transcribe.get_by_role("alert")).to_contain_text(re.compile("audio|file|decode"))
    assert ["file", name] in transcribe.evaluate("forms[0]")
    expect(transcribe.get_by_role("button", name="record")).to_be_enabled()


def test_rejects_a_file_of_another_kind(transcribe: Page) -> None:
    drop(transcribe, "#panel-audio", ("a.pdf", "application/pdf", b"%PDF"))
    expect(transcribe.get_by_role("alert")).to_contain_text("a.pdf")


def test_shows_text_while_a_person_speaks(transcribe: Page, tmp_path: Path) -> None:
    """Chromium plays JFK's recording as the microphone."""
    record, transcript = (
        transcribe.get_by_role("button", name="record"),
        transcribe.get_by_label("Transcript", exact=True),
    )
    record.click()
    expect(record).to_have_attribute("aria-pressed", "true")
    expect(transcript).to_contain_text("fellow")
    record.click()
    expect(transcribe.locator("#audio-status")).to_have_text("Transcribed while you spoke.")
    expect(record).to_have_attribute("aria-pressed", "false")
    expect(transcript).to_contain_text("fellow")
    expect(transcript.locator(".provisional:not(:empty)")).to_have_count(0)
    expect(transcribe.get_by_label("The recording")).to_be_visible()
    with transcribe.expect_download() as waiting:
        transcribe.get_by_role("button", name="Download SRT").click()
    waiting.value.save_as(tmp_path / "live.srt")
    start, end = re.findall(r"[\d:,]{12}", (tmp_path / "live.srt").read_text())[:2]
    assert start < end


def test_dictates_into_a_message(page: Page) -> None:
    field, dictate = page.get_by_label("Message", exact=True), page.get_by_role("button", name="Dictate").first
    field.fill("He said:")
    dictate.click()
    expect(field).to_have_value(re.compile(r"^He said: .*fellow"))
    dictate.click()
    expect(field).to_be_focused()
    expect(field).to_have_value(re.compile(r"^He said: .*fellow"))


def test_transcribes_the_recording_without_a_websocket(transcribe: Page) -> None:
    """As behind a proxy that does not support them."""
    transcribe.evaluate("() => { window.WebSocket = undefined; }")
    record = transcribe.get_by_role("button", name="record")
    record.click()
    expect(record).to_have_attribute("aria-pressed", "true")
    transcribe.wait_for_timeout(4_000)  # of speech
    record.click()
    expect(transcribe.locator("#audio-status")).to_contain_text("Duration")
    expect(transcribe.get_by_label("Transcript", exact=True)).to_contain_text("fellow")
