"""Recordings of speech with known texts: several voices, in English, French and German.

Sources of the texts:

* jfk: President Kennedy's inaugural address, 20 January 1961.
* moon: there is no transcript. The text is the output of whisper-cli with timestamps, equal for tiny.en and base. The
  headline and the date are those of the newspaper in test-1.jpeg, in the same folder.
* busy, echo, new-user, no-service: the script of the Asterisk core sounds (core-sounds-en.txt and core-sounds-fr.txt).
* espeak: the input of espeak-ng.

tests/data/recordings/README.md names the licences.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

THIRDPARTY = Path(__file__).resolve().parents[2] / "thirdparty"
RECORDINGS = Path(__file__).resolve().parent / "recordings"

JFK = "And so my fellow Americans ask not what your country can do for you ask what you can do for your country."
MOON = (
    "The New York Times from July 21st, 1969. This isn't just newsprint and ink. This is the moment when humanity's "
    "oldest dream became front page reality. Men walk on moon declares the bold headline across America's newspaper of "
    "record. For over a century, the New York Times has documented our nation's most pivotal moments, but rarely has "
    "any story matched the cosmic significance of this one."
)
BUSY_EN = (
    "All representatives of the household are currently assisting other telemarketers. Please hold and your call will "
    "be answered in the order it was received."
)
ECHO_EN = (
    "You are about to enter an echo test. In this mode everything you say will be repeated back to you just as soon as "
    "it is received. The purpose of this test is to give you an audible sense of the latency between you and the "
    "machine that is running the echo test application. You may end the test by hanging up or by pressing the pound key."
)
BUSY_FR = (
    "Tous nos préposés sont présentement occupés. Votre appel est important pour nous, merci de bien vouloir patienter "
    "afin de conserver votre priorité d'appel"
)
NEW_USER_FR = (
    "Bienvenue à la messagerie Comedian. Pour commencer, nous allons vous aider à configurer votre boîte vocale."
)
NO_SERVICE_FR = "Le numéro composé n'est pas en service. Veuillez vérifier le numéro et essayer de nouveau."
DOOR = "Good morning. Please open the window and close the door before you leave the house."
CAR = "My brother bought a new car last week, and it is already broken."
PARK_DE = "Guten Morgen, heute scheint die Sonne und wir gehen in den Park."


@dataclass(frozen=True)
class Speech:
    """One recording."""

    name: str
    path: Path
    text: str
    language: str
    voice: str


def recordings() -> tuple[Speech, ...]:
    """Return all recordings: natural voices first, then those of a synthesizer."""
    moon = THIRDPARTY / "llama.cpp" / "tools" / "mtmd" / "test-2.mp3"
    return (
        Speech("jfk", RECORDINGS / "jfk.wav", JFK, "en", "John F. Kennedy"),
        Speech("jfk-mp3", RECORDINGS / "jfk.mp3", JFK, "en", "John F. Kennedy"),
        Speech("moon", moon, MOON, "en", "unknown"),
        _recording("busy-en", BUSY_EN, "en", "Allison Smith"),
        _recording("echo-en", ECHO_EN, "en", "Allison Smith"),
        _recording("busy-fr", BUSY_FR, "fr", "June Wallack"),
        _recording("new-user-fr", NEW_USER_FR, "fr", "June Wallack"),
        _recording("no-service-fr", NO_SERVICE_FR, "fr", "June Wallack"),
        _recording("espeak-door", DOOR, "en", "espeak-ng en-gb"),
        _recording("espeak-car", CAR, "en", "espeak-ng en-gb-x-rp+f2"),
        _recording("espeak-park", PARK_DE, "de", "espeak-ng de"),
    )


def _recording(name: str, text: str, language: str, voice: str) -> Speech:
    return Speech(name, RECORDINGS / f"{name}.flac", text, language, voice)


def words(text: str) -> list[str]:
    """Return the words of a text without case and punctuation; 21st equals 21, and all apostrophes are equal."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", r"\1", plain))


def word_errors(reference: str, text: str) -> int:
    """Return the number of wrong, missing and additional words."""
    wanted, found = words(reference), words(text)
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def word_error_rate(reference: str, text: str) -> float:
    """Return the word errors divided by the words of the reference."""
    return word_errors(reference, text) / len(words(reference))
