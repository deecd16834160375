"""S2-Attn against a slow, obvious float64 reference with dense masks, and what each executor is given."""

import importlib.util

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from ray_jobs.finetune.attention import register_s2_attention, s2_attention_forward, shifted_sparse_attention
from ray_jobs.finetune.executors import SMALLEST_BLOCK, choose_executor, describe_executor, sdpa_segments, torch_varlen
from ray_jobs.finetune.segments import segment_batch
from tests.tiny_models import influence, positions, tiny_config, tiny_model

register_s2_attention()
HEADS = [(4, 4), (4, 2), (6, 3), (5, 1), (1, 1)]  # query heads, key-value heads: MHA, GQA even and odd, MQA, one head
CPU = torch.device("cpu")


def dense_mask(lengths, group, shifted):
    """Bool [T, T], written down from the definition, one pair of tokens at a time."""

    def segment(offset):
        if not shifted:
            return offset // group
        return 0 if offset < group // 2 else 1 + (offset - group // 2) // group

    place = [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    return torch.tensor([[a[0] == b[0] and b[1] <= a[1] and segment(a[1]) == segment(b[1]) for b in place] for a in place])


def attend(query, key, value, masks):
    """[T, H, D] in float64, one head at a time; `masks[h]` is bool [T, T]."""
    num_heads, num_kv = query.shape[1], key.shape[1]
    out = []
    for head in range(num_heads):
        kv = head * num_kv // num_heads
        scores = query[:, head].double() @ key[:, kv].double().T * query.shape[-1] ** -0.5
        out.append(scores.masked_fill(~masks[head], float("-inf")).softmax(-1) @ value[:, kv].double())
    return torch.stack(out, dim=1)


def reference(query, key, value, lengths, group, in_full=()):
    """`in_full` numbers the documents that attend in full."""
    num_heads, num_kv = query.shape[1], key.shape[1]
    whole = dense_mask(lengths, 2 * max(lengths), False)
    marked = torch.repeat_interleave(torch.tensor([d in in_full for d in range(len(lengths))]), torch.tensor(lengths))
    plain, shifted = (torch.where(marked[:, None], whole, dense_mask(lengths, group, kind)) for kind in (False, True))
    split = (num_heads + 1) // 2 if num_kv == 1 else (num_kv + 1) // 2 * (num_heads // num_kv)
    return attend(query, key, value, [plain if head < split else shifted for head in range(num_heads)])


@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
@given(lengths=st.lists(st.integers(1, 24), min_size=1, max_size=4), group=st.integers(2, 17), seed=st.integers(0, 2**20))
@settings(max_examples=15)
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


def marks(lengths, in_full):
    """Bool [1, T]: True at the tokens of the documents numbered in `in_full`."""
    return torch.repeat_interleave(torch.tensor([d in in_full for d in range(len(lengths))]), torch.tensor(lengths))[None]


@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
@given(
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=4),
    group=st.integers(2, 17),
    in_full=st.sets(st.integers(0, 3)),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=15)
