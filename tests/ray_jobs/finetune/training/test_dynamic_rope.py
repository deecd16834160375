"""`dynamic` RoPE in training: a micro batch turns with the frequencies of its own longest document, whatever came before."""

import contextlib

import pytest
import torch

from data_schemas.errors import UserError
from ray_jobs.finetune.short_window_rules import check_short_windows
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.long_ce import LongCEWeights
from ray_jobs.finetune.training.loop import set_up
from ray_jobs.finetune.training.objective import evaluating
from ray_jobs.finetune.training.steps import validate
from tasks.model.rotary_modules import forget_lengths
from tests.ray_jobs.finetune.training_example import ALONE, CPU, Rows, make_params, packed, run, write_base

WINDOW = 32
LONG, MIDDLE, SHORT, AT_WINDOW = packed(96, seed=1), packed(48, seed=2), packed(20, 12, seed=3), packed(WINDOW, seed=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


def dynamic(base, **training):
    params = make_params(base, **training)
    return params.model_copy(update={"model": params.model.model_copy(update={"rope_method": "dynamic"})})


def test_a_resumed_run_ends_with_the_same_weights(base, tmp_path):
    """Rows that are all longer than the window, so that nothing but training itself makes the model forget."""
    rows = Rows(packed(length, seed=length) for length in (96, 40, 48, 56, 64, 72))
    params = dynamic(base, lora_dropout=0.1, rows_per_step=1, validate_every=4)
    whole_run, _, kept = run(params, tmp_path, rows=rows)
    resumed, _, _ = run(params, tmp_path, resume_from=kept[2], rows=rows)
    for name, weight in whole_run.items():
        assert torch.equal(weight, resumed[name]), name


@pytest.mark.parametrize("is_sparse", [True, False, None])
@pytest.mark.parametrize("row", [MIDDLE, SHORT, AT_WINDOW], ids=["middle", "short", "at the window"])
def test_a_loss_is_the_same_after_a_longer_row(base, row, is_sparse):
    """In training, and in evaluation mode with S2-Attn (the probe) and without (validation)."""
    objective, _ = set_up(dynamic(base, lora_dropout=0), ALONE)
    with contextlib.nullcontext() if is_sparse is None else evaluating(objective, sparse=is_sparse):
        fresh, _, after = (objective(read_micro_batch(Rows([r]), [0], CPU)).item() for r in (row, LONG, row))
    assert fresh == after


def test_validation_does_not_depend_on_the_rows_before_it(base):
    params = dynamic(base, lora_dropout=0)
    objective, _ = set_up(params, ALONE)
    rows = Rows([MIDDLE, LONG])
    alone = [validate(objective, Rows([row]), params, ALONE)["validation_loss"] for row in (MIDDLE, LONG, MIDDLE)]
    assert alone[0] == alone[2]
    both = validate(objective, rows, params, ALONE)["validation_loss"]
    assert both == pytest.approx((47 * alone[0] + 95 * alone[1]) / 142, rel=1e-6)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_backward_pass_turns_as_the_forward_pass_did(base, checkpointing):
    """Also where it computes layers again: cosine and sine are computed once, before the layers."""
    objective, _ = set_up(dynamic(base, lora_dropout=0, gradient_checkpointing=checkpointing), ALONE)
    plain, _ = set_up(dynamic(base, lora_dropout=0, gradient_checkpointing=False), ALONE)
    calls = []
    rotary = objective.model.get_base_model().model.rotary_emb
    rotary.register_forward_hook(lambda *_: calls.append(1))
    for rows in ([LONG], [MIDDLE], [SHORT]):
        batch = read_micro_batch(Rows(rows), [0], CPU)
        forget_lengths(plain)
        for one in (objective, plain):
            one.zero_grad()
            one(batch).backward()
        gradients = [[p.grad for p in one.model.parameters() if p.requires_grad] for one in (objective, plain)]
        assert any(gradient.abs().max() > 0 for gradient in gradients[0])
        for ours, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, wanted)
    assert len(calls) == 3


def test_long_ce_reads_its_short_windows_as_if_they_came_first(base):
    """Its second pass is before the whole row's, and after those of other rows."""
    objective, _ = set_up(dynamic(base, lora_dropout=0), ALONE)
    row = packed(80, seed=5)  # one window of 48 tokens
    batches = [read_micro_batch(Rows([one]), [0], CPU) for one in (row, LONG, row)]
    fresh, _, after = (objective(batch, LongCEWeights(64)).weighted.item() for batch in batches)
    assert fresh == after


def test_the_frequencies_are_those_of_the_base_again(base):
    objective, _ = set_up(dynamic(base), ALONE)
    rotary = objective.model.get_base_model().model.rotary_emb
    first = rotary.inv_freq.clone()
    objective(read_micro_batch(Rows([LONG]), [0], CPU))
    assert not torch.equal(rotary.inv_freq, first)
    grown = rotary.inv_freq.clone()
    forget_lengths(objective)
    assert torch.equal(rotary.inv_freq, first)
    objective(read_micro_batch(Rows([LONG]), [0], CPU))
    assert torch.equal(rotary.inv_freq, grown)


def test_short_rows_are_refused(base):
    with pytest.raises(UserError, match=r"short_window_share .* dynamic .*: set it to 0, or choose rope_method yarn"):
        check_short_windows(dynamic(base, short_window_share=0.25))
    check_short_windows(dynamic(base))
