"""The program ``cyllama``: a dispatcher, and one module per command, which is imported when the command runs.

A command is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``, and a line in `GROUPS`.
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
        "batch": ("cyllama.cli.batch", "run a file of requests in OpenAI's batch format"),
        "demo": ("cyllama.cli.demo", "run all engines once, with small models"),
    },
    "installation": {
        "doctor": ("cyllama.cli.doctor", "check the installation"),
        "models": ("cyllama.cli.models", "list, fetch and remove models"),
        "info": ("cyllama.cli.info", "show versions, backends and devices"),
        "completion": ("cyllama.cli.completion", "print a completion script for bash, zsh or fish"),
    },
}
"""Title of a group: its commands, each with (module, one-line help)."""

COMMANDS: dict[str, tuple[str, str]] = {name: entry for group in GROUPS.values() for name, entry in group.items()}
"""Command: (module, one-line help)."""

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


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


def command_parser(name: str, parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Return the parser of a command.

    Parameters
    ----------
    name : str
        A key of `COMMANDS`.
    parser : argparse.ArgumentParser, optional
        Parser to add the arguments to; by default a new one.
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
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        print(f"cyllama: unknown command {name!r}; {hint}", file=sys.stderr)
        return WRONG_USAGE
    return _report_errors(lambda: _run(name, rest))


def _run(name: str, arguments: list[str]) -> int:
    import warnings

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        parser = command_parser(name)
        subcommands = any(action.nargs == argparse.PARSER for action in parser._actions)
        # argparse supports options between positional arguments only without subcommands
        given = parser.parse_args(arguments) if subcommands else parser.parse_intermixed_args(arguments)
        run: Callable[[argparse.Namespace], int] = importlib.import_module(COMMANDS[name][0]).run
        return run(given)


def _report_errors(call: Callable[[], int]) -> int:
    """Call a function, and print errors that a user can correct as one line."""
    from cyllama.errors import CyllamaError, EngineError

    try:
        return call()
    except BrokenPipeError:
        raise
    # engines raise TypeError for unknown options
    except (CyllamaError, OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        if os.environ.get("CYLLAMA_TRACEBACK", "0") != "0":
            raise
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, EngineError) and error.log:
            reasons = dict.fromkeys(line.splitlines()[0] for line in error.log if line)
            text += f" ({'; '.join(reasons)})"
        print(f"cyllama: {text}", file=sys.stderr)
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
        description="Text, vision, speech and images with local models.",
        epilog=f"{commands}\n\nSee cyllama COMMAND --help. Exit codes: 0 success, 1 failure (one line on stderr), "
        "\n2 wrong usage, 130 interrupted by Ctrl-C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser
