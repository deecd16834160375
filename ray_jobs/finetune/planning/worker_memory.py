"""What one worker of a run holds at the peak of a step, from configurations alone: for all that `ropeway plan` says about memory."""

from __future__ import annotations

from dataclasses import dataclass

from data_schemas.params import PipelineParams, TrainingParams
from ray_jobs.finetune.planning.memory import MemoryEstimate, in_one_memory, predict_memory
from ray_jobs.finetune.planning.sequence import exchanged_bytes, largest_part
from ray_jobs.finetune.planning.shape import TrainingShape


@dataclass(frozen=True, kw_only=True)
class WorkerMemory:
    """The peak of the worker that holds most, and what it was computed with."""

    training: TrainingParams  # on a CPU nothing is offloaded
    row_tokens: int  # of a row, in the largest part that a worker gets
    cut: tuple[float, int]  # layers in full attention, tokens of a group
    estimate: MemoryEstimate

    @property
    def tokens(self) -> int:
        """Of a micro batch."""
        return self.training.micro_batch_rows * self.row_tokens


def memory_of_worker(params: PipelineParams, shape: TrainingShape, available_bytes: float) -> WorkerMemory:
    """For a worker with `available_bytes`, which decide what `training.attention_outputs` auto comes to."""
    from ray_jobs.finetune.training.objective import group_size_at

    workers, sharing, cuda = params.ray.num_workers, params.ray.sequence_workers, params.ray.use_gpu
    trained = as_trained(params, shape, available_bytes).training
    training = trained if cuda else in_one_memory(trained)
    cut = (shape.num_full_layers(params), group_size_at(0, params))
    row_tokens = largest_part(params, shape, params.row_tokens, *cut, sharing)
    beside = exchanged_bytes(params, shape, params.row_tokens, *cut, sharing)
    tokens = training.micro_batch_rows * row_tokens
    estimate = predict_memory(shape, training, tokens, num_workers=workers, cuda=cuda, exchanged_bytes=beside)
    return WorkerMemory(training=training, row_tokens=row_tokens, cut=cut, estimate=estimate)


def as_trained(params: PipelineParams, shape: TrainingShape, available_bytes: float) -> PipelineParams:
    """`params` with kept or recomputed in place of `training.attention_outputs` auto, as a worker of so much memory takes it."""
    from ray_jobs.finetune.training.kept_attention import keeps_attention_within

    if params.training.attention_outputs != "auto":
        return params
    chosen = "kept" if keeps_attention_within(params, shape, available_bytes) else "recomputed"
    return params.model_copy(update={"training": params.training.model_copy(update={"attention_outputs": chosen})})
