"""The report is a function of the sample rows; gates, tables and figures are functions of the report."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_schemas.errors import UserError
from data_schemas.params import PublishParams
from data_schemas.report import Report, read_report, record_json
from data_schemas.report_sections import EffectiveLength, RulerLengths
from tasks.evaluate.published.names import RULER_PUBLISHED
from tasks.evaluate.report.build import build_report
from tasks.evaluate.report.closing_page import closing_page
from tasks.evaluate.report.gates import failed_gates
from tasks.evaluate.report.markdown_page import markdown_tables
from tasks.evaluate.report.result_files import recompute, write_results
from tasks.evaluate.report.tables import comparison_table, perplexity_table, task_table
from tasks.evaluate.sample_set import Samples
from tests.tasks import evaluation_rows as rows
from tests.tasks.evaluation_rows import ARMS, SETTINGS, changed_settings

LENGTHS = (256, 512, 1024, 2048)
# nats a token at each length; documents add 0, 0.1, 0.2 ... to it, so every paired ratio is exact
NATS = {"base": (3.1, 3.0, 4.0, 5.0), "scaling_only": (3.3, 3.2, 3.1, 3.1), "fine_tuned": (3.1, 3.01, 2.95, 2.9)}
NATS |= {"base_ntk": (3.2, 3.2, 3.2, 3.2)}
CORRECT = {"base": 0, "scaling_only": 2, "fine_tuned": 4, "base_ntk": 1}


def perplexity_samples(arms: tuple[str, ...] = ARMS) -> pa.Table:
    return rows.perplexity_table(lambda arm, n, d: NATS[arm][LENGTHS.index(n)] + d / 10, arms, LENGTHS, 12)


def task_samples(arms: tuple[str, ...] = ARMS, tasks: tuple[str, ...] = ("passkey",)) -> pa.Table:
    return rows.task_table(lambda arm, task, n, depth, s: float(s < CORRECT[arm]), arms=arms, tasks=tasks)


@pytest.fixture(scope="module")
def samples() -> Samples:
    protocols = pa.concat_tables([rows.protocol_table(p, [(1000, 3000.0), (200, 500.0)]) for p in ("yarn", "longlora")])
    position = rows.position_table(lambda arm, start: 3.0, ARMS, 2048, 4)
    reorder = rows.reorder_table({"none": 0.3, "important_first_last": 0.5, "random": 0.3}, (512, 2048), num_samples=20)
    return Samples(perplexity_samples(), position, protocols, task_samples(), reorder)


@pytest.fixture(scope="module")
def report(samples: Samples) -> Report:
    return build_report(samples, SETTINGS)


def test_perplexity_cells_hold_the_token_weighted_mean(report: Report) -> None:
    assert [(c.arm, c.length) for c in report.perplexity] == [(arm, n) for arm in ARMS for n in LENGTHS]
    cell = report.perplexity[3]
    assert cell.perplexity == pytest.approx(math.exp(5.0 + 0.55))
    assert (cell.num_documents, cell.num_tokens) == (12, 1200)
    assert cell.low < cell.perplexity < cell.high


def test_comparisons_are_paired_and_named(report: Report) -> None:
    names = [c.name for c in report.comparisons]
    assert names[:4] == [
        "fine_tuned@2048 vs scaling_only@2048",
        "fine_tuned@2048 vs base@2048",
        "fine_tuned@2048 vs base@512",
        "fine_tuned@512 vs base@512",
    ]
    ratio = report.comparison(("fine_tuned", 2048), ("scaling_only", 2048))
    assert ratio is not None
    assert ratio.ratio == pytest.approx(math.exp(-0.2))
    assert ratio.low == pytest.approx(ratio.high), "documents differ, but each by the same in both arms"


@pytest.mark.slow
def test_further_methods_are_compared_and_drawn(tmp_path: Path) -> None:
    arms = (*ARMS, "base_ntk")
    report = write_results(tmp_path, Samples.of(perplexity=perplexity_samples(arms), task=task_samples(arms)), SETTINGS)
    assert list(dict.fromkeys(c.arm for c in report.perplexity)) == list(arms)
    assert report.comparison(("fine_tuned", 2048), ("base_ntk", 2048)) is not None
    assert report.comparison(("base_ntk", 2048), ("base", 512)) is not None
    assert "base + ntk" in (tmp_path / "report.md").read_text()


def test_effective_length_stops_at_the_first_failing_length(report: Report) -> None:
    section = report.effective_context_length
    assert section.arms == {"base": 512, "scaling_only": None, "fine_tuned": 2048}
    assert section.perplexity.arms["fine_tuned"].value is None, "1 % above the base at its own window"
    assert section.ruler.reason


def test_position_ranges_are_token_weighted(report: Report) -> None:
    curve = [row for row in report.position if row.arm == "base"]
    assert [(r.start, r.end) for r in curve] == [(2**k, 2 ** (k + 1)) for k in range(11)]
    assert curve[5].perplexity == pytest.approx(math.exp(3 + np.mean([0, 0.02, 0.04, 0.06])))
    assert curve[5].num_tokens == 4 * 32


def test_protocols_average_windows_or_tokens_as_their_papers_do(report: Report) -> None:
    found = {row.protocol: row for row in report.protocols}
    assert found["yarn"].perplexity == pytest.approx(math.exp((3000 / 1000 + 500 / 200) / 2))
    assert found["longlora"].perplexity == pytest.approx(math.exp(3500 / 1200))
    assert "2309.00071" in found["yarn"].label


def test_longppl_takes_tokens_that_long_context_makes_likely() -> None:
    """Of four tokens a document, the first gains enough and ends likely; the others gain too little or stay unlikely."""
    at = {512: [-4.0, -1.0, -9.0, -2.5], 2048: [-0.5, -0.9, -3.0, -0.6]}
    table = rows.perplexity_table(lambda *_: 1.0, ("base", "scaling_only"), (512, 2048), 40, num_tokens=4).to_pylist()
    for row in table:
        row["logprobs"] = [v + (0.1 if row["arm"] == "base" else 0) for v in at[row["length"]]]
    perplexity = pa.Table.from_pylist(table, schema=perplexity_samples().schema)
    section = build_report(Samples.of(perplexity=perplexity), SETTINGS).longppl
    assert (section.long, section.short, section.num_key_tokens, section.num_documents) == (2048, 512, 40, 40)
    found = {(c.arm, c.length): c.longppl for c in section.cells}
    assert found["scaling_only", 2048] == pytest.approx(math.exp(0.5))
    assert {length for _, length in found} == {2048}, "LongPPL is about what lies beyond the short context"


def test_longppl_is_given_by_the_choice_of_each_extended_model() -> None:
    """Each model predicts other tokens better with long context, and is the better one on those."""
    table = rows.perplexity_table(lambda *_: 1.0, ("scaling_only", "fine_tuned"), (512, 2048), 40, num_tokens=2).to_pylist()
    for row in table:
        own = 0 if row["arm"] == "scaling_only" else 1
        row["logprobs"] = [-0.5 if row["length"] == 2048 and place == own else -4.0 for place in range(2)]
    perplexity = pa.Table.from_pylist(table, schema=perplexity_samples().schema)
    section = build_report(Samples.of(perplexity=perplexity), changed_settings(longppl_evaluator="each")).longppl
    (other,) = section.others
    assert (section.evaluator, other.evaluator) == ("scaling_only", "fine_tuned")
    for found, better in ((section, "scaling_only"), (other, "fine_tuned")):
        figures = {cell.arm: cell.longppl for cell in found.cells}
        assert min(figures, key=figures.__getitem__) == better, "so one choice alone would have decided"


def test_longppl_of_one_document_alone_is_not_measured() -> None:
    """Forty key tokens, all in the first of twelve documents."""
    table = rows.perplexity_table(lambda *_: 1.0, ("base", "scaling_only"), (512, 2048), 12, num_tokens=40).to_pylist()
    for row in table:
        row["logprobs"] = [-0.5 if row["length"] == 2048 and row["doc_id"] == "d00" else -4.0] * 40
    perplexity = pa.Table.from_pylist(table, schema=perplexity_samples().schema)
    section = build_report(Samples.of(perplexity=perplexity), SETTINGS).longppl
    assert (section.num_key_tokens, section.num_documents, section.cells) == (40, 1, ())
    assert section.reason == "all 40 key tokens stand in one document"


def test_longppl_says_why_there_is_none(report: Report) -> None:
    assert "fewer than 30" in report.longppl.reason
    assert build_report(Samples.of(), changed_settings(longppl_evaluator=None)).longppl.cells == ()
    assert "Not measured: only 0 key tokens" in markdown_tables(report)


def test_task_cells_by_depth(report: Report) -> None:
    cell = next(c for c in report.tasks if (c.arm, c.length, c.depth) == ("fine_tuned", 2048, 0.5))
    assert (cell.n, cell.accuracy, cell.gain, cell.interval) == (5, 0.8, 3.0, "wilson")
    assert cell.low == pytest.approx(0.3755, abs=5e-4)  # Wilson, 4 of 5
    assert cell.high == pytest.approx(0.9638, abs=5e-4)
    assert cell.gain_high - cell.gain == pytest.approx(2.776445 * 1.581139 / math.sqrt(5), abs=1e-5)
    pooled = next(c for c in report.task_means if (c.arm, c.length) == ("fine_tuned", 2048))
    assert (pooled.n, pooled.num_samples, pooled.interval) == (15, 5, "wilson_effective")
    assert (pooled.low, pooled.high) == (cell.low, cell.high), "depths that all come out alike are one observation"


def test_paired_tests_are_over_samples_and_nulls_are_kept(report: Report) -> None:
    against_base = [f for f in report.tests if f.second == "base"]
    assert [(f.role, [t.length for t in f.tests]) for f in against_base] == [("primary", [512]), ("secondary", [2048])]
    (test,) = against_base[0].tests
    assert (test.samples_first_better, test.prompts_first_better) == (4, 12)
    assert test.p_value == pytest.approx(2 / 2**4)
    assert test.p_holm == test.p_value, "alone in its family"
    assert test.verdict == "too_few_samples", "five samples are never below 0.05"
    assert test.p_value_prompts == pytest.approx(2 / 2**12)


def test_non_inferiority_at_the_base_window(report: Report) -> None:
    verdicts = {r.arm: r.verdict for r in report.non_inferiority.perplexity}
    assert verdicts == {"scaling_only": "inferior", "fine_tuned": "non_inferior"}
    assert {r.verdict for r in report.non_inferiority.tasks} == {"not_measurable"}, (
        "the base is right on none of five samples, so the effective length does not judge by score either"
    )


@pytest.mark.parametrize(("base_right", "verdict"), [(15, "not_measurable"), (20, "non_inferior")])
def test_one_floor_of_the_base_for_verdicts_and_effective_length(base_right: int, verdict: str) -> None:
    """Of 200 samples 15 are 7.5 %, whose interval reaches 12 %; the fine-tuned model is right where the base is."""
    table = rows.task_table(lambda arm, task, n, depth, s: float(s < base_right), num_samples=200, arms=("base", "fine_tuned"))
    report = build_report(Samples.of(task=table), SETTINGS)
    assert [r.verdict for r in report.non_inferiority.tasks] == [verdict]
    (entry,) = report.effective_context_length.task_scores.tasks
    assert (entry.measure == "score") == (verdict != "not_measurable")


def test_a_task_that_the_base_does_not_do_shows_no_non_inferiority() -> None:
    table = rows.task_table(lambda *_: 0.0, num_samples=50)
    report = build_report(Samples.of(task=table), SETTINGS)
    assert {r.verdict for r in report.non_inferiority.tasks} == {"not_measurable"}


def test_rulers_threshold_is_judged_only_where_all_13_configurations_ran_as_published() -> None:
    def score(arm: str, task: str, *_: object) -> float:
        return {"ruler_fwe": 0.0, "passkey": 0.0}.get(task, 0.93)

    def judged(tasks: tuple[str, ...]) -> RulerLengths:
        table = rows.task_table(score, tasks=tasks, num_samples=100)
        return build_report(Samples.of(task=table), SETTINGS).effective_context_length.ruler

    section = judged((*RULER_PUBLISHED, "passkey"))
    assert section.tasks == RULER_PUBLISHED
    assert section.arms["base"].value == 2048, "12 * 0.93 / 13 = 0.858"
    for fewer in (RULER_PUBLISHED[1:], ("niah_single", "frequent_words")):
        left_out = judged(fewer)
        assert (left_out.tasks, left_out.arms) == ((), {})
        assert left_out.reason
        assert "not all run as published" in left_out.reason


def test_recall_by_position_is_that_of_the_served_model(report: Report) -> None:
    assert {row.arm for row in report.recall_by_position} == {"fine_tuned"}
    assert [(r.length, r.depth, r.recall) for r in report.recall_by_position[:3]] == [
        (512, 0, 0.8),
        (512, 0.5, 0.8),
        (512, 1, 0.8),
    ]
    two = ("base", "scaling_only")
    without = build_report(Samples.of(perplexity=perplexity_samples(two), task=task_samples(two)), SETTINGS)
    assert {row.arm for row in without.recall_by_position} == {"scaling_only"}
    assert without.comparison(("fine_tuned", 2048), ("base", 2048)) is None


@pytest.mark.parametrize(("key_value", "expected"), [(0.5, "key_value"), (0.0, "passkey"), (1.0, "passkey")])
def test_recall_by_position_comes_from_a_task_that_tells_positions_apart(key_value: float, expected: str) -> None:
    table = rows.task_table(
        lambda arm, task, n, depth, s: float(s % 2) if task == "passkey" or key_value == 0.5 else key_value,
        tasks=("passkey", "key_value", "common_words"),
    )
    report = build_report(Samples.of(task=table), SETTINGS)
    assert {row.task for row in report.recall_by_position} == {expected}


def test_a_task_without_depth_or_control_has_neither_curve_nor_gain(tmp_path: Path) -> None:
    table = rows.task_table(lambda *_: 0.5, tasks=("common_words",), depths=(None,), gain=None)
    report = write_results(tmp_path, Samples.of(task=table), SETTINGS)
    assert {(r.depth, r.gain) for r in report.tasks} == {(None, None)}
    assert report.lost_in_the_middle == report.recall_by_position == ()
    assert {p.name for p in tmp_path.glob("*.png")} == {"common_words.png", "tasks.png", "effective_length.png"}


@pytest.mark.slow
def test_recomputed_from_files_in_any_row_order(report: Report, samples: Samples, tmp_path: Path) -> None:
    shuffled = {
        name: getattr(samples, name).take(np.random.default_rng(0).permutation(getattr(samples, name).num_rows))
        for name in ("perplexity", "position", "protocol", "task", "reorder")
    }
    Samples(**shuffled).write(tmp_path / "found")
    (tmp_path / "found" / "settings.json").write_text(record_json(SETTINGS))
    again = recompute(tmp_path / "found", tmp_path / "again")
    assert read_report(tmp_path / "again" / "report.json") == again == report
    plots = {f"{name}.png" for name in ("perplexity", "effective_length", "tasks", "position", "passkey", "middle_passkey")}
    assert {p.name for p in (tmp_path / "again").iterdir()} == plots | {"report.json", "report.md", "report.html"}
    first = {name: (tmp_path / "again" / name).read_bytes() for name in plots}
    assert all(png.startswith(b"\x89PNG") for png in first.values())


def test_nothing_measured_is_a_report_too(tmp_path: Path) -> None:
    report = write_results(tmp_path, Samples.of(), SETTINGS)
    assert closing_page(report, "there")
    assert "Not measured: scaling_only was not measured at two context lengths." in (tmp_path / "report.md").read_text()
    assert "Nothing was measured." in markdown_tables(build_report(Samples.of(), changed_settings(longppl_evaluator=None)))
    assert list(tmp_path.glob("*.png")) == []
    assert failed_gates(report, PublishParams(min_effective_length=512), 512, 2048)


@pytest.mark.parametrize("damage", ["missing", "text", "columns", "settings", "lacking"])
def test_foreign_samples_are_refused_in_one_sentence(samples: Samples, tmp_path: Path, damage: str) -> None:
    samples.write(tmp_path)
    (tmp_path / "settings.json").write_text(
        "[" if damage == "settings" else "{}" if damage == "lacking" else record_json(SETTINGS)
    )
    path = tmp_path / "task_samples.parquet"
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("no parquet")
    elif damage == "columns":
        pq.write_table(samples.perplexity, path)
    with pytest.raises(UserError, match=r"settings\.json" if damage in ("settings", "lacking") else r"task_samples\.parquet"):
        recompute(tmp_path, tmp_path / "out")


def test_samples_with_other_targets_or_prompts_are_refused(samples: Samples, tmp_path: Path) -> None:
    torn = samples.perplexity.slice(0, samples.perplexity.num_rows - 1)
    with pytest.raises(ValueError, match="same targets"):
        build_report(Samples.of(perplexity=torn), SETTINGS)
    changed = samples.task.to_pylist()
    changed[-1]["prompt_hash"] = "0" * 16
    table = pa.Table.from_pylist(changed, schema=samples.task.schema)
    with pytest.raises(ValueError, match="not the same prompts"):
        build_report(Samples.of(task=table), SETTINGS)
    with pytest.raises(ValueError, match="twice"):
        build_report(Samples.of(task=pa.concat_tables([samples.task, samples.task])), SETTINGS)
    Samples.of(task=table).write(tmp_path)
    (tmp_path / "settings.json").write_text(record_json(SETTINGS))
    with pytest.raises(UserError, match="do not make a report"):
        recompute(tmp_path, tmp_path / "out")


def test_one_prompt_a_cell_gives_null_bounds(samples: Samples, tmp_path: Path) -> None:
    single = samples.task.filter(pc.field("sample") == 0)
    report = write_results(tmp_path, Samples.of(task=single), SETTINGS)
    assert report.tasks[0].gain_low is None


def test_one_document_shows_nothing_and_fails_every_gate(tmp_path: Path) -> None:
    """Its ratios are good, but have no interval; page, figures, tables and verdicts do without."""
    perplexity = rows.perplexity_table(lambda arm, n, d: NATS[arm][LENGTHS.index(n)], ARMS, LENGTHS, 1)
    position = rows.position_table(lambda arm, start: 3.0, ARMS, 2048, 1)
    protocols = rows.protocol_table("yarn", [(1000, 3000.0)])
    report = write_results(tmp_path, Samples.of(perplexity=perplexity, position=position, protocol=protocols), SETTINGS)
    assert closing_page(report, "there")
    cells = [*report.perplexity, *report.position, *report.protocols, *report.comparisons]
    assert {(cell.low, cell.high) for cell in cells} == {(None, None)}
    assert "| fine-tuned | 22.2 | 20.3 | 19.1 | 18.2 |" in (tmp_path / "report.md").read_text()
    assert {row.verdict for row in report.non_inferiority.perplexity} == {"not_shown"}
    within = report.effective_context_length.within_margin.arms["fine_tuned"]
    assert within == EffectiveLength(value=2048, lower=None, upper=2048, longest_measured=2048)
    gates = PublishParams(max_short_context_loss=0.5, min_long_context_gain=0.1, min_effective_length=512)
    short, long, from_window, length = failed_gates(report, gates, 512, 2048)
    assert "max_short_context_loss cannot be judged" in short
    assert "fine_tuned@2048 vs scaling_only@2048 was measured on 1 document" in long
    assert "fine_tuned@2048 vs base@512 was measured on 1 document" in from_window
    assert "min_effective_length is 512" in length


def test_gates_pass_on_the_unfavourable_bound(report: Report) -> None:
    low = next(r.low for r in report.task_means if (r.arm, r.length) == ("fine_tuned", 2048))
    good = PublishParams(
        max_short_context_loss=0.02, min_long_context_gain=0.09, min_effective_length=2048, min_task_scores={"passkey": low}
    )
    assert failed_gates(report, good, 512, 2048) == []
    assert failed_gates(report, PublishParams(), 512, 2048) == []


def test_a_base_that_is_broken_beyond_its_window_passes_no_gate(report: Report) -> None:
    """Against the base at 2048 perplexity falls by 88 %, against what would be published otherwise by 18 and 10 %."""
    broken = report.comparison(("fine_tuned", 2048), ("base", 2048))
    assert broken is not None
    assert broken.high is not None
    assert 1 - broken.high > 0.8
    assert len(failed_gates(report, PublishParams(min_long_context_gain=0.8), 512, 2048)) == 2
    assert len(failed_gates(report, PublishParams(min_long_context_gain=0.1), 512, 2048)) == 1


def test_failed_gates_say_by_how_much(report: Report) -> None:
    strict = PublishParams(max_short_context_loss=0.005, min_long_context_gain=0.9, min_task_scores={"passkey": 0.9})
    short, long, from_window, task = failed_gates(report, strict, 512, 2048)
    assert "max_short_context_loss is 0.5%" in short
    assert "+1.0%" in short  # exp(0.01) - 1
    assert "0.5% too much" in short
    assert "min_long_context_gain is 90.0%" in long
    assert "fell by 18.1% against scaling only at the same length" in long  # 1 - exp(-0.2)
    assert "fell by 9.5% against the base at its window of 512 tokens" in from_window  # 1 - exp(-0.1)
    assert "scores 80.0%" in task
    assert "too little (5 samples)" in task


def test_effective_length_gate_says_by_how_many_tokens(samples: Samples) -> None:
    def nats(arm: str, n: int, document: int) -> float:
        return 3.0 + document / 10 + (0.5 if n > 1024 else 0.0)

    table = rows.perplexity_table(nats, ("base", "fine_tuned"), LENGTHS, 5)
    report = build_report(Samples.of(perplexity=table), SETTINGS)
    (sentence,) = failed_gates(report, PublishParams(min_effective_length=2048), 512, 2048)
    assert "1024 tokens, 1024 too few" in sentence
    (unmeasured,) = failed_gates(report, PublishParams(min_effective_length=4096), 512, 4096)
    assert "add 4096 to evaluation.lengths" in unmeasured


def test_a_gate_whose_length_or_task_was_not_measured_fails(report: Report) -> None:
    gates = PublishParams(min_long_context_gain=0.0, min_task_scores={"key_value": 0.1})
    gain, from_window, task = failed_gates(report, gates, 512, 4096)
    assert "scaling_only at 4096 tokens" in gain
    assert "the fine-tuned model at 4096 tokens was not measured" in from_window
    assert "add key_value to evaluation.tasks" in task


def test_tables_have_arms_as_rows_and_lengths_as_columns(report: Report) -> None:
    columns, lines = perplexity_table(report)
    assert columns == ["model", "256", "512", "1024", "2048"]
    assert [line[0] for line in lines] == ["base", "scaling only", "fine-tuned"]
    cell = report.perplexity[0]
    assert lines[0][1] == f"{cell.perplexity:.1f} [{cell.low:.1f}, {cell.high:.1f}]"
    assert task_table(report)[1][2][0] == "passkey, fine-tuned"
    assert task_table(report)[1][2][1].startswith("80% [")
    assert comparison_table(report)[1][0] == ["fine-tuned@2048", "scaling only@2048", "0.819 [0.819, 0.819]"]


def test_page_says_what_its_numbers_are(report: Report) -> None:
    text = markdown_tables(report)
    assert "important_first_last (chosen)" in text
    assert "log-probabilities are compared" not in text
    assert "| model | 256 | 512 | 1024 | 2048 |\n| --- | --- | --- | --- | --- |" in text
    assert "last 100 tokens of 12 held-out documents" in text
    assert "30 prompts a model" in text
    assert "| perplexity within 5% of the base's at its window | 512 [512, 512] | – [–, –] | ≥ 2048 [≥ 2048, ≥ 2048] |" in text
    assert "LongLoRA (arXiv 2309.12307), own texts: not comparable with published figures" in text
    assert "These are Ropeway's own tasks: not comparable with published figures." in text


def test_page_holds_benchmarks_and_what_was_left_out() -> None:
    metrics = {"acc,none": 0.5, "acc_stderr,none": 0.02, "alias": 1.0}
    benchmarks = {arm: {"version": "0.4", "results": {"piqa": metrics}, "num_fewshot": {}} for arm in ("base", "fine_tuned")}
    settings = changed_settings(lm_eval=benchmarks, arms_left_out={"base_linear": "it cannot be composed"})
    text = markdown_tables(build_report(Samples.of(), settings))
    assert "| piqa | acc,none | 0.5 ± 0.02 | 0.5 ± 0.02 |" in text
    assert "base_linear: it cannot be composed" in text
