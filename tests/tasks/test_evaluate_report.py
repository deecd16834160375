"""The report is a function of the sample rows; gates, tables and figures are functions of the report."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas.params import PublishParams
from tasks.evaluate.gates import failed_gates
from tasks.evaluate.plots import plot_passkey, plot_perplexity
from tasks.evaluate.report import build_report, find_comparison
from tasks.evaluate.report_tables import comparison_table, markdown_tables, passkey_table, perplexity_table
from tasks.evaluate.samples import PASSKEY_SAMPLES, PERPLEXITY_SAMPLES

SETTINGS = {"base_window": 512, "target_length": 2048, "confidence": 0.95, "seed": 0, "target_tokens": 100}
LENGTHS = (256, 512, 1024, 2048)
# nats a token at each length; documents add 0, 0.1, 0.2 ... to it, so every paired ratio is exact
NATS = {"base": (3.1, 3.0, 4.0, 5.0), "scaling_only": (3.3, 3.2, 3.1, 3.1), "fine_tuned": (3.1, 3.01, 2.95, 2.9)}
CORRECT = {"base": 0, "scaling_only": 2, "fine_tuned": 4}


def perplexity_samples(arms: tuple[str, ...] = ("base", "scaling_only", "fine_tuned")) -> pa.Table:
    rows = [
        {
            "arm": arm,
            "length": length,
            "doc_id": f"d{d}",
            "target_start": 5000 + d,
            "num_tokens": 100,
            "nll": 100 * (NATS[arm][i] + d / 10),
        }
        for arm in arms
        for i, length in enumerate(LENGTHS)
        for d in range(12)
    ]
    return pa.Table.from_pylist(rows, schema=PERPLEXITY_SAMPLES)


def passkey_samples(arms: tuple[str, ...] = ("base", "scaling_only", "fine_tuned")) -> pa.Table:
    rows = [
        {"arm": arm, "length": length, "depth": depth, "sample": s, "seed": s, "gold": "12345", "output": "1"}
        | {"correct": s < CORRECT[arm], "logprob": -9.0 + s, "control_logprob": -10.0, "gain": 1.0 + s}
        for arm in arms
        for length in (512, 2048)
        for depth in (0.0, 0.5, 1.0)
        for s in range(5)
    ]
    return pa.Table.from_pylist(rows, schema=PASSKEY_SAMPLES)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return build_report(perplexity_samples(), passkey_samples(), SETTINGS)


def test_perplexity_cells_hold_the_token_weighted_mean(report: dict[str, Any]) -> None:
    assert [(c["arm"], c["length"]) for c in report["perplexity"]] == [(arm, n) for arm in NATS for n in LENGTHS]
    cell = report["perplexity"][3]
    assert cell["perplexity"] == pytest.approx(math.exp(5.0 + 0.55))
    assert (cell["num_documents"], cell["num_tokens"]) == (12, 1200)
    assert cell["low"] < cell["perplexity"] < cell["high"]


def test_comparisons_are_paired_and_named(report: dict[str, Any]) -> None:
    names = [c["name"] for c in report["comparisons"]]
    assert names[:4] == [
        "fine_tuned@2048 vs scaling_only@2048",
        "fine_tuned@2048 vs base@2048",
        "fine_tuned@2048 vs base@512",
        "fine_tuned@512 vs base@512",
    ]
    ratio = find_comparison(report, ("fine_tuned", 2048), ("scaling_only", 2048))
    assert ratio is not None
    assert ratio["ratio"] == pytest.approx(math.exp(-0.2))
    assert ratio["low"] == pytest.approx(ratio["high"]), "documents differ, but each by the same in both arms"


def test_effective_length_stops_at_the_first_failing_length(report: dict[str, Any]) -> None:
    assert report["effective_context_length"]["arms"] == {"base": 512, "scaling_only": None, "fine_tuned": 2048}


def test_passkey_cells(report: dict[str, Any]) -> None:
    cell = next(c for c in report["passkey"] if (c["arm"], c["length"], c["depth"]) == ("fine_tuned", 2048, 0.5))
    assert (cell["n"], cell["accuracy"], cell["gain"]) == (5, 0.8, 3.0)
    assert cell["low"] == pytest.approx(0.3755, abs=5e-4)  # Wilson, 4 of 5
    assert cell["high"] == pytest.approx(0.9638, abs=5e-4)
    assert cell["gain_high"] - cell["gain"] == pytest.approx(2.776445 * 1.581139 / math.sqrt(5), abs=1e-5)


def test_recall_by_position_is_that_of_the_last_arm(report: dict[str, Any]) -> None:
    assert {row["arm"] for row in report["recall_by_position"]} == {"fine_tuned"}
    assert [(r["length"], r["depth"], r["recall"]) for r in report["recall_by_position"][:3]] == [
        (512, 0, 0.8),
        (512, 0.5, 0.8),
        (512, 1, 0.8),
    ]
    without = build_report(perplexity_samples(("base", "scaling_only")), passkey_samples(("base", "scaling_only")), SETTINGS)
    assert {row["arm"] for row in without["recall_by_position"]} == {"scaling_only"}
    assert find_comparison(without, ("fine_tuned", 2048), ("base", 2048)) is None


def test_report_is_the_same_from_parquet_in_any_row_order(report: dict[str, Any], tmp_path: Path) -> None:
    for name, table in (("perplexity", perplexity_samples()), ("passkey", passkey_samples())):
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), tmp_path / f"{name}.parquet")
    again = build_report(pq.read_table(tmp_path / "perplexity.parquet"), pq.read_table(tmp_path / "passkey.parquet"), SETTINGS)
    assert json.loads(json.dumps(again, allow_nan=False)) == json.loads(json.dumps(report, allow_nan=False))


def test_samples_with_other_targets_are_refused() -> None:
    table = perplexity_samples()
    torn = table.slice(0, table.num_rows - 1)
    with pytest.raises(ValueError, match="same targets"):
        build_report(torn, passkey_samples(), SETTINGS)


def test_one_prompt_a_cell_gives_null_bounds(tmp_path: Path) -> None:
    single = passkey_samples().filter(pa.compute.field("sample") == 0)
    report = build_report(perplexity_samples(), single, SETTINGS)
    assert report["passkey"][0]["gain_low"] is None
    json.dumps(report, allow_nan=False)
    plot_passkey(report, tmp_path / "passkey.png")


def test_gates_pass_on_the_unfavourable_bound(report: dict[str, Any]) -> None:
    good = PublishParams(max_short_context_loss=0.02, min_long_context_gain=0.8)
    assert failed_gates(report, good, 512, 2048) == []
    assert failed_gates(report, PublishParams(), 512, 2048) == []


def test_failed_gates_say_their_figures(report: dict[str, Any]) -> None:
    strict = PublishParams(max_short_context_loss=0.005, min_long_context_gain=0.9)
    short, long = failed_gates(report, strict, 512, 2048)
    assert "max_short_context_loss is 0.5%" in short
    assert "+1.0%" in short  # exp(0.01) - 1
    assert "min_long_context_gain is 90.0%" in long
    assert "fell by 87.8%" in long  # 1 - exp(-2.1)


def test_a_gate_whose_length_was_not_measured_fails(report: dict[str, Any]) -> None:
    (sentence,) = failed_gates(report, PublishParams(min_long_context_gain=0.0), 512, 4096)
    assert "4096 tokens" in sentence


def test_tables_have_arms_as_rows_and_lengths_as_columns(report: dict[str, Any]) -> None:
    columns, rows = perplexity_table(report)
    assert columns == ["model", "256", "512", "1024", "2048"]
    assert [row[0] for row in rows] == ["base", "scaling only", "fine-tuned"]
    cell = report["perplexity"][0]
    assert rows[0][1] == f"{cell['perplexity']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]"
    assert passkey_table(report)[1][2] == ["fine-tuned", "80%, +3.0 nats", "80%, +3.0 nats"]
    assert comparison_table(report)[1][0] == ["fine-tuned@2048", "scaling only@2048", "0.819 [0.819, 0.819]"]


def test_markdown_says_what_its_numbers_are(report: dict[str, Any]) -> None:
    text = markdown_tables(report)
    assert "| model | 256 | 512 | 1024 | 2048 |\n| --- | --- | --- | --- | --- |" in text
    assert "last 100 tokens of 12 held-out documents" in text
    assert "30 prompts a model" in text


def test_figures_are_pngs_with_the_same_bytes_each_time(report: dict[str, Any], tmp_path: Path) -> None:
    for name, plot in (("perplexity", plot_perplexity), ("passkey", plot_passkey)):
        first, second = tmp_path / f"{name}1.png", tmp_path / f"{name}2.png"
        plot(report, first)
        plot(report, second)
        assert first.read_bytes().startswith(b"\x89PNG")
        assert first.read_bytes() == second.read_bytes()
