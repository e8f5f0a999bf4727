"""Recordings with known words at known times: utterances of the other recordings, joined with pauses and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr
from data import speech

from cyllama.media.audio import load_audio

RATE = 16_000
QUIET, FAINT = 0.0, 0.0005  # noise: none, and that of a good microphone

# Name: file, range in seconds that has nothing else, text.
UTTERANCES = {
    "americans": ("jfk.wav", (0.0, 2.7), "And so my fellow Americans"),
    "country": ("jfk.wav", (7.8, 11.0), "ask what you can do for your country"),
    "busy": ("busy-en.flac", (0.0, 4.7), "All representatives of the household are currently assisting other "
                                         "telemarketers."),
    "hold": ("busy-en.flac", (4.7, 9.0), "Please hold and your call will be answered in the order it was received."),
    "echo": ("echo-en.flac", (0.0, 2.43), "You are about to enter an echo test."),
    "pound": ("echo-en.flac", (17.3, 22.0), "You may end the test by hanging up or by pressing the pound key."),
    "door": ("espeak-door.flac", (0.0, 5.8), speech.DOOR),
    "car": ("espeak-car.flac", (0.0, 4.5), speech.CAR),
    "france": ("capital-of-france.flac", (0.0, 3.7), "Please tell me the capital of France."),
    "red": ("red-circle.flac", (0.0, 3.1), "A large red circle on white."),
    "fr-occupied": ("busy-fr.flac", (0.0, 2.3), "Tous nos préposés sont présentement occupés."),
    "fr-thanks": ("busy-fr.flac", (4.17, 8.5), "merci de bien vouloir patienter afin de conserver votre priorité "
                                               "d'appel"),
    "fr-begin": ("new-user-fr.flac", (2.4, 6.3), "Pour commencer, nous allons vous aider à configurer votre boîte "
                                                 "vocale."),
    "fr-service": ("no-service-fr.flac", (0.0, 2.4), "Le numéro composé n'est pas en service."),
    "de-park": ("espeak-park.flac", (0.0, 4.4), speech.PARK_DE),
}  # fmt: skip


@dataclass(frozen=True)
class Utterance:
    """Words that are spoken without a long pause, and their range in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Recording:
    """A recording: samples of 16,000 Hz, its utterances in order, and options of the transcription."""

    name: str
    samples: np.ndarray
    utterances: tuple[Utterance, ...]
    language: str = "en"
    prompt: str | None = None

    @property
    def text(self) -> str:
        return " ".join(utterance.text for utterance in self.utterances)


@cache
def utterance(name: str) -> tuple[np.ndarray, str]:
    """Return an utterance without the silence around it, at a peak of 0.5, and its text."""
    file, (start, end), text = UTTERANCES[name]
    samples = load_audio(speech.RECORDINGS / file)[round(start * RATE) : round(end * RATE)]
    frames = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(1)
    loud = np.flatnonzero(frames > 0.03 * frames.max())
    found = samples[loud[0] * 160 : (loud[-1] + 1) * 160]
    return (found * (0.5 / np.abs(found).max())).astype(np.float32), text


def join(
    name: str,
    parts: Sequence[str | float],
    *,
    noise: float = FAINT,
    telephone: bool = False,
    music: float = 0.0,
    language: str = "en",
    prompt: str | None = None,
) -> Recording:
    """Return a recording of utterances, given by name, and pauses, given in seconds.

    Parameters
    ----------
    noise : float
        Standard deviation of white noise.
    telephone : bool
        Whether the recording is limited to the band of a telephone.
    music : float
        Amplitude of chords in the pauses.
    """
    blocks: list[np.ndarray] = []
    utterances: list[Utterance] = []
    n = 0
    for part in parts:
        if isinstance(part, str):
            samples, text = utterance(part)
            utterances.append(Utterance(text, n / RATE, (n + len(samples)) / RATE))
        else:
            samples = music * _chords(part)
        blocks.append(samples)
        n += len(samples)
    joined = np.concatenate(blocks)
    joined = joined + np.random.default_rng(0).normal(0, noise, n) if noise else joined
    if telephone:
        joined = _telephone(joined)
    return Recording(name, joined.astype(np.float32), tuple(utterances), language, prompt)


def _chords(seconds: float) -> np.ndarray:
    """Return chords, half a second each."""
    time = np.arange(round(seconds * RATE)) / RATE
    root = 220 * 2 ** (np.array([0, 5, 7, 3])[(time * 2).astype(int) % 4] / 12)
    return np.asarray(sum(np.sin(2 * np.pi * root * ratio * time) for ratio in (1, 1.25, 1.5)) / 3)


