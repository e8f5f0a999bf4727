"""``cyllama chat``: chat with a language model on a terminal, or send one message."""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyllama import models
from cyllama._native.files import atomic_path
from cyllama._paths import expanded
from cyllama.cli._language import add_model, load, named_model, unescape
from cyllama.cli._media import add_media, audio_part, image_part, media_parts
from cyllama.errors import CyllamaError

if TYPE_CHECKING:
    from cyllama.cli._parser import CommandParser
    from cyllama.llama import LLM
    from cyllama.llama.responses import ChatChunk

__all__ = ["Session", "add_arguments", "run"]

DEFAULT_MODEL = "smollm2-135m-instruct"
BETTER_MODEL = "hf:Qwen/Qwen2.5-3B-Instruct-GGUF:Q4_K_M"
HISTORY_FILE = Path("~/.cache/cyllama/chat-history")
HISTORY_LINES = 1000


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments."""
    parser.add_argument("prompt", nargs="?", help="send this message and exit; default: an interactive chat")
    parser.add_argument("-p", "--prompt", dest="message", metavar="PROMPT", help="same as PROMPT")
    system = parser.add_mutually_exclusive_group()
    system.add_argument("-sys", "--system", "--system-prompt", help="system prompt")
    system.add_argument(
        "-sysf", "--system-prompt-file", type=expanded, metavar="FILE", help="file with the system prompt"
    )
    parser.add_argument("-mli", "--multiline-input", action="store_true",
                        help="a line that ends with \\ ends the message; default: it continues it")  # fmt: skip
    parser.add_argument(
        "-e",
        "--escape",
        action="store_true",
        help="replace escape sequences such as \\n and \\t in PROMPT and in the system prompt",
    )
    add_media(parser)
    parser.add_argument("--max-tokens", type=int, help="maximum number of tokens of a response")
    parser.add_argument("--show-timings", action="store_true", help="print tokens per second after each response")
    parser.add_argument("-st", "--single-turn", action="store_true", help="exit after the response to PROMPT")
    add_model(parser, required=False)
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Send one message, or chat until the user exits."""
    if arguments.prompt is not None and arguments.message is not None:
        raise ValueError("the prompt is given twice, expected one of PROMPT and --prompt")
    message = arguments.message if arguments.prompt is None else arguments.prompt
    file = arguments.system_prompt_file
    system = arguments.system if file is None else file.read_text(encoding="utf-8")
    if arguments.escape:
        message, system = (text if text is None else unescape(text) for text in (message, system))
    if arguments.single_turn and message is None:
        arguments.usage_error("-st was given without PROMPT")
    if named_model(arguments) is None:
        arguments.model = _chosen_model(arguments.usage_error)
        if arguments.model is None:
            return 1
    with load(arguments) as llm:
        session = Session(llm, system, arguments.max_tokens, timings=arguments.show_timings)
        session.media += media_parts(llm, arguments.image, arguments.audio)
        if message is not None:
            session.send(message)
        else:
            with _history():
                _interact(session, multiline=arguments.multiline_input)
    return 0


