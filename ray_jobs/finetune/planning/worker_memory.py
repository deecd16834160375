"""What one worker of a run holds at the peak of a step, from configurations alone: for all that `ropeway plan` says about memory."""

from __future__ import annotations

from dataclasses import dataclass

from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.planning.memory import SHARE_USED, MemoryEstimate, in_one_memory
from ray_jobs.finetune.planning.sequence import worker_peak
from ray_jobs.finetune.planning.shape import TrainingShape


@dataclass(frozen=True, kw_only=True)
class WorkerMemory:
    """The peak of the worker that holds most, at the time of the run when it does, and what it was computed with."""

    training: TrainingParams  # on a CPU nothing is offloaded
    tokens: int  # of a micro batch, in the largest part that a worker gets
    estimate: MemoryEstimate

    @property
    def row_tokens(self) -> int:
        """Of each of its rows."""
        return -(-self.tokens // self.training.micro_batch_rows)


def memory_of_worker(params: PipelineParams, shape: TrainingShape, available_bytes: float) -> WorkerMemory:
    """For a worker with `available_bytes`, which decide what `training.attention_outputs` auto comes to."""
    trained = as_trained(params, shape, available_bytes).training
    training = trained if params.ray.use_gpu else in_one_memory(trained)
    tokens, estimate = _peak(params, shape, training, training.micro_batch_rows)
    return WorkerMemory(training=training, tokens=tokens, estimate=estimate)


def _peak(params: PipelineParams, shape: TrainingShape, training: TrainingParams, rows: int) -> tuple[int, MemoryEstimate]:
    """With `rows` rows in a micro batch; `training` is used instead of `params.training`."""
    ray = params.ray
    return worker_peak(
        params, shape, training, params.row_tokens, ray.sequence_workers, ray.num_workers, rows=rows, cuda=ray.use_gpu
    )


def most_kept_layers(params: PipelineParams, shape: TrainingShape, training: TrainingParams, available_bytes: float) -> int:
    """How many layers' activations fit beside all else, so that they need not be recomputed; 0 without recomputed layers.

    `training` is used instead of `params.training`.
    """
    if not training.gradient_checkpointing or training.activation_offload:
        return 0
    for count in range(shape.num_layers, 0, -1):
        keeping = training.model_copy(update={"kept_layers": count})
        if _peak(params, shape, keeping, training.micro_batch_rows)[1].total <= available_bytes * SHARE_USED:
            return count
    return 0


def largest_micro_batch(
    params: PipelineParams, shape: TrainingShape, training: TrainingParams, available_bytes: float, *, most: int
) -> int:
    """The number of rows that fit one worker, or the workers that share rows, at a time, at most `most`; 0 if not even one fits.

    `training` is used instead of `params.training`.
    """
    fitting = 0
    for rows in range(1, most + 1):
        if _peak(params, shape, training, rows)[1].total > available_bytes * SHARE_USED:
            break
        fitting = rows
    return fitting


def as_trained(params: PipelineParams, shape: TrainingShape, available_bytes: float) -> PipelineParams:
    """`params` with kept or recomputed in place of `training.attention_outputs` auto, as a worker of so much memory takes it."""
    from ray_jobs.finetune.training.kept_attention import keeps_attention_within

    if params.training.attention_outputs != "auto":
        return params
    chosen = "kept" if keeps_attention_within(params, shape, available_bytes) else "recomputed"
    return params.model_copy(update={"training": params.training.model_copy(update={"attention_outputs": chosen})})
