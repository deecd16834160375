"""The report as tables of text: for the terminal, and for the page that `markdown_page` writes."""

from __future__ import annotations

from collections.abc import Mapping

from data_schemas.report import Report
from data_schemas.report_sections import Bound, EffectiveLength, ModelAtLength
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.report.markdown_page import Table, markdown_page
from tasks.evaluate.report.reorder_section import reorder_table

_VERDICTS = {
    "non_inferior": "no loss within the margin",
    "inferior": "a loss beyond the margin",
    "not_shown": "neither shown",
    "not_measurable": "not measurable: the base does not do the task",
}


def perplexity_table(report: Report) -> Table:
    """One row an arm, one column a context length; a cell reads `89.1 [85.0, 93.3]`."""
    cells = {(c.arm, c.length): _with_interval(c.perplexity, c.low, c.high, 1) for c in report.perplexity}
    return _by_length(cells)


def comparison_table(report: Report) -> Table:
    """One row a paired comparison of perplexities."""
    rows = [[_label(c.numerator), _label(c.denominator), _with_interval(c.ratio, c.low, c.high, 3)] for c in report.comparisons]
    return ["perplexity of", "over that of", "ratio"], rows


def protocol_table(report: Report) -> Table:
    """One row an arm and protocol, one column a context length."""
    cells = {
        (f"{arm_label(c.arm)}, {c.label}", c.length): _with_interval(c.perplexity, c.low, c.high, 1) for c in report.protocols
    }
    return _by_length(cells)


def longppl_table(report: Report) -> Table:
    """One row an arm, one column a context length."""
    cells = report.longppl.cells
    return _by_length({(c.arm, c.length): _with_interval(c.longppl, c.low, c.high, 1) for c in cells})


def task_table(report: Report) -> Table:
    """One row a task and arm, one column a context length; a cell is accuracy with interval, and recall gain."""
    cells = {}
    for row in report.task_means:
        gain = "" if row.gain is None else f", {row.gain:+.1f} nats"
        interval = "" if row.low is None else f" [{row.low:.0%}, {row.high:.0%}]"
        cells[f"{row.task}, {arm_label(row.arm)}", row.length] = f"{row.accuracy:.0%}{interval}{gain}"
    return _by_length(cells, "task, model")


def effective_length_table(report: Report) -> Table:
    """One row a sense, one column an arm; a cell reads `2048 [1024, 4096]`, by point estimate [unfavourable, favourable bound]."""
    section = report.effective_context_length
    senses = [
        (f"perplexity within {percent(section.margin)} of the base's at its window", section.within_margin.arms),
        ("perplexity not above the base's at its window", section.perplexity.arms),
    ]
    for entry in section.task_scores.tasks:
        name = "mean over tasks" if entry.task == "mean" else entry.task
        unmeasured = f" ({entry.reason})" if entry.reason else ""
        senses.append((f"{name}: {section.task_scores.share:.0%} of the base's at its window{unmeasured}", entry.arms))
    if section.ruler.tasks:
        senses.append((f"RULER: {section.ruler.criterion}", section.ruler.arms))
    arms = list(dict.fromkeys(arm for _, lengths in senses for arm in lengths))
    rows = [[name, *(_length(lengths.get(arm)) for arm in arms)] for name, lengths in senses]
    return ["effective context length", *map(arm_label, arms)], rows if arms else []


def paired_test_table(report: Report) -> Table:
    """One row a test, whether it found something or not."""
    rows = [
        [
            f"{arm_label(family.first)} - {arm_label(family.second)}",
            f"{test.task}@{test.length}",
            _points(test.difference, test.low, test.high),
            f"{test.samples_first_better} : {test.samples_second_better} of {test.num_samples}",
            f"{test.p_value:.2g}",
            f"{test.p_holm:.2g}",
        ]
        for family in report.tests
        for test in family.tests
    ]
    return ["models", "task", "difference (points)", "samples better : worse", "p", "p (Holm)"], rows


def non_inferiority_table(report: Report) -> Table:
    """One row an arm and measure at the base's window."""
    section = report.non_inferiority
    rows = [
        [arm_label(r.arm), "perplexity, ratio", _with_interval(r.ratio, r.low, r.high, 3), _VERDICTS[r.verdict]]
        for r in section.perplexity
    ] + [
        [arm_label(r.arm), f"{r.task}, points", _points(r.difference, r.low, r.high), _VERDICTS[r.verdict]]
        for r in section.tasks
    ]
    return ["model", f"against the base at {section.base_window} tokens", "change", "verdict"], rows


