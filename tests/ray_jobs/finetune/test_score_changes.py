"""Soft-capped scores (Gemma 2) and attention sinks (gpt-oss): every path against a dense float64 reference, with gradients."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from data_schemas.errors import UserError
from ray_jobs.evaluate import scoring
from ray_jobs.finetune.attention import register_s2_attention, shifted_sparse_attention
from ray_jobs.finetune.executors import choose_name, obstacle, sdpa_segments, torch_varlen
from ray_jobs.finetune.segments import segment_batch
from ray_jobs.finetune.sinks import AttentionWithSinks
from ray_jobs.finetune.training.loss import next_token_targets, summed_cross_entropy
from tasks.model import attention_scores
from tasks.model.attention_scores import ScoreChange, changes_of, register_full_attention
from tasks.model.output_layer import output_layer
from tests.ray_jobs.finetune.test_attention import dense_mask
from tests.tiny_models import positions, tiny_config, tiny_model

register_s2_attention()
HEADS = [(4, 4), (6, 3), (5, 1)]
CAP = 1.5
CHANGES = pytest.mark.parametrize("names", [("softcap",), ("sinks",), ("softcap", "sinks")], ids="+".join)


def change_for(names, sinks_H):
    return ScoreChange(CAP if "softcap" in names else None, sinks_H if "sinks" in names else None)


def dense(query, key, value, masks, change):
    """[T, H, D], one head at a time; a sink is a column of scores that is left out of the sum of values."""
    num_heads, num_kv = query.shape[1], key.shape[1]
    out = []
    for head in range(num_heads):
        kv = head * num_kv // num_heads
        scores = query[:, head] @ key[:, kv].T * query.shape[-1] ** -0.5
        if change.softcap is not None:
            scores = change.softcap * torch.tanh(scores / change.softcap)
        scores = scores.masked_fill(~masks[head], float("-inf"))
        if change.sinks_H is not None:
            scores = torch.cat([scores, change.sinks_H[head].expand(len(scores), 1)], dim=1)
        out.append(scores.softmax(-1)[:, : len(query)] @ value[:, kv])
    return torch.stack(out, dim=1)


def compared(run, expected, sizes, names, dtype=torch.float32):
    """Outputs and all gradients of `run` and of `expected` for random queries, keys, values and sinks."""
    num_tokens, num_heads, num_kv = sizes
    torch.manual_seed(0)
    ours = [torch.randn(num_tokens, n, 8, dtype=dtype) for n in (num_heads, num_kv, num_kv)] + [
        torch.randn(num_heads, dtype=dtype)
    ]
    ours = [t.requires_grad_() for t in ours]
    theirs = [t.detach().double().requires_grad_() for t in ours]
    weight = torch.randn(num_tokens, num_heads, 8)
    outputs = [f(*t[:3], change_for(names, t[3])) for f, t in ((run, ours), (expected, theirs))]
    torch.testing.assert_close(outputs[0].double(), outputs[1], atol=1e-5, rtol=1e-5)
    for output in outputs:
        (output * weight).sum().backward()
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if number < 3 or "sinks" in names:
            torch.testing.assert_close(a.grad.double(), b.grad, atol=2e-5, rtol=1e-5)


@CHANGES
@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
def test_groups_of_packed_rows_agree_with_the_dense_reference(names, num_heads, num_kv, monkeypatch):
    monkeypatch.setattr(attention_scores, "BLOCK_ELEMENTS", 1)  # blocks of 16 queries: documents of several blocks
    lengths, group = [61, 5, 19], 34
    segments = segment_batch(positions(lengths), group)
    split = (num_heads + 1) // 2 if num_kv == 1 else (num_kv + 1) // 2 * (num_heads // num_kv)
    masks = [dense_mask(lengths, group, head >= split) for head in range(num_heads)]

    def run(query, key, value, change):
        return shifted_sparse_attention(query, key, value, segments, sdpa_segments, 8**-0.5, change=change)

    compared(run, lambda q, k, v, change: dense(q, k, v, masks, change), (sum(lengths), num_heads, num_kv), names)


@CHANGES
@pytest.mark.parametrize("window", [1, 7, 40])
def test_sliding_windows_agree_with_the_dense_reference(names, window, monkeypatch):
    monkeypatch.setattr(attention_scores, "BLOCK_ELEMENTS", 1)
    lengths = [50, 3, window]
    segments = segment_batch(positions(lengths), 8).documents
    token = torch.arange(sum(lengths))
    near = (token[:, None] - token).clamp(min=0) < window
    masks = [dense_mask(lengths, 2 * max(lengths), False) & near] * 4
    compared(
        lambda q, k, v, change: sdpa_segments(q, k, v, segments, 8**-0.5, window=window, change=change),
        lambda q, k, v, change: dense(q, k, v, masks, change),
        (sum(lengths), 4, 2),
        names,
    )


class CpuFlash:
    """torch's flash kernel for one sequence on the CPU: like those of GPUs, it gives a log-sum-exp, and its backward takes one."""

    scale = 8**-0.5

    def forward(self, query, key, value):
        tensors = [t.transpose(0, 1)[None] for t in (query, key, value)]
        output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*tensors, 0.0, True, scale=self.scale)
        return output[0].transpose(0, 1), sums[0]

    def backward(self, grad, query, key, value, output, sums):
        tensors = [t.transpose(0, 1)[None] for t in (grad, query, key, value, output)]
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return tuple(g[0].transpose(0, 1) for g in backward(*tensors, sums[None], 0.0, True, scale=self.scale))


