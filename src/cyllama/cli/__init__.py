"""The program ``cyllama``: a dispatcher, and one module per command, which is imported when the command runs.

A command is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``, and a line in `GROUPS`; its examples
and the flags of its short help are in `_examples`.
Exit codes: 0, 1 for a failure (one line on stderr), 2 for wrong usage, 130 for Ctrl-C. With ``CYLLAMA_TRACEBACK=1`` in
the environment a failure shows its traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

TYPE_CHECKING = False  # importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from cyllama.cli._parser import CommandParser

__all__ = ["COMMANDS", "GROUPS", "command_parser", "main"]

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "text (llama.cpp)": {
        "chat": ("cyllama.cli.chat", "chat with a language model"),
        "complete": ("cyllama.cli.complete", "complete a text with a language model"),
        "describe": ("cyllama.cli.describe", "describe images and audio with a multimodal model"),
        "embed": ("cyllama.cli.embed", "compute embeddings of texts"),
        "rerank": ("cyllama.cli.rerank", "rank texts by relevance to a query"),
        "tokenize": ("cyllama.cli.tokenize", "show the tokens of a text"),
        "quantize": ("cyllama.cli.quantize", "quantize a language model"),
        "bench": ("cyllama.cli.bench", "measure the speed of a language model"),
        "perplexity": ("cyllama.cli.perplexity", "compute the perplexity of a language model on a text"),
        "gguf": ("cyllama.cli.gguf", "show, edit, split and merge GGUF files"),
    },
    "speech (whisper.cpp)": {
        "transcribe": ("cyllama.cli.transcribe", "transcribe audio files to text, subtitles or JSON"),
        "whisper": ("cyllama.cli.whisper", "quantize speech models, list languages"),
    },
    "images (stable-diffusion.cpp)": {
        "txt2img": ("cyllama.cli.txt2img", "generate images from a prompt"),
        "img2img": ("cyllama.cli.txt2img", "generate images from an image and a prompt"),
        "inpaint": ("cyllama.cli.txt2img", "generate a masked part of an image"),
        "edit": ("cyllama.cli.txt2img", "edit images as a prompt says, with an edit model"),
        "txt2vid": ("cyllama.cli.txt2img", "generate a video from a prompt"),
        "img2vid": ("cyllama.cli.txt2img", "generate a video from its first frame and a prompt"),
        "upscale": ("cyllama.cli.txt2img", "upscale an image"),
        "canny": ("cyllama.cli.txt2img", "detect the edges of an image"),
        "convert": ("cyllama.cli.convert", "convert a diffusion model"),
        "sd": ("cyllama.cli.sd", "show information about an image or a diffusion model"),
    },
    "all engines": {
        "serve": ("cyllama.cli.serve", "run an OpenAI-compatible server for all engines"),
        "rpc-server": ("cyllama.cli.rpc_server", "let other machines compute on the devices of this one"),
        "wyoming": ("cyllama.cli.wyoming", "recognize speech for Home Assistant"),
        "batch": ("cyllama.cli.batch", "run a file of requests in OpenAI's batch format"),
        "demo": ("cyllama.cli.demo", "run all engines once, with small models"),
    },
    "installation": {
        "doctor": ("cyllama.cli.doctor", "check the installation"),
        "pull": ("cyllama.cli.pull", "download models, by name or from the Hugging Face hub"),
        "models": ("cyllama.cli.models", "list, fetch and remove models"),
        "info": ("cyllama.cli.info", "show versions, backends and devices"),
        "completion": ("cyllama.cli.completion", "print a completion script for bash, zsh or fish"),
    },
}
"""Title of a group: its commands, each with (module, one-line help)."""

COMMANDS: dict[str, tuple[str, str]] = {name: entry for group in GROUPS.values() for name, entry in group.items()}
"""Command: (module, one-line help)."""

MAX_REASONS = 2  # of an engine, in an error
DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
FIRST = ("chat", "describe", "transcribe", "txt2img", "serve", "pull", "models", "doctor", "demo")
"""Commands of the short overview."""
# Commands of other programs.
ELSEWHERE = {"run": "chat", "generate": "complete", "list": "models list", "ls": "models list", "rm": "models remove",
             "download": "pull", "get": "pull", "server": "serve", "embedding": "embed"}  # fmt: skip
WITHOUT_SETTINGS = ("doctor", "info", "completion")
"""Commands that run although the configuration file is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Command-line arguments; by default ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("cyllama: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except SystemExit as stop:  # argparse
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def command_parser(name: str, parser: CommandParser | None = None) -> CommandParser:
    """Return the parser of a command.

    Parameters
    ----------
    name : str
        A key of `COMMANDS`.
    parser : CommandParser, optional
        Parser to add the arguments to; by default a new one.
    """
    from cyllama.cli._examples import COMMON, EXAMPLES
    from cyllama.cli._parser import CommandParser

    module, about = COMMANDS[name]
    if parser is None:
        parser = CommandParser(prog=f"cyllama {name}", description=about)
    parser.examples = EXAMPLES.get(name, ())
    parser.common = frozenset(COMMON.get(name, ()))
    importlib.import_module(module).add_arguments(parser)
    return parser


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), end="", file=sys.stderr)
        return WRONG_USAGE
    name, *rest = arguments
    if name == "help":
        name, rest = (rest[0], ["--help", *rest[1:]]) if rest else ("--help", [])
    if name in ("-h", "--help", "--help-all"):
        print(_overview(everything=name == "--help-all"), end="")
        return DONE
    if name in ("--version", "-V"):
        import cyllama

        print(f"cyllama {cyllama.__version__}")
        return DONE
    if name not in COMMANDS:
        from cyllama.cli._parser import nearest, wrong_usage

        what = "option" if name.startswith("-") else "command"
        known = ("--help", "--help-all", "--version") if name.startswith("-") else COMMANDS
        near = ELSEWHERE.get(name) or nearest(name, known)
        wrong_usage("cyllama", f"unknown {what} {name!r}" + (f"; did you mean {near}?" if near else ""))
        return WRONG_USAGE
    return _report_errors(lambda: _run(name, rest))


