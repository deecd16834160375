"""`report.html`: one file that holds everything, so that it opens anywhere, without a network.

Names of models, tasks and documents come from others. The template escapes everything but the plots, the style and the script,
and the page's own content policy lets no other script run and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from data_schemas.report import Report
from tasks.evaluate.plots.figure import Plot
from tasks.evaluate.report.about import about
from tasks.evaluate.report.section import Section
from tasks.evaluate.report.sections import report_sections
from tasks.evaluate.report.verdict import four_numbers, verdict

if TYPE_CHECKING:
    from markupsafe import Markup

_NUMBER = re.compile(r"(?:≥ |<)?([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?=$|[\s%,])")
_LINE = 32  # characters
_NOTHING_HELD = "-1"  # below every length


@dataclass(frozen=True)
class Cell:
    """A cell's text, and the number that it is sorted by."""

    text: str
    key: str | None

    @property
    def is_short(self) -> bool:
        """Whether an estimate stays on one line with its interval."""
        return self.key is not None and len(self.text) <= _LINE


@dataclass(frozen=True)
class Drawn:
    """A figure on the page."""

    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Shown:
    """A section on the page."""

    title: str
    note: Markup
    columns: list[str]
    rows: list[list[Cell]]
    is_long: bool


def html_page(report: Report, plots: Iterable[Plot]) -> str:
    """The page. `plots` without intervals are left out, since the tables have their figures with intervals."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    page = files("tasks.evaluate.report") / "page"
    style, script = ((page / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("tasks.evaluate.report", "page"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=_title(report),
        about=about(report),
        verdict=verdict(report),
        numbers=four_numbers(report),
        plots=[Drawn(plot.title, plot.caption, Markup(plot.svg())) for plot in plots if plot.is_for_page],
        sections=[_shown(section) for section in report_sections(report, with_long=True)],
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _title(report: Report) -> str:
    settings = report.settings
    name = settings.measured_with.base if settings.measured_with else "Evaluation"
    return f"{name}: from {settings.base_window} to {settings.target_length} tokens"


def _shown(section: Section) -> Shown:
    columns, rows = section.table or ([], [])
    cells = [[Cell(text, sort_key(text)) for text in row] for row in rows]
    return Shown(section.title, marked(section.note), columns, cells, section.is_long)


def sort_key(text: str) -> str | None:
    """The number that a cell begins with, None for words and for nothing; a dash, where no length holds, is below all lengths."""
    if text.startswith("–"):
        return _NOTHING_HELD
    found = _NUMBER.match(text)
    return found[1].lstrip("+") if found else None


def marked(note: str) -> Markup:
    """A note as HTML: text in backticks becomes code. Everything is escaped first."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(note))))
