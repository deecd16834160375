"""Scores by the distance between pieces of evidence."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas.errors import UserError
from data_schemas.samples import TASK_SAMPLES
from tasks.evaluate.report.build import build_report
from tasks.evaluate.report.spacing_section import spacing_table
from tasks.evaluate.sample_set import Samples
from tasks.evaluate.statistics.spacing import spacing_rows
from tests.tasks import evaluation_rows as rows
from tests.tasks.evaluation_rows import SETTINGS

DISTANCES = (0.0, 0.5, 1.0)


def spaced_table(arms: tuple[str, ...] = ("base", "fine_tuned"), per_distance: int = 20) -> pa.Table:
    """The base finds the evidence only where it stands together; the fine-tuned model misses a quarter at distance 1."""
    found: list[dict[str, Any]] = []
    for arm in arms:
        table = rows.task_table(
            lambda arm, task, n, depth, s: float(s % 3 == 0 or (arm == "fine_tuned" and (s % 3 == 1 or s % 4 > 0))),
            arms=(arm,),
            tasks=("spaced_evidence",),
            lengths=(1024,),
            depths=(None,),
            num_samples=3 * per_distance,
        )
        for row in table.to_pylist():
            found.append(row | {"num_evidence": 2, "distance": DISTANCES[row["sample"] % 3], "distance_tokens": 7})
    return pa.Table.from_pylist(found, schema=TASK_SAMPLES)


def test_recall_is_given_for_each_distance_with_its_interval() -> None:
    found = spacing_rows(spaced_table(), ["base", "fine_tuned"], SETTINGS)
    assert [(row.arm, row.distance) for row in found] == [(arm, d) for arm in ("base", "fine_tuned") for d in DISTANCES]
    assert [row.accuracy for row in found] == [1, 0, 0, 1, 1, 0.75]
    for row in found:
        assert (row.n, row.num_samples, row.num_evidence, row.length) == (20, 20, 2, 1024)
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.accuracy <= row.high
        assert 0 < row.high - row.low < 0.45
        assert row.gain is not None


def test_tasks_with_one_fact_have_no_rows_but_single_facts_of_a_task_with_several_have() -> None:
    single = rows.task_table(lambda arm, task, n, depth, s: 1.0, arms=("base",), tasks=("passkey",))
    assert spacing_rows(single, ["base"], SETTINGS) == ()
    facts = spaced_table(("base",)).to_pylist()
    for row in facts:
        row |= {"task": "facts_in_text", "num_evidence": 1 + row["sample"] % 3, "distance": 0.25 if row["sample"] % 3 else None}
    found = spacing_rows(pa.Table.from_pylist(facts, schema=TASK_SAMPLES), ["base"], SETTINGS)
    assert [(row.num_evidence, row.distance) for row in found] == [(1, None), (2, 0.25), (3, 0.25)]


def test_the_report_has_a_table_of_distances() -> None:
    samples = Samples.of(task=spaced_table())
    columns, lines = spacing_table(build_report(samples, SETTINGS))
    assert columns == ["task", "tokens", "facts", "distance", "base", "fine-tuned"]
    assert [line[:4] for line in lines] == [["spaced_evidence", "1024", "2", d] for d in ("0", "0.5", "1")]
    assert lines[2][5].startswith("75")


def test_sample_files_of_older_versions_are_read_without_distances(tmp_path: Path) -> None:
    table = spaced_table()
    samples = Samples.of(task=table)
    samples.write(tmp_path)
    assert Samples.read(tmp_path).task.equals(table)
    older = table.drop_columns(["num_evidence", "distance", "distance_tokens"])
    pq.write_table(older, tmp_path / "task_samples.parquet")
    read = Samples.read(tmp_path).task
    assert read.schema == TASK_SAMPLES
    assert read.drop_columns(["num_evidence", "distance", "distance_tokens"]).equals(older)
    assert read["distance"].null_count == read.num_rows
    assert spacing_rows(read, ["base", "fine_tuned"], SETTINGS) == ()
    pq.write_table(table.drop_columns(["score"]), tmp_path / "task_samples.parquet")
    with pytest.raises(UserError, match="is not a table of samples"):
        Samples.read(tmp_path)
