"""The verdict: five questions that a reader has, each answered from the measured figures by a fixed rule.

yes         the interval lies on the good side
no          the interval lies on the bad side
not shown   the interval allows both; this is not the same as "no difference"
not measured
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_schemas.report import Report
from data_schemas.report_sections import PUBLISHED_ARM, ComparisonRow
from data_schemas.report_verdicts import PairedTest, PairedTestFamily
from data_schemas.samples import served_arm
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.report.numbers import perplexity, points, ratio, share, with_interval
from tasks.evaluate.report.tables import length_text

Answer = Literal["yes", "no", "partly", "not shown", "not measured"]
_SUBJECTS = (PUBLISHED_ARM, "scaling_only", "base")
_FEW = 2  # tasks whose scores fit into the sentence
_ORDERS = {
    "important_first_last": "the best passage first, the second best last",
    "reverse_rank": "the best passage last",
    "calibrated": "the best passage where recall was measured to be best",
    "none": "as the retriever gives them",
}


@dataclass(frozen=True)
class Line:
    """One question with its answer, and the figure that it rests on."""

    question: str
    answer: Answer
    sentence: str


@dataclass(frozen=True)
class Figure:
    """One of the four numbers, with its interval."""

    name: str
    estimate: str
    interval: str = ""

    @classmethod
    def of(cls, name: str, text: str) -> Figure:
        """`text` as `numbers` writes it: an estimate, then its interval in brackets."""
        estimate, bracket, interval = text.partition(" [")
        return cls(name, estimate, bracket[1:] + interval)

    @property
    def value(self) -> str:
        return f"{self.estimate} {self.interval}".rstrip()


def verdict(report: Report) -> list[Line]:
    """Five lines. They judge the fine-tuned model, or scaling only where nothing was trained."""
    arm = subject(report)
    return [works_at_target(report, arm), _training(report), short_prompts(report, arm), _tasks(report, arm), _order(report)]


def four_numbers(report: Report) -> list[Figure]:
    """Perplexity at the target, its ratio to scaling only, the cost of short prompts, and the effective length."""
    arm, settings = subject(report), report.settings
    target, window = settings.target_length, settings.base_window
    cell = next((row for row in report.perplexity if (row.arm, row.length) == (arm, target)), None)
    length = report.effective_context_length.within_margin.arms.get(arm)
    margin = percent(report.effective_context_length.margin)
    to_scaling = report.comparison((PUBLISHED_ARM, target), ("scaling_only", target))
    to_base = report.comparison((arm, window), ("base", window))
    return [
        Figure.of(
            f"perplexity at {target} tokens", perplexity(cell.perplexity, cell.low, cell.high) if cell else "not measured"
        ),
        Figure.of(f"ratio to scaling only at {target}", _ratio_text(to_scaling)),
        Figure.of(f"ratio to the base at {window} (short prompts)", _ratio_text(to_base)),
        Figure.of(
            f"tokens of effective length (perplexity within {margin})", length_text(length) if length else "not measured"
        ),
    ]


def subject(report: Report) -> str:
    """The arm that is judged: the one that would be used."""
    measured = {row.arm for row in report.perplexity} | {row.arm for row in report.task_means} or set(report.settings.arms)
    return next((arm for arm in _SUBJECTS if arm in measured), PUBLISHED_ARM)


def _ratio_text(row: ComparisonRow | None) -> str:
    return ratio(row.ratio, row.low, row.high) if row else "not measured"


def works_at_target(report: Report, arm: str) -> Line:
    """Whether perplexity at the target stays within the margin of the base's at its own window."""
    settings = report.settings
    target, window, margin = settings.target_length, settings.base_window, settings.non_inferiority_margin
    question = f"Does it work at {target} tokens?"
    row = report.comparison((arm, target), ("base", window))
    if row is None:
        return Line(question, "not measured", f"This needs the base at {window} tokens and {arm_label(arm)} at {target}.")
    rival, figure = f"the base at {window} tokens", f"perplexity ratio {_ratio_text(row)}"
    if row.low is None or row.high is None:
        return Line(question, "not shown", f"One document gives no interval against {rival}: {figure}.")
    if row.high <= 1:
        return Line(question, "yes", f"It is better than {rival}: {figure}.")
    loss = f"A loss above {percent(margin)} against {rival}"
    if row.high <= 1 + margin:
        return Line(question, "yes", f"{loss} is ruled out: {figure}.")
    if row.low > 1 + margin:
        return Line(question, "no", f"{loss} is shown: {figure}.")
    return Line(question, "not shown", f"{loss} is neither shown nor ruled out: {figure}.")


def _training(report: Report) -> Line:
    target, question = report.settings.target_length, "Is training better than scaling alone?"
    row = report.comparison((PUBLISHED_ARM, target), ("scaling_only", target))
    if row is None:
        return Line(question, "not measured", f"This needs both models at {target} tokens.")
    figure = f"ratio {_ratio_text(row)}"
    if row.low is None or row.high is None:
        return Line(question, "not shown", f"One document gives no interval; {figure}.")
    if row.high < 1:
        return Line(question, "yes", f"Perplexity is {1 - row.ratio:.1%} lower: {figure}.")
    if row.low > 1:
        return Line(question, "no", f"Perplexity is {row.ratio - 1:.1%} higher: {figure}.")
    return Line(question, "not shown", f"No difference in perplexity is shown: {figure}.")


