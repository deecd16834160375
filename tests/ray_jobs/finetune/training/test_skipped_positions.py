"""Skipped positions (PoSE): they reach the whole window, repeat exactly, and leave everything else as it is without gaps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.finetune.segments import document_starts, segment_batch
from ray_jobs.finetune.training.batches import read_micro_batch
from ray_jobs.finetune.training.loss import next_token_targets
from ray_jobs.finetune.training.objective import summed_loss
from ray_jobs.finetune.training.skipped_positions import skipped_positions
from ray_jobs.finetune.training.steps import positions_at
from ray_jobs.finetune.training.training_model import build_model
from tests.ray_jobs.finetune.training_example import CPU, ROWS, Rows, make_params, packed, run, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


@settings(max_examples=80)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(2, 6), st.integers(0, 9))
def test_each_document_starts_at_0_grows_and_stays_in_the_window(lengths, parts, step):
    window = 256
    positions = skipped_positions(np.array(lengths), parts, window, 0, step, 3)
    assert positions.tolist() == skipped_positions(np.array(lengths), parts, window, 0, step, 3).tolist()
    start = 0
    for length in lengths:
        of_document = positions[start : start + length]
        assert of_document[0] == 0
        steps = np.diff(of_document)
        assert (steps >= 1).all()
        assert (steps > 1).sum() <= parts - 1
        assert of_document[-1] < window
        start += length


def test_the_whole_window_is_reached_and_a_full_document_keeps_its_positions():
    last = [skipped_positions(np.array([64]), 2, 1024, 0, step, 0)[-1] for step in range(400)]
    assert np.quantile(last, [0.02, 0.5, 0.98]) == pytest.approx([63 + 19, 63 + 480, 63 + 941], abs=60)
    assert len(set(last)) > 200
    assert skipped_positions(np.array([1024]), 4, 1024, 0, 0, 0).tolist() == list(range(1024))
    differs = {tuple(skipped_positions(np.array([64]), 2, 1024, *key)) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(differs) == 4  # by seed, step and row


def test_gaps_change_neither_documents_nor_groups_nor_targets():
    rows = Rows([packed(40, 1, 30), packed(25)])
    plain = read_micro_batch(rows, [0, 1], CPU)
    skipped = read_micro_batch(rows, [0, 1], CPU, lambda row, lengths: skipped_positions(lengths, 3, 512, 0, 0, row))
    assert skipped.position_ids.max() > 80
    assert document_starts(skipped.position_ids).tolist() == document_starts(plain.position_ids).tolist()
    for name in ("documents", "unshifted", "shifted"):
        ours, theirs = (getattr(segment_batch(batch.position_ids, 8), name).bounds for batch in (skipped, plain))
        assert ours == theirs
    ours, theirs = (next_token_targets(batch.input_ids[0], batch.position_ids[0]) for batch in (skipped, plain))
    assert torch.equal(ours, theirs)


def test_the_model_reads_the_gaps_and_documents_do_not_see_each_other(base):
    """A packed row's loss is the sum of its documents' losses alone, each with its own gaps, by transformers' own attention."""
    params = make_params(base, attention="full", position_skipping=3)
    model = build_model(params, CPU).train()
    for name, weight in model.named_parameters():
        if "_proj.base" in name:
            weight.data *= 10  # so that distances matter
    lengths = np.array([40, 30])
    row = packed(*lengths)
    positions = skipped_positions(lengths, 3, 96, 0, 0, 0)
    batch = read_micro_batch(Rows([row]), [0], CPU, lambda index, lengths: positions)
    together = summed_loss(model, batch, 64)
    model.get_base_model().set_attn_implementation("eager")
    alone = 0.0
    for start, end in ((0, 40), (40, 70)):
        ids = torch.tensor(row["input_ids"][start:end].astype(np.int64))[None]
        mask = torch.full((end - start, end - start), float("-inf")).triu(1)[
            None, None
        ]  # else the gaps would be taken for documents
        logits = model.get_base_model()(
            input_ids=ids, position_ids=torch.tensor(positions[start:end])[None], attention_mask=mask, use_cache=False
        ).logits[0]
        alone += torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum").item()
    assert together.item() == pytest.approx(alone, rel=1e-5)
    assert together.item() != pytest.approx(summed_loss(model, read_micro_batch(Rows([row]), [0], CPU), 64).item(), rel=1e-3)


def test_only_training_skips_positions(base, tmp_path):
    params = make_params(base, position_skipping=2)
    lengths = ROWS[1]["seq_lengths"]
    assert positions_at(0, params)(1, lengths).tolist() != positions_at(1, params)(1, lengths).tolist()
    assert positions_at(0, make_params(base, position_skipping=1))(1, lengths).max() == 55
    found = {}
    for parts in (0, 2):
        (tmp_path / str(parts)).mkdir()
        rates = {"learning_rate": 1e-12, "full_weight_learning_rate": 1e-12}  # so the models stay the same
        _, found[parts], _ = run(make_params(base, position_skipping=parts, **rates), tmp_path / str(parts))
    assert found[0][-1]["validation_loss"] == pytest.approx(found[2][-1]["validation_loss"], rel=1e-6)
    assert found[0][0]["loss"] != found[2][0]["loss"]