def test_marked_documents_attend_in_full_beside_documents_in_groups(num_heads, num_kv, lengths, group, in_full, seed):
    generator = torch.Generator().manual_seed(seed)
    ours = [torch.randn(sum(lengths), n, 8, generator=generator).requires_grad_() for n in (num_heads, num_kv, num_kv)]
    theirs = [t.detach().double().requires_grad_() for t in ours]
    weight = torch.randn(sum(lengths), num_heads, 8, generator=generator)
    segments = segment_batch(positions(lengths), group, marks(lengths, in_full))
    result = shifted_sparse_attention(*ours, segments, sdpa_segments, 8**-0.5)
    expected = reference(*theirs, lengths, group, in_full)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_heads", "num_kv", "in_full"), [(6, 3, {1}), (8, 4, {0, 3}), (4, 4, {2}), (4, 2, {0, 1}), (4, 1, {0}), (6, 3, {0, 1})]
)
def test_single_heads_attend_in_full_beside_heads_in_groups(num_heads, num_kv, in_full):
    """Of the other heads the first half is unshifted, by the order of key-value heads."""
    lengths, group = [23, 5, 9], 6
    ours = [torch.randn(37, n, 8, requires_grad=True) for n in (num_heads, num_kv, num_kv)]
    theirs = [t.detach().double().requires_grad_() for t in ours]
    whole, plain, shifted = (dense_mask(lengths, *kind) for kind in ((46, False), (group, False), (group, True)))
    sparse = [head for head in range(num_kv) if head not in in_full]
    of_kv = {head: plain if number < (len(sparse) + 1) // 2 else shifted for number, head in enumerate(sparse)}
    masks = [of_kv.get(head * num_kv // num_heads, whole) for head in range(num_heads)]
    layer = attention_layer(1, group, s2_full_heads=[(0, 0), *((1, head) for head in in_full)])
    result = s2_attention_forward(layer, *(t.transpose(0, 1)[None] for t in ours), None, position_ids=positions(lengths))[0][0]
    expected = attend(*theirs, masks)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn(37, num_heads, 8)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-5, rtol=1e-5)


def attention_layer(layer_idx, group=6, **config):
    class Layer(torch.nn.Module):
        is_causal = True

    layer = Layer().train()
    layer.config = tiny_config("llama")
    layer.config.s2_group_size, layer.layer_idx = group, layer_idx
    for name, value in config.items():
        setattr(layer.config, name, value)
    return layer


@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
def test_chosen_layers_attend_in_full_and_the_others_in_groups(num_heads, num_kv):
    lengths = [23, 5, 9]
    for layer_idx, group in ((0, 6), (1, 100)):  # layer 1 is in full: as if its groups were longer than any document
        layer = attention_layer(layer_idx, s2_full_layers=(1,))
        ours = [torch.randn(1, n, 37, 8, requires_grad=True) for n in (num_heads, num_kv, num_kv)]
        theirs = [t.detach()[0].transpose(0, 1).double().requires_grad_() for t in ours]
        weight = torch.randn(37, num_heads, 8)
        result, _ = s2_attention_forward(layer, *ours, None, position_ids=positions(lengths))
        expected = reference(*theirs, lengths, group)
        torch.testing.assert_close(result[0].double(), expected, atol=1e-5, rtol=1e-5)
        (result[0] * weight).sum().backward()
        (expected * weight).sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad[0].transpose(0, 1).double(), b.grad, atol=1e-5, rtol=1e-5)


def test_varlen_kernels_are_given_the_same_segments():
    """What the GPU kernels compute depends on their boundaries alone, which are those that the CPU path is checked with."""
    given_bounds = []

    def varlen(query, key, value, segments, scale, dropout=0.0, window=None, change=None):
        given_bounds.append(segments.cu_seqlens.tolist())
        assert segments.cu_seqlens.tolist() == list(segments.bounds)
        return sdpa_segments(query, key, value, segments, scale, dropout, window, change)

    query, key, value = (torch.randn(20, n, 8) for n in (4, 2, 2))
    segments = segment_batch(positions([11, 9]), 6, marks([11, 9], {0}))
    shifted_sparse_attention(query, key, value, segments, varlen, 8**-0.5)
    assert given_bounds == [[0, 11, 17, 20], [0, 11, 14, 20]]


def test_a_hybrid_model_reaches_as_far_as_its_marks_and_full_layers():
    model = tiny_model("llama", group=6)
    assert influence(model, [17])[16, 0] == 0
    model.config.s2_full_layers = (1,)
    moved = influence(model, [17])
    assert moved[16, 0] > 0
    assert moved.triu(1).max() == 0


@pytest.mark.parametrize("window", [1, 5, SMALLEST_BLOCK - 1, SMALLEST_BLOCK + 40])
def test_a_sliding_window_agrees_with_the_dense_reference(window):
    lengths = [3 * SMALLEST_BLOCK + 7, 12, window]  # several blocks and a short last one, one block, exactly a window
    segments = segment_batch(positions(lengths), 8).documents
    ours = [torch.randn(sum(lengths), n, 8, requires_grad=True) for n in (4, 2, 2)]
    theirs = [t.detach().double().requires_grad_() for t in ours]
    document = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    token = torch.arange(sum(lengths))
    mask = (document[:, None] == document) & (token[:, None] >= token) & (token[:, None] - token < window)
    weight = torch.randn(sum(lengths), 4, 8)
    result = sdpa_segments(*ours, segments, 8**-0.5, window=window)
    expected = attend(*theirs, [mask] * 4)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-5, rtol=1e-5)


