"""Defaults of flags from the environment and from the configuration file.

A flag of the command line wins over the variable ``CYLLAMA_COMMAND_FLAG``, and that over the table ``[command]`` of the
configuration file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cyllama._paths import expanded, user_folder
from cyllama.cli._parser import CommandParser, nearest

__all__ = ["FILE_VARIABLE", "Settings", "config_file", "read_file"]

FILE_VARIABLE = "CYLLAMA_CONFIG"
PREFIX = "CYLLAMA_"
SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
SWITCH_ACTIONS = (argparse._StoreTrueAction, argparse._StoreFalseAction)


def config_file() -> Path:
    """Return the configuration file, which may not exist: that of ``CYLLAMA_CONFIG``, or the user's."""
    chosen = os.environ.get(FILE_VARIABLE)
    if chosen:
        return expanded(chosen)
    return user_folder("config") / "config.toml"


def read_file(path: Path, commands: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Return the tables of a configuration file; empty if there is no file.

    Raises
    ------
    ValueError
        The file is not TOML, or has something else than tables of commands.
    OSError
        The file cannot be read, or ``CYLLAMA_CONFIG`` names a file that does not exist.
    """
    import tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if os.environ.get(FILE_VARIABLE):
            raise FileNotFoundError(f"{FILE_VARIABLE} is {str(path)!r}: no such file") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path} has {name!r} outside of a table, expected it below [COMMAND]")
        if name not in commands:
            near = nearest(name, commands)
            hint = f"did you mean [{near}]?" if near else "expected [COMMAND]"
            raise ValueError(f"{path} has {name!r}, which is not a command; {hint}")
    return tables


class Settings:
    """The defaults of a command's flags.

    Parameters
    ----------
    command : str
    parser : CommandParser
        Its required flags that have a default are not required afterwards.
    table : mapping
        The table of the command in the configuration file.
    environ : mapping
        The environment.

    Raises
    ------
    ValueError
        A name is not a flag, or a value is invalid.
    """

    def __init__(
        self, command: str, parser: CommandParser, table: Mapping[str, Any], environ: Mapping[str, str], path: Path
    ) -> None:
        self._values: dict[str, Any] = {}
        self._parser = parser
        flags = {flag: action for action in parser._actions for flag in _names(action)}
        prefix = f"{PREFIX}{command.upper()}_"
        variables = {name: text for name, text in environ.items() if name.startswith(prefix)}
        named = {name.removeprefix(prefix).lower().replace("_", "-"): name for name in variables}
        for name, value in table.items():
            self._add(flags, name.replace("_", "-"), value, f"{path}: [{command}] {name}")
        for name, variable in named.items():
            self._add(flags, name, variables[variable], variable)

    def _add(self, flags: Mapping[str, argparse.Action], name: str, value: Any, where: str) -> None:
        action = flags.get(name)
        if action is None:
            near = nearest(name, flags)
            hint = f"did you mean {near}?" if near else f"see {self._parser.prog} --help-all"
            raise ValueError(f"{where} is not an option; {hint}")
        for group in self._parser._mutually_exclusive_groups:
            if action in group._group_actions:
                group.required = False
        self._values[action.dest] = self._converted(action, value, where)
        action.required = False
        action.default = None

    def _converted(self, action: argparse.Action, value: Any, where: str) -> Any:
        """Return a value as the flag on the command line has it."""
        if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
            switch = value if isinstance(value, bool) else SWITCHES.get(str(value).casefold())
            if switch is None:
                raise ValueError(f"{where} is {value!r}, expected true or false")
            return switch
        words = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        try:
            items = [self._parser._get_values(action, [word]) for word in words]
            if isinstance(action, argparse._AppendAction):
                return items
            return self._parser._get_values(action, words)
        except (argparse.ArgumentError, ValueError, TypeError) as error:
            text = error.message if isinstance(error, argparse.ArgumentError) else str(error)
            raise ValueError(f"{where} is {value!r}: {text}") from None

    def fill(self, given: argparse.Namespace) -> None:
        """Set the flags that the command line does not have."""
        for name, value in self._values.items():
            others = (getattr(given, other, None) for other in self._alternatives(name) - {name})
            if getattr(given, name, None) is None and not any(others):
                setattr(given, name, value)

    def _alternatives(self, name: str) -> set[str]:
        """Return a flag and those that exclude it, such as ``-hf`` of ``-m``."""
        found = {name}
        for group in self._parser._mutually_exclusive_groups:
            members = {action.dest for action in group._group_actions}
            found |= members if name in members else set()
        return found


def _names(action: argparse.Action) -> Iterator[str]:
    """Return the names of a flag in a configuration: its long names without dashes."""
    if action.nargs != 0 or isinstance(action, SWITCH_ACTIONS):  # not --help, and not the switches of other programs
        yield from (flag.removeprefix("--") for flag in action.option_strings if flag.startswith("--"))
