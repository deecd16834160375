"""How long a training run takes: its operations divided by a worker's FLOP/s, which are stated or measured in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from ray_jobs.finetune.planning.measured import nearest, read_measured
from ray_jobs.finetune.planning.memory import predict_memory
from ray_jobs.finetune.planning.second_pass import second_pass_flops
from ray_jobs.finetune.planning.shape import TrainingShape

USUAL_MFU = 0.4  # assumed share of a GPU's peak, if only the peak is known
_MEASURED_LAYERS = 2
_MOST_MEASURED_TOKENS = 4096
_FEWEST_MEASURED_TOKENS = 64  # at 2 GFLOP/s, a bf16 CPU without the instructions, two layers of a large model take seconds
MOST_MEASURING_S = 4.0
_MOST_MEASURED_BYTES = 4e9


@dataclass(frozen=True)
class Speed:
    """What one worker reaches, counting only operations that the mathematics needs, and where the figure comes from."""

    flops_per_s: float
    origin: str


def run_flops(params: PipelineParams, shape: TrainingShape) -> float:
    """Operations of all steps if each row is one full-length document: the most that a run of these parameters can need.

    Retrieval documents, which fill a row each, attend in full in all layers, and so do conversations where the parameters say so. Of the
    ordinary rows `training.short_window_share` are cut into pieces, which attend in full.
    """
    from ray_jobs.finetune.training.objective import group_size_at

    training = params.training
    full_layers = shape.num_full_layers(params)
    lengths = np.full(training.rows_per_step, params.row_tokens)
    last = min(training.full_attention_steps, training.steps) if training.attention == "s2" else 0

    def of_step(sequences: np.ndarray, *, in_full: bool) -> float:
        """Operations of a step with S2-Attn."""
        return shape.cost.step_flops(sequences, group_size_at(0, params), full_layers, np.full(len(sequences), in_full))

    share = 1.0 if conversations_in_full(params) else params.retrieval.share
    cut = (1 - share) * training.short_window_share
    short = cut * of_step(np.tile(_pieces(params), training.rows_per_step), in_full=True) if cut else 0.0
    sparse = (1 - share - cut) * of_step(lengths, in_full=False) + share * of_step(lengths, in_full=True) + short
    total = (training.steps - last) * sparse if last < training.steps else 0.0
    total += last * ((1 - cut) * shape.cost.step_flops(lengths, 2 * params.model.target_length) + short)
    return total + training.steps * second_pass_flops(params, shape.cost, lengths)


def _pieces(params: PipelineParams) -> np.ndarray:
    """Tokens int [num_pieces] of the pieces of a row of one document that `training.short_window_share` cuts."""
    from tasks.model.extended import rope_plan_for

    window = rope_plan_for(params.model).short_length
    return np.minimum(window, params.row_tokens - np.arange(0, params.row_tokens, window))


def conversations_in_full(params: PipelineParams) -> bool:
    """Whether conversations attend in full in all layers; how many of the rows they fill is not known before the corpus is read."""
    is_asked = params.packing.full_attention_conversations and params.corpus.has_instructions
    return is_asked and params.training.attention == "s2"


def run_seconds(params: PipelineParams, shape: TrainingShape, speed: Speed) -> float:
    """Seconds of all steps on all workers, without validation, checkpoints and start-up."""
    return run_flops(params, shape) / (speed.flops_per_s * params.ray.num_workers)


def find_speed(
    params: PipelineParams, shape: TrainingShape, stated_tflops: float | None, measured: Path | None = None
) -> Speed | None:
    """As stated; else from a table `measured` on a GPU; else an assumed share of the GPU's peak; else measured if training is on the
    CPU; None if it cannot be known.
    """
    import torch

    from ray_jobs.finetune.planning.flops import peak_flops

    if stated_tflops is not None:
        return Speed(stated_tflops * 1e12, f"{stated_tflops:g} TFLOP/s a worker, as stated")
    use_gpu = params.ray.use_gpu
    if measured is not None and not use_gpu:
        raise UserError("--measured is for training on GPUs, and ray.use_gpu is false: leave it out, or set ray.use_gpu.")
    if measured is not None and use_gpu:
        weights_bytes = 4 * shape.num_trainable + shape.frozen_bytes * shape.num_frozen
        case = nearest(read_measured(measured), params.training, params.row_tokens, weights_bytes)
        return Speed(case.mfu * case.peak_flops, case.describe())
    device = torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
    peak = peak_flops(device, params.ray.peak_tflops, params.training.precision)
    if peak is not None:
        return Speed(USUAL_MFU * peak, f"{USUAL_MFU:.0%} of a peak of {peak / 1e12:g} TFLOP/s, which is assumed, not measured")
    return None if use_gpu else measure_speed(params, shape)


def measure_speed(params: PipelineParams, shape: TrainingShape) -> Speed | None:
    """Measured on this machine's CPU with forward and backward passes of two of the model's layers and its embeddings.

    None if even that would take more than about 4 GB.
    """
    tokens = min(params.row_tokens, _MOST_MEASURED_TOKENS)
    if predict_memory(shape, params.training, tokens).total / max(1, shape.num_layers // 4) > _MOST_MEASURED_BYTES:
        return None
    num_threads = max(1, int(params.ray.cpus_per_worker))
    with _threads(num_threads):
        tokens, reached = _measured_within(params, tokens, MOST_MEASURING_S)
    threads = f"{num_threads} thread" + "s" * (num_threads > 1)
    return Speed(reached, f"{reached / 1e9:,.1f} GFLOP/s a worker, measured here on {tokens:,} tokens with {threads}")


def _measured_within(params: PipelineParams, tokens: int, most_s: float) -> tuple[int, float]:
    """(tokens measured, FLOP/s). Begins with few tokens, and takes more only while they fit into about `most_s` seconds."""
    started, few = time.perf_counter(), min(tokens, _FEWEST_MEASURED_TOKENS)
    while True:
        step, cost, group_size = _two_layers(params, few)
        flops = cost.step_flops(np.array([few]), group_size)
        step()  # warms up
        seconds = [_seconds_of(step)]
        left = most_s - (time.perf_counter() - started)
        more = min(tokens, 4 * few)
        if few < tokens and 1.5 * 2 * seconds[0] * more / few < left:  # twice, and attention grows faster than the tokens
            few = more
            continue
        while seconds[-1] < left and (len(seconds) < 2 or (sum(seconds) < 1.0 and len(seconds) < 20)):
            seconds.append(_seconds_of(step))
            left -= seconds[-1]
        return few, flops / float(np.median(seconds))


def _seconds_of(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _two_layers(params: PipelineParams, tokens: int) -> tuple[Callable[[], None], Any, int]:
    """(a step of a random model with two layers, its operations, the group size)."""
    import torch
    from transformers import AutoModelForCausalLM

    from ray_jobs.finetune.attention import S2_ATTENTION, register_s2_attention
    from ray_jobs.finetune.planning.flops import cost_of
    from ray_jobs.finetune.training.batches import MicroBatch
    from ray_jobs.finetune.training.lora import add_trainable_weights
    from ray_jobs.finetune.training.objective import Objective, group_size_at, set_group_size
    from tasks.model.extended import extended_config
    from tasks.model.quantised_linear import quantise_linears
    from tasks.model.quiet import quiet_transformers

    register_s2_attention()
    config: Any = extended_config(params.model)
    config.num_hidden_layers = min(_MEASURED_LAYERS, config.num_hidden_layers)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    group_size = min(group_size_at(0, params), 2 * tokens)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        base = AutoModelForCausalLM.from_config(config, attn_implementation=S2_ATTENTION, dtype=torch.float32)
        if params.training.base_precision != "full":
            quantise_linears(base, params.training.base_precision, torch.device("cpu"))
        if params.training.gradient_checkpointing:
            base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model = add_trainable_weights(base, params.training).train()
        ids = torch.randint(0, config.vocab_size, (1, tokens))
    set_group_size(model, group_size)
    objective = Objective(model, params.training)
    batch = MicroBatch(ids, torch.arange(tokens)[None])

    def step() -> None:
        objective(batch).backward()

    return step, cost_of(model, config), group_size
