"""A search for RoPE factors as a page: its verdict, and every form on the deciding samples."""

from __future__ import annotations

from collections.abc import Iterator

from data_schemas.storage import Artifact
from tasks.prefect_tasks.pages.elements import Page, markdown_table, plain
from tasks.rope_search.plans import load_result
from tasks.rope_search.table import forms_table

KEY = "rope-search"


def search_pages(artifact: Artifact) -> Iterator[Page]:
    """One page."""
    result = load_result(artifact)
    columns, rows = forms_table(result)
    columns = tuple(column.replace("\n", " ") for column in columns)
    yield Page(
        KEY,
        f"## RoPE factors for {result.target_length} tokens\n\n**{plain(result.verdict, 400)}**\n\n"
        f"{result.num_evaluations} candidates in {result.num_passes} forward passes. Critical pair: {result.critical_pair}; in theory "
        f"{result.theoretical_critical_pair}. Factors: `{artifact.location}/factors.json`.\n\n{markdown_table(columns, rows)}\n",
    )
