"""The report as tables of text, for its pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from data_schemas.report import Report
from data_schemas.report_sections import EffectiveLength, ModelAtLength
from data_schemas.report_verdicts import PairedTest, PairedTestFamily
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.report import numbers
from tasks.evaluate.report.section import Table

_VERDICTS = {
    "non_inferior": "no loss within the margin",
    "inferior": "a loss beyond the margin",
    "not_shown": "neither shown",
    "too_few_samples": "too few samples to show it",
    "not_measurable": "not measurable: the base does not do the task",
}


def perplexity_table(report: Report) -> Table:
    """One row an arm, one column a context length; a cell reads `89.1 [85.0, 93.3]`."""
    cells = {(c.arm, c.length): numbers.perplexity(c.perplexity, c.low, c.high) for c in report.perplexity}
    return _by_length(cells)


def comparison_table(report: Report) -> Table:
    """One row a paired comparison of perplexities."""
    rows = [[_label(c.numerator), _label(c.denominator), numbers.ratio(c.ratio, c.low, c.high)] for c in report.comparisons]
    return ["perplexity of", "over that of", "ratio"], rows


def protocol_table(report: Report) -> Table:
    """One row an arm and protocol, one column a context length."""
    cells = {
        (f"{arm_label(c.arm)}, {c.label}", c.length): numbers.perplexity(c.perplexity, c.low, c.high) for c in report.protocols
    }
    return _by_length(cells)


def longppl_table(report: Report) -> Table:
    """One row an arm and evaluator, one column a context length."""
    sections = (report.longppl, *report.longppl.others)
    return _by_length(
        {
            (f"{arm_label(c.arm)}, key tokens by {arm_label(section.evaluator or '')}", c.length): numbers.perplexity(
                c.longppl, c.low, c.high
            )
            for section in sections
            for c in section.cells
        }
    )


def task_table(report: Report) -> Table:
    """One row a task and arm, one column a context length; a cell is the score over all depths with its interval."""
    return _by_length(
        {
            (f"{row.task}, {arm_label(row.arm)}", row.length): numbers.share(row.accuracy, row.low, row.high)
            for row in report.task_means
        },
        "task, model",
    )


def gain_table(report: Report) -> Table:
    """The same for recall gains, of tasks that have one."""
    return _by_length(
        {
            (f"{row.task}, {arm_label(row.arm)}", row.length): numbers.gain(row.gain, row.gain_low, row.gain_high)
            for row in report.task_means
            if row.gain is not None
        },
        "task, model",
    )


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
    rows = [[name, *(length_text(lengths.get(arm)) for arm in arms)] for name, lengths in senses]
    return ["effective context length", *map(arm_label, arms)], rows if arms else []


def paired_test_table(report: Report) -> Table:
    """One row a test, whether it found something or not. The corrected interval excludes 0 where the corrected p says so."""
    rows = [
        [
            f"{arm_label(family.first)} - {arm_label(family.second)}",
            f"{test.task}@{test.length}",
            family.role or "",
            numbers.points(test.difference, test.low, test.high),
            f"{test.samples_first_better} : {test.samples_second_better} of {test.num_samples}",
            numbers.p_value(test.p_value),
            numbers.p_holm(test.p_holm, len(family.tests)),
            "" if test.low_holm is None else f"[{100 * test.low_holm:.0f}, {100 * (test.high_holm or 0):.0f}]",
            _difference_verdict(family, test),
        ]
        for family in report.tests
        for test in family.tests
    ]
    columns = ["models", "task", "family", "difference (points)", "samples better : worse", "p of this test", "p corrected"]
    return [*columns, "interval corrected", "verdict"], rows


def _difference_verdict(family: PairedTestFamily, test: PairedTest) -> str:
    names = {"first_better": f"{arm_label(family.first)} better", "second_better": f"{arm_label(family.second)} better"}
    names |= {"not_shown": "no difference shown", "too_few_samples": "too few samples to show any"}
    return names[test.verdict] if test.verdict else ""


def power_table(report: Report) -> Table:
    """One row a planned comparison: what it could show at best, known before anything was measured."""
    power = report.power
    rows = [
        [
            planned.name,
            str(planned.num_samples),
            "yes" if planned.can_show else "no",
            str(planned.fewest_samples),
            "" if planned.smallest_p is None else numbers.p_holm(planned.smallest_p, planned.family_size),
            "" if planned.detectable is None else f"{100 * planned.detectable:.0f}",
            "" if planned.samples_for_effect is None else str(planned.samples_for_effect),
        ]
        for planned in (power.comparisons if power else ())
    ]
    columns = ["comparison", "samples", "can show", "fewest samples that can", "smallest p", "found with 80% power (points)"]
    return [*columns, "samples for the stated effect"], rows


def non_inferiority_table(report: Report) -> Table:
    """One row an arm and measure at the base's window."""
    section = report.non_inferiority
    rows = [
        [arm_label(r.arm), "perplexity, ratio", numbers.ratio(r.ratio, r.low, r.high), _VERDICTS[r.verdict]]
        for r in section.perplexity
    ] + [
        [arm_label(r.arm), f"{r.task}, points", numbers.points(r.difference, r.low, r.high), _VERDICTS[r.verdict]]
        for r in section.tasks
    ]
    return ["model", f"against the base at {section.base_window} tokens", "change", "verdict"], rows


