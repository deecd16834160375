"""The sections of the report in the order of its pages: each table, with a note that says what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_schemas.report import Report
from data_schemas.report_seen import SeenText
from tasks.evaluate.labels import arm_label, percent
from tasks.evaluate.published.names import NOT_COMPARABLE, is_published
from tasks.evaluate.report.quantised_note import quantised_note
from tasks.evaluate.report.reorder_section import reorder_table
from tasks.evaluate.report.section import Section, Table
from tasks.evaluate.report.served_note import as_served_note
from tasks.evaluate.report.spacing_section import SPACING_TITLE, spacing_note, spacing_table
from tasks.evaluate.report.tables import (
    benchmark_table,
    comparison_table,
    depth_table,
    effective_length_table,
    gain_table,
    longppl_table,
    middle_table,
    non_inferiority_table,
    paired_test_table,
    perplexity_table,
    power_table,
    protocol_table,
    ratio_table,
    task_table,
)
from tasks.evaluate.statistics.reorder_choice import FEWEST_ANSWERED

_LONG = ("depths",)  # tables for the HTML page alone


def report_sections(report: Report, *, with_long: bool = False) -> list[Section]:
    """The sections that have something to say; never empty. `with_long`: also tables of hundreds of rows."""
    tables = _tables(report)
    found = []
    for name, (title, note) in _notes(report).items():
        if tables[name][1]:
            if with_long or name not in _LONG:
                found.append(Section(title, tables[name], note, is_long=name in _LONG))
        elif name == "longppl" and report.longppl.evaluator:
            found.append(Section(title, None, f"Not measured: {report.longppl.reason}."))
        elif name == "reorder" and report.settings.reorder_left_out:
            found.append(Section(title, None, f"Not measured: {report.settings.reorder_left_out}."))
    if left_out := report.settings.arms_left_out:
        reasons = "; ".join(f"{arm}: {why.rstrip('.')}" for arm, why in left_out.items())
        found.append(Section("Models left out", None, f"Not measured: {reasons}."))
    if seen := report.settings.seen_text:
        found.append(Section("Held-out text in training", None, _seen_note(report, seen)))
    return found or [Section("Results", None, "Nothing was measured.")]


def _tables(report: Report) -> Mapping[str, Table]:
    return {
        "perplexity": perplexity_table(report),
        "comparisons": comparison_table(report),
        "ratios": ratio_table(report),
        "tasks": task_table(report),
        "gains": gain_table(report),
        "spacing": spacing_table(report),
        "effective": effective_length_table(report),
        "non_inferiority": non_inferiority_table(report),
        "tests": paired_test_table(report),
        "power": power_table(report),
        "middle": middle_table(report),
        "reorder": reorder_table(report),
        "benchmarks": benchmark_table(report),
        "longppl": longppl_table(report),
        "protocols": protocol_table(report),
        "depths": depth_table(report),
    }


def _notes(report: Report) -> dict[str, tuple[str, str]]:
    """Title and note of each section, in the page's order."""
    settings = report.settings
    level = percent(settings.confidence)
    documents = report.perplexity[0].num_documents if report.perplexity else 0
    return {
        "perplexity": (
            "Perplexity by context length",
            f"Perplexity of the last {settings.target_tokens} tokens of {documents} held-out documents, the same tokens at every "
            f"length, with its [{level} interval] over documents. The base's window is {settings.base_window} tokens."
            f"{quantised_note(settings)}",
        ),
        "comparisons": (
            "Paired comparisons",
            f"Ratio of two perplexities, each as model@length, with its [{level} interval] paired over documents.",
        ),
        "ratios": (
            "Paired ratios at equal length",
            "Perplexity of each model over that of the named reference at the same length, paired over documents, with its "
            f"[{level} interval]. Below 1 is better.",
        ),
        "tasks": ("Tasks", _task_note(report, level)),
        "gains": (
            "Recall gain",
            "The log-probability of the answer with the gold in the prompt minus that without it, over all depths, with its "
            f"[{level} interval] over samples. It tells models apart that are too small to answer.",
        ),
        "spacing": (SPACING_TITLE, spacing_note(level)),
        "effective": (
            "Effective context length",
            "In tokens: the longest measured length with no failing length below it, by the point estimate [by the unfavourable "
            f"bound, by the favourable bound of the {level} interval]. ≥: the longest length that was measured. –: the shortest judged "
            "length fails already. Perplexity is judged from the base's window on. Bounds for tasks treat the base's score as exact.",
        ),
        "non_inferiority": (
            "Short context",
            f"A loss is ruled out when the [{level} interval] lies within the declared margin of "
            f"{percent(report.non_inferiority.margin)}. Intervals are paired over documents and over samples."
            f"{as_served_note(settings)}",
        ),
        "tests": (
            "Paired tests of task scores",
            f"{_methods(report)}. Differences have their [{level} interval]. The first p is of one test. The corrected p and interval "
            "hold for all tests of a family together; primary comparisons were declared before measuring. Tests that found nothing are "
            "listed too.",
        ),
        "power": ("What the samples could show", _power_note(report)),
        "middle": (
            "Lost in the middle",
            f"Mean score at the two end depths minus mean score at the depths between, with its [{level} interval] over samples. "
            "p comes from permuting the depths within each sample. The first p is of one row alone; those after Holm's correction are "
            "corrected over a model's rows.",
        ),
        "reorder": ("Order of retrieved passages", _reorder_note(report, level)),
        "benchmarks": (
            "Short-context benchmarks",
            "As reported by lm-evaluation-harness, with its standard errors where it gives them. These are not recomputed from samples.",
        ),
        "longppl": ("LongPPL", _longppl_note(report, level)),
        "depths": (
            "Tasks by depth",
            f"Score and recall gain at one depth, each with its [{level} interval] over n prompts. Depth 0: gold first, 1: right before "
            "the question.",
        ),
        "protocols": (
            "Perplexity by other papers' protocols",
            "Compare these with the tables of the named paper only, because the scored tokens change with the length. "
            "YaRN averages the means of windows; LongLoRA averages over all tokens of its windows, and LongPPL over key tokens.",
        ),
    }


