"""Grammars that the engine would follow for ever or beyond their end, refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cyllama.errors import GrammarError

__all__ = ["Rule", "check_rules"]

Rule = Sequence[Sequence[int | None]]
"""Alternatives, each of a rule's number or None (characters) for each part."""


def check_rules(rules: Sequence[Rule], names: Mapping[int, str]) -> None:
    """Check the rules of a grammar.

    Parameters
    ----------
    rules : sequence of Rule
    names : mapping of int to str
        What rules are called; the parser has more rules, for groups and repetitions.

    Raises
    ------
    GrammarError
        A rule is named but not given, or can begin with itself.
    """
    for number, name in names.items():
        if number >= len(rules) or not rules[number]:
            raise GrammarError(f"the grammar names the rule {name!r}, but does not give it")
    empty = _may_be_empty(rules)
    begins = [_begin(rule, empty) for rule in rules]
    for number in range(len(rules)):
        if _reaches(number, begins):
            name = names.get(number, "a group or repetition")
            raise GrammarError(f"the rule {name!r} of the grammar can begin with itself (left recursion)")


def _may_be_empty(rules: Sequence[Rule]) -> set[int]:
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


def _begin(rule: Rule, empty: set[int]) -> set[int]:
    """Rules that it may begin with."""
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
