"""The part of `ropeway plan` about `training.stages`: each stage's RoPE, tokens, memory and time, and their sums."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from data_schemas.params import PipelineParams
from data_schemas.quantities import data_size, duration
from flows.commands.plain_table import plain_table

if TYPE_CHECKING:
    from ray_jobs.finetune.planning.estimate import Speed

COLUMNS = ("stage", "RoPE", "retrieval mix", "steps x rows", "tokens at most", "memory of a worker", "training time at most")


@dataclass(frozen=True)
class StageForecast:
    """What one training stage takes at most. `seconds` is None where no `speed` is known."""

    target_length: int
    rope: str
    retrieval_share: float
    steps: int
    rows_per_step: int
    tokens: int
    memory_bytes: float
    speed: "Speed | None"
    seconds: float | None
    search: str = ""  # what its search for factors takes; empty without one


def foresee_stages(
    params: PipelineParams, tflops: float | None, measured: Path | None, available_bytes: float
) -> list[StageForecast]:
    """One forecast for each stage of `training.stages`, in order, on workers with `available_bytes`. UserError if a stage cannot work."""
    from ray_jobs.finetune.planning.estimate import find_speed, run_seconds
    from ray_jobs.finetune.planning.shape import training_shape
    from ray_jobs.finetune.planning.worker_memory import memory_of_worker
    from ray_jobs.preflight import refuse_stage
    from tasks.model.extended import rope_plan_for
    from tasks.rope_search.plans import foreseen, with_stand_in

    found: list[StageForecast] = []
    stages = params.by_stage()
    for number, asked in enumerate(stages):
        stage = with_stand_in(asked) if asked is stages[-1] else refuse_stage(params, number)
        plan, shape, training = rope_plan_for(stage.model), training_shape(stage), stage.training
        speed = find_speed(stage, shape, tflops, measured)
        rope = f"{plan.method} x{plan.factor:g}"
        if asked.searches_rope:
            rope = f"longrope, searched on {'the stage before' if found else 'the base'}; here as {rope}"
        found.append(
            StageForecast(
                target_length=plan.target_length,
                rope=rope,
                retrieval_share=stage.retrieval.share,
                steps=training.steps,
                rows_per_step=training.rows_per_step,
                tokens=training.steps * training.rows_per_step * stage.row_tokens,
                memory_bytes=memory_of_worker(stage, shape, available_bytes).estimate.total,
                speed=speed,
                seconds=None if speed is None else run_seconds(stage, shape, speed),
                search=foreseen(asked) if asked.searches_rope else "",
            )
        )
    return found


def print_stages(console: Console, stages: list[StageForecast]) -> float | None:
    """Print them with their sums; returns the seconds of all, None where one is not known."""
    table = []
    for number, stage in enumerate(stages, 1):
        rows = f"{stage.steps:,} x {stage.rows_per_step}"
        memory, time = data_size(stage.memory_bytes), _time(stage.seconds)
        mix = f"{stage.retrieval_share:.0%}"
        table.append((f"{number}: {stage.target_length:,}", stage.rope, mix, rows, f"{stage.tokens:,}", memory, time))
    known = [stage.seconds for stage in stages if stage.seconds is not None]
    seconds = sum(known) if len(known) == len(stages) else None
    largest = max(stage.memory_bytes for stage in stages)
    steps, tokens = sum(stage.steps for stage in stages), sum(stage.tokens for stage in stages)
    table.append(("all", "", "", f"{steps:,} steps", f"{tokens:,}", f"{data_size(largest)} at most", _time(seconds)))
    console.print(plain_table(COLUMNS, table, "Training stages, each from the weights of the one before"))
    for number, stage in enumerate(stages[:-1], 1):
        if stage.search:
            console.print(f"Stage {number}: {stage.search}", highlight=False, markup=False, soft_wrap=True)
    console.print("The tables below are about the last stage.", highlight=False, markup=False)
    return seconds


def _time(seconds: float | None) -> str:
    return "unknown: give --tflops" if seconds is None else f"about {duration(seconds)}"
