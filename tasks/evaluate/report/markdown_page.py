"""The page of the report: each table under a heading, with a line that says what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.evaluate.labels import percent
from tasks.evaluate.statistics.reorder_choice import FEWEST_ANSWERED

Table = tuple[list[str], list[list[str]]]


def markdown_page(report: dict[str, Any], tables: Mapping[str, Table]) -> str:
    """Markdown of the tables that have rows, by the name of their section."""
    sections = []
    for name, (title, note) in _sections(report).items():
        if tables[name][1]:
            sections.append(f"### {title}\n\n{_markdown(tables[name])}\n\n{note}")
        elif name == "longppl" and report["longppl"]["evaluator"]:
            sections.append(f"### {title}\n\nNot measured: {report['longppl']['reason']}.")
        elif name == "reorder" and report["settings"].get("reorder_left_out"):
            sections.append(f"### {title}\n\nNot measured: {report['reorder']['reason']}.")
    if left_out := report["settings"].get("arms_left_out"):
        sections.append("Not measured: " + "; ".join(f"{arm}: {why}" for arm, why in left_out.items()) + ".")
    if not sections:
        sections.append("Nothing was measured.")
    return "\n\n".join(sections) + "\n"


def _sections(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Title and note of each section, in the page's order."""
    settings, longppl = report["settings"], report["longppl"]
    level = percent(settings["confidence"])
    documents = report["perplexity"][0]["num_documents"] if report["perplexity"] else 0
    return {
        "perplexity": (
            "Perplexity by context length",
            f"Of the last {settings['target_tokens']} tokens of {documents} held-out documents, the same at every length, "
            f"[{level} interval] over documents. The base's window is {settings['base_window']} tokens.",
        ),
        "comparisons": (
            "Paired comparisons",
            f"Model@length; [{level} interval] of the ratio, paired over documents.",
        ),
        "tasks": ("Tasks", _task_note(report, level)),
        "effective": (
            "Effective context length",
            f"The longest measured length with no failing one below it, in tokens: by the point estimate [by the unfavourable bound, "
            f"by the favourable bound of the {level} interval]. ≥: the longest length that was measured; –: already the shortest "
            "judged length fails. Perplexity is judged from the base's window on; shares of the base's score take that score for known.",
        ),
        "non_inferiority": (
            "Short context",
            f"A loss is ruled out when the [{level} interval] lies within the declared margin of "
            f"{percent(report['non_inferiority']['margin'])}; paired over documents and over samples.",
        ),
        "tests": (
            "Paired tests of task scores",
            "Exact McNemar tests over samples, all depths of a sample together; p (Holm) is corrected over all tests of the same two "
            "models. Tests that found nothing are listed too.",
        ),
        "middle": (
            "Lost in the middle",
            f"Mean of the two end depths minus mean of the depths between, [{level} interval] over samples; p by permuting the "
            "depths within each sample, p (Holm) corrected over a model's rows.",
        ),
        "reorder": ("Order of retrieved passages", _reorder_note(report, level)),
        "benchmarks": (
            "Short-context benchmarks",
            "As lm-evaluation-harness gives them, with its standard errors where it has any; not recomputed from samples.",
        ),
        "longppl": (
            "LongPPL",
            f"Perplexity on the {longppl['num_key_tokens']} tokens of {longppl['num_documents']} documents that {longppl['evaluator']} "
            f"predicts by more than 2 nats better with {longppl['long']} than with {longppl['short']} tokens of context, after Fang et al. "
            f"2024 (arXiv 2410.23771), [{level} interval]; the evaluator's own figures are favoured by the choice.",
        ),
        "protocols": (
            "Perplexity by other papers' protocols",
            "To be compared with the tables of the named paper only: the scored tokens change with the length. "
            "YaRN averages the means of windows, LongLoRA weighs all tokens of its windows alike.",
        ),
    }


def _task_note(report: dict[str, Any], level: str) -> str:
    rows = report["task_means"]
    if not rows:
        return ""
    samples = sorted({row["num_samples"] for row in rows})
    count = f"{samples[0]}" if len(samples) == 1 else f"{samples[0]} to {samples[-1]}"
    prompts = sum(row["n"] for row in rows if row["arm"] == rows[0]["arm"])
    return (
        f"Mean score over all depths [{level} interval] over the {count} samples of a cell, and recall gain, the log-probability of "
        f"the answer with the gold in the prompt minus without it; {prompts} prompts a model. A sample's depths are one observation: "
        "intervals are Wilson's over samples, wider than need be where a sample's depths come out differently."
    )


def _reorder_note(report: dict[str, Any], level: str) -> str:
    section = report["reorder"]
    if section["decision"] is None:
        return ""
    counts = ", ".join(
        f"{' to '.join(map(str, dict.fromkeys(of)))} at {length} tokens" for length, of in section["num_passages"].items()
    )
    note = (
        f"{section['decision']['reason']} {section['num_questions']} questions, each on the same passages under every order ({counts}); "
        "the passage with the answer is of rank r with a probability proportional to 1 / r. Differences are paired over "
        f"questions [{level} interval], p after Holm over the orders of all lengths, or of the mean over lengths (`all`), which decides."
    )
    if section["decision"]["measure"] == "logprob":
        note += f" Fewer than {FEWEST_ANSWERED} questions were answered under any order, so log-probabilities are compared."
    return f"{note} `calibrated` was not asked: {section['calibrated']}" if section["calibrated"] else note


def _markdown(table: Table) -> str:
    columns, rows = table

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
