"""Figures are read again from what was drawn: labels, marks, colours, identifiers."""

import re
from collections import Counter
from pathlib import Path

import pytest

from data_schemas.report import Report
from data_schemas.report_sections import SpacingRow
from tasks.evaluate.plots.all_plots import plots_of
from tasks.evaluate.plots.figure import COLOUR_VARIABLES, Plot, arm_style
from tasks.evaluate.plots.scales import tokens_label, tokens_name
from tests.tasks.evaluate.six_models import SIX, six_report


@pytest.fixture(scope="module")
def report() -> Report:
    return six_report()


@pytest.fixture(scope="module")
def plots(report: Report) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots_of(report)}


@pytest.fixture(scope="module")
def drawn(plots: dict[str, Plot]) -> dict[str, str]:
    return {name: plot.svg() for name, plot in plots.items()}


def words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_every_part_of_the_report_has_its_figure(plots: dict[str, Plot]) -> None:
    tasks = ["middle_passkey", "passkey", "middle_key_value", "key_value"]
    assert list(plots) == ["perplexity", "effective_length", "tasks", *tasks, "position"]
    assert [name for name, plot in plots.items() if not plot.is_for_page] == ["passkey", "key_value"], "heat maps: no intervals"


def test_six_models_differ_in_colour_marker_and_line() -> None:
    styles = [arm_style(arm, SIX) for arm in SIX]
    for what in ("color", "marker", "linestyle"):
        assert len({str(style[what]) for style in styles}) == len(SIX)


def test_axes_have_units_and_no_number_ends_in_point_zero(drawn: dict[str, str]) -> None:
    for name in ("perplexity", "effective_length", "tasks", "position"):
        assert any("(tokens, k = 1024)" in text for text in words(drawn[name])), name
    assert {"4096", "8192", "32k", "128k"} <= set(words(drawn["perplexity"]))
    assert "recall gain (nats)" in words(drawn["tasks"])
    for name in ("perplexity", "effective_length", "tasks", "middle_passkey", "position"):
        assert not [text for text in words(drawn[name]) if re.fullmatch(r"[\d.]+\.0+", text)], name


def test_a_block_of_panels_names_its_axis_once(drawn: dict[str, str]) -> None:
    assert words(drawn["tasks"]).count("context length (tokens, k = 1024)") == 2, "scores, gains"
    assert words(drawn["middle_passkey"]).count("depth") == 2


def test_lengths_are_written_in_tokens_or_in_k() -> None:
    assert [tokens_name(n) for n in (512, 8192, 10000, 131072)] == ["512", "8192", "10000", "128k"]
    assert tokens_label("context length", [256, 2048]) == "context length (tokens)"


def test_the_second_panel_of_perplexity_tells_extended_models_apart(plots: dict[str, Plot], report: Report) -> None:
    """The base beyond its window, thousands of times worse, does not squeeze the others."""
    left, right = plots["perplexity"].figure.axes
    low, high = right.get_ylim()
    assert high - low < 0.3
    assert left.get_ylim()[1] > 50
    lines = {line.get_label(): line for line in right.get_lines()}
    assert len(lines["base"].get_ydata()) == 2
    assert len(lines["fine-tuned"].get_ydata()) == 4
    intervals = [line for line in right.get_lines() if line.get_label() == "_nolegend_"]
    assert len(intervals) == len(SIX) - 1
    assert "below 1 is better" in plots["perplexity"].caption


def test_legends_are_outside_the_panels(plots: dict[str, Plot]) -> None:
    for name in ("perplexity", "effective_length", "tasks", "middle_passkey", "position"):
        figure = plots[name].figure
        assert len(figure.legends) == 1, name
        assert not any(axes.get_legend() for axes in figure.axes), name


def test_gain_has_a_scale_of_its_own(plots: dict[str, Plot]) -> None:
    for name in ("tasks", "middle_passkey"):
        limits = {axes.get_ylim() for axes in plots[name].figure.axes}
        assert len(limits) == 2, "one of scores, one of gains"
        assert (-0.03, 1.03) in limits


def test_the_spacing_curve_has_a_panel_for_each_length_and_number_of_facts(report: Report) -> None:
    row = SpacingRow(
        arm="base", task="graph_walk", length=8192, num_evidence=2, distance=0.0, num_samples=9, n=9, accuracy=0.5, low=0.2, high=0.8,
        interval="wilson", gain=None, gain_low=None, gain_high=None,
    )  # fmt: skip
    rows = [
        row.model_copy(update={"distance": distance, "num_evidence": facts}) for distance in (0.0, 0.5, 1.0) for facts in (2, 3)
    ]
    rows.append(row.model_copy(update={"distance": None, "task": "uncontrolled"}))
    (plot,) = [plot for plot in plots_of(report.model_copy(update={"spacing": tuple(rows)})) if plot.name.startswith("spacing")]
    svg = plot.svg()
    assert plot.name == "spacing_graph_walk"
    assert {"8192 tokens, 2 facts", "8192 tokens, 3 facts", "distance of the facts", "score"} <= set(words(svg))
    assert [text for text in words(svg) if text in ("0", "0.5", "1")]


def test_the_page_decides_on_the_colours(drawn: dict[str, str]) -> None:
    for name, svg in drawn.items():
        assert not [colour for colour in COLOUR_VARIABLES if colour in svg], name
        assert "var(--ink)" in svg
    used = set(re.findall(r"var\((--series-\d)\)", drawn["tasks"]))
    assert len(used) == len(SIX)


def test_identifiers_are_unique_on_a_page_of_all_figures(drawn: dict[str, str]) -> None:
    page = "".join(drawn.values())
    counts = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert [name for name, count in counts.items() if count > 1] == []
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(counts)


def test_the_same_report_gives_the_same_figure(report: Report, drawn: dict[str, str], tmp_path: Path) -> None:
    again = next(plots_of(report))
    assert again.svg() == drawn["perplexity"]
    again.save_png(tmp_path / "perplexity.png")
    assert (tmp_path / "perplexity.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_text_and_never_formulas_or_markup(report: Report) -> None:
    hostile = "<script>$x^2$"
    rows = tuple(row.model_copy(update={"task": hostile}) for row in report.task_means)
    renamed = report.model_copy(update={"task_means": rows, "tasks": (), "lost_in_the_middle": ()})
    svg = {plot.name: plot.svg() for plot in plots_of(renamed)}["tasks"]
    assert "&lt;script&gt;$x^2$" in svg
    assert "<script" not in svg
