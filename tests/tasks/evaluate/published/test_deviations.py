"""The list of deviations is complete, and the documentation shows it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from data_schemas.evaluation_params import TASK_NAMES
from tasks.evaluate.published.deviations import DEVIATIONS, NOT_COMPARABLE, described, deviations_table, measured
from tasks.evaluate.published.names import PUBLISHED_TASKS

DOCS = Path(__file__).parents[4] / "docs"


def test_everything_measured_has_one_entry_and_every_entry_is_measured() -> None:
    assert sorted(described()) == sorted(measured())
    assert len(set(described())) == len(described())
    assert set(TASK_NAMES) <= set(described())


def test_own_tasks_have_other_names_and_say_so() -> None:
    assert not set(TASK_NAMES) & set(PUBLISHED_TASKS)
    for entry in DEVIATIONS:
        is_own = bool(set(entry.names) & {*TASK_NAMES, "ranked_passages", "perplexity", "LongPPL"})
        assert is_own == (entry.kind == "own")
        assert entry.differences
    rows = [line for line in deviations_table().splitlines() if line.startswith("| `")]
    assert sum(NOT_COMPARABLE in line for line in rows) >= len(TASK_NAMES)


def test_the_documentation_shows_the_table() -> None:
    spec = importlib.util.spec_from_file_location("deviations_table", DOCS / "tools" / "deviations_table.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    assert tool.BEGIN in page
    assert tool.with_table(page) == page, "run docs/tools/deviations_table.py"
