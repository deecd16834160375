"""What `ropeway plan --dry-run` prints: one training step on tensors without content."""

from typing import TYPE_CHECKING

from rich.console import Console

from data_schemas.params import PipelineParams
from data_schemas.quantities import data_size, duration
from flows.commands.plain_table import plain_table

if TYPE_CHECKING:
    from ray_jobs.finetune.dry_run.rehearsal import DryRun
    from ray_jobs.finetune.planning.shape import TrainingShape

AGREES_WITHIN = 0.10


def print_dry_run(console: Console, params: PipelineParams, shape: "TrainingShape") -> None:
    """Rehearse one step and print what it found. UserError that names the module if the step cannot be computed."""
    from ray_jobs.finetune.dry_run.rehearsal import dry_run

    found = dry_run(params, shape)
    workers = f"{found.num_workers} workers, {params.training.parallelism}" if found.num_workers > 1 else "one worker"
    title = f"Dry run of one micro batch of {found.tokens:,} tokens, {workers}"
    console.print(plain_table(("what", "value"), list(rows_of(found)), title))


def rows_of(found: "DryRun") -> list[tuple[str, str]]:
    """(what, value) for the table."""
    checked = "training and validation on a GPU, and " if found.checked_on_gpu else ""
    rows = [("devices, types and shapes", f"no fault in {checked}a whole step with gradients and optimizer")]
    rows += [(f"memory: {name}", data_size(size)) for name, size in found.parts.items()]
    rows.append(("memory: peak", f"{data_size(found.peak_bytes)}; {agreement(found)}"))
    needed = found.matrix_flops + found.attention_flops
    recomputed = needed / found.needed_flops - 1
    operations = f"{found.matrix_flops / 1e12:,.3g} in matrix products, {found.attention_flops / 1e12:,.3g} in attention"
    rows.append(("TFLOP of a worker", f"{operations}; {recomputed:+.0%} beside what training needs, for recomputed layers"))
    kernels, moved = sum(found.kernels.values()), sum(found.kernel_bytes.values())
    rows.append(("kernels", f"{kernels:,} without torch.compile, which read and write {data_size(moved)}"))
    for name, size in found.sent_bytes.items():
        rows.append((f"sent by a worker: {name}", data_size(size)))
    rows += [("note", note) for note in found.notes]
    rows.append(("took", duration(found.seconds)))
    return rows


def agreement(found: "DryRun") -> str:
    """How the formula of `plan` compares, and why it differs if it does."""
    text = f"the formula says {data_size(found.predicted.total)}, {found.ratio:.2f}x"
    if abs(found.ratio - 1) <= AGREES_WITHIN:
        return text
    return text + (
        "; trust the dry run, which runs this model's own code: the formula counts attention and one gated MLP in each layer, and "
        "not what else its layers keep"
    )
