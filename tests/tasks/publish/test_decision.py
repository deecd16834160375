"""Which versions are served by default: those that are shown to be longer than their base, with short prompts as good."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from data_schemas.params import PipelineParams
from data_schemas.report import Report
from tasks.evaluate.report.build import build_report
from tasks.evaluate.sample_set import Samples
from tasks.publish.decision import decide, doubts_about
from tests.tasks.evaluation_rows import ARMS, SETTINGS, perplexity_table

WINDOW, MIDDLE, TARGET = 512, 1024, 2048
Nats = Callable[[str, int, int], float]


def measured(
    fine_tuned: dict[int, float],
    spread: float = 0.0,
    base: dict[int, float] | None = None,
    arms: Sequence[str] = ARMS,
    lengths: Sequence[int] = (WINDOW, MIDDLE, TARGET),
) -> Report:
    """`fine_tuned` and `base`: nats over the base's at its window, by length; `spread`: nats by which documents differ in it."""
    beyond = base or {WINDOW: 0.0, MIDDLE: 1.0, TARGET: 2.0}

    def nats(arm: str, length: int, document: int) -> float:
        if arm == "base":
            return 3 + beyond[length]
        return 3 + fine_tuned[length] + spread * (document % 2 - 0.5)

    return build_report(Samples.of(perplexity=perplexity_table(nats, arms, lengths, 12)), SETTINGS)


def params(**publish: Any) -> PipelineParams:
    return PipelineParams.model_validate(
        {
            "run_name": "t",
            "corpus": {"sources": ["x"]},
            "model": {"base": "b", "target_length": TARGET},
            "publish": publish,
        }
    )


BETTER = {WINDOW: 0.01, MIDDLE: 0.0, TARGET: -0.05}


def test_a_longer_model_with_short_prompts_as_good_is_served() -> None:
    report = measured(BETTER)
    assert doubts_about(report) == []
    assert decide(params(), report).is_to_serve


def test_a_model_that_is_longer_but_not_as_long_as_its_target_is_served() -> None:
    assert doubts_about(measured(BETTER | {TARGET: 0.3})) == []


@pytest.mark.parametrize(
    ("report", "sentences", "advice"),
    [
        (
            measured({WINDOW: 0.01, MIDDLE: 0.2, TARGET: 0.3}),
            ["It keeps perplexity within 5% of the base's only up to 512 tokens."],
            ["raise training.steps"],
        ),
        (
            measured({WINDOW: 0.2, MIDDLE: 0.2, TARGET: 0.3}),
            [
                "At 2048 tokens: a loss above 5% against the base at 512 tokens is shown",
                "Short prompts: a loss above 5% is shown",
            ],
            ["raise training.steps", "lower training.learning_rate"],
        ),
        (measured(BETTER | {WINDOW: 0.2}), ["Short prompts: a loss above 5% is shown"], ["lower training.learning_rate"]),
        (
            measured({WINDOW: 0.0, MIDDLE: 0.04, TARGET: 0.04}, spread=0.3),
            ["At 2048 tokens: a loss above 5% against the base at 512 tokens is neither", "is neither shown nor ruled out"],
            ["measure on more documents", "measure on more documents"],
        ),
        (
            measured(BETTER, base={WINDOW: 0.0, MIDDLE: 0.0, TARGET: 0.0}),
            ["It is not longer than its base, whose own perplexity stays within 5% up to 2048 tokens."],
            ["use the base as it is"],
        ),
        (
            measured(BETTER, lengths=(WINDOW,)),
            ["Whether it works beyond the base's 512 tokens was not measured."],
            ["put 512, 2048 into evaluation.lengths"],
        ),
        (
            measured(BETTER, arms=("fine_tuned",)),
            [
                "Whether it works beyond the base's 512 tokens was not measured.",
                "Short prompts: this needs the base and fine-tuned at 512",
            ],
            ["put 512, 2048 into evaluation.lengths", "put 512 into evaluation.lengths"],
        ),
        (
            build_report(Samples.of(), SETTINGS),
            ["Whether it works beyond the base's 512 tokens was not measured.", "Short prompts: this needs"],
            ["put 512, 2048 into evaluation.lengths", "put 512 into evaluation.lengths"],
        ),
    ],
    ids=["not longer", "worse everywhere", "worse when short", "uncertain", "base as long", "too short", "no base", "nothing"],
)
def test_what_speaks_against_serving_a_version(report: Report, sentences: list[str], advice: list[str]) -> None:
    doubts = doubts_about(report)
    assert len(doubts) == len(sentences)
    for doubt, sentence, tried in zip(doubts, sentences, advice, strict=True):
        assert sentence in doubt.sentence
        assert doubt.advice.startswith(tried)
    assert not decide(params(), report).is_to_serve
    assert decide(params(current="always"), report).is_to_serve


def test_one_document_shows_nothing() -> None:
    table = perplexity_table(lambda arm, length, d: 3.0 if arm == "fine_tuned" else 4.0, ARMS, (WINDOW, TARGET), 1)
    report = build_report(Samples.of(perplexity=table), SETTINGS)
    assert [doubt.advice.partition(" (")[0] for doubt in doubts_about(report)] == ["measure on more documents"] * 2


def test_a_gate_holds_whatever_the_policy() -> None:
    for policy in ("if_better", "always"):
        decision = decide(params(current=policy, max_short_context_loss=0.001), measured(BETTER))
        assert ["publish.max_short_context_loss is 0.1%" in doubt.sentence for doubt in decision.doubts] == [True]
        assert not decision.is_to_serve


def test_never_is_a_wish_and_not_a_failure() -> None:
    decision = decide(params(current="never"), measured(BETTER))
    assert not decision.is_to_serve
    assert decision.doubts == ()
