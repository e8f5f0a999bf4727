"""The program ``cyllama``: one dispatcher, one module per command, imported only when it is asked for.

A command is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``, and a line in `COMMANDS`.
Exit codes: 0, 1 for a failure (one line on stderr), 2 for wrong usage, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "info": ("cyllama.cli.info", "what this build contains: versions, backends, devices"),
    "models": ("cyllama.cli.models", "list, fetch and remove models"),
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
    "transcribe": ("cyllama.cli.transcribe", "speech in sound files to text, subtitles or JSON"),
    "whisper": ("cyllama.cli.whisper", "speech recognition models: quantize, languages"),
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
}
"""Command: (module, help in one line)."""


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
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as stop:  # argparse
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        options = _overview().parse_args(arguments)
        if options.version:
            import cyllama

            print(f"cyllama {cyllama.__version__}")
            return 0
        _overview().print_help(sys.stderr)
        return 2
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(COMMANDS)}"
        print(f"cyllama: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    module_name, about = COMMANDS[name]
    return _guarded(lambda: _run(module_name, name, about, arguments[1:]))


def _run(module_name: str, name: str, about: str, arguments: list[str]) -> int:
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"cyllama {name}", description=about)
    module.add_arguments(parser)
    run: Callable[[argparse.Namespace], int] = module.run
    return run(parser.parse_args(arguments))


def _guarded(call: Callable[[], int]) -> int:
    """Turn the failures that a user can do something about into one line."""
    from cyllama.errors import CyllamaError

    try:
        return call()
    except BrokenPipeError:
        raise
    except (CyllamaError, OSError, ValueError, ImportError, MemoryError) as error:
        text = str(error).strip() or type(error).__name__
        print(f"cyllama: {text.splitlines()[0]}", file=sys.stderr)
        return 1


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="cyllama",
        usage="cyllama [-h] [--version] COMMAND ...",
        description="Text, vision, speech and pictures with local models.",
        epilog=f"commands:\n{commands}\n\ncyllama COMMAND --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser
