"""`ropeway plan`: what a run would do, and the memory and time it needs, computed from configurations alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from data_schemas.devices import cpu_computes_bf16, memory_bytes
from data_schemas.params import PipelineParams, TrainingParams
from data_schemas.quantities import data_size, duration
from data_schemas.storage import Storage
from data_schemas.unused_params import unused_lines
from flows.commands.plain_table import plain_table

if TYPE_CHECKING:
    from ray_jobs.finetune.planning.shape import TrainingShape
    from tasks.model.rope_plan import RopePlan

GB = 1e9
USUAL_GPU_GB = 80.0


@dataclass(frozen=True)
class Machine:
    """What a user states about each worker's machine. None: measured or looked up here, if possible."""

    gpu_memory_gb: float | None = None
    tflops: float | None = None
    budget_hours: float | None = None
    measured: Path | None = None  # a table of benchmarks.gpu_training


def print_plan(params: PipelineParams, machine: Machine | None = None, *, dry_run: bool = False) -> None:
    """Print the RoPE plan and its reason, what is trained, memory, time, and whether chunking would serve better.

    With `dry_run` also what one training step holds, computes and sends, by running it on tensors without content.
    UserError if the run cannot work, on whatever machine.
    """
    from flows.check_inputs import check_parameters

    proof = check_parameters(params)  # before imports that take seconds
    from flows.commands.plan_notes import foreseen_notes
    from flows.commands.plan_stages import foresee_stages, print_stages
    from ray_jobs.finetune.planning.estimate import find_speed, run_seconds
    from ray_jobs.finetune.planning.shape import training_shape
    from tasks.model.extended import base_window, rope_plan_for
    from tasks.rope_search.plans import foreseen, with_stand_in

    machine, console = machine or Machine(), Console()
    unused, notes = unused_lines(params), foreseen_notes(params, base_window(with_stand_in(params).model))
    available, origin = available_bytes(params, machine)
    stages = foresee_stages(params, machine.tflops, machine.measured, available) if params.training.stages else []
    seconds_of_stages = print_stages(console, stages) if stages else None
    rows_of_stages = sum(stage.training.steps * stage.training.rows_per_step for stage in params.by_stage())
    *_, params = params.by_stage()
    after_training = list(_after_training(params))
    searches, params = params.searches_rope, with_stand_in(params)
    plan = rope_plan_for(params.model)
    shape = training_shape(params)
    speed = stages[-1].speed if stages else find_speed(params, shape, machine.tflops, machine.measured)
    seconds = None if speed is None else run_seconds(params, shape, speed)
    if searches:
        plan = plan.before_search()
        console.print(foreseen(params), highlight=False, markup=False, soft_wrap=True)
    rows = [("base", params.model.base), *_own_code(params), *plan.describe(), ("support", proof.describe())]
    rows += [("note", note) for note in notes]
    rows += [*_training(params, shape), *after_training]
    if speed is not None and seconds is not None:
        rows.append(("training time", f"at most about {duration(seconds)}, at {speed.origin}; validation not included"))
        rows += _hours_a_billion(params, shape, speed.flops_per_s)
    else:
        rows.append(("training time", "unknown: give --tflops, the speed that one worker reaches"))
    _print(console, f"Plan of {params.run_name}", ("what", "value"), rows)
    for line in unused:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_memory(console, params, shape, available, origin)
    if dry_run:
        from flows.commands.plan_dry_run import print_dry_run
        from ray_jobs.finetune.planning.worker_memory import as_trained

        print_dry_run(console, as_trained(params, shape, available), shape)
    _print_power(console, params, plan.base_window)
    if stages:
        seconds = seconds_of_stages
    _print_advice(console, params, plan, rows_of_stages, None if seconds is None else seconds / 3600, machine)


def _print_power(console: Console, params: PipelineParams, base_window: int) -> None:
    """What the evaluation's comparisons of task scores can show."""
    from tasks.evaluate.power.dip import dip_line
    from tasks.evaluate.power.plan import asked_settings, power_of_parameters
    from tasks.evaluate.power.sentences import power_lines

    if power := power_of_parameters(params, base_window):
        console.print("What the evaluation can show:", highlight=False, markup=False)
        dip = dip_line(asked_settings(params, base_window))
        for line in (*power_lines(power), *([dip] if dip else [])):
            console.print(f"  - {line}", highlight=False, markup=False, soft_wrap=True)


def _print(console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[str, str]]) -> None:
    console.print(plain_table(columns, rows, title))


def _training(params: PipelineParams, shape: "TrainingShape") -> list[tuple[str, str]]:
    from ray_jobs.finetune.training.lora import describe_norm_kernel

    training, target = params.training, params.row_tokens
    tokens = training.rows_per_step * target
    return [
        ("attention in training", _attention(params, shape)),
        ("attention in evaluation", "full"),
        *_mix_and_short_rows(params),
        *_loss_and_positions(params, shape),
        (
            "trained weights",
            f"{shape.num_trainable:,} of {shape.num_total:,} ({_adapter(training)}{_also_trained(training)})",
        ),
        *_held_and_averaged(training, shape),
        *([("norms", norms)] if (norms := describe_norm_kernel(params)) else []),
        ("tokens a step", f"up to {tokens:,} in {training.rows_per_step} rows of {target:,}"),
        ("steps", f"{training.steps:,}, up to {tokens * training.steps:,} tokens"),
        ("precision", training.precision + _why_slow(params)),
        ("workers", f"{params.ray.num_workers} on {'GPU' if params.ray.use_gpu else 'CPU'}, Ray at {params.ray.address}"),
        *_row_parts(params, shape),
    ]


def _attention(params: PipelineParams, shape: "TrainingShape") -> str:
    from ray_jobs.finetune.training.objective import group_size_at

    training = params.training
    if training.attention == "full":
        return "full"
    if training.all_steps_in_full:
        return f"full in all layers, because training.full_attention_steps covers all {training.steps:,} steps"
    groups = f"S2-Attn in groups of {group_size_at(0, params)} tokens{_in_full(params, shape)}"
    if last := training.full_attention_steps:
        groups += f"; full in all layers in the last {last:,} of {training.steps:,} steps"
    return groups + _conversations(params)


def _mix_and_short_rows(params: PipelineParams) -> Iterator[tuple[str, str]]:
    """What of the rows is not the corpus as it is."""
    from tasks.model.extended import rope_plan_for

    retrieval, short = params.retrieval, params.training.short_window_share
    if retrieval.share:
        kinds = ", ".join(retrieval.trained_families)
        answers = f"answers have up to {retrieval.answer_weight:.0%} of their loss"
        yield "retrieval mix", f"{retrieval.share:.0%} of the training tokens, as {kinds}; {answers}"
    if short:
        most = rope_plan_for(params.model).short_length
        yield "short rows", f"{short:.0%} of the ordinary rows, cut into documents of at most {most:,} tokens"


def _after_training(params: PipelineParams) -> Iterator[tuple[str, str]]:
    """What is measured for short prompts; `params` of the last stage, with a search that is still to be made."""
    from tasks.model.extended import rope_plan_for
    from tasks.rope_search.plans import with_stand_in
    from tasks.rope_search.served import publishes_two_lists
    from tasks.rope_search.short_factors import most_passes

    if not params.training.find_short_factors:
        return
    plan, search = rope_plan_for(with_stand_in(params).model), params.rope_search
    if publishes_two_lists(params) if params.searches_rope else plan.has_short_rotation:
        passes = most_passes(search.samples, search.deciding_samples)
        found = f"in at most {passes} passes of {plan.short_length:,} tokens"
        if params.searches_rope:
            found += ", if the search's factors are taken"
        yield "after training", f"lists for short prompts are measured, {found}"
    else:
        yield "after training", "no list for short prompts is looked for, because prompts of all lengths have one list"


def _row_parts(params: PipelineParams, shape: "TrainingShape") -> Iterator[tuple[str, str]]:
    """What cutting each row over several workers sends."""
    from ray_jobs.finetune.planning.sequence import sent_bytes
    from ray_jobs.finetune.training.objective import group_size_at

    if params.ray.sequence_workers == 1:
        return
    in_full = params.training.all_steps_in_full
    num_full_layers = shape.cost.layers if in_full else shape.num_full_layers(params)
    sent = sent_bytes(params, shape, num_full_layers, group_size_at(0, params))
    layers = f"{data_size(sent.layer_in_groups)} in a layer in groups, {data_size(sent.layer_in_full)} in one in full"
    if in_full:
        layers = f"{data_size(sent.layer_in_full)} in a layer in full"
    yield (
        f"each row over {params.ray.sequence_workers} workers",
        f"a worker sends at most {layers} and {data_size(sent.step)} a row and step; ring attention would send "
        f"{data_size(sent.ring_layer)} a layer",
    )


def _hours_a_billion(params: PipelineParams, shape: "TrainingShape", flops_per_s: float) -> Iterator[tuple[str, str]]:
    """Beside a ring and Ulysses, where rows are shared."""
    from ray_jobs.finetune.planning.sequence_time import USUAL_BYTES_PER_S, hours_a_billion_tokens
    from ray_jobs.finetune.training.objective import group_size_at

    training, sharing = params.training, params.ray.sequence_workers
    if sharing == 1 or training.all_steps_in_full:
        return
    found = hours_a_billion_tokens(
        shape.cost,
        params.row_tokens,
        sharing,
        group_size_at(0, params),
        flops_per_s=flops_per_s,
        num_full_layers=shape.num_full_layers(params),
        compute_bytes=shape.compute_bytes,
        passes=3 if training.gradient_checkpointing else 2,
    )
    groups, ring, ulysses = (duration(3600 * hours) for hours in (found.groups, found.ring, found.ulysses))
    yield (
        f"a billion tokens over {sharing} workers",
        f"{groups}; with full attention {ring} in a ring and {ulysses} by Ulysses, if {data_size(USUAL_BYTES_PER_S)} a second go between "
        "two workers",
    )