@given(
    lengths=st.lists(st.integers(1, 24), min_size=2, max_size=4),
    group=st.integers(2, 12),
    window=st.integers(1, 14),
    full_layers=st.sampled_from([(), (0,)]),
    in_full=st.sets(st.integers(0, 3)),
)
@example(lengths=[19, 4], group=6, window=5, full_layers=(), in_full=set())  # half a group < window < a group
@settings(max_examples=60)
def test_under_any_window_a_document_comes_out_as_it_does_alone(lengths, group, window, full_layers, in_full):
    layer = attention_layer(0, group=group, s2_full_layers=full_layers)
    row = [torch.randn(1, n, sum(lengths), 8) for n in (4, 2, 2)]

    def run(tensors, lengths, marked):
        options = {"position_ids": positions(lengths), "sliding_window": window, "s2_in_full": marked}
        return s2_attention_forward(layer, *tensors, None, **options)[0]

    marked = marks(lengths, in_full)
    packed = run(row, lengths, marked)
    for start, length in zip(torch.tensor([0, *lengths]).cumsum(0).tolist(), lengths, strict=False):
        part = slice(start, start + length)
        alone = run([t[:, :, part] for t in row], [length], marked[:, part])
        torch.testing.assert_close(packed[:, part], alone, atol=1e-5, rtol=1e-5)


def test_it_runs_in_inference_mode_and_sees_positions_that_were_changed_in_place():
    model = tiny_model("llama")
    ids, place = torch.randint(0, 64, (1, 20)), positions([12, 8])
    expected = model(input_ids=ids, position_ids=place, use_cache=False).logits
    with torch.inference_mode():
        made_inside = torch.arange(20)[None]
        model(input_ids=ids, position_ids=made_inside, use_cache=False)
        made_inside.copy_(place)
        for given_positions in (place, made_inside):
            logits = model(input_ids=ids, position_ids=given_positions, use_cache=False).logits
            torch.testing.assert_close(logits, expected)
        model.eval()(ids, use_cache=False)


@pytest.mark.parametrize("value_dim", [5, 12])
def test_values_may_be_narrower_or_wider_than_keys(value_dim):
    class Layer(torch.nn.Module):
        config = tiny_config("llama")
        is_causal = True

    Layer.config.s2_group_size = 6
    query, key, value = (torch.randn(1, n, 20, d) for n, d in ((4, 8), (2, 8), (2, value_dim)))
    ours, _ = s2_attention_forward(Layer().train(), query, key, value, None, position_ids=positions([20]))
    expected = reference(*(t[0].transpose(0, 1) for t in (query, key, value)), [20], 6)
    torch.testing.assert_close(ours[0].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("num_heads", "num_kv"), HEADS)
@pytest.mark.parametrize("lengths", [[17], [7, 10]])
def test_no_output_depends_on_a_later_token_or_on_another_document(num_heads, num_kv, lengths):
    moved = influence(tiny_model("llama", num_heads, num_kv), lengths)
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = (document[:, None] == document[None]) & torch.ones_like(moved).tril().bool()
    assert moved[~allowed].max() == 0
    assert (moved.diagonal() > 0).all()


