"""The report as tables for people: rows for the terminal, Markdown for cards and run pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

ARM_LABELS = {"base": "base", "scaling_only": "scaling only", "fine_tuned": "fine-tuned"}

Columns = list[str]
Rows = list[list[str]]


def perplexity_table(report: dict[str, Any]) -> tuple[Columns, Rows]:
    """One row an arm, one column a context length; a cell reads `89.1 [85.0, 93.3]`."""
    cells = {(c["arm"], c["length"]): _with_interval(c["perplexity"], c["low"], c["high"], 1) for c in report["perplexity"]}
    return _arms_by_length(cells)


def comparison_table(report: dict[str, Any]) -> tuple[Columns, Rows]:
    """One row a paired comparison of perplexities."""
    rows = [
        [_label(c["numerator"]), _label(c["denominator"]), _with_interval(c["ratio"], c["low"], c["high"], 3)]
        for c in report["comparisons"]
    ]
    return ["perplexity of", "over that of", "ratio"], rows


def passkey_table(report: dict[str, Any]) -> tuple[Columns, Rows]:
    """One row an arm, one column a context length; a cell is accuracy and recall gain over all depths."""
    grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for cell in report["passkey"]:
        grouped.setdefault((cell["arm"], cell["length"]), []).append(cell)
    cells = {}
    for key, group in grouped.items():
        weights = [cell["n"] for cell in group]
        accuracy = np.average([cell["accuracy"] for cell in group], weights=weights)
        gain = np.average([cell["gain"] for cell in group], weights=weights)
        cells[key] = f"{accuracy:.0%}, {gain:+.1f} nats"
    return _arms_by_length(cells)


def print_tables(report: dict[str, Any]) -> None:
    """Print the tables that have rows to standard output."""
    from rich.console import Console
    from rich.table import Table

    for title, (columns, rows) in (
        ("Perplexity of fixed target tokens, by context length [interval]", perplexity_table(report)),
        ("Ratios of perplexity, paired by document [interval]", comparison_table(report)),
        ("Passkey: keys recalled, and recall gain", passkey_table(report)),
    ):
        if rows:
            table = Table(*columns, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            Console().print(table)


def markdown_tables(report: dict[str, Any]) -> str:
    """All tables with a line under each that says what its numbers are."""
    settings = report["settings"]
    documents = report["perplexity"][0]["num_documents"]
    level = f"{settings['confidence']:.0%}"
    prompts = sum(cell["n"] for cell in report["passkey"] if cell["arm"] == report["passkey"][0]["arm"])
    sections = [
        "### Perplexity by context length\n\n"
        + _markdown(perplexity_table(report))
        + f"\n\nOf the last {settings['target_tokens']} tokens of {documents} held-out documents, the same at every length, "
        f"[{level} interval] over documents. The base's window is {settings['base_window']} tokens."
    ]
    if report["comparisons"]:
        sections.append(
            "### Paired comparisons\n\n"
            + _markdown(comparison_table(report))
            + f"\n\nModel@length; [{level} interval] of the ratio, paired over documents."
        )
    sections.append(
        "### Passkey retrieval\n\n"
        + _markdown(passkey_table(report))
        + f"\n\nShare of keys recalled in full, and log-probability of the key with the needle present minus without it; "
        f"means over all depths, {prompts} prompts a model. The report holds each depth with its interval."
    )
    return "\n\n".join(sections) + "\n"


def _arms_by_length(cells: dict[tuple[str, int], str]) -> tuple[Columns, Rows]:
    lengths = sorted({length for _, length in cells})
    arms = list(dict.fromkeys(arm for arm, _ in cells))
    return ["model", *map(str, lengths)], [
        [ARM_LABELS[arm], *(cells.get((arm, length), "") for length in lengths)] for arm in arms
    ]


def _label(cell: dict[str, Any]) -> str:
    return f"{ARM_LABELS[cell['arm']]}@{cell['length']}"


def _with_interval(value: float, low: float | None, high: float | None, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def _markdown(table: tuple[Columns, Rows]) -> str:
    columns, rows = table

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