def _why_slow(params: PipelineParams) -> str:
    is_slow = params.training.precision == "bf16" and not params.ray.use_gpu and not cpu_computes_bf16()
    return "; this processor computes it many times slower than fp32: set training.precision to auto" if is_slow else ""


def _own_code(params: PipelineParams) -> Iterator[tuple[str, str]]:
    """Says so for a base that brings Python code, which is not used."""
    from tasks.model.base_code import own_class
    from tasks.model.base_model import load_config

    if own := own_class(load_config(params.model)):
        yield "code of the base", f"not run ({own}): transformers has this class itself"


def _loss_and_positions(params: PipelineParams, shape: "TrainingShape") -> Iterator[tuple[str, str]]:
    """What differs from a plain loss over neighbouring positions."""
    import numpy as np

    from ray_jobs.finetune.planning.estimate import run_flops
    from ray_jobs.finetune.planning.second_pass import second_pass_flops
    from ray_jobs.finetune.weighting_rules import first_long_context

    training, row = params.training, params.row_tokens
    if training.loss_weighting != "none":
        counts_more = (
            f"{training.loss_weighting}, for targets with {first_long_context(params):,} tokens of left context or more"
        )
        lengths = np.full(training.rows_per_step, row)
        extra = training.steps * second_pass_flops(params, shape.cost, lengths)
        share = extra / (run_flops(params, shape) - extra)
        yield "loss weights", counts_more + (f"; a second forward pass adds up to {share:.0%} operations" if extra else "")
    if training.position_skipping > 1:
        parts = f"each document in up to {training.position_skipping} parts"
        yield "positions", f"{parts}, spread over {params.model.target_length:,} positions in rows of {row:,} tokens"


def _in_full(params: PipelineParams, shape: "TrainingShape") -> str:
    from ray_jobs.finetune.full_layers import stated_full_heads, stated_full_layers

    training, num_layers, num_kv = params.training, shape.num_layers, shape.cost.kv_heads
    can, count = shape.layers_in_groups(params), shape.num_full_layers(params)
    choice = len(can)
    if training.attention == "s2" and not choice:
        return ", in no layer: their sliding windows are shorter than a group"
    if not count:
        return ""
    which_can = "" if choice == num_layers else " that can be in groups"
    if training.probes_heads:
        return f", full in {round(count * num_kv)} of the {choice * num_kv} key-value heads{which_can}, found by a probe"
    if heads := stated_full_heads(training, num_layers, num_kv):
        return ", full in key-value head " + ", ".join(f"{head} of layer {layer}" for layer, head in heads)
    stated = [layer for layer in stated_full_layers(training, num_layers) if layer in can]
    which = f"layer {', '.join(map(str, stated))}" if stated else f"{count} of the {choice} layers{which_can}, found by a probe"
    return f", full in {which}"


def _conversations(params: PipelineParams) -> str:
    from ray_jobs.finetune.planning.estimate import conversations_in_full

    return "; conversations in full in all layers (the time is for rows of them alone)" if conversations_in_full(params) else ""


def _adapter(training: TrainingParams) -> str:
    name = "DoRA" if training.dora else "LoRA"
    return f"{name} of rank {training.lora_rank}{', rank-stabilised' if training.rslora else ''}"


def _held_and_averaged(training: TrainingParams, shape: "TrainingShape") -> Iterator[tuple[str, str]]:
    if shape.num_quantised:
        held = f"{training.base_precision}: {shape.num_quantised:,} of {shape.num_total:,} weights in {8 * shape.quantised_bytes:.3g} bits"
        yield "frozen weights", f"{held}; the adapter is merged into the original ones"
    if training.average_last_steps:
        yield "published weights", f"the mean over the last {training.average_last_steps:,} steps"


def _also_trained(training: TrainingParams) -> str:
    embeddings = "input embeddings" if training.train_embeddings == "input" else "embeddings"
    parts = [
        name
        for name, is_trained in (("norms", training.train_norms), (embeddings, training.train_embeddings != "none"))
        if is_trained
    ]
    return "".join(f" + {name}" for name in parts)


