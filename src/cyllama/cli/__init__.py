"""The program ``cyllama``: one dispatcher, one module per command, imported only when it is asked for.

A command is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``, and a line in `GROUPS`.
Exit codes: 0, 1 for a failure (one line on stderr), 2 for wrong usage, 130 for Ctrl-C. With ``CYLLAMA_TRACEBACK=1`` in
the environment a failure shows where it happened as well.
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

__all__ = ["COMMANDS", "GROUPS", "command_parser", "main"]

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "text (llama.cpp)": {
        "chat": ("cyllama.cli.chat", "talk with a language model"),
        "complete": ("cyllama.cli.complete", "let a language model continue a text"),
        "describe": ("cyllama.cli.describe", "ask a language model about pictures and sound"),
        "embed": ("cyllama.cli.embed", "make vectors of texts"),
        "rerank": ("cyllama.cli.rerank", "order texts by how well they answer a query"),
        "tokenize": ("cyllama.cli.tokenize", "show the tokens of a text"),
        "quantize": ("cyllama.cli.quantize", "write a language model with smaller weights"),
        "bench": ("cyllama.cli.bench", "measure the speed of a language model"),
        "perplexity": ("cyllama.cli.perplexity", "measure how well a language model predicts a text"),
        "gguf": ("cyllama.cli.gguf", "show, change, split and merge GGUF files"),
    },
    "speech (whisper.cpp)": {
        "transcribe": ("cyllama.cli.transcribe", "speech in sound files to text, subtitles or JSON"),
        "whisper": ("cyllama.cli.whisper", "speech recognition models: quantize, languages"),
    },
    "pictures (stable-diffusion.cpp)": {
        "txt2img": ("cyllama.cli.txt2img", "make pictures from a text"),
        "img2img": ("cyllama.cli.img2img", "make pictures from a picture and a text"),
        "inpaint": ("cyllama.cli.inpaint", "paint a part of a picture anew"),
        "edit": ("cyllama.cli.edit", "change pictures as a text says, with an edit model"),
        "txt2vid": ("cyllama.cli.txt2vid", "make a video from a text"),
        "img2vid": ("cyllama.cli.img2vid", "make a video from its first frame and a text"),
        "upscale": ("cyllama.cli.upscale", "enlarge a picture"),
        "canny": ("cyllama.cli.canny", "find the edges of a picture"),
        "convert": ("cyllama.cli.convert", "write a diffusion model as another file"),
        "sd": ("cyllama.cli.sd", "what a picture or a diffusion model is"),
    },
    "all engines": {
        "serve": ("cyllama.cli.serve", "all engines behind one OpenAI-compatible server"),
        "demo": ("cyllama.cli.demo", "let all engines work once, on small models"),
    },
    "this installation": {
        "doctor": ("cyllama.cli.doctor", "whether all works, what is missing, and how to get it"),
        "models": ("cyllama.cli.models", "list, fetch and remove models"),
        "info": ("cyllama.cli.info", "what this build contains: versions, backends, devices"),
        "completion": ("cyllama.cli.completion", "print a script that completes commands: bash, zsh, fish"),
    },
}
"""Title of an engine: its commands, each with (module, help in one line)."""

COMMANDS: dict[str, tuple[str, str]] = {name: entry for group in GROUPS.values() for name, entry in group.items()}
"""Command: (module, help in one line)."""

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

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
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except SystemExit as stop:  # argparse
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def command_parser(name: str, parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Make the parser of a command, or complete one.

    Parameters
    ----------
    name : str
        Of `COMMANDS`.
    parser : argparse.ArgumentParser, optional
        Where the arguments are added.
    """
    module, about = COMMANDS[name]
    if parser is None:
        parser = argparse.ArgumentParser(prog=f"cyllama {name}", description=about)
    importlib.import_module(module).add_arguments(parser)
    return parser


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        options = _overview().parse_args(arguments)
        if options.version:
            import cyllama

            print(f"cyllama {cyllama.__version__}")
            return DONE
        _overview().print_help(sys.stderr)
        return WRONG_USAGE
    name, *rest = arguments
    if name == "help":
        name, rest = (rest[0], ["--help"]) if rest else ("--help", [])
        if name == "--help":
            return _dispatch([name])
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(COMMANDS)}"
        print(f"cyllama: there is no command {name!r}; {hint}", file=sys.stderr)
        return WRONG_USAGE
    return _guarded(lambda: _run(name, rest))


def _run(name: str, arguments: list[str]) -> int:
    import warnings

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        parser = command_parser(name)
        parts = any(action.nargs == argparse.PARSER for action in parser._actions)
        # options may stand between the other arguments, which argparse can do where there are no sub-commands
        given = parser.parse_args(arguments) if parts else parser.parse_intermixed_args(arguments)
        run: Callable[[argparse.Namespace], int] = importlib.import_module(COMMANDS[name][0]).run
        return run(given)


def _guarded(call: Callable[[], int]) -> int:
    """Turn the failures that a user can do something about into one line."""
    from cyllama.errors import CyllamaError

    try:
        return call()
    except BrokenPipeError:
        raise
    # a wrong option of an engine is a TypeError
    except (CyllamaError, OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        if os.environ.get("CYLLAMA_TRACEBACK", "0") != "0":
            raise
        text = str(error).strip() or type(error).__name__
        print(f"cyllama: {text.splitlines()[0]}", file=sys.stderr)
        return FAILED


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"cyllama: warning: {message}", file=sys.stderr)


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    groups = (
        "\n".join([f"{title}:", *(f"  {name:{width}}  {about}" for name, (_, about) in group.items())])
        for title, group in GROUPS.items()
    )
    commands = "\n\n".join(groups)
    parser = argparse.ArgumentParser(
        prog="cyllama",
        usage="cyllama [-h] [--version] COMMAND ...",
        description="Text, vision, speech and pictures with local models.",
        epilog=f"{commands}\n\ncyllama COMMAND --help says more. Exit codes: 0 done, 1 failed (one line on stderr says "
        "why),\n2 wrong usage, 130 stopped by Ctrl-C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser
