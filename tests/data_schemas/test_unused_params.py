"""What is set and not used is said with the reason, and nothing that is used."""

import pytest

from data_schemas.params import PipelineParams
from data_schemas.unused_params import unused_lines

MINIMAL = {"run_name": "a", "corpus": {"sources": ["texts"]}, "model": {"base": "demo", "target_length": 1024}}
WITH_ANSWERS = {"sources": [{"uri": "talks", "instructions": "auto"}]}
SEARCHED = {"base": "demo", "target_length": 1024, "rope_method": "longrope"}
NOTHING_SEARCHED = "this run searches no RoPE factors"


def said(**groups: dict) -> tuple[str, ...]:
    given = MINIMAL | {name: MINIMAL.get(name, {}) | value for name, value in groups.items()}
    return unused_lines(PipelineParams.model_validate(given))


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        (
            {"retrieval": {"families": ["keyword"], "answer_weight": 0.7, "questions": 4}},
            "not used: retrieval.families, retrieval.answer_weight, retrieval.questions, because retrieval.share is 0",
        ),
        (
            {"retrieval": {"heldout_families": ["keyword"]}},
            "not used: retrieval.heldout_families, because retrieval.share is 0",
        ),
        (
            {"retrieval": {"share": 0.2, "families": ["keyword"], "heldout_families": ["position"]}},
            "not used: position of retrieval.heldout_families, because it is not in retrieval.families",
        ),
        (
            {
                "retrieval": {"families": ["keyword"]},
                "training": {
                    "stages": [{"target_length": 1024, "answer_weight": 0.9}, {"target_length": 1024, "retrieval_share": 0.2}]
                },
            },
            "not used: training.stages[0].answer_weight, because the share of retrieval documents is 0 in this stage",
        ),
        (
            {"retrieval": {"share": 0.2}, "training": {"stages": [{"target_length": 1024, "retrieval_share": 0}] * 2}},
            "not used: retrieval.share, because no training stage has retrieval documents",
        ),
        (
            {
                "retrieval": {"answer_weight": 0.3},
                "training": {"stages": [{"target_length": 1024, "retrieval_share": 0.1, "answer_weight": 0.9}] * 2},
            },
            "not used: retrieval.answer_weight, because each training stage with retrieval documents states its own",
        ),
        (
            {"retrieval": {"share": 0.2}, "training": {"stages": [{"target_length": 1024, "retrieval_share": 0.1}] * 2}},
            "not used: retrieval.share, because each training stage states its own",
        ),
        (
            {
                "training": {
                    "steps": 5,
                    "rows_per_step": 2,
                    "stages": [{"target_length": 512, "steps": 3}, {"target_length": 1024, "steps": 4}],
                }
            },
            "not used: training.steps, because each training stage states its own",
        ),
        (
            {"training": {"loss_long_from": 64, "loss_max_weight": 3.0, "loss_extra_mass": 0.2}},
            "not used: training.loss_long_from, training.loss_extra_mass, training.loss_max_weight, because training.loss_weighting is "
            "none",
        ),
        (
            {"training": {"loss_weighting": "long_ce", "loss_extra_mass": 0.2, "loss_max_weight": 3.0}},
            "not used: training.loss_extra_mass, because it is for training.loss_weighting exact, and that is long_ce",
        ),
        (
            {"training": {"attention": "full", "s2_group_size": 64}},
            "not used: training.s2_group_size, because training.attention is full",
        ),
        (
            {"packing": {"full_attention_conversations": True}},
            "not used: packing.full_attention_conversations, because no source of the corpus is instruction data",
        ),
        (
            {"packing": {"long_conversations": "cut_context"}},
            "not used: packing.long_conversations, because no source of the corpus is instruction data",
        ),
        (
            {
                "packing": {"full_attention_conversations": True},
                "corpus": WITH_ANSWERS,
                "training": {"attention": "full"},
            },
            "not used: packing.full_attention_conversations, because training.attention is full",
        ),
        (
            {"rope_search": {"evaluations": 200, "seed": 3}},
            f"not used: rope_search.evaluations, rope_search.seed, because {NOTHING_SEARCHED}",
        ),
        (
            {"model": SEARCHED | {"rope_factors_file": "f.json"}, "rope_search": {"evaluations": 200}},
            f"not used: rope_search.evaluations, because {NOTHING_SEARCHED}",
        ),
        (
            {
                "model": SEARCHED | {"rope_factors_file": "f.json"},
                "rope_search": {"samples": 12, "knots": 5},
                "training": {"find_short_factors": True, "short_window_share": 0.2},
            },
            f"not used: rope_search.knots, because {NOTHING_SEARCHED}",
        ),
        (
            {"model": SEARCHED, "rope_search": {"space": "full", "knots": 5}},
            "not used: rope_search.knots, because rope_search.space is full",
        ),
    ],
)
def test_what_is_set_and_not_used_is_said_once_with_the_reason(groups: dict, line: str) -> None:
    assert said(**groups) == (line,)


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"retrieval": {"share": 0.2, "families": ["keyword", "position"], "heldout_families": ["position"], "questions": 4}},
        {"retrieval": {"share": 0.2, "heldout_families": ["position"], "answer_weight": 0.7}},
        {"training": {"loss_weighting": "exact", "loss_long_from": 64, "loss_max_weight": 3.0, "loss_extra_mass": 0.2}},
        {"training": {"s2_group_size": 64}},
        {"training": {"attention": "full", "s2_executor": "sdpa"}},  # computes full attention too
        {"packing": {"full_attention_conversations": True, "long_conversations": "cut_context"}, "corpus": WITH_ANSWERS},
        {"model": SEARCHED, "rope_search": {"evaluations": 200, "knots": 5}},
        {
            "rope_search": {"evaluations": 200},
            "training": {"stages": [{"target_length": 600, "rope_method": "longrope"}, {"target_length": 1024}]},
        },
        {"training": {"steps": 10, "warmup_steps": 2, "checkpoint_every": 100}},  # the last step has a checkpoint anyway
    ],
)
def test_of_what_is_used_nothing_is_said(groups: dict) -> None:
    assert said(**groups) == ()
