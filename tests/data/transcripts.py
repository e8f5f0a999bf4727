"""A short transcription with words, tokens and characters that formats escape."""

from __future__ import annotations

from cyllama.whisper.results import Segment, Token, Transcription, TranscriptionInfo, Word

INFO = TranscriptionInfo("en", 0.98, 3.5, 3.5)


def word(start: float, end: float, text: str) -> Word:
    """Return a word with a probability of 0.9."""
    return Word(start, end, text, 0.9)


def segment(id: int, start: float, end: float, text: str, **fields: object) -> Segment:
    """Return a segment with the given fields."""
    return Segment(id, 0, start, end, text, **fields)  # type: ignore[arg-type]


def talk() -> Transcription:
    """Return two segments with tokens and words."""
    tokens = (
        Token(15947, b" Hello", 0.95, -0.05, 0.0, 0.5, 0.3),
        Token(456, b" there", 0.9, -0.1, 0.5, 1.2, None),
        Token(11, b",", 0.8, -0.22, 1.2, 1.5, None),
    )
    first = segment(
        0, 0.0, 1.5, " Hello there,", tokens=(15947, 456, 11), token_details=tokens, words=(word(0, 0.5, " Hello"), word(0.5, 1.5, " there,")),
        avg_logprob=-0.12, compression_ratio=0.6, no_speech_prob=0.01, temperature=0.2,
    )  # fmt: skip
    words = (word(1.5, 2, " friends"), word(2, 2.2, " &"), word(2.2, 3.4995, " <others>."))
    second = segment(1, 1.5, 3.4995, " friends & <others>.", words=words, speaker_turn=True)
    return Transcription((first, second), INFO)
