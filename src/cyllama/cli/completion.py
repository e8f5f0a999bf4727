"""``cyllama completion``: print a shell script that completes commands, options and file names."""

from __future__ import annotations

import argparse
from typing import Any

from cyllama.cli._parser import CommandParser
from cyllama.errors import UnsupportedError

__all__ = ["add_arguments", "run", "whole_parser"]

SHELLS = ("bash", "zsh", "fish")
EPILOG = """installation:
  bash  cyllama completion bash > ~/.local/share/bash-completion/completions/cyllama
  zsh   cyllama completion zsh > FOLDER-OF-$fpath/_cyllama
  fish  cyllama completion fish > ~/.config/fish/completions/cyllama.fish"""
OF_LLAMA = "options of llama.cpp"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=SHELLS)
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise UnsupportedError("completion needs shtab: pip install shtab") from error
    print(shtab.complete(whole_parser(arguments.shell), arguments.shell))
    return 0


def whole_parser(shell: str) -> CommandParser:
    """Return one parser for all commands, whose arguments complete file names."""
    import shtab

    from cyllama.cli import COMMANDS, command_parser

    whole = CommandParser(prog="cyllama", description="Text, vision, speech and images with local models.")
    whole.add_argument("--version", action="store_true", help="print the version and exit")
    commands = whole.add_subparsers(dest="cyllama_command", metavar="COMMAND")
    for name, (_, about) in COMMANDS.items():
        parser = commands.add_parser(name, help=about, description=about)
        command_parser(name, parser)
        for each in (parser, *parser.subcommands.values()):
            _mark_files(each, shtab.FILE)
            if shell == "fish":
                _escape_help(each)
    return whole


def _mark_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Complete file names for every argument that takes a text; most of them are files."""
    for action in parser._actions:
        if action.nargs != 0 and action.choices is None and action.type not in (int, float):
            action.complete = files  # type: ignore[attr-defined]


def _escape_help(parser: argparse.ArgumentParser) -> None:
    """Double the backslashes in the help, because fish interprets them in single quotes."""
    for action in parser._actions:
        if action.help:
            action.help = action.help.replace("\\", "\\\\")
