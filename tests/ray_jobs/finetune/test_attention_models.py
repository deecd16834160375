"""Every architecture that is promised: what S2-Attn lets through, and one trained, merged and reloaded model of each."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.attention import register_s2_attention
from ray_jobs.finetune.training.lora import trainable
from ray_jobs.finetune.training.targets import linear_names, resolve_targets
from ray_jobs.finetune.training.training_model import build_model
from tasks.model.extended import ADAPTER_DIR, load_arm
from tests.tiny_models import GROUP, KINDS, influence, positions, tiny_config, tiny_model

register_s2_attention()
kinds = pytest.mark.parametrize("kind", list(KINDS))
LENGTHS = [1, 13, 3]


def exact(model):
    """The name of transformers' own attention that computes all that the model's layers ask for."""
    return "sdpa" if model._supports_sdpa else "eager"


def apart(model, ids, lengths):
    """Logits of each document alone: not every class of transformers (gpt-oss) keeps packed documents apart by itself."""
    return torch.cat([model(input_ids=part, use_cache=False).logits for part in ids.split(lengths, dim=1)], dim=1)


@kinds
def test_no_output_depends_on_a_later_token_or_on_another_document(kind):
    moved = influence(tiny_model(kind), LENGTHS)
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    allowed = (document[:, None] == document[None]) & torch.ones_like(moved).tril().bool()
    assert moved[~allowed].max() == 0
    assert (moved.diagonal() > 0).all()


@kinds
def test_a_packed_document_comes_out_as_it_does_alone(kind):
    model = tiny_model(kind, num_heads=6, num_kv=3)
    ids = torch.randint(0, 64, (1, 32))
    packed = model(input_ids=ids, position_ids=positions([5, 19, 8]), use_cache=False).logits[0]
    for start, end in ((0, 5), (5, 24), (24, 32)):
        alone = model(input_ids=ids[:, start:end], use_cache=False).logits[0]
        torch.testing.assert_close(packed[start:end], alone, atol=1e-5, rtol=1e-5)


@kinds
def test_evaluation_mode_is_what_transformers_computes(kind):
    model = tiny_model(kind).eval()
    plain = copy.deepcopy(model)
    plain.set_attn_implementation(exact(plain))
    ids = torch.randint(2, 64, (2, 21))
    padding = torch.ones(2, 21, dtype=torch.long)
    padding[1, :4] = 0
    for extra in ({}, {"position_ids": positions([8, 13]).expand(2, -1)}, {"attention_mask": padding}):
        ours = model(input_ids=ids, use_cache=False, **extra).logits
        packed = "position_ids" in extra
        theirs = apart(plain, ids, [8, 13]) if packed else plain(input_ids=ids, use_cache=False, **extra).logits
        real = padding.bool() if "attention_mask" in extra else torch.ones_like(padding).bool()
        torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)
    generated = [m.generate(ids[:1], max_new_tokens=6, do_sample=False, pad_token_id=0) for m in (model, plain)]
    assert torch.equal(*generated)


@kinds
def test_training_with_groups_of_twice_the_length_is_full_attention(kind):
    """Sliding windows included."""
    model = tiny_model(kind, group=2 * 21)
    plain = copy.deepcopy(model)
    plain.set_attn_implementation(exact(plain))
    ids = torch.randint(0, 64, (1, 21))
    torch.testing.assert_close(model(ids, use_cache=False).logits, plain(ids, use_cache=False).logits, atol=1e-5, rtol=1e-5)


@kinds
def test_with_every_document_or_every_layer_in_full_training_is_full_attention(kind):
    """Sliding windows included; every architecture passes on which documents are meant."""
    model = tiny_model(kind, group=4)
    plain = copy.deepcopy(model)
    plain.set_attn_implementation(exact(plain))
    ids, place = torch.randint(0, 64, (1, 21)), positions([8, 13])
    expected = apart(plain, ids, [8, 13])
    in_full = torch.ones(1, 21, dtype=torch.bool)
    torch.testing.assert_close(
        model(ids, position_ids=place, s2_in_full=in_full, use_cache=False).logits, expected, atol=1e-5, rtol=1e-5
    )
    model.config.s2_full_layers = (0, 1)
    torch.testing.assert_close(model(ids, position_ids=place, use_cache=False).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_window_shorter_than_a_group_is_computed_as_the_base_has_it():
    """There is nothing to approximate: a window costs less than a group already."""
    model = tiny_model("mistral-window-below-group")
    plain = copy.deepcopy(model)
    plain.set_attn_implementation(exact(plain))
    ids = torch.randint(0, 64, (1, 21))
    torch.testing.assert_close(model(ids, use_cache=False).logits, plain(ids, use_cache=False).logits, atol=1e-5, rtol=1e-5)


def test_a_window_longer_than_a_group_leaves_the_groups_as_they_are():
    wide, without = (tiny_model(kind) for kind in ("mistral-window-above-group", "mistral"))
    assert wide.config.sliding_window > GROUP
    ids = torch.randint(0, 64, (1, 21))
    ours, groups, full = (m(ids, use_cache=False).logits for m in (wide, without, copy.deepcopy(wide).eval()))
    torch.testing.assert_close(ours, groups)
    assert (ours - full).abs().max() > 1e-4


def base_folder(kind, home, tokenizer):
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(tiny_config(kind, vocab=384, length=32)).save_pretrained(home)
    tokenizer.save_pretrained(home)
    return home


def make_params(base, rope_method="yarn", **training):
    model = {"base": str(base), "target_length": 96, "rope_method": rope_method}
    training = {"precision": "fp32", "s2_group_size": 24, "gradient_checkpointing": False} | training
    data = {"run_name": "t", "corpus": {"sources": ["x"]}, "model": model, "training": training}
    return PipelineParams.model_validate(data)


def targets_for(kind):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(kind))
    return resolve_targets(TrainingParams().lora_targets, linear_names(model), kind)


@kinds
def test_one_step_trains_every_weight_and_the_merged_model_computes_the_same_after_reload(kind, tmp_path, tokenizer):
    method = "ntk" if kind == "phi3" else "yarn"  # transformers' Phi-3 knows no YaRN
    params = make_params(base_folder(kind, tmp_path / "base", tokenizer), method, lora_targets=targets_for(kind))
    model = build_model(params, torch.device("cpu")).train()
    weights = trainable(model)
    for name, weight in weights:
        if "lora_B" in name:  # it starts at zero, and lora_A's gradient with it
            torch.nn.init.normal_(weight, std=0.1)
    ids = torch.randint(2, 384, (1, 80))
    logits = model(input_ids=ids, position_ids=positions([50, 30]), use_cache=False).logits
    F.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    for name, weight in weights:
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 0, name
    torch.optim.AdamW([weight for _, weight in weights], lr=1e-2).step()

    model.save_pretrained(str(tmp_path / "checkpoint" / ADAPTER_DIR))
    trained = model.eval()(input_ids=ids, use_cache=False).logits
    merged = load_arm(params, "fine_tuned", tmp_path / "checkpoint")
    torch.testing.assert_close(merged(ids).logits, trained, atol=1e-4, rtol=1e-4)
    assert (merged(ids).logits - load_arm(params, "scaling_only")(ids).logits).abs().max() > 1e-2
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(again(ids).logits, merged(ids).logits)
    tied = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert tied == tiny_config(kind).tie_word_embeddings