def short_prompts(report: Report, arm: str) -> Line:
    """Whether short prompts stay as good as with the base.

    Where the model was also measured as a server runs it, the worse of the two decides, since that is what users get.
    """
    section = report.non_inferiority
    question = "Do short prompts stay as good?"
    rows = [row for row in section.perplexity if row.arm in (arm, served_arm(arm))]
    if not rows:
        return Line(question, "not measured", f"This needs the base and {arm_label(arm)} at {section.base_window} tokens.")
    answers: dict[str, tuple[Answer, str]] = {
        "non_inferior": ("yes", f"A loss above {percent(section.margin)} is ruled out"),
        "inferior": ("no", f"A loss above {percent(section.margin)} is shown"),
        "not_shown": ("not shown", f"A loss above {percent(section.margin)} is neither shown nor ruled out"),
        "too_few_samples": ("not shown", "Too few samples to rule out a loss"),
        "not_measurable": ("not measured", "The base cannot be judged"),
    }
    order = list(answers)
    worst = max(rows, key=lambda row: (row.verdict == "inferior", order.index(row.verdict), row.arm != arm))
    answer, what = answers[worst.verdict]
    figures = ", ".join(
        f"{ratio(row.ratio, row.low, row.high)}{'' if row.arm == arm else ' as served'}"
        for row in sorted(rows, key=lambda r: r.arm)
    )
    return Line(question, answer, f"{what}: perplexity ratio to the base {figures}.")


def _tasks(report: Report, arm: str) -> Line:
    """By the corrected tests against scaling only, or against the base, at the longest length of the tasks."""
    question = "Does it find more in long texts?"
    lengths = [row.length for row in report.task_means if row.arm == arm]
    if not lengths:
        return Line(question, "not measured", "No task was asked.")
    length = max(lengths)
    rows = [row for row in report.task_means if (row.arm, row.length) == (arm, length)]
    scores = ", ".join(f"{row.task} {share(row.accuracy, row.low, row.high)}" for row in rows[:_FEW])
    more = f" and {len(rows) - _FEW} more tasks" if len(rows) > _FEW else ""
    family, tests = _rivalry(report, arm, length)
    if family is None:
        return Line(question, "not measured", f"At {length} tokens it has no rival; scores: {scores}{more}.")
    alpha = 1 - report.settings.confidence
    better = sum(test.p_holm < alpha and test.difference > 0 for test in tests)
    worse = sum(test.p_holm < alpha and test.difference < 0 for test in tests)
    answer: Answer = "partly" if better and worse else "yes" if better else "no" if worse else "not shown"
    counts = f"better in {better}, worse in {worse} of {len(tests)} {'tasks' if len(tests) > 1 else 'task'}"
    too_few = f" ({why})" if (why := _too_few(family, tests, alpha)) else ""
    return Line(question, answer, f"At {length} against {arm_label(family.second)}: {counts}{too_few}; {scores}{more}.")


def _rivalry(report: Report, arm: str, length: int) -> tuple[PairedTestFamily | None, list[PairedTest]]:
    """The tests at `length` against scaling only, else against the base, from the first family that has some: a primary one."""
    for rival in ("scaling_only", "base"):
        for family in report.tests:
            tests = [test for test in family.tests if test.length == length]
            if (family.first, family.second) == (arm, rival) and tests:
                return family, tests
    return None, []


def _too_few(family: PairedTestFamily, tests: Sequence[PairedTest], alpha: float) -> str:
    """Says so where not even the best outcome of all samples could have passed the corrected test."""
    smallest = [_smallest_p(family, test) for test in tests]
    if min(smallest) < alpha:
        return ""
    return f"{max(test.num_samples for test in tests)} samples could not have shown any difference"


def _smallest_p(family: PairedTestFamily, test: PairedTest) -> float:
    """Reports of older versions do not have it."""
    return test.smallest_p_holm if test.smallest_p_holm is not None else len(family.tests) * 2 * 0.5**test.num_samples


def _order(report: Report) -> Line:
    question, decision = "Does the order of passages matter?", report.reorder_decision
    if decision is None:
        reason = report.reorder.reason if report.reorder and report.reorder.reason else "it was not asked for"
        return Line(question, "not measured", f"{reason[0].upper()}{reason[1:].rstrip('.')}.")
    if not decision.is_distinguishable:
        return Line(question, "not shown", "No order beat the retriever's own beyond chance.")
    found = next((r for r in decision.table if (r.strategy, r.against, r.length) == (decision.strategy, "none", None)), None)
    figure = ""
    if found is not None and found.test != "reference":
        value = (found.difference, found.low, found.high)
        figure = (
            f": {points(*value)} points over the retriever's order"
            if decision.measure == "score"
            else (f": {with_interval(*value, 2, sign='+')} nats over the retriever's order")
        )
    return Line(question, "yes", f"Use {decision.strategy} ({_ORDERS[decision.strategy]}){figure}.")