def _chosen_model(usage_error: Callable[[str], object]) -> str | None:
    """Ask on a terminal whether to use the small model; return None if the user does not want it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        usage_error("the model is missing: -m/--model FILE or NAME, such as -m smollm2-135m-instruct")
    found = models.find(DEFAULT_MODEL)
    state = "installed" if models.installed(DEFAULT_MODEL) else f"a download of {found.download_size / 1e6:.0f} MB"
    print(f"No model was given. {DEFAULT_MODEL} ({state}) is small and fast, and often wrong.\n"
          f"A better one with 4 GB of memory: -m {BETTER_MODEL}", file=sys.stderr)  # fmt: skip
    print(f"Use {DEFAULT_MODEL}? [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer or answer.strip().casefold() not in ("", "y", "yes"):
        print("To choose a model: cyllama models list, cyllama chat -m MODEL", file=sys.stderr)
        return None
    return DEFAULT_MODEL


def _interact(session: Session, *, multiline: bool = False) -> None:
    """Read messages and commands until the end of the input; print errors and continue."""
    print("/help: list commands, Ctrl-C: stop a response, Ctrl-D: exit", file=sys.stderr)
    while True:
        try:
            text = _read_message(multiline=multiline)
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
                session.send(text)
            except (CyllamaError, ValueError) as error:
                print(f"cyllama: {error}", file=sys.stderr)


def _read_message(*, multiline: bool = False) -> str:
    """Read a command, which is one line, or a message.

    A message goes on after a line that ends with a backslash; with `multiline` it ends with such a line.
    """
    lines = [input("> ")]
    while not lines[-1].startswith("/") and lines[-1].endswith("\\") != multiline:
        lines[-1] = lines[-1].removesuffix("\\")
        lines.append(input(". "))
    return "\n".join(lines).removesuffix("\\" if multiline else "")


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Load the history of input lines, and save it at the end, if the input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    import readline

    path = HISTORY_FILE.expanduser()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


class Session:
    """A chat: its messages, and the commands of the user."""

    def __init__(self, llm: LLM, system: str | None, max_tokens: int | None, *, timings: bool) -> None:
        self.llm, self.max_tokens, self.timings = llm, max_tokens, timings
        self.messages: list[dict[str, Any]] = []
        self.system = system
        self.files: list[str] = []  # texts that are added to the next message
        self.media: list[dict[str, Any]] = []  # images and audio that are added to the next message
        self.commands: dict[str, tuple[Callable[[str], bool], str]] = {
            "help": (self._help, "list the commands"),
            "clear": (self._clear, "clear the chat"),
            "system": (self._system, "set the system prompt and clear the chat"),
            "again": (self._regenerate, "regenerate the last response"),
            "regen": (self._regenerate, "same as /again"),
            "read": (self._read, "add a text file to the next message"),
            "glob": (self._glob, "add all text files that match a pattern to the next message"),
            "image": (self._image, "add an image to the next message"),
            "audio": (self._audio, "add an audio file to the next message"),
            "save": (self._save, "save the chat to a JSON file"),
            "load": (self._load, "load a chat from a JSON file"),
            "exit": (lambda text: False, "exit"),
        }

    def send(self, text: str) -> None:
        """Send a message, print the response, and keep both; Ctrl-C keeps the partial response."""
        text = "\n\n".join([*self.files, text])
        self._respond([*self.media, {"type": "text", "text": text}] if self.media else text)
        self.files.clear()
        self.media.clear()

    def _respond(self, content: str | list[dict[str, Any]]) -> None:
        message = {"role": "user", "content": content}
        system = [{"role": "system", "content": self.system}] if self.system else []
        parts, last = [], None
        try:
            with self.llm.chat([*system, *self.messages, message], max_tokens=self.max_tokens, stream=True) as stream:
                for part in stream:
                    self._show(part)
                    parts.append(part.text)
                    last = part
        except KeyboardInterrupt:
            pass
        print()
        self.messages += [message, {"role": "assistant", "content": "".join(parts)}]
        if self.timings and last is not None and last.timings is not None:
            print(f"[{last.timings.predicted_per_second:.1f} tokens/s]", file=sys.stderr)

    def _show(self, part: ChatChunk) -> None:
        """Print a part of a response to stdout, and its reasoning to stderr."""
        if part.reasoning:
            print(part.reasoning, end="", file=sys.stderr, flush=True)
        print(part.text, end="", flush=True)

    def command(self, text: str) -> bool:
        """Run a command ``/name text``, and return whether the chat goes on."""
        name, _, rest = text[1:].partition(" ")
        if name not in self.commands:
            print(f"unknown command /{name}; see /help", file=sys.stderr)
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

    def _regenerate(self, text: str) -> bool:
        if len(self.messages) < 2:
            raise ValueError("the chat has no message")
        *before, message, response = self.messages
        self.messages = before
        try:
            self._respond(message["content"])
        except BaseException:
            self.messages = [*before, message, response]
            raise
        return True

    def _read(self, text: str) -> bool:
        self.files.append(Path(text).read_text(encoding="utf-8"))
        print(f"{text}: {len(self.files[-1])} characters", file=sys.stderr)
        return True

    def _image(self, text: str) -> bool:
        self.media.append(image_part(self.llm, text))
        return True

    def _audio(self, text: str) -> bool:
        self.media.append(audio_part(self.llm, text))
        return True

    def _glob(self, text: str) -> bool:
        found = sorted(path for path in glob.glob(text, recursive=True) if Path(path).is_file())
        if not found:
            raise ValueError(f"no file matches {text!r}")
        return all([self._read(path) for path in found])

    def _save(self, text: str) -> bool:
        if not text:
            raise ValueError("file name is missing")
        chat = json.dumps({"system": self.system, "messages": self.messages}, indent=1, ensure_ascii=False)
        with atomic_path(text) as temporary:
            Path(temporary).write_text(chat, encoding="utf-8")
        return True

    def _load(self, text: str) -> bool:
        from cyllama.llama import message_list

        found = json.loads(Path(text).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("messages"), list):
            raise ValueError(f"{text} is not a chat of /save")
        self.system, self.messages = found.get("system"), message_list(found["messages"]) if found["messages"] else []
        return True
