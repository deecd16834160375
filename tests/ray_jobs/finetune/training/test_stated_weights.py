"""Weights that the shards state for their tokens reach the loss, alone and times those of another rule."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.long_ce import LongCEWeights
from ray_jobs.finetune.training.loop import set_up, token_weights_of
from ray_jobs.finetune.training.stated_weights import StatedWeights
from ray_jobs.finetune.training.token_weights import ExactWeights, exact_weights
from tests.ray_jobs.finetune.training_example import ALONE, CPU, Rows, make_params, packed, run, write_base

WEIGHTS = np.linspace(0, 4, 96).astype(np.float32)
ROWS = Rows(
    [
        packed(40, 56, seed=1),
        packed(96, seed=2) | {"loss_weights": WEIGHTS, "full_attention": np.array([True])},
        packed(96, seed=3),
        packed(33, 63, seed=4),
    ]
)


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> PipelineParams:
    base = write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)
    made = make_params(base, lora_dropout=0)
    return made.model_copy(update={"retrieval": made.retrieval.model_copy(update={"share": 0.3})})


def test_the_weighted_loss_is_that_of_torch(params: PipelineParams) -> None:
    objective, _ = set_up(params, ALONE)
    batch = read_micro_batch(ROWS, [0, 1], CPU)
    weights = token_weights_of(params, ROWS)
    assert isinstance(weights, StatedWeights)
    sums = objective(batch, weights)
    wanted = torch.zeros(())
    for row in (ROWS[0], ROWS[1]):
        one = read_micro_batch(Rows([row]), [0], CPU)
        marks = {} if one.in_full is None else {"s2_in_full": one.in_full}
        logits = objective.model(input_ids=one.input_ids, position_ids=one.position_ids, use_cache=False, **marks).logits[0]
        losses = F.cross_entropy(logits[:-1], one.input_ids[0, 1:], reduction="none")
        losses = losses * (one.position_ids[0, 1:] > 0)
        of_row = row.get("loss_weights", np.ones(96, np.float32))
        wanted = wanted + (losses * torch.from_numpy(of_row)[1:]).sum()
    torch.testing.assert_close(sums.weighted, wanted, rtol=1e-4, atol=1e-3)


def test_another_rule_multiplies(params: PipelineParams) -> None:
    batch = read_micro_batch(ROWS, [1], CPU)
    rule = ExactWeights(first_context=32, weights=(3.0, 5.0), mean_weight=2.0, max_weight=20.0)
    stated = StatedWeights(rule)
    assert stated.mean_weight == 2.0
    nothing = torch.empty(0)
    both = stated.of_batch(batch, lambda _: nothing)(slice(0, 96), nothing)
    alone = rule.of_batch(batch, lambda _: nothing)(slice(0, 96), nothing)
    assert both[:-1].tolist() == (alone[:-1] * torch.from_numpy(WEIGHTS)[1:]).tolist()


def test_exact_shares_the_mass_of_the_targets_as_they_count() -> None:
    """As with answers alone learned, at the end of a long row: the mean is that of the product, and each bucket gets the same."""
    answers = np.zeros(96, np.float32)
    answers[80:] = 1
    rows = Rows([*ROWS, packed(96, seed=5) | {"loss_weights": answers}, packed(40, 56, seed=6) | {"loss_weights": WEIGHTS}])
    rule = exact_weights(rows, 24, 0.5, max_weight=1e6)
    stated: list[float] = []
    products: list[float] = []
    given: dict[int, float] = {}
    for number, row in enumerate(rows):
        batch = read_micro_batch(rows, [number], CPU)
        both = StatedWeights(rule).of_batch(batch, lambda _: torch.empty(0))(slice(0, 96), torch.empty(0))
        for token, context in enumerate(batch.position_ids[0].tolist()):
            if context > 0:  # a target
                own = float(row.get("loss_weights", np.ones(96))[token])
                stated.append(own)
                products.append(both[token - 1].item())
                bucket = int(context >= 24) + int(context >= 48)
                given[bucket] = given.get(bucket, 0.0) + products[-1] - own
    assert StatedWeights(rule, float(np.mean(stated))).mean_weight == pytest.approx(np.mean(products))
    assert given == pytest.approx({0: 0, 1: 0.25 * sum(stated), 2: 0.25 * sum(stated)}, abs=1e-3)


def mixed_with_heavy_answers(num_retrieval: int) -> Rows:
    """Short documents, and a few long ones whose last 4 tokens weigh 16 each, all others so much that the mean is 1."""
    stated = np.full(96, (95 - 4 * 16) / 91, np.float32)  # the first token is no target
    stated[-4:] = 16
    ordinary = [packed(16, 16, 16, 16, 16, 16, seed=number) for number in range(20)]
    return Rows([*ordinary, *(packed(96, seed=90 + n) | {"loss_weights": stated} for n in range(num_retrieval))])


def targets_of(rows: Rows, weights: StatedWeights, losses: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(stated weights, weights in training) of all targets of all rows; short windows of LongCE have the losses `losses` [T]."""
    stated, given = [], []
    for number, row in enumerate(rows):
        batch = read_micro_batch(rows, [number], CPU)
        weigh = weights.of_batch(batch, lambda joined: losses[0].expand(joined.input_ids.shape[1]))
        of_places = weigh(slice(0, 96), losses[1].expand(96))
        is_target = batch.position_ids[0].numpy() > 0
        stated.append(row.get("loss_weights", np.ones(96, np.float32))[is_target])
        given.append(of_places.numpy()[np.flatnonzero(is_target) - 1])
    return np.concatenate(stated), np.concatenate(given)


