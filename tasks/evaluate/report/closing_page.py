"""What a terminal shows at the end: the verdict, four numbers, and where the rest is. It fits one screen of 24 rows and 80 columns."""

from __future__ import annotations

import textwrap

from data_schemas.report import Report
from tasks.evaluate.report.verdict import four_numbers, verdict

COLUMNS = 80
_INDENT = " " * 13


def closing_page(report: Report, where: str) -> str:
    """`where` says in a few words where `report.html` is."""
    lines = []
    for line in verdict(report):
        text = f"{line.answer.capitalize():<12} {line.question} {line.sentence}"
        lines += textwrap.wrap(text, COLUMNS, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)
    names = [number.name for number in four_numbers(report)]
    width = max(map(len, names))
    lines.append("")
    lines += [f"{number.name:<{width}}  {number.value}" for number in four_numbers(report)]
    lines += ["", where]
    return "\n".join(lines)
