"""The five lines follow from intervals by rule, and the closing page fits a terminal."""

import pytest

from data_schemas.report import Report
from data_schemas.samples import served_arm
from tasks.evaluate.report.build import build_report
from tasks.evaluate.report.closing_page import closing_page
from tasks.evaluate.report.numbers import gain, p_holm, p_value, perplexity, points, ratio, share, with_interval
from tasks.evaluate.report.verdict import four_numbers, verdict
from tasks.evaluate.sample_set import Samples
from tests.tasks.evaluate.six_models import six_report
from tests.tasks.evaluation_rows import SETTINGS, changed_settings, perplexity_table, reorder_table, task_table

LENGTHS = (512, 2048)


def measured(base: float, at_window: float, at_target: float, noise: float = 0.0) -> Report:
    """Nats a token: of the base at its window, and of the fine-tuned model there and at the target; scaling only has 3."""

    def nats(arm: str, length: int, document: int) -> float:
        sign = noise if document % 2 else -noise
        if arm == "base":
            return base if length == 512 else 5.0
        return 3.0 if arm == "scaling_only" else (at_window if length == 512 else at_target) + sign

    arms = ("base", "scaling_only", "fine_tuned")
    return build_report(Samples.of(perplexity=perplexity_table(nats, arms, LENGTHS, 12)), SETTINGS)


def answers(report: Report) -> list[str]:
    return [line.answer for line in verdict(report)]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (measured(3.0, 3.0, 2.9), ["yes", "yes", "yes"]),
        (measured(3.0, 3.01, 3.02), ["yes", "no", "yes"]),
        (measured(3.0, 3.2, 3.2), ["no", "no", "no"]),
        (measured(3.0, 3.0, 3.0, noise=0.5), ["not shown", "not shown", "not shown"]),
    ],
)
def test_answers_follow_from_intervals(report: Report, expected: list[str]) -> None:
    lines = verdict(report)
    assert len(lines) == 5
    assert answers(report)[:3] == expected
    assert answers(report)[3:] == ["not measured", "not measured"]


def test_the_line_says_its_figure_with_interval() -> None:
    long, training, short, *_ = verdict(measured(3.0, 3.01, 2.9))
    assert long.question == "Does it work at 2048 tokens?"
    assert long.sentence == "It is better than the base at 512 tokens: perplexity ratio 0.905 [0.905, 0.905]."
    assert training.sentence == "Perplexity is 9.5% lower: ratio 0.905 [0.905, 0.905]."
    assert "A loss above 5% is ruled out" in short.sentence


def test_the_worse_of_usual_and_served_decides_on_short_prompts() -> None:
    report = measured(3.0, 3.01, 2.9)
    section = report.non_inferiority
    (usual,) = [row for row in section.perplexity if row.arm == "fine_tuned"]
    served = usual.model_copy(
        update={"arm": served_arm("fine_tuned"), "ratio": 1.2, "low": 1.1, "high": 1.3, "verdict": "inferior"}
    )
    changed = section.model_copy(update={"perplexity": (*section.perplexity, served)})
    line = verdict(report.model_copy(update={"non_inferiority": changed}))[2]
    assert line.answer == "no"
    assert line.sentence.endswith("1.010 [1.010, 1.010], 1.200 [1.100, 1.300] as served.")


@pytest.mark.parametrize(("num_samples", "too_few"), [(3, True), (30, False)])
def test_samples_that_could_have_shown_nothing_are_said(num_samples: int, too_few: bool) -> None:
    table = task_table(lambda arm, task, n, depth, s: float(arm == "fine_tuned" and n < 2048), num_samples=num_samples)
    line = verdict(build_report(Samples.of(task=table), SETTINGS))[3]
    assert line.answer == "not shown"
    assert (f"({num_samples} samples could not have shown any difference)" in line.sentence) == too_few


