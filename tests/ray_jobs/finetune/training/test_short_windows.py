"""Mixed windows: short rows are cut exactly, chosen by seed and step, and turn as the base does, whatever else is in the batch."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from data_schemas.errors import UserError
from ray_jobs.finetune.proof.prove import prove_base
from ray_jobs.finetune.short_window_rules import check_short_windows
from ray_jobs.finetune.training.batches import num_targets, read_micro_batch
from ray_jobs.finetune.training.objective import summed_loss
from ray_jobs.finetune.training.row_rotation import mark_short
from ray_jobs.finetune.training.short_windows import MixedRows, ShortWindows, cut_row, short_windows_of
from ray_jobs.finetune.training.training_model import build_model
from tasks.model.base_model import load_config
from tasks.model.extended import rope_plan_for
from tests.ray_jobs.finetune.training_example import CPU, ROWS, Rows, make_params, packed, run, write_base

WINDOW = 32
PAIRS = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), tokenizer, tied=True)


def params_of(base: Path, attention: float | None = 1.0, *, short=1.0, **training):
    """With longrope factors: one list for prompts within the window, another beyond it."""
    factors = {"short_factor": [short] * PAIRS, "long_factor": [1.0, 2.0, 3.0, 3.5]}
    factors |= {} if attention is None else {"attention_factor": attention}
    file = base.parent / f"factors-{attention}-{short}.json"
    file.write_text(json.dumps(factors))
    params = make_params(base, **{"short_window_share": 0.5} | training)
    changes = {"rope_method": "longrope", "rope_factors_file": str(file)}
    return params.model_copy(update={"model": params.model.model_copy(update=changes)})


def strong(model):
    """Weights so large that rotations matter, in float64."""
    model.double()
    for name, weight in model.named_parameters():
        if "_proj" in name and "lora" not in name:
            weight.data *= 10
    return model


def test_documents_are_cut_at_the_window_and_each_further_piece_has_one_target_less():
    row = packed(70, 32, 5)
    cut = cut_row(row, WINDOW, None, rotates=True)
    assert cut["seq_lengths"].tolist() == [32, 32, 6, 32, 5]
    assert cut["input_ids"] is row["input_ids"]
    assert cut["full_attention"].all()
    assert len(cut["short_window"]) == 5
    with_bos = cut_row(row, WINDOW, 0, rotates=False)
    assert [num_targets(Rows([one]), [0]) for one in (row, cut, with_bos)] == [104, 102, 102]
    changed = np.flatnonzero(with_bos["input_ids"] != row["input_ids"]).tolist()
    assert changed == [32, 64], "only the first tokens of further pieces, which are no targets"
    assert "short_window" not in with_bos
    assert not (row["input_ids"] == 0).any(), "the rows themselves stay"


def test_rows_are_chosen_by_seed_and_step_in_the_stated_share_and_never_with_loss_weights():
    rows = Rows([*(packed(96, seed=i) for i in range(4)), packed(96) | {"loss_weights": np.ones(96, np.float32)}])
    mixing = ShortWindows(share=0.3, window=WINDOW, bos=None, rotates=False, seed=0)
    indices = [3, 0, 4, 1, 2]

    def chosen(step, order=indices):
        mixed = mixing.of_step(rows, order, step)
        return [i for i in sorted(order) if mixed.is_short(i)]

    of_steps = [chosen(step) for step in range(400)]
    assert of_steps == [chosen(step, indices[::-1]) for step in range(400)], "not by the order of the rows"
    assert np.mean([len(found) for found in of_steps]) == pytest.approx(0.3 * 4, abs=0.06)
    assert {len(found) for found in of_steps} == {1, 2}
    assert {i for found in of_steps for i in found} == {0, 1, 2, 3}
    other = ShortWindows(share=0.3, window=WINDOW, bos=None, rotates=False, seed=1)
    assert [other.of_step(rows, indices, 0).is_short(i) for i in range(50)] != of_steps[:50]


def gradients(model, batch):
    model.zero_grad()
    wrapped = model if hasattr(model, "get_base_model") else Bare(model)
    loss = summed_loss(wrapped, batch, 64)
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


class Bare:
    """A model without an adapter, as `summed_loss` takes it."""

    def __init__(self, model):
        self.get_base_model = lambda: model


@pytest.mark.parametrize("attention", [1.0, None])
def test_a_short_row_has_the_loss_and_gradients_that_a_served_short_prompt_has(base, attention):
    """float64. With factor 1 on cosine and sine that is the base's own RoPE."""
    params = params_of(base, attention, lora_rank=2, train_embeddings="both")
    plan = rope_plan_for(params.model)
    assert plan.has_short_rotation
    model = strong(build_model(params, CPU)).train()
    rows = Rows([packed(70, 20), packed(96, seed=1)])
    short = cut_row(rows[0], WINDOW, None, rotates=True)
    mixed = MixedRows(rows, {0: short})

    served = load_config(params.model)
    if attention is None:
        plan.apply(served)  # transformers itself takes the short list for these pieces
    reference = AutoModelForCausalLM.from_config(served, attn_implementation="sdpa").double()
    weights = {name.removeprefix("base_model.model."): w for name, w in model.state_dict().items()}
    of_base = {
        name: weights.get(name, weights.get(name.replace(".weight", ".base_layer.weight"))) for name in reference.state_dict()
    }
    of_base |= {name: w for name, w in weights.items() if name in of_base and w is not None}
    for name in of_base:  # norms and embeddings are trained copies
        if of_base[name] is None:
            trained = name.replace(".weight", ".modules_to_save.default.weight")
            of_base[name] = weights.get(trained, weights.get("model.embed_tokens.modules_to_save.default.weight"))
    reference.load_state_dict(of_base)
    expected, start = 0.0, 0
    for length in short["seq_lengths"].tolist():
        ids = torch.from_numpy(short["input_ids"][start : start + length].astype(np.int64))[None]
        logits = reference(ids, use_cache=False).logits[0, :-1]
        expected += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        start += length
    expected.backward()

    loss, found = gradients(model, read_micro_batch(mixed, [0], CPU))
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for name, weight in reference.named_parameters():
        if "norm" in name:
            ours = found["base_model.model." + name.replace(".weight", ".modules_to_save.default.weight")]
            torch.testing.assert_close(ours, weight.grad, rtol=1e-9, atol=1e-12)

    long_alone = gradients(model, read_micro_batch(mixed, [1], CPU))
    both = gradients(model, read_micro_batch(mixed, [0, 1], CPU))
    assert both[0] == pytest.approx(loss + long_alone[0], rel=1e-12), "each row turns by itself in one batch"
    for name in both[1]:
        torch.testing.assert_close(both[1][name], found[name] + long_alone[1][name], rtol=1e-9, atol=1e-11)
    uncut = Rows([{name: value for name, value in short.items() if name != "short_window"}])
    assert gradients(model, read_micro_batch(uncut, [0], CPU))[0] != pytest.approx(loss, rel=1e-4), "rotations matter here"