def middle_table(report: Report) -> Table:
    """One row an arm, task and length with its U-shape index."""
    by_score = Counter(row.arm for row in report.lost_in_the_middle)
    by_gain = Counter(row.arm for row in report.lost_in_the_middle if row.gain)
    rows = []
    for row in report.lost_in_the_middle:
        score, gain = row.score, row.gain
        rows.append(
            [
                arm_label(row.arm),
                f"{row.task}@{row.length}",
                numbers.points(score.index, score.low, score.high),
                numbers.p_value(score.p_value),
                numbers.p_holm(score.p_holm, by_score[row.arm]),
                numbers.gain(gain.index, gain.low, gain.high) if gain else "",
                numbers.p_holm(gain.p_holm, by_gain[row.arm]) if gain else "",
            ]
        )
    return ["model", "task", "ends - middle (points)", "p of this row", "p corrected", "by gain", "p by gain, corrected"], rows


def ratio_table(report: Report) -> Table:
    """One row an arm, one column a context length; a cell is the paired ratio at that length."""
    cells = {
        (f"{arm_label(r.arm)} over {arm_label(r.reference)}", r.length): numbers.ratio(r.ratio, r.low, r.high)
        for r in report.ratios_by_length
    }
    return _by_length(cells)


def depth_table(report: Report) -> Table:
    """One row an arm, task, length and depth."""
    rows = [
        [
            arm_label(row.arm),
            row.task,
            str(row.length),
            "spread" if row.depth is None else f"{row.depth:g}",
            str(row.n),
            numbers.share(row.accuracy, row.low, row.high),
            numbers.gain(row.gain, row.gain_low, row.gain_high),
        ]
        for row in report.tasks
    ]
    return ["model", "task", "length", "depth", "n", "score", "recall gain"], rows


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


def _by_length(cells: Mapping[tuple[str, int], str], first: str = "model") -> Table:
    lengths = sorted({length for _, length in cells})
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = [[arm_label(name), *(cells.get((name, length), "") for length in lengths)] for name in names]
    return [first, *map(str, lengths)], rows


def _label(cell: ModelAtLength) -> str:
    return f"{arm_label(cell.arm)}@{cell.length}"


def length_text(found: EffectiveLength | None) -> str:
    """Such as `2048 [1024, ≥ 2048]`; a dash: the shortest length fails already."""
    if found is None:
        return ""
    longest = found.longest_measured

    def name(length: int | None) -> str:
        return "–" if length is None else f"≥ {length}" if length == longest else str(length)

    return f"{name(found.value)} [{name(found.lower)}, {name(found.upper)}]"
