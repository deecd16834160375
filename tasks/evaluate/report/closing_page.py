"""What a terminal shows at the end: the verdict, four numbers, and where the rest is. It fits one screen of 24 rows and 80 columns."""

from __future__ import annotations

import textwrap

from data_schemas.report import Report
from tasks.evaluate.report.verdict import four_numbers, verdict

COLUMNS = 80
_VERDICT_ROWS = 13
_INDENT = " " * 13


def closing_page(report: Report, where: str, num_rows_after: int = 0) -> str:
    """`where` says in a few words where `report.html` is. `num_rows_after`: rows that the caller prints below it."""
    space = _VERDICT_ROWS - num_rows_after
    lines = next(rows for most in (3, 2, 1) if len(rows := _verdict_rows(report, most)) <= space or most == 1)
    names = [number.name for number in four_numbers(report)]
    width = max(map(len, names))
    lines.append("")
    lines += [f"{number.name:<{width}}  {number.value}" for number in four_numbers(report)]
    lines += ["", where]
    return "\n".join(lines)


def _verdict_rows(report: Report, most: int) -> list[str]:
    """At most `most` rows a line of the verdict; the page has those that are cut here in full."""
    rows = []
    for line in verdict(report):
        text = f"{line.answer.capitalize():<12} {line.question} {line.sentence}"
        rows += textwrap.wrap(
            text, COLUMNS, subsequent_indent=_INDENT, break_on_hyphens=False, max_lines=most, placeholder=" …"
        )
    return rows
