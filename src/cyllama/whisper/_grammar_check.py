"""Reject grammars with which the engine would loop forever or read out of bounds."""

from __future__ import annotations

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
    for number in range(len(rules)):
        if _reaches(number, begins):
            name = names.get(number, "a group or repetition")
            raise GrammarError(f"the rule {name!r} of the grammar is left-recursive")


def _find_nullable(rules: Sequence[Rule]) -> set[int]:
    """Return the rules that match the empty text."""
    empty: set[int] = set()
    while True:
        found = {
            number
            for number, rule in enumerate(rules)
            if any(all(part in empty for part in alternative) for alternative in rule)
        }
        if found == empty:
            return empty
        empty = found


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


def _reaches(start: int, begins: Sequence[set[int]]) -> bool:
    """Return whether a rule can begin with itself, directly or through others."""
    seen: set[int] = set()
    waiting = list(begins[start])
    while waiting:
        number = waiting.pop()
        if number == start:
            return True
        if number not in seen:
            seen.add(number)
            waiting += begins[number]
    return False