def test_more_found_in_long_texts_is_a_corrected_test() -> None:
    table = task_table(lambda arm, task, n, depth, s: float(arm == "fine_tuned"), num_samples=20)
    line = verdict(build_report(Samples.of(task=table), SETTINGS))[3]
    assert line.answer == "yes"
    assert "better in 1, worse in 0 of 1 task" in line.sentence
    assert "passkey 100% [" in line.sentence


def test_the_order_of_passages() -> None:
    table = reorder_table({"none": 0.2, "random": 0.2, "reverse_rank": 0.9}, (2048,), num_samples=40)
    line = verdict(build_report(Samples.of(reorder=table), SETTINGS))[4]
    assert (line.answer, "Use reverse_rank (the best passage last): 70 [" in line.sentence) == ("yes", True)
    equal = reorder_table({"none": 0.5, "random": 0.5, "reverse_rank": 0.5}, (2048,), num_samples=40)
    assert verdict(build_report(Samples.of(reorder=equal), SETTINGS))[4].answer == "not shown"


def test_without_training_scaling_only_is_judged() -> None:
    table = perplexity_table(lambda arm, n, d: 3.0 + (arm == "base" and n > 512), ("base", "scaling_only"), LENGTHS, 12)
    report = build_report(Samples.of(perplexity=table), changed_settings(arms=("base", "scaling_only"), longppl_evaluator=None))
    assert answers(report)[:3] == ["yes", "not measured", "yes"]
    assert four_numbers(report)[1].value == "not measured"


def test_nothing_measured_is_a_verdict_too() -> None:
    report = build_report(Samples.of(), SETTINGS)
    assert answers(report) == ["not measured"] * 5
    assert [number.value for number in four_numbers(report)] == ["not measured"] * 4


def test_the_four_numbers_have_intervals() -> None:
    numbers = four_numbers(six_report())
    assert [number.name.partition(" at")[0] for number in numbers[:2]] == ["perplexity", "ratio to scaling only"]
    assert all(number.interval.startswith("[") for number in numbers)
    assert numbers[3].estimate == "≥ 131072"


@pytest.mark.parametrize("report", [measured(3.0, 3.0, 2.9), build_report(Samples.of(), SETTINGS), six_report()])
def test_the_closing_page_leaves_room_on_a_terminal_of_24_rows(report: Report) -> None:
    lines = closing_page(report, "Open evaluation/report.html in the folder below for every figure and table.").splitlines()
    assert len(lines) <= 20, "stages, the folder and the prompt need four"
    assert max(map(len, lines)) <= 80


def test_long_reasons_are_cut_on_the_closing_page() -> None:
    report = six_report()
    assert report.reorder is not None
    section = report.reorder.model_copy(update={"decision": None, "reason": "no questions " * 60})
    lines = closing_page(report.model_copy(update={"reorder": section}), "there").splitlines()
    assert len(lines) <= 20
    assert any(line.endswith("…") for line in lines)


def test_numbers_are_written_with_about_three_digits() -> None:
    assert perplexity(9.204, 7.94, 10.66) == "9.20 [7.94, 10.66]"
    assert perplexity(9.996, 9.0, 11.0) == "10.0 [9.0, 11.0]"
    assert perplexity(105.6, 91.3, 121.2) == "106 [91, 121]"
    assert perplexity(2.5, None, None) == "2.50"
    assert ratio(0.9624, 0.9496, 0.9751) == "0.962 [0.950, 0.975]"
    assert ratio(10.9051, 9.55, 12.492) == "10.9 [9.6, 12.5]"
    assert share(0.175, 0.04, 0.52) == "18% [4%, 52%]"
    assert points(-0.001, -0.09, 0.67) == "0 [-9, 67]", "a zero has no sign"
    assert gain(15.07, 14.2, None) == "+15.1 nats"
    assert gain(None, None, None) == ""
    assert with_interval(-0.0001, -1.0, 1.0, 2, sign="+") == "+0.00 [-1.00, +1.00]"
    assert p_value(0.00001) == "<0.0001"
    assert p_holm(0.0312, 6) == "0.031 (Holm over 6)"
