"""A section of the report's pages."""

from __future__ import annotations

from dataclasses import dataclass

Table = tuple[list[str], list[list[str]]]  # columns, rows


@dataclass(frozen=True)
class Section:
    """A table under a title, and a note that says what its numbers are; either may be empty. Notes mark code with backticks."""

    title: str
    table: Table | None
    note: str
    is_long: bool = False  # hundreds of rows: folded on the HTML page, and on no other page