def test_a_kernel_without_sinks_computes_them_through_its_log_sum_exp():
    """What the GPU's kernel does, with a real kernel and its own backward."""
    masks = [dense_mask([33], 99, False)] * 4
    compared(
        lambda q, k, v, change: AttentionWithSinks.apply(q, k, v, change.sinks_H, CpuFlash()),
        lambda q, k, v, change: dense(q, k, v, masks, change),
        (33, 4, 4),
        ("sinks",),
    )


@pytest.mark.parametrize("window", [None, 3])
def test_torchs_kernel_and_its_backward_take_what_they_are_given_for_sinks(window):
    segments = segment_batch(positions([9, 4]), 4).unshifted
    query, key, value = (torch.empty(13, n, 8, dtype=torch.bfloat16, device="meta", requires_grad=True) for n in (4, 2, 2))
    sinks = torch.empty(4, device="meta", requires_grad=True)
    out = torch_varlen(query, key, value, segments, 8**-0.5, window=window, change=ScoreChange(sinks_H=sinks))
    assert (out.shape, out.dtype) == (query.shape, torch.bfloat16)
    out.sum().backward()
    assert [t.grad.shape for t in (query, key, value, sinks)] == [t.shape for t in (query, key, value, sinks)]
    with pytest.raises(ValueError, match="soft-capping"):
        torch_varlen(query, key, value, segments, 1.0, change=ScoreChange(softcap=1.0))


def test_an_executor_without_a_change_is_passed_over_or_refused_by_name(monkeypatch):
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    tensors = (device, torch.bfloat16, 64)
    obstacle.cache_clear()
    try:
        sinks, capped = frozenset({"attention sinks"}), frozenset({"soft-capping of scores"})
        assert choose_name("auto", *tensors, changes=sinks) == "torch_varlen"
        assert choose_name("auto", *tensors, changes=sinks | capped) == "sdpa"
        with pytest.raises(UserError, match=r"s2_executor is torch_varlen.*it has no soft-capping of scores; choose auto"):
            choose_name("torch_varlen", *tensors, changes=capped)
    finally:
        obstacle.cache_clear()


@pytest.mark.parametrize(
    ("kind", "changes"), [("gemma2", {"soft-capping of scores"}), ("gpt-oss", {"attention sinks"}), ("llama", set())]
)
def test_full_attention_is_what_transformers_computes_eagerly(kind, changes):
    """Padded batches, and generation with a cache; the release's own readers compute it eagerly."""
    torch.manual_seed(0)
    config = tiny_config(kind)
    assert changes_of(config) == changes
    ours = AutoModelForCausalLM.from_config(config, attn_implementation=register_full_attention()).eval()
    ids = torch.randint(2, 64, (2, 21))
    padding = torch.ones(2, 21, dtype=torch.long)
    padding[1, :4] = 0
    answers = []
    for name in (None, "eager"):
        if name:
            ours.set_attn_implementation(name)
        with torch.no_grad():
            plain = ours(input_ids=ids).logits
            padded = ours(input_ids=ids, attention_mask=padding).logits[padding.bool()]
        tokens = ours.generate(ids[:1], max_new_tokens=6, do_sample=False, pad_token_id=0)
        answers.append((plain, padded, tokens))
    for mine, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gemma2", "gpt-oss"])
def test_the_sinks_and_the_cap_reach_the_training_of_a_whole_model(kind):
    """Gradients of all weights, with groups over whole documents, equal those of transformers' eager attention."""
    model = tiny_model(kind, group=42)
    ids, place = torch.randint(0, 64, (1, 21)), positions([21])
    gradients = []
    for name in ("s2", "eager"):
        model.set_attn_implementation(name)
        model.zero_grad()
        model(ids, position_ids=place, use_cache=False).logits.square().sum().backward()
        gradients.append({key: weight.grad.clone() for key, weight in model.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key], atol=1e-4, rtol=1e-4, msg=key)
    assert kind != "gpt-oss" or gradients[0]["model.layers.1.self_attn.sinks"].abs().min() > 0


@pytest.mark.parametrize("kind", ["gemma2", "granite-scaled", "cohere"])
def test_the_loss_in_linear_memory_is_that_of_the_models_own_logits(kind):
    """Caps and scales behind the output layer, with the gradients; the pieces of the evaluation too."""
    own = {"gemma2": {"final_logit_softcapping": 2.0}, "granite-scaled": {"logits_scaling": 3.0}, "cohere": {}}[kind]
    model = AutoModelForCausalLM.from_config(tiny_config(kind, **own), attn_implementation="eager")
    ids = torch.randint(0, 64, (1, 20))
    logits = model(ids, use_cache=False).logits
    hidden = model.base_model(ids, use_cache=False).last_hidden_state[0]
    assert torch.equal(output_layer(model)(hidden), logits[0])
    targets = next_token_targets(ids[0], torch.arange(20))
    expected = F.cross_entropy(logits[0], targets, reduction="sum")
    loss = summed_cross_entropy(output_layer(model), hidden, targets, 7)
    torch.testing.assert_close(loss, expected)
    weight = model.get_output_embeddings().weight
    for ours, theirs in zip(*(torch.autograd.grad(one, (weight, *own_norm(model))) for one in (loss, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert model not in scoring._known_heads
    scored = scoring.score_positions(model.eval(), ids[0].numpy(), max_logits=3 * 64)
    assert scoring._known_heads[model]
    assert -scored.sum() == pytest.approx(expected.item(), rel=1e-5)


def own_norm(model):
    return [weight for name, weight in model.named_parameters() if name == "model.norm.weight"]
