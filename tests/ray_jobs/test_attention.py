"""S2-Attn against a slow, obvious float64 reference with dense masks, and against itself in other circumstances."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config

from data_schemas.errors import UserError
from ray_jobs.finetune.attention import register_s2_attention, shifted_sparse_attention
from ray_jobs.finetune.executors import sdpa_segments
from ray_jobs.finetune.segments import segment_batch

register_s2_attention()
CONFIGS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen3": Qwen3Config}
HEADS = [(4, 4), (4, 2), (6, 3), (5, 1), (1, 1)]  # query heads, key-value heads: MHA, GQA even and odd, MQA, one head


def positions(lengths):
    return torch.cat([torch.arange(n) for n in lengths])[None]


def dense_mask(lengths, group, shifted):
    """Bool [T, T], written down from the definition, one pair of tokens at a time."""

    def segment(offset):
        if not shifted:
            return offset // group
        return 0 if offset < group // 2 else 1 + (offset - group // 2) // group

    place = [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    return torch.tensor([[a[0] == b[0] and b[1] <= a[1] and segment(a[1]) == segment(b[1]) for b in place] for a in place])


def reference(query, key, value, lengths, group):
    """[T, H, D] in float64, one head at a time."""
    num_heads, num_kv = query.shape[1], key.shape[1]
    out = []
    for head in range(num_heads):
        kv = head * num_kv // num_heads
        shifted = head >= (num_heads + 1) // 2 if num_kv == 1 else kv >= (num_kv + 1) // 2
        scores = query[:, head].double() @ key[:, kv].double().T * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~dense_mask(lengths, group, shifted), float("-inf"))
        out.append(scores.softmax(-1) @ value[:, kv].double())
    return torch.stack(out, dim=1)


@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), group=st.integers(2, 17), seed=st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_segments_agree_with_the_dense_reference(num_heads, num_kv, lengths, group, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(sum(lengths), n, 8, generator=generator) for n in (num_heads, num_kv, num_kv))
    segments = segment_batch(positions(lengths), group)
    ours = shifted_sparse_attention(query, key, value, segments, sdpa_segments, 8**-0.5)
    torch.testing.assert_close(ours.double(), reference(query, key, value, lengths, group), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
def test_gradients_agree_with_the_dense_reference(num_heads, num_kv):
    lengths, group = [23, 5, 9], 6
    ours = [torch.randn(37, n, 8, requires_grad=True) for n in (num_heads, num_kv, num_kv)]
    theirs = [t.detach().double().requires_grad_() for t in ours]
    weight = torch.randn(37, num_heads, 8)
    segments = segment_batch(positions(lengths), group)
    (shifted_sparse_attention(*ours, segments, sdpa_segments, 8**-0.5) * weight).sum().backward()
    (reference(*theirs, lengths, group) * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-5, rtol=1e-5)


def tiny(kind, num_heads=4, num_kv=2, group=6, **more):
    torch.manual_seed(0)
    config = CONFIGS[kind](
        vocab_size=64, hidden_size=num_heads * 8, intermediate_size=32, num_hidden_layers=2, num_attention_heads=num_heads,
        num_key_value_heads=num_kv, head_dim=8, max_position_embeddings=64, attn_implementation="s2", **more,
    )  # fmt: skip
    config.s2_group_size = group
    return AutoModelForCausalLM.from_config(config, attn_implementation="s2").train()


def influence(model, lengths):
    """[T, T]: how much output i moves when the embedding of token j moves (Jacobian norms)."""
    total = sum(lengths)
    embedded = torch.randn(1, total, model.config.hidden_size)

    def run(x):
        return model.model(inputs_embeds=x, position_ids=positions(lengths), use_cache=False).last_hidden_state[0].sum(-1)

    jacobian = torch.autograd.functional.jacobian(run, embedded, vectorize=False)  # [T, 1, T, E]
    return jacobian[:, 0].abs().sum(-1)


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
@pytest.mark.parametrize("lengths", [[17], [7, 10], [1, 13, 3]])
def test_no_output_depends_on_a_later_token_or_on_another_document(kind, num_heads, num_kv, lengths):
    moved = influence(tiny(kind, num_heads, num_kv), lengths)
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = (document[:, None] == document[None]) & torch.ones_like(moved).tril().bool()
    assert moved[~allowed].max() == 0
    assert (moved.diagonal() > 0).all()


def test_shifted_heads_carry_information_across_group_boundaries():
    moved = influence(tiny("llama", group=6), [17])
    assert moved[6, 5] > 0  # [3, 9) of the shifted heads spans the boundary at 6
    assert moved[16, 0] == 0  # two layers reach back no further than about two groups


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_a_packed_document_comes_out_as_it_does_alone(kind):
    model = tiny(kind, num_heads=6, num_kv=3)
    lengths = [5, 19, 8]
    ids = torch.randint(0, 64, (1, sum(lengths)))
    packed = model(input_ids=ids, position_ids=positions(lengths), use_cache=False).logits[0]
    start = 0
    for n in lengths:
        alone = model(input_ids=ids[:, start : start + n], use_cache=False).logits[0]
        torch.testing.assert_close(packed[start : start + n], alone, atol=1e-5, rtol=1e-5)
        start += n


def test_rows_of_a_batch_do_not_touch():
    model = tiny("llama")
    ids = torch.randint(0, 64, (3, 20))
    place = torch.stack([positions([20])[0], positions([5, 15])[0], positions([13, 7])[0]])
    together = model(input_ids=ids, position_ids=place, use_cache=False).logits
    for row in range(3):
        alone = model(input_ids=ids[row : row + 1], position_ids=place[row : row + 1], use_cache=False).logits
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[3], [2, 3, 1]])
def test_a_document_of_half_a_group_gets_plain_causal_attention(lengths):
    model = tiny("llama", group=6)
    ids = torch.randint(0, 64, (1, sum(lengths)))
    sparse = model(input_ids=ids, position_ids=positions(lengths), use_cache=False).logits
    full = model.eval()(input_ids=ids, position_ids=positions(lengths), use_cache=False).logits
    torch.testing.assert_close(sparse, full, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("window", [None, 5])
def test_evaluation_mode_is_full_attention(kind, window):
    more = {"sliding_window": window} if kind == "mistral" else {}
    model = tiny(kind, **more).eval()
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    ids = torch.randint(0, 64, (2, 21))
    padding = torch.ones(2, 21, dtype=torch.long)
    padding[1, :4] = 0
    for extra in ({}, {"position_ids": positions([8, 13]).expand(2, -1)}, {"attention_mask": padding}):
        ours, theirs = (m(input_ids=ids, use_cache=False, **extra).logits for m in (model, plain))
        real = padding.bool() if "attention_mask" in extra else torch.ones_like(padding).bool()
        torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)
    generated = [m.generate(ids[:1], max_new_tokens=6, do_sample=False, pad_token_id=0) for m in (model, plain)]
    assert torch.equal(*generated)


def test_what_cannot_be_honoured_is_refused():
    ids = torch.randint(0, 64, (1, 12))
    with pytest.raises(UserError, match="no padding mask"):
        tiny("llama")(input_ids=ids, attention_mask=torch.tensor([[0] * 3 + [1] * 9]), use_cache=False)
    with pytest.raises(UserError, match="sliding window of 4"):
        tiny("mistral", group=6, sliding_window=4)(input_ids=ids, use_cache=False)
    tiny("mistral", group=6, sliding_window=6)(input_ids=ids, use_cache=False)


def test_full_attention_in_training_keeps_a_sliding_window():
    model = tiny("mistral", group=2 * 12, sliding_window=4)
    ids = torch.randint(0, 64, (1, 12))
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(ids, use_cache=False).logits, plain(ids, use_cache=False).logits, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_nothing():
    model = tiny("llama")
    ids = torch.randint(0, 64, (1, 20))
    gradients = []
    for on in (False, True):
        if on:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model(input_ids=ids, position_ids=positions([12, 8]), use_cache=False).logits.square().sum().backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad.clone())
    torch.testing.assert_close(*gradients)
