"""Reject grammars with which the engine would loop forever or read out of bounds."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence

from cyllama.errors import GrammarError

__all__ = ["Rule", "check_rules"]

Rule = Sequence[Sequence[int | None]]
"""Alternatives of a rule; each element is the index of a rule, or None for characters."""


def check_rules(rules: Sequence[Rule], names: Mapping[int, str]) -> None:
    """Check the rules of a grammar.

    Parameters
    ----------
    rules : sequence of Rule
    names : mapping of int to str
        Names of the rules by index. The parser adds rules without names for groups and repetitions.

    Raises
    ------
    GrammarError
        A rule is used but not defined, or is left-recursive.
    """
    for number, name in names.items():
        if number >= len(rules) or not rules[number]:
            raise GrammarError(f"the grammar uses the rule {name!r}, but does not define it")
    empty = _find_nullable(rules)
    begins = [_first_rules(rule, empty) for rule in rules]
    try:
        graphlib.TopologicalSorter(dict(enumerate(begins))).prepare()
    except graphlib.CycleError as error:
        cycle: list[int] = error.args[1]
        name = names.get(min(cycle, key=lambda number: (number not in names, number)), "a group or repetition")
        raise GrammarError(f"the rule {name!r} of the grammar is left-recursive") from None


def _find_nullable(rules: Sequence[Rule]) -> set[int]:
    """Return the rules that match the empty text, in time linear in the size of the grammar."""
    missing: dict[tuple[int, int], int] = {}  # parts of an alternative that are not yet known to match it
    uses: dict[int, list[tuple[int, int]]] = {}
    empty: set[int] = set()
    waiting: list[int] = []

    def add(number: int) -> None:
        if number not in empty:
            empty.add(number)
            waiting.append(number)

    for number, rule in enumerate(rules):
        for i, alternative in enumerate(rule):
            missing[number, i] = len(alternative)
            if not alternative:
                add(number)
            for part in alternative:
                if part is not None:
                    uses.setdefault(part, []).append((number, i))
    while waiting:
        for key in uses.get(waiting.pop(), ()):
            missing[key] -= 1
            if not missing[key]:
                add(key[0])
    return empty


def _first_rules(rule: Rule, empty: set[int]) -> set[int]:
    """Return the rules with which a rule can begin."""
    found: set[int] = set()
    for alternative in rule:
        for part in alternative:
            if part is None:
                break
            found.add(part)
            if part not in empty:
                break
    return found