def _task_note(report: Report, level: str) -> str:
    rows = report.task_means
    if not rows:
        return ""
    samples = sorted({row.num_samples for row in rows})
    count = f"{samples[0]}" if len(samples) == 1 else f"{samples[0]} to {samples[-1]}"
    prompts = sum(row.n for row in rows if row.arm == rows[0].arm)
    return (
        f"Mean score over all depths with its [{level} interval] over the {count} samples of a cell. "
        f"{prompts} prompts a model. {_INTERVALS.get(rows[0].interval, '')} {_comparable_note([row.task for row in rows])}"
    )


def _comparable_note(tasks: Sequence[str]) -> str:
    """Which tasks can be compared with published figures."""
    published = [task for task in tasks if is_published(task)]
    if not published:
        return f"These are Ropeway's own tasks: {NOT_COMPARABLE}."
    if len(published) == len(tasks):
        return "All of them are run as published."
    return f"ruler_* and lost_in_the_middle_* are run as published; the others are Ropeway's own: {NOT_COMPARABLE}."


_INTERVALS = {
    "wilson": "Intervals are Wilson's over samples.",
    "wilson_effective": "Intervals are Wilson's on the effective number of prompts, by how much the depths of a sample agree.",
    "wilson_of_samples": "A sample's depths are one observation; where they score differently, the intervals (Wilson's, over "
    "samples) are wider than necessary.",
    "bootstrap": "Intervals are by bootstrap over samples.",
}


def _methods(report: Report) -> str:
    found = "; ".join(dict.fromkeys(family.method for family in report.tests))
    return found[:1].upper() + found[1:]


def _power_note(report: Report) -> str:
    power = report.power
    if power is None:
        return ""
    return (
        "What each comparison could show at best, known before anything was measured. The stated effect is "
        f"{100 * power.detectable_effect:g} points, found with 80% power. Assumed: prompts of a sample agree with a correlation of "
        f"{power.correlation:g}, and {power.discordant:.0%} of the prompts are answered better by one of the models."
    )


def _longppl_note(report: Report, level: str) -> str:
    sections = [section for section in (report.longppl, *report.longppl.others) if section.cells]
    if not sections:
        return ""
    chosen = "; ".join(
        f"{arm_label(s.evaluator or '')}: {s.num_key_tokens} key tokens of {s.num_documents} documents" for s in sections
    )
    return (
        f"Perplexity on key tokens, with its [{level} interval], after Fang et al. 2024 (arXiv 2410.23771). A key token is one that an "
        f"evaluator predicts better by more than 2 nats with {sections[0].long} than with {sections[0].short} tokens of context. "
        f"{chosen}. The choice favours the figures of the evaluator itself."
    )


def _seen_note(report: Report, seen: SeenText) -> str:
    note = (
        f"{seen.share:.2%} of the word 13-grams of all {seen.num_documents} held-out documents occur in the training rows; "
        f"{seen.num_seen} documents have any."
    )
    if seen.worst:
        note += " The most: " + ", ".join(f"`{d.name}` ({d.doc_id}) {d.share:.1%}" for d in seen.worst) + "."
    if seen.num_left_out and report.settings.max_seen_share is not None:
        note += f" {seen.num_left_out} above {percent(report.settings.max_seen_share)} are not evaluated."
    return note


def _reorder_note(report: Report, level: str) -> str:
    section = report.reorder
    if section is None or section.decision is None:
        return ""
    counts = ", ".join(
        f"{' to '.join(map(str, dict.fromkeys(of)))} at {length} tokens" for length, of in section.num_passages.items()
    )
    note = (
        f"{section.decision.reason} {section.num_questions} questions were asked, each with the same passages in every order "
        f"({counts}). The passage with the answer has rank r with a probability proportional to 1 / r. Differences are paired over "
        f"questions, with their [{level} interval]. p is after Holm's correction: over the orders of all single lengths, or over the "
        "orders of the mean over lengths (`all`), which decides."
    )
    if section.decision.measure == "logprob":
        note += f" Fewer than {FEWEST_ANSWERED} questions were answered under any order, so log-probabilities are compared."
    return f"{note} `calibrated` was not compared: {section.calibrated}" if section.calibrated else note
