"""Recordings of speech with what is said in them: several voices, in English, French and German.

Where the texts come from:

* jfk: the words of President Kennedy's inaugural address, 20 January 1961.
* moon: nobody wrote it down; the text is what whisper-cli hears with timestamps, with tiny.en and with base, which agree
  in every word. The headline and the date are those of the newspaper in the picture beside it (test-1.jpeg).
* asterisk: the sheet that the speakers read from (core-sounds-en.txt and core-sounds-fr.txt of the packages
  asterisk-core-sounds-en and -fr; CC-BY-SA-3.0, Allison Smith and June Wallack).
* espeak: the text that espeak-ng was given.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from dataclasses import dataclass
from pathlib import Path

THIRDPARTY = Path(__file__).resolve().parents[2] / "thirdparty"
ASTERISK = Path("/usr/share/asterisk/sounds")

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


@dataclass(frozen=True)
class Speech:
    """One recording."""

    name: str
    path: Path
    text: str
    language: str
    voice: str


def spoken(folder: Path) -> tuple[Speech, ...]:
    """Speech made by espeak-ng in a folder: three voices."""
    program = shutil.which("espeak-ng")
    assert program, "espeak-ng is missing; install it (Debian: apt-get install espeak-ng)"
    made = []
    for name, voice, language, text in (
        ("espeak-door", "en-gb", "en",
         "Good morning. Please open the window and close the door before you leave the house."),
        ("espeak-car", "en-gb-x-rp+f2", "en", "My brother bought a new car last week, and it is already broken."),
        ("espeak-park", "de", "de", "Guten Morgen, heute scheint die Sonne und wir gehen in den Park."),
    ):  # fmt: skip
        path = folder / f"{name}.wav"
        subprocess.run([program, "-v", voice, "-s", "145", "-w", path, text], check=True)
        made.append(Speech(name, path, text, language, f"espeak-ng {voice}"))
    return tuple(made)


def recorded() -> tuple[Speech, ...]:
    """Recordings that lie in files."""
    samples = THIRDPARTY / "whisper.cpp" / "samples"
    found = (
        Speech("jfk", samples / "jfk.wav", JFK, "en", "John F. Kennedy"),
        Speech("jfk-mp3", samples / "jfk.mp3", JFK, "en", "John F. Kennedy"),
        Speech("moon", THIRDPARTY / "llama.cpp" / "tools" / "mtmd" / "test-2.mp3", MOON, "en", "unknown"),
        Speech("busy-en", ASTERISK / "en" / "tt-allbusy.wav", BUSY_EN, "en", "Allison Smith"),
        Speech("echo-en", ASTERISK / "en" / "demo-echotest.wav", ECHO_EN, "en", "Allison Smith"),
        Speech("busy-fr", ASTERISK / "fr" / "tt-allbusy.wav", BUSY_FR, "fr", "June Wallack"),
        Speech("new-user-fr", ASTERISK / "fr" / "vm-newuser.wav", NEW_USER_FR, "fr", "June Wallack"),
        Speech("no-service-fr", ASTERISK / "fr" / "ss-noservice.wav", NO_SERVICE_FR, "fr", "June Wallack"),
    )
    for speech in found:
        hint = "run `make`"
        if speech.path.is_relative_to(ASTERISK):
            hint = "Debian: apt-get install asterisk-core-sounds-en-wav asterisk-core-sounds-fr-wav"
        assert speech.path.is_file(), f"{speech.path} is missing ({hint})"
    return found


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation; 21st and 21 are the same, as is each kind of apostrophe."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", r"\1", plain))


def word_errors(said: str, heard: str) -> int:
    """How many words are wrong, missing or too many."""
    wanted, found = words(said), words(heard)
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def word_error_rate(said: str, heard: str) -> float:
    """Errors for each word that was said."""
    return word_errors(said, heard) / len(words(said))
