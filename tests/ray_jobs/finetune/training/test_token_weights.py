"""EXACT: weights by left context, against the definition counted target by target, and what training makes of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.training.batches import num_targets, read_micro_batch, rows_of_rank
from ray_jobs.finetune.training.loop import token_weights_of
from ray_jobs.finetune.training.lora import trainable
from ray_jobs.finetune.training.loss import next_token_targets
from ray_jobs.finetune.training.objective import Objective
from ray_jobs.finetune.training.token_weights import exact_weights, left_context
from ray_jobs.finetune.training.training_model import build_model
from ray_jobs.preflight import refuse_untrainable
from tests.ray_jobs.finetune.training_example import CPU, ROWS, Rows, make_params, packed, run, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


def contexts(rows):
    """The left context of every target, by definition."""
    return [context for lengths in rows for length in lengths for context in range(1, length)]


def of_lengths(lengths):
    return {"seq_lengths": np.array(lengths)}


def weight_of(found, context):
    batch = read_micro_batch(Rows([packed(context + 1)]), [0], CPU)
    return found.of_batch(batch, None)(slice(None), None)[context - 1].item()


LENGTHS = st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=5), min_size=1, max_size=6)


@settings(max_examples=40)
@given(LENGTHS, st.integers(2, 40), st.floats(0.1, 3.0))
def test_the_extra_mass_is_shared_by_the_long_buckets_alone(rows, first, mass):
    targets = contexts(rows)
    if not any(context >= first for context in targets):
        with pytest.raises(UserError, match=f"no target with {first} tokens of left context.*training.loss_long_from"):
            exact_weights(map(of_lengths, rows), first, mass)
        return
    found = exact_weights(map(of_lengths, rows), first, mass, max_weight=1e6)
    given_out: dict[int, float] = {}
    for context in targets:
        weight = weight_of(found, context)
        bucket = int(np.floor(np.log2(context / first))) if context >= first else -1
        given_out[bucket] = given_out.get(bucket, 0.0) + weight - 1
    assert given_out.pop(-1, 0.0) == 0.0
    shares = list(given_out.values())
    assert shares == pytest.approx([mass * len(targets) / len(shares)] * len(shares), rel=1e-4)  # equal for each bucket
    assert found.mean_weight == pytest.approx(1 + mass)


def test_rarer_context_counts_more_and_no_weight_is_above_the_maximum():
    lengths = [of_lengths([16] * 20), of_lengths([64, 32, 32, 32, 32]), of_lengths([96])]
    free = exact_weights(lengths, 8, 0.5, max_weight=1e6)
    ladder = [weight_of(free, context) for context in (4, 8, 16, 32, 64)]
    assert ladder == sorted(ladder)
    assert len(set(ladder)) == 5  # each bucket is rarer than the one before
    capped = exact_weights(lengths, 8, 0.5, max_weight=1.8)
    assert max(capped.weights) == pytest.approx(1.8)
    assert capped.mean_weight == pytest.approx(1.5)  # what the rarest bucket gives up goes to the others
    assert exact_weights(lengths, 8, 9.0, max_weight=1.5).mean_weight < 1.5
    assert max(exact_weights([of_lengths([1000, 9])], 999, 0.5).weights) == 16


def test_one_long_document_gets_weights_and_as_many_tokens_in_short_ones_none():
    rows = Rows([packed(96), packed(*[16] * 6)])
    found = exact_weights(rows, 32, 0.5)
    long, short = (found.of_batch(read_micro_batch(rows, [i], CPU), None)(slice(None), None) for i in (0, 1))
    assert short.tolist() == [1.0] * 96
    assert set(long[:31].tolist()) == {1.0}
    assert long[31:].min() > 1


def test_left_context_counts_tokens_and_not_positions():
    positions = torch.tensor([[0, 1, 50, 51, 0, 7, 0]])
    assert left_context(positions).tolist() == [1, 2, 3, 4, 1, 2, 1]
    assert next_token_targets(torch.arange(7), positions[0]).tolist() == [1, 2, 3, -100, 5, -100, -100]


def test_weighted_gradients_equal_the_definition_and_do_not_depend_on_the_split(base):
    """The slow reference: every target's loss alone, times its weight, over all targets times the mean weight."""
    params = make_params(base, loss_weighting="exact", loss_extra_mass=2.0)
    rule = token_weights_of(params, ROWS)
    indices = [0, 1, 2, 3]
    total = num_targets(ROWS, indices) * rule.mean_weight
    gradients = []
    for world_size, micro in ((1, 1), (1, 4), (2, 2), (4, 1)):
        model = build_model(params, CPU)
        objective = Objective(model, params.training).train()
        for rank in range(world_size):
            for rows in rows_of_rank(indices, rank, world_size, micro):
                (objective(read_micro_batch(ROWS, rows, CPU), rule).weighted / total).backward()
        gradients.append([p.grad for _, p in trainable(model)])
    model = build_model(params, CPU).train()
    for index in indices:
        batch = read_micro_batch(ROWS, [index], CPU)
        causal_lm = model.get_base_model()
        logits = causal_lm(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits[0]
        targets = next_token_targets(batch.input_ids[0], batch.position_ids[0])
        weights = rule.of_batch(batch, None)(slice(None), None)
        losses = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
        ((losses * weights).sum() / total).backward()
    gradients.append([p.grad for _, p in trainable(model)])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_the_plain_loss_is_logged_beside_the_weighted_one_and_validation_stays_plain(base, tmp_path):
    found = {}
    for weighting in ("none", "exact", "long_ce"):
        (tmp_path / weighting).mkdir()
        rates = {"learning_rate": 1e-12, "full_weight_learning_rate": 1e-12}  # so the models stay the same
        _, found[weighting], _ = run(make_params(base, loss_weighting=weighting, **rates), tmp_path / weighting)
    assert not any("weighted_loss" in report for report in found["none"])
    for weighting in ("exact", "long_ce"):
        for plain, weighted in zip(found["none"], found[weighting], strict=True):
            assert weighted["loss"] == pytest.approx(plain["loss"], rel=1e-5)
            assert weighted["weighted_loss"] != pytest.approx(plain["loss"], rel=1e-6)
            assert weighted.get("validation_loss", 0.0) == pytest.approx(plain.get("validation_loss", 0.0), rel=1e-6)


def test_resuming_a_weighted_run_ends_with_the_same_weights_bit_for_bit(base, tmp_path):
    for weighting in ("exact", "long_ce"):
        params = make_params(base, loss_weighting=weighting, lora_dropout=0.1, position_skipping=3)
        (tmp_path / weighting).mkdir()
        straight, reports, kept = run(params, tmp_path / weighting)
        resumed, later, _ = run(params, tmp_path / weighting, resume_from=kept[2])
        assert [r["weighted_loss"] for r in later] == [r["weighted_loss"] for r in reports[2:]]
        assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_settings_that_weight_nothing_are_refused():
    def made(**training):
        model = {"base": "demo", "target_length": 2048}
        PipelineParams.model_validate({"run_name": "t", "corpus": {"sources": ["x"]}, "model": model, "training": training})

    with pytest.raises(ValueError, match="loss_kernel torch cannot weight tokens"):
        made(loss_weighting="exact", loss_kernel="torch")
    with pytest.raises(ValueError, match="loss_long_from is 2048, but rows have 2048 tokens"):
        made(loss_weighting="long_ce", loss_long_from=2048)
    made(loss_long_from=2048)  # without weighting it says nothing


def test_rows_within_the_bases_window_are_refused_before_any_work(base):
    params = make_params(base, loss_weighting="long_ce")
    refuse_untrainable(params)
    short = params.model_copy(update={"packing": params.packing.model_copy(update={"row_length": 32})})
    with pytest.raises(
        UserError, match=r"targets with 32 tokens of left context.*rows have 32 tokens: set training.loss_long_from"
    ):
        refuse_untrainable(short)
    refuse_untrainable(short.model_copy(update={"training": params.training.model_copy(update={"loss_long_from": 16})}))
