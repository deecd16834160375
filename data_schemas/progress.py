"""What a stage reports while it works: typed events, their form in a job's log, and their words for people.

    stage ─event─▶ ProgressCallback ─┬─▶ terminal and Prefect's log, in words: `describe`
                                     ├─▶ pages and progress bars, by the fields of the event
                                     └─▶ log of a job that a program follows, one JSON line an event: `encode`
                                              └─▶ `decode` gives the follower's own ProgressCallback the same event

Programs read fields, people read `describe`: rewording a sentence cannot change what a program sees.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_schemas.quantities import duration

_MARK = '{"ropeway_event":'  # every encoded event begins so, and no other line of a job's log does


class _Frozen(BaseModel):
    """Frozen. Unknown fields are dropped, so that a newer job can be followed."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class Message(_Frozen):
    """A sentence for people; no program reads it."""

    ropeway_event: Literal["message"] = "message"
    text: str


class TrainingStarted(_Frozen):
    """Training starts, or continues from its last checkpoint. The paths are those of the machine that drives the training."""

    ropeway_event: Literal["training_started"] = "training_started"
    ray_address: str
    num_workers: int
    min_workers: int | None = None  # None: the number of workers is fixed
    progress_file: str  # one line a step, see `StepFigures`
    tensorboard_folder: str


class StepFigures(_Frozen):
    """Figures of one optimizer step: a line of `training_log.jsonl`, or of `progress.jsonl`, which also has the timings."""

    step: int  # 1 is the first
    loss: float  # nats a token, all tokens the same
    weighted_loss: float | None = None  # mean by weight; only with `training.loss_weighting`
    learning_rate: float
    grad_norm: float | None = None
    tokens: int | None = None
    validation_loss: float | None = None  # full attention; at steps that validate
    s2_validation_loss: float | None = None
    last_weights_validation_loss: float | None = None  # of the last step's weights, where their mean is what is published
    tokens_per_s: float | None = None
    seconds: float | None = None
    peak_memory_mb: float | None = None
    seconds_left: float | None = None
    mfu: float | None = None  # from 0 to 1; None where the device's peak is not known


class TrainingStep(_Frozen):
    """One of `num_steps` optimizer steps is done."""

    ropeway_event: Literal["training_step"] = "training_step"
    num_steps: int
    figures: StepFigures


class EvaluationEstimate(_Frozen):
    """What measuring costs, computed before it starts; `seconds` is an upper bound."""

    ropeway_event: Literal["evaluation_estimate"] = "evaluation_estimate"
    num_samples: int
    num_windows: int
    num_tokens: int
    flops: float
    seconds: float


class SamplesMeasured(_Frozen):
    """How far an evaluation has come, or the questions of the advice."""

    ropeway_event: Literal["samples_measured"] = "samples_measured"
    num_done: int
    num_samples: int
    share: float = Field(ge=0, le=1)  # of the operations, which samples of different lengths share unequally
    seconds: float  # since the start
    seconds_left: float | None = None  # None: all done samples are from an interrupted run, so the speed is not known
    stage: Literal["evaluate", "advise"] = "evaluate"


ProgressEvent = Annotated[
    Message | TrainingStarted | TrainingStep | EvaluationEstimate | SamplesMeasured, Field(discriminator="ropeway_event")
]
ProgressCallback = Callable[[ProgressEvent], None]
"""Takes a stage's events, in order and from any thread. It is quick: the stage waits for it."""

_EVENT: TypeAdapter[ProgressEvent] = TypeAdapter(ProgressEvent)


def message(text: str) -> Message:
    """An event with a sentence for people."""
    return Message(text=text)


def encode(event: ProgressEvent) -> str:
    """One line of JSON, without its line break."""
    return event.model_dump_json(exclude_none=True)


def decode(line: str) -> ProgressEvent | None:
    """The event that `encode` wrote; None for any other line, such as a library's warning or a line cut short."""
    if not line.startswith(_MARK):
        return None
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None


def print_progress(event: ProgressEvent) -> None:
    """The callback for a terminal: words on standard error, since results go to standard output."""
    print(describe(event), file=sys.stderr, flush=True)


def print_encoded(event: ProgressEvent) -> None:
    """The callback of a job that a program follows: one JSON line an event on standard error, written at once."""
    sys.stderr.write(encode(event) + "\n")
    sys.stderr.flush()


def describe(event: ProgressEvent) -> str:
    """The event in words."""
    match event:
        case Message(text=text):
            return text
        case TrainingStarted():
            fixed = str(event.num_workers)
            workers = fixed if event.min_workers is None else f"{event.min_workers} to {fixed}"
            return f"finetune: starting Ray ({event.ray_address}) with {workers} worker(s); events: {event.tensorboard_folder}"
        case TrainingStep():
            return _describe_step(event.figures, event.num_steps)
        case EvaluationEstimate():
            return (
                f"evaluate: {event.num_samples:,} samples in {event.num_windows:,} windows of {event.num_tokens:,} tokens, "
                f"{event.flops / 1e12:,.3g} TFLOP: at most about {duration(event.seconds)}, measured here; "
                "shared beginnings make it less"
            )
        case SamplesMeasured():
            samples = "samples" if event.stage == "evaluate" else "answers"
            return f"{event.stage}: {event.num_done:,} of {event.num_samples:,} {samples}, {_when_measured(event)}"


def _describe_step(figures: StepFigures, num_steps: int) -> str:
    parts = [f"finetune: step {figures.step}/{num_steps}", f"loss {figures.loss:.3f}"]
    if figures.weighted_loss is not None:
        parts.append(f"weighted {figures.weighted_loss:.3f}")
    if figures.validation_loss is not None:
        parts.append(f"held-out {figures.validation_loss:.3f}")
    parts.append(f"lr {figures.learning_rate:.1e}")
    if figures.tokens_per_s is not None:
        parts.append(f"{figures.tokens_per_s:,.0f} tokens/s")
    if figures.mfu is not None:
        parts.append(f"MFU {figures.mfu:.0%}")
    if figures.peak_memory_mb is not None:
        parts.append(f"{figures.peak_memory_mb / 1000:.1f} GB")
    if figures.seconds_left is not None:
        parts.append(f"{duration(figures.seconds_left)} left")
    return ", ".join(parts)


def _when_measured(event: SamplesMeasured) -> str:
    if event.num_done == event.num_samples:
        return duration(event.seconds)
    if event.seconds_left is None:
        return "kept from an interrupted run"
    return f"about {duration(event.seconds_left)} left"