def test_a_long_row_turns_with_the_long_list_also_where_its_documents_are_short(base):
    params = params_of(base)
    plan = rope_plan_for(params.model)
    model = strong(build_model(params, CPU)).eval()
    ids = torch.from_numpy(packed(20)["input_ids"].astype(np.int64))[None]
    equal = dict.fromkeys(("short_factor", "long_factor"), plan.rope_parameters["long_factor"])
    file = base.parent / "equal.json"
    file.write_text(json.dumps(equal | {"attention_factor": 1.0}))
    one_list = params.model_copy(update={"model": params.model.model_copy(update={"rope_factors_file": str(file)})})
    expected = strong(build_model(one_list, CPU)).eval()
    assert torch.equal(model(ids).logits, expected(ids).logits)


def test_training_resumes_to_the_same_weights_and_counts_its_short_rows(base, tmp_path):
    params = params_of(base, rows_per_step=4, steps=4, average_last_steps=2, mlp_tile_tokens=16)
    weights, reports, kept = run(params, tmp_path)
    assert [report["short_rows"] for report in reports] == [2, 2, 2, 2]
    again, _, _ = run(params, tmp_path, resume_from=kept[2])
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    (tmp_path / "other").mkdir()
    other, _, _ = run(params_of(base, rows_per_step=4, steps=4, short=2.0), tmp_path / "other")
    assert any(not torch.equal(other[name], weights[name]) for name in weights), "the short list is trained"


