"""``cyllama chat``: talk with a model on a terminal, or ask it one thing."""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyllama._native.files import atomic_path
from cyllama.cli._language import add_model, load, unescaped
from cyllama.cli._media import add_media, media_parts, picture_part, sound_part
from cyllama.errors import CyllamaError

__all__ = ["Session", "add_arguments", "run"]

HISTORY = Path("~/.cache/cyllama/chat-history")
LINES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("prompt", nargs="?", help="ask this and end; default: talk")
    parser.add_argument("-p", "--prompt", dest="question", metavar="PROMPT", help="the same")
    system = parser.add_mutually_exclusive_group()
    system.add_argument("-sys", "--system", "--system-prompt", help="what the model is told before")
    system.add_argument("-sysf", "--system-prompt-file", type=Path, metavar="FILE", help="a file that says it")
    parser.add_argument("-mli", "--multiline-input", action="store_true",
                        help="a message ends with a line that ends with \\, not with every other line")  # fmt: skip
    parser.add_argument(
        "-e",
        "--escape",
        action="store_true",
        help="take \\n, \\t and their like in these texts for what they stand for",
    )
    add_media(parser)
    parser.add_argument("--max-tokens", type=int, help="tokens of an answer at most")
    parser.add_argument("--show-timings", action="store_true", help="tokens per second after each answer")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer once, or until the user ends it."""
    if arguments.prompt is not None and arguments.question is not None:
        raise ValueError("the prompt was given twice")
    question = arguments.question if arguments.prompt is None else arguments.prompt
    file = arguments.system_prompt_file
    system = arguments.system if file is None else file.read_text(encoding="utf-8")
    if arguments.escape:
        question, system = (text if text is None else unescaped(text) for text in (question, system))
    with load(arguments) as llm:
        session = Session(llm, system, arguments.max_tokens, timings=arguments.show_timings)
        session.media += media_parts(llm, arguments.image, arguments.audio)
        if question is not None:
            session.answer(question)
        else:
            with history():
                talk(session, multiline=arguments.multiline_input)
    return 0


def talk(session: Session, *, multiline: bool = False) -> None:
    """Read, answer, again. Ctrl-C stops an answer, Ctrl-D ends the talk; a line that ends with \\ goes on.

    With `multiline` it is the other way round: a line that ends so is the last one. What goes wrong with an answer is
    said, and the talk goes on.
    """
    print("/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends", file=sys.stderr)
    while True:
        try:
            text = read(multiline=multiline)
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            continue
        if text.startswith("/"):
            if not session.command(text):
                return
        elif text.strip():
            try:
                session.answer(text)
            except (CyllamaError, ValueError) as error:
                print(f"cyllama: {error}", file=sys.stderr)


def read(*, multiline: bool = False) -> str:
    """One or more lines of the user; a command is one line."""
    lines = [input("> ")]
    while not lines[-1].startswith("/") and lines[-1].endswith("\\") != multiline:
        lines[-1] = lines[-1].removesuffix("\\")
        lines.append(input(". "))
    return "\n".join(lines).removesuffix("\\" if multiline else "")


@contextlib.contextmanager
def history() -> Any:
    """The lines of earlier talks, if the terminal can edit lines."""
    if not sys.stdin.isatty():
        yield
        return
    import readline

    path = HISTORY.expanduser()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


class Session:
    """A talk: what was said, and the commands."""

    def __init__(self, llm: Any, system: str | None, max_tokens: int | None, *, timings: bool) -> None:
        self.llm, self.max_tokens, self.timings = llm, max_tokens, timings
        self.messages: list[dict[str, Any]] = []
        self.system = system
        self.files: list[str] = []  # what goes before the next question
        self.media: list[dict[str, Any]] = []  # the same for pictures and sounds
        self.commands: dict[str, tuple[Callable[[str], bool], str]] = {
            "help": (self._help, "list the commands"),
            "clear": (self._clear, "forget what was said"),
            "system": (self._system, "tell the model something new before all else, and forget what was said"),
            "again": (self._again, "answer the last question anew"),
            "regen": (self._again, "the same"),
            "read": (self._read, "add a text file to the next question"),
            "glob": (self._glob, "add all text files that fit a pattern to the next question"),
            "image": (self._image, "add a picture to the next question"),
            "audio": (self._audio, "add a sound to the next question"),
            "save": (self._save, "write the talk to a JSON file"),
            "load": (self._load, "read a talk from a JSON file"),
            "exit": (lambda text: False, "end"),
        }

    def answer(self, text: str) -> None:
        """Answer, and remember both; an answer that was stopped is remembered as far as it came."""
        text = "\n\n".join([*self.files, text])
        self._answer([*self.media, {"type": "text", "text": text}] if self.media else text)
        self.files.clear()
        self.media.clear()

    def _answer(self, content: str | list[dict[str, Any]]) -> None:
        question = {"role": "user", "content": content}
        before = [{"role": "system", "content": self.system}] if self.system else []
        said, last = [], None
        try:
            with self.llm.chat([*before, *self.messages, question], max_tokens=self.max_tokens, stream=True) as stream:
                for part in stream:
                    self._show(part)
                    said.append(part.text)
                    last = part
        except KeyboardInterrupt:
            pass
        print()
        self.messages += [question, {"role": "assistant", "content": "".join(said)}]
        if self.timings and last is not None and "timings" in last:
            print(f"[{last.timings.predicted_per_second:.1f} tokens/s]", file=sys.stderr)

    def _show(self, part: Any) -> None:
        """Print a part; what the model thinks goes to stderr, so that stdout is the answer."""
        if part.reasoning:
            print(part.reasoning, end="", file=sys.stderr, flush=True)
        print(part.text, end="", flush=True)

    def command(self, text: str) -> bool:
        """Obey ``/name text``; whether to go on."""
        name, _, rest = text[1:].partition(" ")
        if name not in self.commands:
            print(f"there is no command /{name}; /help lists them", file=sys.stderr)
            return True
        try:
            return self.commands[name][0](rest.strip())
        except (CyllamaError, OSError, ValueError) as error:
            print(f"/{name}: {error}", file=sys.stderr)
            return True
        except KeyboardInterrupt:
            print()
            return True

    def _help(self, text: str) -> bool:
        for name, (_, about) in self.commands.items():
            print(f"/{name:8} {about}", file=sys.stderr)
        return True

    def _clear(self, text: str) -> bool:
        self.messages.clear()
        self.files.clear()
        self.media.clear()
        return True

    def _system(self, text: str) -> bool:
        self.system = text or None
        return self._clear(text)

    def _again(self, text: str) -> bool:
        if len(self.messages) < 2:
            raise ValueError("nothing was asked yet")
        *before, question, answer = self.messages
        self.messages = before
        try:
            self._answer(question["content"])
        except BaseException:
            self.messages = [*before, question, answer]
            raise
        return True

    def _read(self, text: str) -> bool:
        self.files.append(Path(text).read_text(encoding="utf-8"))
        print(f"{text}: {len(self.files[-1])} characters", file=sys.stderr)
        return True

    def _image(self, text: str) -> bool:
        self.media.append(picture_part(self.llm, text))
        return True

    def _audio(self, text: str) -> bool:
        self.media.append(sound_part(self.llm, text))
        return True

    def _glob(self, text: str) -> bool:
        found = sorted(path for path in glob.glob(text, recursive=True) if Path(path).is_file())
        if not found:
            raise ValueError(f"no file fits {text!r}")
        return all([self._read(path) for path in found])

    def _save(self, text: str) -> bool:
        if not text:
            raise ValueError("the name of a file is missing")
        talk = json.dumps({"system": self.system, "messages": self.messages}, indent=1, ensure_ascii=False)
        with atomic_path(text) as temporary:
            Path(temporary).write_text(talk, encoding="utf-8")
        return True

    def _load(self, text: str) -> bool:
        from cyllama.llama.chat import message_list

        found = json.loads(Path(text).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("messages"), list):
            raise ValueError(f"{text} is no talk that /save wrote")
        self.system, self.messages = found.get("system"), message_list(found["messages"]) if found["messages"] else []
        return True
