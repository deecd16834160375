"""A row over 2, 3 and 4 real processes: the loss and every gradient are those of one process, to 1e-12 in float64."""

import os
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ray_jobs.finetune.attention import register_s2_attention
from ray_jobs.finetune.sequence_parallel.cuts import RowCost
from ray_jobs.finetune.sequence_parallel.exchange import Link
from ray_jobs.finetune.training.batches import MicroBatch
from ray_jobs.finetune.training.objective import evaluating, set_full_layers, set_group_size, summed_loss
from ray_jobs.finetune.training.row_parts import part_of_batch

NUM_PROCESSES = 4
TOLERANCE = 1e-12
FLOAT32_TOLERANCE = 1e-6  # of Gemma's norms, which compute in float32 whatever the model is
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "max_position_embeddings": 256}


def llama(kv_heads, **others):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=kv_heads, **others))


def mistral(window):
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, sliding_window=window, head_dim=8)
    return MistralForCausalLM(config)


def gemma2():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(**SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=20)
    return Gemma2ForCausalLM(config)


def gpt_oss():
    from transformers import GptOssConfig, GptOssForCausalLM

    sizes = SIZES | {"num_local_experts": 2, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 20}
    model = GptOssForCausalLM(GptOssConfig(**sizes, num_attention_heads=4, num_key_value_heads=4))
    model.set_experts_implementation("eager")  # float64
    return model


def mla():
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = DeepseekV3Config(
        **SIZES, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=8, first_k_dense_replace=2, n_routed_experts=2, num_experts_per_tok=1, n_group=1,
        topk_group=1,
    )  # fmt: skip
    return DeepseekV3ForCausalLM(config)


# name -> (model, group size, layers in full, lengths of documents, documents in full)
SCENARIOS = {
    "grouped heads": (lambda: llama(2), 8, (), (37, 1, 1, 50, 30), None),
    "one key-value head": (lambda: llama(1), 8, (), (64, 9, 46), None),
    "heads that exchange, a layer in full": (lambda: llama(4), 8, (1,), (100, 19), None),
    "groups longer than a part": (lambda: llama(2), 48, (0,), (119,), None),
    "documents in full": (lambda: llama(2), 6, (), (33, 47, 39), (True, False, True)),
    "an untied head and biases": (lambda: llama(2, tie_word_embeddings=False, attention_bias=True), 10, (), (61, 58), None),
    "a window shorter than a group": (lambda: mistral(5), 12, (), (70, 49), None),
    "a window longer than a group": (lambda: mistral(20), 8, (1,), (70, 49), (True, False)),
    "soft-capping and windows by layer": (gemma2, 8, (), (70, 49), None),
    "sinks": (gpt_oss, 8, (), (70, 49), None),
    "latent attention": (mla, 8, (1,), (70, 49), None),
}


def batch_of(lengths, in_full, num_tokens_of):
    generator = torch.Generator().manual_seed(3)
    total = sum(lengths)
    ids = torch.randint(0, num_tokens_of, (1, total), generator=generator)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    marks = None if in_full is None else torch.repeat_interleave(torch.tensor(in_full), torch.tensor(lengths))[None]
    return MicroBatch(ids, positions, in_full=marks)


def training_model(make, group_size, full_layers):
    torch.manual_seed(0)
    model = make().double()
    for name, weight in model.named_parameters():  # sinks and biases begin as zeros, which would show nothing
        if name.endswith(("bias", "sinks")):
            torch.nn.init.normal_(weight)
    model.set_attn_implementation("s2")
    set_group_size(model, group_size)
    set_full_layers(model, full_layers)
    return model.train(), SimpleNamespace(get_base_model=lambda: model)


def loss_and_gradients(model, wrapped, batch, group=None):
    model.zero_grad()
    loss = summed_loss(wrapped, batch, 16, "chunked")
    loss.backward()
    found = {"loss": loss.detach().double()}
    found |= {name: w.grad if w.grad is not None else torch.zeros_like(w) for name, w in model.named_parameters()}
    with torch.no_grad(), evaluating(model, sparse=False):
        found["validation"] = summed_loss(wrapped, batch, 16, "chunked").double()
    if group is not None:
        for tensor in found.values():
            dist.all_reduce(tensor, group=group)
    return found


def one_of_four(rank, folder):
    torch.set_num_threads(1)
    register_s2_attention()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=NUM_PROCESSES)
    groups = {size: dist.new_group(list(range(size))) for size in (2, 3, 4)}
    wrong = []
    for name, (make, group_size, full_layers, lengths, in_full) in SCENARIOS.items():
        model, wrapped = training_model(make, group_size, full_layers)
        batch = batch_of(lengths, in_full, SIZES["vocab_size"])
        alone = loss_and_gradients(model, wrapped, batch)
        for size, group in groups.items():
            if rank >= size:
                continue
            link = Link(rank, tuple(range(size)), group)
            part = part_of_batch(batch, link, group_size, RowCost(linear=float(size * 7)))
            together = loss_and_gradients(model, wrapped, part, group)
            for key, expected in alone.items():
                difference = (together[key] - expected).abs().max().item() / max(1.0, expected.abs().max().item())
                is_float32 = "norm" in key and model.config.model_type == "gemma2"
                if not difference <= (FLOAT32_TOLERANCE if is_float32 else TOLERANCE):
                    wrong.append(f"{name}, {size} workers, {key}: {difference:.1e}")
        dist.barrier()
    dist.destroy_process_group()
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_one_worker(tmp_path):
    os.environ["OMP_NUM_THREADS"] = "1"
    mp.spawn(one_of_four, (tmp_path,), nprocs=NUM_PROCESSES)