def _print_memory(console: Console, params: PipelineParams, shape: "TrainingShape", available: float, origin: str) -> None:
    from ray_jobs.finetune.planning.memory import attention_bytes
    from ray_jobs.finetune.planning.sequence import longest_row
    from ray_jobs.finetune.planning.worker_memory import largest_micro_batch, memory_of_worker, most_kept_layers

    workers, sharing, cuda = params.ray.num_workers, params.ray.sequence_workers, params.ray.use_gpu
    worker = memory_of_worker(params, shape, available)
    row_tokens, tokens, found = worker.row_tokens, worker.tokens, worker.estimate
    # What fits at most is asked without kept outputs of attention, which auto leaves out first.
    training = worker.training.model_copy(update={"attention_outputs": params.training.attention_outputs})
    notes = {"overhead": " (CUDA's own memory and rounding; assumed, not measured)"}
    rows = [(name, data_size(value) + notes.get(name, "")) for name, value in found.parts().items() if value]
    rows.append((f"peak, in {found.moment}", data_size(found.total)))
    most = training.rows_per_step // (workers // sharing)
    fitting = largest_micro_batch(params, shape, training, available, most=most)
    fits = f"{fitting} rows" + (" (all rows that a worker has in a step)" if fitting == most else "")
    if not fitting:
        fits = "no row fits: set training.gradient_checkpointing or activation_offload, use fsdp on more workers, or lower the target"
    rows.append((f"largest micro batch in {available / GB:.0f} GB", f"{fits}; {origin}"))
    if fitting and training.micro_batch_rows > fitting:
        rows.append(("training.micro_batch_rows", f"{training.micro_batch_rows} does not fit: set it to {fitting}"))
    if layers := most_kept_layers(params, shape, training, available):
        rows.append(("training.kept_layers", f"up to {layers} of {shape.num_layers} layers fit, which are then not recomputed"))
    if params.training.attention_outputs == "auto" and worker.training.attention_outputs == "kept":
        kept = data_size(tokens * shape.num_layers * attention_bytes(shape))
        rows.append(
            ("training.attention_outputs", f"auto keeps them: up to {kept} of the peak, and attention is not computed twice")
        )
    if sharing > 1:
        longest = {n: longest_row(params, shape, available, n, cuda) for n in (1, 8, 32, 64)}
        rows.append(("longest row", "; ".join(f"{tokens:,} tokens over {n}" for n, tokens in longest.items()) + " workers"))
    kind = "GPU" if cuda else "CPU worker"
    title = f"Memory of one {kind}, with micro batches of {training.micro_batch_rows} x {row_tokens:,} tokens"
    _print(console, title, ("part", "estimate"), rows)


def available_bytes(params: PipelineParams, machine: Machine) -> tuple[float, str]:
    if machine.gpu_memory_gb is not None:
        return machine.gpu_memory_gb * GB, "stated by --gpu-memory"
    if not params.ray.use_gpu:
        return memory_bytes() / params.ray.num_workers, f"this machine's memory shared by {params.ray.num_workers} workers"
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory), f"this machine's {torch.cuda.get_device_name(0)}"
    return USUAL_GPU_GB * GB, f"no GPU found here, so {USUAL_GPU_GB:.0f} GB are assumed: give --gpu-memory for another size"


def _print_advice(
    console: Console, params: PipelineParams, plan: "RopePlan", rows: int, hours: float | None, machine: Machine
) -> None:
    """`rows` and `hours` are those of all training stages."""
    from ray_jobs.finetune.planning.advice import find_context_gain, find_corpus_lengths, reasons_to_chunk
    from tasks.model.base_model import base_fingerprint, load_tokenizer

    storage = Storage(params.storage)
    lengths = find_corpus_lengths(params, storage, load_tokenizer(params.model))
    gain = find_context_gain(storage, lengths.documents_digest, base_fingerprint(params.model)) if lengths else None
    reasons = reasons_to_chunk(
        base_window=plan.base_window,
        target_length=plan.target_length,
        training_required=plan.training_required,
        rows=rows,
        hours=hours,
        budget_hours=machine.budget_hours,
        lengths=lengths,
        context_gain=gain,
    )

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if lengths:
        beyond = lengths.share_beyond(plan.base_window)
        say(f"Corpus: {lengths.describe()}; {beyond:.0%} of the tokens are in documents longer than the base's window.")
    else:
        say(
            "Corpus: not read yet. After `ropeway prepare` or `ropeway compare-rope`, this plan also judges its document lengths."
        )
    say(
        "Chunking with a reorder config may serve better than a longer context:"
        if reasons
        else f"Extend the context: no reason found {'' if lengths else 'yet '}to chunk instead."
    )
    for reason in reasons:
        say(f"  - {reason}")
    if gain is None:
        say(
            "Not yet measured: whether the base gains from longer context on this corpus. Run `ropeway compare-rope`; if not, chunk. "
            "`ropeway advise` asks questions both ways."
        )