def test_with_one_list_short_rows_turn_like_all_others(base):
    params = make_params(base, short_window_share=0.5)
    mixing = short_windows_of(params, ROWS)
    assert mixing is not None
    assert (mixing.window, mixing.rotates, mixing.bos) == (WINDOW, False, None)
    mixed = mixing.of_step(ROWS, [0, 1, 3], 0)
    batch = read_micro_batch(mixed, [0, 1, 3], CPU)
    assert batch.short is None
    assert batch.in_full is not None
    assert short_windows_of(make_params(base), ROWS) is None


def test_on_an_extended_longrope_base_rows_are_cut_and_turned_where_programs_switch(base, tmp_path):
    """Original 16, window 32: up to 16 tokens transformers takes the short list, and between 16 and 32 the long one."""
    extended = Path(shutil.copytree(base, tmp_path / "extended"))
    config = json.loads((extended / "config.json").read_text())
    lists = {"short_factor": [1.0] * PAIRS, "long_factor": [1.0, 1.2, 1.5, 2.0], "attention_factor": 1.0}
    own = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 16, **lists}
    config.pop("rope_scaling", None)
    (extended / "config.json").write_text(json.dumps(config | {"rope_parameters": own}))
    params = params_of(base, short=1.1)
    params = params.model_copy(update={"model": params.model.model_copy(update={"base": str(extended)})})
    plan = rope_plan_for(params.model)
    assert (plan.original_length, plan.base_window, plan.short_length) == (16, WINDOW, 16)
    mixing = short_windows_of(params, ROWS)
    assert (mixing.window, mixing.rotates) == (16, True)
    assert prove_base(params).holds
    rotary = build_model(params, CPU).get_base_model().model.rotary_emb
    served = load_config(params.model)
    plan.apply(served)
    transformers_own = type(rotary)(served)
    states, positions = torch.zeros(1, 16, 8), torch.arange(16)[None]
    mark_short(positions, torch.ones(1, 16, dtype=torch.bool))
    for ours, theirs in zip(rotary(states, positions), transformers_own(states, torch.arange(16)[None]), strict=True):
        torch.testing.assert_close(ours, theirs)
    short = params.model_copy(update={"packing": params.packing.model_copy(update={"row_length": 16})})
    with pytest.raises(UserError, match="at the original length of 16 tokens, and rows have only 16"):
        check_short_windows(short)


def test_wrong_input_is_one_sentence(base):
    with pytest.raises(ValueError, match=r"loss_weighting exact counts on their left context"):
        make_params(base, short_window_share=0.2, loss_weighting="exact")
    with pytest.raises(ValueError, match=r"less than or equal to 0\.9"):
        make_params(base, short_window_share=1.0)
    with pytest.raises(UserError, match=r"set training\.short_window_share, give long_factor as both lists"):
        check_short_windows(params_of(base, short_window_share=0.0))
    assert prove_base(params_of(base)).holds
    check_short_windows(params_of(base))
    params = make_params(base, short_window_share=0.2)
    shorter = params.model_copy(update={"packing": params.packing.model_copy(update={"row_length": WINDOW})})
    with pytest.raises(UserError, match=r"rows have only 32: set it to 0"):
        check_short_windows(shorter)
