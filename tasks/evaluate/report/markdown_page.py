"""The page of the report: each table under a heading, with a note that says what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_schemas.report import Report
from data_schemas.report_seen import SeenText
from tasks.evaluate.labels import percent
from tasks.evaluate.statistics.reorder_choice import FEWEST_ANSWERED

Table = tuple[list[str], list[list[str]]]  # columns, rows


def markdown_page(report: Report, tables: Mapping[str, Table]) -> str:
    """Markdown of the tables that have rows, by the name of their section."""
    sections = []
    for name, (title, note) in _sections(report).items():
        if tables[name][1]:
            sections.append(f"### {title}\n\n{_markdown(tables[name])}\n\n{note}")
        elif name == "longppl" and report.longppl.evaluator:
            sections.append(f"### {title}\n\nNot measured: {report.longppl.reason}.")
        elif name == "reorder" and report.settings.reorder_left_out:
            sections.append(f"### {title}\n\nNot measured: {report.settings.reorder_left_out}.")
    if left_out := report.settings.arms_left_out:
        sections.append("Not measured: " + "; ".join(f"{arm}: {why}" for arm, why in left_out.items()) + ".")
    if seen := report.settings.seen_text:
        sections.append(f"### Held-out text in training\n\n{_seen_note(report, seen)}")
    if not sections:
        sections.append("Nothing was measured.")
    return "\n\n".join(sections) + "\n"


def _sections(report: Report) -> dict[str, tuple[str, str]]:
    """Title and note of each section, in the page's order."""
    settings, longppl = report.settings, report.longppl
    level = percent(settings.confidence)
    documents = report.perplexity[0].num_documents if report.perplexity else 0
    return {
        "perplexity": (
            "Perplexity by context length",
            f"Perplexity of the last {settings.target_tokens} tokens of {documents} held-out documents, the same tokens at every "
            f"length, with its [{level} interval] over documents. The base's window is {settings.base_window} tokens.",
        ),
        "comparisons": (
            "Paired comparisons",
            f"Ratio of two perplexities, each as model@length, with its [{level} interval] paired over documents.",
        ),
        "tasks": ("Tasks", _task_note(report, level)),
        "effective": (
            "Effective context length",
            "In tokens: the longest measured length with no failing length below it, by the point estimate [by the unfavourable "
            f"bound, by the favourable bound of the {level} interval]. ≥: the longest length that was measured. –: the shortest judged "
            "length fails already. Perplexity is judged from the base's window on. Bounds for tasks treat the base's score as exact.",
        ),
        "non_inferiority": (
            "Short context",
            f"A loss is ruled out when the [{level} interval] lies within the declared margin of "
            f"{percent(report.non_inferiority.margin)}. Intervals are paired over documents and over samples.",
        ),
        "tests": (
            "Paired tests of task scores",
            "Exact McNemar tests over samples; all depths of a sample count together. p (Holm) is corrected over all tests of the "
            "same two models. Tests that found nothing are listed too.",
        ),
        "middle": (
            "Lost in the middle",
            f"Mean score at the two end depths minus mean score at the depths between, with its [{level} interval] over samples. "
            "p comes from permuting the depths within each sample; p (Holm) is corrected over a model's rows.",
        ),
        "reorder": ("Order of retrieved passages", _reorder_note(report, level)),
        "benchmarks": (
            "Short-context benchmarks",
            "As reported by lm-evaluation-harness, with its standard errors where it gives them. These are not recomputed from samples.",
        ),
        "longppl": (
            "LongPPL",
            f"Perplexity on {longppl.num_key_tokens} key tokens of {longppl.num_documents} documents, with its [{level} interval], after "
            f"Fang et al. 2024 (arXiv 2410.23771). A key token is one that {longppl.evaluator} predicts better by more than 2 nats with "
            f"{longppl.long} than with {longppl.short} tokens of context. The choice favours the figures of {longppl.evaluator} itself.",
        ),
        "protocols": (
            "Perplexity by other papers' protocols",
            "Compare these with the tables of the named paper only, because the scored tokens change with the length. "
            "YaRN averages the means of windows; LongLoRA averages over all tokens of its windows.",
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
        f"Mean score over all depths with its [{level} interval] over the {count} samples of a cell, then the recall gain: the "
        "log-probability of the answer with the gold in the prompt minus that without it. "
        f"{prompts} prompts a model. A sample's depths are one observation; where they score differently, the intervals "
        "(Wilson's, over samples) are wider than necessary."
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


def _markdown(table: Table) -> str:
    columns, rows = table

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
