"""`ropeway plan`: what a run would do, take and cost, worked out from configurations alone."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage

if TYPE_CHECKING:
    from ray_jobs.finetune.planning.shape import TrainingShape
    from tasks.model.rope_plan import RopePlan

GB = 1e9
USUAL_GPU_GB = 80.0


@dataclass(frozen=True)
class Machine:
    """What a user says of the workers' machines; None: found out here, or left open."""

    gpu_memory_gb: float | None = None
    tflops: float | None = None
    budget_hours: float | None = None


def print_plan(params: PipelineParams, machine: Machine | None = None) -> None:
    """Print the RoPE plan and its reason, what trains, memory, time, and whether chunks would serve better.

    UserError if the run cannot work.
    """
    from ray_jobs.finetune.planning.estimate import find_speed, run_seconds
    from ray_jobs.finetune.planning.shape import training_shape
    from tasks.model.extended import rope_plan_for

    machine = machine or Machine()
    plan = rope_plan_for(params.model)
    shape = training_shape(params)
    speed = find_speed(params, shape, machine.tflops)
    seconds = None if speed is None else run_seconds(params, shape, speed)
    console = Console()
    rows = [("base", params.model.base), *plan.describe(), *_training(params, shape)]
    if speed is not None and seconds is not None:
        rows.append(("time of training", f"at most about {_duration(seconds)}, at {speed.origin}; without validation"))
    else:
        rows.append(("time of training", "unknown: give --tflops, what one worker reaches"))
    _print(console, f"Plan of {params.run_name}", ("what", "value"), rows)
    _print_memory(console, params, shape, machine)
    _print_advice(console, params, plan, None if seconds is None else seconds / 3600, machine)


def _print(console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[str, str]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _training(params: PipelineParams, shape: "TrainingShape") -> list[tuple[str, str]]:
    from ray_jobs.finetune.training.objective import group_size_at

    training, target = params.training, params.model.target_length
    tokens = training.rows_per_step * target
    group = group_size_at(0, params)
    return [
        ("attention in training", f"S2-Attn in groups of {group} tokens" if training.attention == "s2" else "full"),
        ("attention in evaluation", "full"),
        (
            "trained weights",
            f"{shape.num_trainable:,} of {shape.num_total:,} (LoRA rank {training.lora_rank}, norms and embeddings as set)",
        ),
        ("tokens in a step", f"up to {tokens:,} in {training.rows_per_step} rows of {target:,}"),
        ("steps", f"{training.steps:,}, up to {tokens * training.steps:,} tokens"),
        ("workers", f"{params.ray.num_workers} on {'GPU' if params.ray.use_gpu else 'CPU'}, Ray at {params.ray.address}"),
    ]


def _print_memory(console: Console, params: PipelineParams, shape: "TrainingShape", machine: Machine) -> None:
    from ray_jobs.finetune.planning.memory import largest_micro_batch, predict_memory

    training, workers, cuda = params.training, params.ray.num_workers, params.ray.use_gpu
    row_tokens = params.model.target_length
    found = predict_memory(shape, training, training.micro_batch_rows * row_tokens, num_workers=workers, cuda=cuda)
    rows = [(name, _size(value)) for name, value in found.parts().items() if value]
    rows.append((f"peak, in {found.moment}", _size(found.total)))
    available, whose = _available_bytes(params, machine)
    most = training.rows_per_step // workers
    fitting = largest_micro_batch(shape, training, row_tokens, available, most=most, num_workers=workers, cuda=cuda)
    fits = f"{fitting} rows" + (" (all that a worker has in a step)" if fitting == most else "")
    if not fitting:
        fits = "not one row: set training.gradient_checkpointing or activation_offload, more workers with fsdp, or a shorter target"
    rows.append((f"largest micro batch in {available / GB:.0f} GB", f"{fits}; {whose}"))
    if fitting and training.micro_batch_rows > fitting:
        rows.append(("training.micro_batch_rows", f"{training.micro_batch_rows} does not fit: set it to {fitting}"))
    kind = "GPU" if cuda else "CPU worker"
    note = "; allocator's rounding and CUDA's own memory as stated, not measured" if cuda else ""
    title = f"Memory a {kind} at micro batches of {training.micro_batch_rows} x {row_tokens:,} tokens{note}"
    _print(console, title, ("part", "foreseen"), rows)


def _available_bytes(params: PipelineParams, machine: Machine) -> tuple[float, str]:
    if machine.gpu_memory_gb is not None:
        return machine.gpu_memory_gb * GB, "as --gpu-memory says"
    if not params.ray.use_gpu:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total / params.ray.num_workers, f"this machine's memory over {params.ray.num_workers} workers"
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory), f"this machine's {torch.cuda.get_device_name(0)}"
    return USUAL_GPU_GB * GB, "no GPU is seen here, so one of 80 GB is taken: give --gpu-memory for another"


def _print_advice(console: Console, params: PipelineParams, plan: "RopePlan", hours: float | None, machine: Machine) -> None:
    from ray_jobs.finetune.planning.advice import find_context_gain, find_corpus_lengths, reasons_to_chunk
    from tasks.model.base_model import base_fingerprint, load_tokenizer

    storage = Storage(params.storage)
    lengths = find_corpus_lengths(params, storage, load_tokenizer(params.model))
    gain = find_context_gain(storage, lengths.documents_digest, base_fingerprint(params.model)) if lengths else None
    reasons = reasons_to_chunk(
        base_window=plan.base_window,
        target_length=plan.target_length,
        training_required=plan.training_required,
        rows=params.training.steps * params.training.rows_per_step,
        hours=hours,
        budget_hours=machine.budget_hours,
        lengths=lengths,
        context_gain=gain,
    )

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if lengths:
        beyond = lengths.share_beyond(plan.base_window)
        say(f"Corpus: {lengths.describe()}; {beyond:.0%} of the tokens stand in documents beyond the base's window.")
    else:
        say("Corpus: not read yet; after `ropeway prepare` or `ropeway compare-rope` its lengths are judged here too.")
    say(
        "Chunks with a reorder config may serve better than extending:"
        if reasons
        else "Extend: nothing speaks for chunks instead."
    )
    for reason in reasons:
        say(f"  - {reason}")
    if gain is None:
        say("Whether the parts of documents are independent is measured by `ropeway compare-rope`; if they are, chunk.")


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:.2f} GB" if num_bytes >= GB else f"{num_bytes / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