def _run(name: str, arguments: list[str]) -> int:
    import warnings

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        parser = command_parser(name)
        given = _parse(name, parser, arguments)
        run: Callable[[argparse.Namespace], int] = importlib.import_module(COMMANDS[name][0]).run
        return run(given)


def _parse(name: str, parser: CommandParser, arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments of a command; defaults are those of the environment and of the configuration file."""
    from cyllama.cli._settings import Settings, config_file, read_file

    settings = None
    if name not in WITHOUT_SETTINGS and not {"-h", "--help", "--help-all"} & set(arguments):
        path = config_file()
        settings = Settings(name, parser, read_file(path, COMMANDS).get(name, {}), os.environ, path)
    # argparse supports options between positional arguments only without subcommands
    parse = parser.parse_args if parser.subcommands else parser.parse_intermixed_args
    given = parse(arguments)
    if settings is not None:
        settings.fill(given)
    return given


def _report_errors(call: Callable[[], int]) -> int:
    """Call a function, and print errors that a user can correct as one line."""
    from cyllama.cli import _style
    from cyllama.errors import CyllamaError, EngineError

    try:
        return call()
    except BrokenPipeError:
        raise
    # engines raise TypeError for unknown options
    except (CyllamaError, OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        if os.environ.get("CYLLAMA_TRACEBACK", "0") != "0":
            raise
        text = _message(error)
        if isinstance(error, EngineError) and error.log:
            reasons = dict.fromkeys(line.splitlines()[0] for line in error.log if line and line not in text)
            text += f" ({'; '.join(list(reasons)[:MAX_REASONS])})" if reasons else ""
        print(f"{_style.bad('cyllama:', sys.stderr)} {text}", file=sys.stderr)
        return FAILED


def _message(error: Exception) -> str:
    """Return the first line of an error's message."""
    from cyllama.cli._os_errors import explain

    text = explain(error) if isinstance(error, OSError) else str(error)
    return (text.strip() or type(error).__name__).splitlines()[0]


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    from cyllama.cli import _style

    print(f"cyllama: {_style.warn('warning:', sys.stderr)} {message}", file=sys.stderr)


def _overview(*, everything: bool = False) -> str:
    """Return the help of the program: examples and the first commands, or all commands by engine."""
    import textwrap

    from cyllama.cli import _style
    from cyllama.cli._examples import OVERVIEW

    width = max(map(len, COMMANDS))
    lines = ["usage: cyllama COMMAND [options]", "", "Text, vision, speech and images with local models.", ""]
    if everything:
        for title, group in GROUPS.items():
            lines += [f"{title}:", *(f"  {name:{width}}  {about}" for name, (_, about) in group.items()), ""]
    else:
        others = ", ".join(name for name in COMMANDS if name not in FIRST)
        lines += ["examples:", *(f"  {line}" for line in OVERVIEW), "", "commands:"]
        lines += [f"  {name:{width}}  {COMMANDS[name][1]}" for name in FIRST]
        lines += [*textwrap.wrap(f"others: {others}", 100, initial_indent="  ", subsequent_indent="  "), ""]
    lines += ["options:", "  --help-all    describe all commands", "  --version     print the version and exit", "",
              "See cyllama COMMAND --help. Exit codes: 0 success, 1 failure (one line on stderr), 2 wrong usage,",
              "130 interrupted by Ctrl-C."]  # fmt: skip
    return _style.headings("\n".join(lines) + "\n", sys.stdout)
