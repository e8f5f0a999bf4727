"""The argument parser of all commands: a short help, errors of two lines, the nearest name for a misspelt flag."""

from __future__ import annotations

import argparse
import re
import sys

from cyllama.cli import _style

TYPE_CHECKING = False  # importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn, TextIO

__all__ = ["CommandParser", "nearest", "wrong_usage"]

NUMBER = re.compile(r"-\.?\d")
MANY = 30  # a command with more options has a short help


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to a misspelt one; None if there is none."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def wrong_usage(program: str, message: str) -> None:
    """Print the two lines of wrong usage: what is wrong, and where the help is."""
    head = _style.bad(f"{program}:", sys.stderr)
    print(f"{head} {message}\nsee {program} --help", file=sys.stderr)


class _HelpAll(argparse.Action):
    """The flag ``--help-all``: print the help with all options."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        assert isinstance(parser, CommandParser)
        parser.shows_all = True
        parser.print_help()
        parser.exit()


class CommandParser(argparse.ArgumentParser):
    """A parser whose ``--help`` fits on a screen.

    Attributes
    ----------
    examples : tuple of str
        Command lines for the help.
    common : frozenset of str
        Flags of the short help; if empty, it has all of them.
    refused : dict
        Flags of other programs that are not supported, and the reason.
    shows_all : bool
        Whether the help has all options.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)  # with hundreds of options, an abbreviation is mostly a typo
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)
        self.examples: tuple[str, ...] = ()
        self.common: frozenset[str] = frozenset()
        self.refused: dict[str, str] = {}
        self.shows_all = False
        self._is_checked = False
        self.add_argument("--help-all", nargs=0, action=_HelpAll, help="show all options and exit")

    # ------------------------------------------------------------------------------------------ help

    @property
    def subcommands(self) -> dict[str, CommandParser]:
        """The parsers of sub-commands by name."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def hidden(self) -> list[argparse.Action]:
        """Return the options that the short help leaves out."""
        if not self.common or len(self._actions) <= MANY:
            return []
        return [
            action for action in self._actions if action.option_strings and not self.common & set(action.option_strings)
        ]

    def format_usage(self) -> str:
        """Return a usage of one line."""
        needed = [action for action in self._actions if action.option_strings and action.required]
        places = [action for action in self._actions if not action.option_strings]
        flags = [f"{action.option_strings[0]} {self._values(action)}" for action in needed]
        words = [self.prog, *flags, "[options]", *(self._values(action) for action in places)]
        return f"usage: {' '.join(words)}\n"

    def _values(self, action: argparse.Action) -> str:
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if action.nargs in ("*", "+", "?"):
            return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}[str(action.nargs)]
        return f"{name} ..." if action.nargs == argparse.PARSER else name

    def format_help(self) -> str:
        """Return the help: the short one, unless `shows_all` is set."""
        left_out = [] if self.shows_all else self.hidden()
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        formatter.add_text(
            "\n".join(["examples:", *(f"  {line}" for line in self.examples)]) if self.examples else None
        )
        for group in self._action_groups:
            shown = [action for action in group._group_actions if action not in left_out]
            if shown:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(shown)
                formatter.end_section()
        formatter.add_text(self.epilog)
        if left_out:
            formatter.add_text(f"{len(left_out)} more options: {self.prog} --help-all")
        return f"{self.format_usage()}\n{formatter.format_help().strip()}\n"

    def print_help(self, file: Any = None) -> None:
        """Print the help, with bold headings on a terminal."""
        out: TextIO = sys.stdout if file is None else file
        out.write(_style.headings(self.format_help(), out))

    # ---------------------------------------------------------------------------------------- errors

    def error(self, message: str) -> NoReturn:
        """Print two lines, and exit with 2."""
        wrong_usage(self.prog, message)
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        near = nearest(str(value), choices)
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(choices)}"
        raise argparse.ArgumentError(action, f"invalid choice: {str(value)!r}; {hint}")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments as argparse does, after a check of the flags' names."""
        words = list(sys.argv[1:] if args is None else args)
        if not self._is_checked:
            self._check_flags(words)
        return super().parse_known_args(words, namespace)

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse options between positional arguments; argparse does that in two passes, the second without ``--``."""
        words = list(sys.argv[1:] if args is None else args)
        if "--" in words:
            return self.parse_args(words, namespace)
        self._check_flags(words)
        self._is_checked = True
        try:
            return super().parse_intermixed_args(words, namespace)
        finally:
            self._is_checked = False

    def _check_flags(self, words: Sequence[str]) -> None:
        """Reject unknown flags before anything else, so that a typo is not reported as a missing argument."""
        has_commands = bool(self.subcommands)
        for word in words:
            name = word.partition("=")[0]
            if word == "--" or (has_commands and not word.startswith("-")):
                return  # the rest belongs to the sub-command
            if len(word) > 1 and word.startswith("-") and not NUMBER.match(word) and " " not in name:
                problem = self._flag_problem(name)
                if problem is not None:
                    self.error(problem)

    def _flag_problem(self, name: str) -> str | None:
        known = self._option_string_actions
        if name in known:
            return None
        if name in self.refused:
            return f"{name} is not supported: {self.refused[name]}"
        if not name.startswith("--"):
            if f"-{name}" in known:
                return f"unknown option {name}; did you mean -{name}?"
            short = known.get(name[:2])
            if short is not None and (short.nargs != 0 or {f"-{letter}" for letter in name[1:]} <= known.keys()):
                return None  # a value that follows the letter, or several letters
        near = nearest(name, known)
        return f"unknown option {name}" + (f"; did you mean {near}?" if near else "")
