"""docs/benchmarks.md: the summary has the figures of the sections, and a new report keeps it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import report

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text()
SECTIONS = report.sections_of(PAGE)
ROWS = re.findall(r"^\| .+? \| (\S+) \| ([^|]+) \| \[\w+\]\(#(.+?)\) \|$", "\n".join(SECTIONS["Summary"]), re.MULTILINE)


def slug(title: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w]+", "-", title.casefold()).strip("-")


@pytest.mark.parametrize(("other", "figure", "anchor"), ROWS)
def test_summary_has_the_figures_of_its_section(other: str, figure: str, anchor: str) -> None:
    (text,) = ["\n".join(lines) for title, lines in SECTIONS.items() if slug(title) == anchor]
    quotient, _, result = figure.partition(" = ")
    numbers = [number for number in quotient.split(" / ") if number != "1"]
    assert other in text and all(re.search(rf"\| {number} \(", text) for number in numbers)
    if result:
        first, second = (float(number) for number in quotient.split(" / "))
        assert f"{first / second:.2f}" == result


def test_there_are_figures_for_each_engine() -> None:
    assert {anchor.partition("-")[0] for _, _, anchor in ROWS} >= {"chat", "speech", "images"}


def test_report_keeps_the_summary() -> None:
    assert PAGE.startswith("\n".join(report.head(SECTIONS)))
    assert "Summary" not in "\n".join(report.head({}))