def _telephone(samples: np.ndarray) -> np.ndarray:
    """Return samples with the band of a telephone, 300 to 3,400 Hz."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    narrow = soxr.resample(np.fft.irfft(spectrum, len(samples)), RATE, 8000)
    return np.asarray(soxr.resample(narrow, 8000, RATE))[: len(samples)]


PROMPT = "A recorded message of a telephone company and the beginning of a speech follow. " * 6


def timed_recordings() -> tuple[Recording, ...]:
    """Return all recordings."""
    return (
        join("short pauses", [0.5, "busy", 0.25, "hold", 0.4, "echo", 0.5, "pound", 0.7, "door", 1.0]),
        join("pauses of 2 to 5 s", [2, "echo", 2, "busy", 3, "car", 4, "hold", 5, "red", 2]),
        join("pauses of 6 to 15 s", [1, "americans", 6, "busy", 10, "hold", 15, "country", 3]),
        join("pauses of 20 and 35 s", [1, "hold", 20, "pound", 35, "busy", 10]),
        join("digital silence", [8, "door", 12, "car", 20, "france", 30], noise=QUIET),
        join("noise, 20 dB", [3, "busy", 4, "hold", 8, "echo", 2, "pound", 6], noise=0.01),
        join("telephone", [1, "busy", 0.5, "hold", 6, "pound", 12, "echo", 3], telephone=True),
        join("speech of 1961", [5, "americans", 0.5, "country", 12, "americans", 3, "country", 25]),
        join("long prompt", [4, "busy", 9, "hold", 14, "americans", 5], prompt=PROMPT),
        join("music in the pauses", [6, "busy", 8, "hold", 10, "pound", 6], music=0.05),
        join("French", [1, "fr-occupied", 0.4, "fr-thanks", 4, "fr-begin", 2, "fr-service", 2], language="fr"),
        join("French, long pauses", [3, "fr-service", 16, "fr-begin", 33, "fr-thanks", 5], language="fr"),
        join("German", [2, "de-park", 3, "de-park", 18, "de-park", 4], language="de"),
        join("silence", [60.0], noise=QUIET),
        join("faint noise", [70.0], noise=0.003),
        join("loud noise", [40.0], noise=0.05),
        join("music", [40.0], music=0.2),
    )


@dataclass(frozen=True)
class Score:
    """What a transcription is worth: words, and errors of the start and the end of each utterance in seconds."""

    words: int
    wrong: int
    invented: int
    starts: tuple[float, ...]
    ends: tuple[float, ...]


def score(recording: Recording, found: Sequence[tuple[str, float, float]]) -> Score:
    """Return the score of words with their start and end.

    Wrong words are substituted, missing or additional; invented words are additional ones that are in a pause, more
    than 0.6 s from each utterance.
    """
    words = [(word, start, end) for text, start, end in found for word in speech.words(text)]
    wanted = [word for part in recording.utterances for word in speech.words(part.text)]
    pairs = _align(wanted, [word for word, _, _ in words])
    starts, ends = [], []
    n = 0
    for part in recording.utterances:
        last = n + len(speech.words(part.text)) - 1
        if n in pairs:
            starts.append(abs(words[pairs[n]][1] - part.start))
        if last in pairs:
            ends.append(abs(words[pairs[last]][2] - part.end))
        n = last + 1
    near = [(part.start - 0.6, part.end + 0.6) for part in recording.utterances]
    used = set(pairs.values())
    invented = sum(
        i not in used and not any(first < end and last > start for first, last in near)
        for i, (_, start, end) in enumerate(words)
    )
    wrong = speech.word_errors(recording.text, " ".join(word for word, _, _ in words))
    return Score(len(wanted), wrong, invented, tuple(starts), tuple(ends))


def _align(wanted: Sequence[str], found: Sequence[str]) -> dict[int, int]:
    """Return the index in `found` of each word of `wanted` that is found or replaced, with the fewest changes."""
    costs = np.zeros((len(wanted) + 1, len(found) + 1), int)
    costs[:, 0], costs[0] = np.arange(len(wanted) + 1), np.arange(len(found) + 1)
    for i, word in enumerate(wanted):
        for j, other in enumerate(found):
            costs[i + 1, j + 1] = min(costs[i, j + 1] + 1, costs[i + 1, j] + 1, costs[i, j] + (word != other))
    pairs, i, j = {}, len(wanted), len(found)
    while i and j:
        if costs[i, j] == costs[i - 1, j - 1] + (wanted[i - 1] != found[j - 1]):
            i, j = i - 1, j - 1
            pairs[i] = j
        elif costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return pairs