def test_shifted_heads_carry_information_across_group_boundaries():
    moved = influence(tiny_model("llama", group=6), [17])
    assert moved[6, 5] > 0  # [3, 9) of the shifted heads spans the boundary at 6
    assert moved[16, 0] == 0  # two layers reach back no further than about two groups


def test_rows_of_a_batch_do_not_touch():
    model = tiny_model("llama")
    ids = torch.randint(0, 64, (3, 20))
    place = torch.stack([positions([20])[0], positions([5, 15])[0], positions([13, 7])[0]])
    together = model(input_ids=ids, position_ids=place, use_cache=False).logits
    for row in range(3):
        alone = model(input_ids=ids[row : row + 1], position_ids=place[row : row + 1], use_cache=False).logits
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[3], [2, 3, 1]])
def test_a_document_of_half_a_group_gets_plain_causal_attention(lengths):
    model = tiny_model("llama", group=6)
    ids = torch.randint(0, 64, (1, sum(lengths)))
    sparse = model(input_ids=ids, position_ids=positions(lengths), use_cache=False).logits
    full = model.eval()(input_ids=ids, position_ids=positions(lengths), use_cache=False).logits
    torch.testing.assert_close(sparse, full, atol=1e-5, rtol=1e-5)


def test_padding_is_refused_in_training():
    ids, mask = torch.randint(0, 64, (1, 12)), torch.tensor([[0] * 3 + [1] * 9])
    with pytest.raises(UserError, match="no padding mask"):
        tiny_model("llama")(input_ids=ids, attention_mask=mask, use_cache=False)


def test_gradient_checkpointing_changes_nothing():
    model = tiny_model("llama")
    ids = torch.randint(0, 64, (1, 20))
    gradients = []
    for on in (False, True):
        if on:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model(input_ids=ids, position_ids=positions([12, 8]), use_cache=False).logits.square().sum().backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_the_executor_is_what_the_machine_has_and_an_absent_one_is_refused():
    query = torch.randn(4, 2, 8)
    assert choose_executor("auto", query) is sdpa_segments
    with pytest.raises(UserError, match=r"s2_executor is torch_varlen.*needs a CUDA device, not cpu.*auto or sdpa"):
        choose_executor("torch_varlen", query)
    model = tiny_model("llama")
    model.config.s2_executor = "torch_varlen"
    with pytest.raises(UserError, match="torch_varlen"):
        model(torch.randint(0, 64, (1, 9)), use_cache=False)


@pytest.mark.skipif(bool(importlib.util.find_spec("flash_attn")), reason="says what it says without the package flash_attn")
def test_the_choice_of_executor_is_told_with_its_reasons():
    config = tiny_config("llama")
    line = describe_executor(config, TrainingParams(), CPU)
    assert line.startswith("attention computed by sdpa")
    assert "not flash_attn: the package flash_attn is not installed" in line
    assert "not torch_varlen: it needs a CUDA device, not cpu" in line
    assert "as set in training.s2_executor" in describe_executor(config, TrainingParams(s2_executor="sdpa"), CPU)
    with pytest.raises(UserError, match="flash_attn is not installed"):
        describe_executor(config, TrainingParams(s2_executor="flash_attn"), CPU)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("num_kv", [4, 2])
def test_torchs_kernel_takes_what_it_is_given(num_kv, window):
    """The kernel itself needs CUDA; its own shape checks run on tensors without storage."""
    segments = segment_batch(positions([9, 4]), 4).unshifted
    query, key, value = (torch.empty(13, n, 8, dtype=torch.bfloat16, device="meta") for n in (4, num_kv, num_kv))
    out = torch_varlen(query, key, value, segments, 8**-0.5, window=window)
    assert out.shape == query.shape
    with pytest.raises(ValueError, match="dropout"):
        torch_varlen(query, key, value, segments, 1.0, dropout=0.1)
