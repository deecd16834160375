"""The result of a search as a table for people."""

from __future__ import annotations

import math

from data_schemas.rope_search import RopeSearchResult

NAMES = {
    "longrope": "found",
    "ntk_critical": "NTK, critical",
    "yarn": "YaRN",
    "yarn_1.25": "YaRN for 1.25x the target",
    "yarn_1.5": "YaRN for 1.5x the target",
    "yarn_2": "YaRN for 2x the target",
    "ntk": "NTK",
    "linear": "linear",
    "dynamic": "dynamic NTK",
    "llama3": "llama3",
}


def forms_table(result: RopeSearchResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns, and a row for each form, best first: perplexities, score, and the found factors' paired difference."""
    columns = ("form", "needle\nperplexity", "text\nperplexity", "score\n(nats)", "found minus this\n[interval], nats")
    rows: list[tuple[str, ...]] = []
    for form in result.forms:
        difference = ""
        if form.difference is not None and form.low is not None and form.high is not None:
            difference = f"{form.difference:+.3f} [{form.low:+.3f}, {form.high:+.3f}]"
        perplexities = (f"{math.exp(form.answers):.2f}", f"{math.exp(form.text):.2f}")
        rows.append((NAMES[form.name], *perplexities, f"{form.score:.3f}", difference))
    return columns, rows
