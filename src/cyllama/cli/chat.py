"""``cyllama chat``: talk with a model on a terminal, or ask it one thing."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyllama.cli._language import add_model, load

__all__ = ["Session", "add_arguments", "run"]

HISTORY = Path("~/.cache/cyllama/chat-history")
LINES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("prompt", nargs="?", help="ask this and end; default: talk")
    parser.add_argument("-s", "--system", help="what the model is told before")
    parser.add_argument("--max-tokens", type=int, help="tokens of an answer at most")
    parser.add_argument("--show-timings", action="store_true", help="tokens per second after each answer")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer once, or until the user ends it."""
    with load(arguments) as llm:
        session = Session(llm, arguments.system, arguments.max_tokens, timings=arguments.show_timings)
        if arguments.prompt is not None:
            session.answer(arguments.prompt)
        else:
            with history():
                talk(session)
    return 0


def talk(session: Session) -> None:
    """Read, answer, again. Ctrl-C stops an answer, Ctrl-D ends the talk; a line that ends with \\ goes on."""
    print("/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends", file=sys.stderr)
    while True:
        try:
            text = read()
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            continue
        if text.startswith("/"):
            if not session.command(text):
                return
        elif text.strip():
            session.answer(text)


def read() -> str:
    """One or more lines of the user."""
    lines = [input("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input(". "))
    return "\n".join(lines)


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
        self.commands: dict[str, tuple[Callable[[str], bool], str]] = {
            "help": (self._help, "list the commands"),
            "clear": (self._clear, "forget what was said"),
            "system": (self._system, "tell the model something new before all else, and forget what was said"),
            "again": (self._again, "answer the last question anew"),
            "save": (self._save, "write the talk to a JSON file"),
            "load": (self._load, "read a talk from a JSON file"),
            "exit": (lambda text: False, "end"),
        }

    def answer(self, text: str) -> None:
        """Answer, and remember both; an answer that was stopped is remembered as far as it came."""
        self.messages.append({"role": "user", "content": text})
        before = [{"role": "system", "content": self.system}] if self.system else []
        said, last = [], None
        try:
            with self.llm.chat([*before, *self.messages], max_tokens=self.max_tokens, stream=True) as stream:
                for part in stream:
                    print(part.text, end="", flush=True)
                    said.append(part.text)
                    last = part
        except KeyboardInterrupt:
            pass
        print()
        self.messages.append({"role": "assistant", "content": "".join(said)})
        if self.timings and last is not None and "timings" in last:
            print(f"[{last.timings.predicted_per_second:.1f} tokens/s]", file=sys.stderr)

    def command(self, text: str) -> bool:
        """Obey ``/name text``; whether to go on."""
        name, _, rest = text[1:].partition(" ")
        if name not in self.commands:
            print(f"there is no command /{name}; /help lists them", file=sys.stderr)
            return True
        try:
            return self.commands[name][0](rest.strip())
        except (OSError, ValueError) as error:
            print(f"/{name}: {error}", file=sys.stderr)
            return True

    def _help(self, text: str) -> bool:
        for name, (_, about) in self.commands.items():
            print(f"/{name:8} {about}", file=sys.stderr)
        return True

    def _clear(self, text: str) -> bool:
        self.messages.clear()
        return True

    def _system(self, text: str) -> bool:
        self.system = text or None
        return self._clear(text)

    def _again(self, text: str) -> bool:
        if len(self.messages) < 2:
            raise ValueError("nothing was asked yet")
        self.messages.pop()
        self.answer(self.messages.pop()["content"])
        return True

    def _save(self, text: str) -> bool:
        if not text:
            raise ValueError("the name of a file is missing")
        Path(text).write_text(json.dumps({"system": self.system, "messages": self.messages}, indent=1))
        return True

    def _load(self, text: str) -> bool:
        found = json.loads(Path(text).read_text())
        self.system, self.messages = found["system"], list(found["messages"])
        return True