@pytest.mark.parametrize(("num_retrieval", "most"), [(1, None), (6, None), (1, 20.0), (1, 3.0)])
def test_no_token_weighs_more_than_the_maximum_or_than_stated_and_the_mean_is_that_of_the_cut_weights(
    params: PipelineParams, num_retrieval: int, most: float | None
) -> None:
    rows = mixed_with_heavy_answers(num_retrieval)
    training = params.training.model_copy(update={"loss_weighting": "exact", "loss_long_from": 24, "loss_max_weight": most})
    weights = token_weights_of(params.model_copy(update={"training": training}), rows)
    assert isinstance(weights, StatedWeights)
    assert weights.rule is not None
    stated, given = targets_of(rows, weights, torch.zeros(2))
    assert (given <= np.maximum(stated, most or 16)).all()
    assert given.max() == max(16, most or 16)  # where the product of both is more
    assert weights.mean_weight == pytest.approx(given.mean(), rel=1e-5)
    assert weights.mean_weight < weights.mean * weights.rule.mean_weight


def test_long_ce_times_stated_weights_stays_below_the_maximum_too(params: PipelineParams) -> None:
    rows = mixed_with_heavy_answers(1)
    weights = StatedWeights(LongCEWeights(24))
    stated, given = targets_of(rows, weights, torch.tensor([9.0, 1.0]))  # the whole context is better by more than the maximum
    assert stated.max() == given.max() == 16
    assert (given <= np.maximum(stated, 5)).all()
    assert np.count_nonzero(given > stated) > 60  # of the other tokens


def test_where_no_weight_is_cut_the_mean_is_unchanged(params: PipelineParams) -> None:
    training = params.training.model_copy(update={"loss_weighting": "exact", "loss_long_from": 24, "loss_max_weight": 1e3})
    weights = token_weights_of(params.model_copy(update={"training": training}), ROWS)
    assert isinstance(weights, StatedWeights)
    assert weights.mean_weight == exact_weights(ROWS, 24, 0.5, 1e3).mean_weight


def test_stated_weights_of_one_change_nothing() -> None:
    plain = Rows(packed(*lengths, seed=i) for i, lengths in enumerate([(96,), (40, 56), (33, 63)]))
    ones = Rows(row | {"loss_weights": np.ones(96, np.float32)} for row in plain)
    assert exact_weights(plain, 24, 0.5) == exact_weights(ones, 24, 0.5)


def test_long_targets_that_are_not_learned_are_none() -> None:
    nothing = Rows([packed(96) | {"loss_weights": (np.arange(96) < 20).astype(np.float32)}])
    with pytest.raises(UserError, match=r"no target with 24 tokens of left context, because none that far .* is learned: set"):
        exact_weights(nothing, 24, 0.5)


def test_training_logs_the_weighted_loss_beside_the_plain_one(params: PipelineParams, tmp_path: Path) -> None:
    _, reports, _ = run(params, tmp_path, rows=ROWS)
    assert all(report["weighted_loss"] != report["loss"] for report in reports)
    assert all(np.isfinite(report["weighted_loss"]) for report in reports)


def test_rows_without_weights_count_all_tokens_the_same(params: PipelineParams) -> None:
    batch = read_micro_batch(ROWS, [0, 2], CPU)
    assert batch.loss_weights is None
    nothing = torch.empty(0)
    assert StatedWeights().of_batch(batch, lambda _: nothing)(slice(5, 9), nothing).tolist() == [1, 1, 1, 1]
