"""StreamingTranscriber: provisional and final segments of live audio."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from data.sounds import jfk_float32, jfk_int16
from data.speech import JFK as JFK_TEXT
from data.speech import word_error_rate, words

from cyllama.errors import CancelledError, ClosedError
from cyllama.whisper import Segment, StreamedSegment, StreamingTranscriber, Transcription, TranscriptionInfo, Whisper

TENTH = 1600  # samples of 100 ms


def feed_all(stream: StreamingTranscriber, audio: np.ndarray, size: int) -> list[StreamedSegment]:
    found = []
    for start in range(0, len(audio), size):
        found += stream.feed(audio[start : start + size])
    return found + stream.flush()


def test_final_segments_are_the_text_of_the_recording(whisper: Whisper) -> None:
    stream = StreamingTranscriber(whisper, step=4.0)
    found = feed_all(stream, jfk_float32(), TENTH)
    final = [part for part in found if part.final]
    assert words("".join(part.text for part in final)) == words(JFK_TEXT)
    assert [part.segment.id for part in final] == list(range(len(final)))
    times = [time for part in final for time in (part.segment.start, part.segment.end)]
    assert times == sorted(times) and times[-1] <= 11.0 + 1e-6
    provisional = [part for part in found if not part.final]
    assert provisional and provisional[0].segment.end <= 4.0 + 1e-6  # after the first step
    assert list(stream) == found and list(stream) == []
    assert stream.duration == pytest.approx(11.0)
    assert repr(stream) == "StreamingTranscriber(Whisper('tiny.en', whisper), 11.00 s, flushed)"
    assert repr(final[0]).startswith("StreamedSegment(Segment(0, 0.3") and repr(final[0]).endswith(", final)")


def test_pending_audio_is_limited(whisper: Whisper) -> None:
    """Audio with final text is dropped: memory and time of a step do not grow."""
    audio = np.tile(np.concatenate([jfk_float32(), np.zeros(8000, np.float32)]), 3)
    stream = StreamingTranscriber(whisper, step=10.0, word_timestamps=True)
    longest, found = 0, []
    for start in range(0, len(audio), 8000):
        found += stream.feed(audio[start : start + 8000])
        longest = max(longest, len(stream._pending))
    found += stream.flush()
    final = [part.segment for part in found if part.final]
    assert longest <= 28 * 16_000
    assert word_error_rate(3 * f"{JFK_TEXT} ", "".join(segment.text for segment in final)) < 0.15
    ends = [segment.end for segment in final]
    assert ends == sorted(ends) and 30 < ends[-1] <= 34.5 + 1e-6
    for segment in final:
        assert segment.words is not None
        assert all(segment.start - 1e-6 <= word.start <= word.end <= segment.end + 1e-6 for word in segment.words)


def test_accepts_other_rates_and_channels(whisper: Whisper) -> None:
    stereo = np.repeat(np.stack([jfk_int16(), jfk_int16()], 1), 3, axis=0)
    stream = StreamingTranscriber(whisper, sample_rate=48_000, step=6.0)
    final = [part for part in feed_all(stream, stereo, 48_000) if part.final]
    assert words("".join(part.text for part in final)) == words(JFK_TEXT)


def test_silence_is_dropped(whisper: Whisper) -> None:
    stream = StreamingTranscriber(whisper, step=5.0, vad_filter=True)
    found = feed_all(stream, np.zeros(60 * 16_000, np.float32), 16_000)
    assert found == [] and stream.duration == pytest.approx(60)


def test_silence_of_a_whole_step_has_no_segments(whisper: Whisper) -> None:
    stream = StreamingTranscriber(whisper, step=28.0, vad_filter=True)
    assert feed_all(stream, np.zeros(28 * 16_000, np.float32), 16_000) == []


def test_cancelled_audio_is_transcribed_later(whisper: Whisper) -> None:
    stream = StreamingTranscriber(whisper, step=2.0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        stream.feed(jfk_float32(), cancel=stop)
    assert stream.duration == pytest.approx(11.0)
    stream.flush()
    final = [part for part in stream if part.final]
    assert words("".join(part.text for part in final)) == words(JFK_TEXT)


class Recorder:
    """Stands for a `Whisper`: keeps the options of each call, and returns a segment for each."""

    architecture = "whisper"

    def __init__(self, whisper: Whisper) -> None:
        self.check_options, self.prompt_tokens = whisper.check_options, whisper.prompt_tokens
        self.prompts: list[object] = []

    def __call__(self, samples: np.ndarray, **options: object) -> Transcription:
        self.prompts.append(options["initial_prompt"])
        part = Segment(0, 0, 0.0, 0.5, " text", tokens=(7, 8))
        return Transcription((part,), TranscriptionInfo("en", 1.0, 4.0, 4.0))


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({}, None, [7, 8]),
        ({"initial_prompt": [464, 3096]}, [464, 3096], [464, 3096, 7, 8]),
        ({"prompt": [464]}, [464], [464, 7, 8]),
        ({"initial_prompt": [464], "condition_on_previous_text": False}, [464], [464]),
    ],
)
def test_prompt_of_each_step(whisper: Whisper, options: dict[str, Any], first: object, second: object) -> None:
    recorder = Recorder(whisper)
    stream = StreamingTranscriber(recorder, step=4.0, **options)  # type: ignore[arg-type]
    stream.feed(np.zeros(8 * 16_000, np.float32))
    assert recorder.prompts == [first, second]


def test_long_prompt_stays(whisper: Whisper) -> None:
    recorder, prompt = Recorder(whisper), "A long prompt of many words. " * 20
    stream = StreamingTranscriber(recorder, step=4.0, initial_prompt=prompt)  # type: ignore[arg-type]
    stream.feed(np.zeros(12 * 16_000, np.float32))
    assert recorder.prompts == [
        prompt,
        [*whisper.prompt_tokens(prompt), 7, 8],
        [*whisper.prompt_tokens(prompt), 7, 8, 7, 8],
    ]


def test_rejects_invalid_options_and_samples(whisper: Whisper) -> None:
    for options, error in (
        ({"clip_timestamps": "0,1"}, TypeError),
        ({"batch_size": 2}, TypeError),
        ({"step": 0.0}, ValueError),
        ({"step": 60.0}, ValueError),
        ({"sample_rate": 0}, ValueError),
        ({"beamsize": 5}, TypeError),
        ({"language": "elvish"}, ValueError),
    ):
        with pytest.raises(error):
            StreamingTranscriber(whisper, **options)
    stream = StreamingTranscriber(whisper)
    for bad, error in ((np.array([np.nan]), ValueError), (np.array(["a"]), TypeError), (None, TypeError)):
        with pytest.raises(error):
            stream.feed(bad)
    assert stream.feed(np.zeros(0, np.float32)) == [] and stream.flush() == []
    for use in (stream.flush, lambda: stream.feed(np.zeros(9, np.float32))):
        with pytest.raises(ClosedError):
            use()