def middle_table(report: Report) -> Table:
    """One row an arm, task and length with its U-shape index."""
    rows = [
        [
            arm_label(row.arm),
            f"{row.task}@{row.length}",
            _points(row.score.index, row.score.low, row.score.high),
            f"{row.score.p_value:.2g}",
            f"{row.score.p_holm:.2g}",
            "" if row.gain is None else f"{row.gain.index:+.1f}, p {row.gain.p_holm:.2g}",
        ]
        for row in report.lost_in_the_middle
    ]
    return ["model", "task", "ends - middle (points)", "p", "p (Holm)", "by gain (nats)"], rows


def benchmark_table(report: Report) -> Table:
    """One row a metric of lm-evaluation-harness, one column an arm; a cell is the value and, where it gives one, its standard error."""
    by_arm = report.settings.lm_eval
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for arm, found in by_arm.items():
        for task, metrics in found.results.items():
            for metric, value in metrics.items():
                name, _, variant = metric.partition(",")
                if not name.endswith("_stderr"):
                    error = metrics.get(f"{name}_stderr,{variant}")
                    text = f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
                    cells.setdefault((task, metric), {})[arm] = text
    rows = [[task, metric, *(values.get(arm, "") for arm in by_arm)] for (task, metric), values in cells.items()]
    return ["benchmark", "metric", *map(arm_label, by_arm)], rows


def print_tables(report: Report) -> None:
    """Print the tables that have rows to standard output."""
    from rich.console import Console
    from rich.table import Table as Printed

    for title, (columns, rows) in (
        ("Perplexity of fixed target tokens, by context length [interval]", perplexity_table(report)),
        ("Ratios of perplexity, paired by document [interval]", comparison_table(report)),
        ("Tasks: score over all depths [interval], and recall gain", task_table(report)),
        ("Effective context length in tokens [by the unfavourable, by the favourable bound]", effective_length_table(report)),
        ("Short context: loss against the base [interval]", non_inferiority_table(report)),
        ("Order of retrieved passages, mean over lengths [interval]", _over_lengths(reorder_table(report))),
    ):
        if rows:
            table = Printed(*columns, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            Console().print(table)


def _over_lengths(table: Table) -> Table:
    """Without the rows of single lengths, which the page has."""
    columns, rows = table
    return columns, [row for row in rows if row[1] == "all"]


def markdown_tables(report: Report) -> str:
    """All tables that have rows, with a note under each that says what its numbers are."""
    return markdown_page(
        report,
        {
            "perplexity": perplexity_table(report),
            "comparisons": comparison_table(report),
            "tasks": task_table(report),
            "effective": effective_length_table(report),
            "non_inferiority": non_inferiority_table(report),
            "tests": paired_test_table(report),
            "middle": middle_table(report),
            "reorder": reorder_table(report),
            "benchmarks": benchmark_table(report),
            "longppl": longppl_table(report),
            "protocols": protocol_table(report),
        },
    )


def _by_length(cells: Mapping[tuple[str, int], str], first: str = "model") -> Table:
    lengths = sorted({length for _, length in cells})
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = [[arm_label(name), *(cells.get((name, length), "") for length in lengths)] for name in names]
    return [first, *map(str, lengths)], rows


def _label(cell: ModelAtLength) -> str:
    return f"{arm_label(cell.arm)}@{cell.length}"


def _length(found: EffectiveLength | None) -> str:
    """Such as `2048 [1024, ≥ 2048]`; a dash: the shortest length fails already."""
    if found is None:
        return ""
    longest = found.longest_measured

    def name(length: int | None) -> str:
        return "–" if length is None else f"≥ {length}" if length == longest else str(length)

    return f"{name(found.value)} [{name(found.lower)}, {name(found.upper)}]"


def _points(value: float, low: Bound, high: Bound) -> str:
    """A share as percentage points."""
    return _with_interval(100 * value, None if low is None else 100 * low, None if high is None else 100 * high, 0)


def _with_interval(value: float, low: Bound, high: Bound, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"
