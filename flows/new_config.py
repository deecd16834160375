"""A first config for a base, a corpus and a machine: parameters that fit, and the commented YAML that holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from data_schemas.devices import cpu_name, gpus, memory_bytes, num_cpus
from data_schemas.params import PipelineParams
from data_schemas.quantities import data_size, duration

MEASURED_TIMES, MOST_TIMES = 16, 32  # the farthest extension in benchmarks/results, and what `ropeway --help` promises
BYTES_A_TOKEN = 4  # of prose in the usual tokenizers, roughly
_MOST_STEPS, _FEWEST_STEPS = 1000, 10
_GPU_ROWS, _CPU_ROWS = 8, 4  # rows in a step, for all workers
_MOST_CPU_WORKERS = 2
_COMMENT_COLUMN = 44
_TARGET_TOKENS = 128  # the default of evaluation.target_tokens


@dataclass(frozen=True)
class CorpusSeen:
    """What a first look at the corpus found; sizes as stored, so compressed formats hold more text."""

    num_files: int
    num_bytes: int
    largest_bytes: int

    @property
    def num_tokens(self) -> int:
        return self.num_bytes // BYTES_A_TOKEN

    @property
    def longest_tokens(self) -> int:
        return self.largest_bytes // BYTES_A_TOKEN


@dataclass(frozen=True)
class PlanEstimate:
    """What the plan says of the chosen parameters. `seconds` is None if the speed cannot be known here."""

    base_window: int
    rope_method: str
    seconds: float | None
    speed: str
    peak_bytes: float
    available_bytes: float
    fits: bool


def usual_target(base_window: int, longest_tokens: int) -> int:
    """Four times the window, or twice where no document is that long."""
    return base_window * (4 if longest_tokens >= 4 * base_window else 2)


def far_extension(base_window: int, target_length: int) -> str:
    """A sentence where the target is further than Ropeway is made for; else empty."""
    most = MOST_TIMES * base_window
    if target_length <= most:
        return ""
    return (
        f"{target_length:,} tokens are {target_length / base_window:.3g} times the base's window. Up to {MEASURED_TIMES} times was "
        f"measured, and Ropeway is made for up to {MOST_TIMES} times: lower model.target_length to at most {most:,}, or extend in steps "
        "with training.stages."
    )


def usual_name(base: str, target_length: int) -> str:
    """Such as `Llama-3.2-1B-32k`."""
    length = f"{target_length // 1024}k" if target_length % 1024 == 0 else str(target_length)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", base.rstrip("/").rsplit("/", 1)[-1]).strip("-._") or "base"
    return f"{name[:80]}-{length}"


def first_parameters(base: str, corpus: str, target_length: int, base_window: int, name: str) -> dict[str, Any]:
    """Parameters for this machine, with as many steps as `fitting_steps` has yet to say."""
    num_gpus = len(gpus())
    workers = num_gpus or min(_MOST_CPU_WORKERS, num_cpus())
    rows = -(-(_GPU_ROWS if num_gpus else _CPU_ROWS) // workers) * workers
    cpus = 1 if num_gpus else num_cpus() // workers
    lengths = [base_window]
    while lengths[-1] * 2 <= target_length:
        lengths.append(lengths[-1] * 2)
    if lengths[-1] != target_length:
        lengths.append(target_length)
    short = {"target_tokens": base_window // 2} if base_window < 2 * _TARGET_TOKENS else {}
    return {
        "run_name": name,
        "storage": "ropeway-storage",
        "model": {"base": base, "target_length": target_length, "rope_method": "auto"},
        "corpus": {"sources": [{"uri": corpus}], "heldout_fraction": 0.1},
        "training": {
            "steps": _MOST_STEPS,
            "rows_per_step": rows,
            "warmup_steps": 20,
            "learning_rate": 2e-4,
            "precision": "auto",
            "gradient_checkpointing": True,
            "validate_every": 100,
            "checkpoint_every": 100,
        },
        "evaluation": {"lengths": lengths, **short, "num_documents": 64, "num_samples": 8},
        "ray": {"num_workers": workers, "use_gpu": bool(num_gpus), "cpus_per_worker": cpus},
    }


def ways_to_fit(num_workers: int) -> Iterator[dict[str, Any]]:
    """Settings of `training` that save memory, the fastest first."""
    yield {"gradient_checkpointing": False}
    yield {"gradient_checkpointing": True}
    if num_workers > 1:
        yield {"gradient_checkpointing": True, "parallelism": "fsdp"}
    yield {"gradient_checkpointing": True, "activation_offload": True}


def fitting_steps(seconds_a_step: float | None, hours: float, seen: CorpusSeen, row_tokens: int, rows_per_step: int) -> int:
    """Steps for about one pass over the corpus, and at most `hours` hours."""
    steps = max(1, seen.num_tokens) // (row_tokens * rows_per_step)
    if seconds_a_step:
        steps = min(steps, int(3600 * hours / seconds_a_step))
    return max(_FEWEST_STEPS, min(_MOST_STEPS, steps))


def with_steps(mapping: dict[str, Any], steps: int) -> dict[str, Any]:
    """The parameters with that many steps, and validations and checkpoints that go with them."""
    every = max(1, steps // 10)
    training = {"steps": steps, "warmup_steps": max(1, steps // 20), "validate_every": every, "checkpoint_every": every}
    return mapping | {"training": mapping["training"] | training}


def as_yaml(
    mapping: dict[str, Any], params: PipelineParams, seen: CorpusSeen, estimate: PlanEstimate, schema: str, file: str
) -> str:
    """The file: the parameters of `mapping` with what each means here, and the plan's estimates."""
    training, evaluation = mapping["training"], mapping["evaluation"]
    comments = {
        "run_name": "also the release's name",
        "storage": "a folder or URI; finished stages are found here again",
        "base": f"works up to {estimate.base_window:,} tokens",
        "target_length": f"{params.model.target_length / estimate.base_window:g} times as many",
        "rope_method": f"{estimate.rope_method} for this base",
        "uri": f"{seen.num_files:,} files, {data_size(seen.num_bytes)}, very roughly {seen.num_tokens:,} tokens",
        "heldout_fraction": "kept out of training, to measure on",
        "steps": "the number that fits the hours and the corpus",
        "rows_per_step": f"{training['rows_per_step'] * params.row_tokens:,} tokens",
        "precision": f"{params.training.precision} on this machine",
        "gradient_checkpointing": "saves memory, costs a third more time"
        if training["gradient_checkpointing"]
        else "not needed here",
        "parallelism": "one model is split over the workers",
        "activation_offload": "activations wait in the memory of the processor",
        "checkpoint_every": "a killed run goes on from here",
        "lengths": "tokens of context to measure at",
        "num_samples": f"of {', '.join(params.evaluation.tasks)} at each length and depth",
        "num_documents": f"at most; fewer are faster than {evaluation['num_documents']}",
        "num_workers": "one for each GPU" if params.ray.use_gpu else "of this machine's processors",
    }
    licence = f"      {'# licence: CC0-1.0':<{_COMMENT_COLUMN - 6}}# SPDX name of your corpus' licence, for the data card"
    body: list[str] = []
    for line in yaml.safe_dump(mapping, sort_keys=False, default_flow_style=False, allow_unicode=True, width=200).splitlines():
        name = line.strip().removeprefix("- ").partition(":")[0]
        comment = comments.get(name)
        body += [""] if not line.startswith(" ") and line.endswith(":") and body else []
        body.append(f"{line:<{_COMMENT_COLUMN - 2}}  # {comment}" if comment else line)
        body += [licence] if name == "uri" else []
    return "\n".join([*_heading(estimate, schema, file), "", *body, ""])


def _heading(estimate: PlanEstimate, schema: str, file: str) -> list[str]:
    devices = ", ".join(gpu.name for gpu in gpus()) or "no GPU"
    machine = f"{cpu_name()}, {num_cpus()} processors, {data_size(memory_bytes())} of memory, {devices}"
    return [
        f"# yaml-language-server: $schema={schema}",
        f"# Made by `ropeway init` for this machine: {machine}.",
        *(f"# {line}" for line in estimate_lines(estimate)),
        f"# See it with `ropeway plan {file}`, check the machine with `ropeway doctor {file}`, run it with `ropeway run {file}`.",
        "# `ropeway params` explains every parameter. Those that are not named here have their defaults.",
    ]


def estimate_lines(estimate: PlanEstimate) -> list[str]:
    """The plan's time and memory."""
    time = (
        f"at most about {duration(estimate.seconds)}" if estimate.seconds else "unknown (`ropeway plan --tflops` computes it)"
    )
    memory = f"{data_size(estimate.peak_bytes)} of {data_size(estimate.available_bytes)} on each worker"
    return [
        f"Estimated training time: {time}{f', at {estimate.speed}' if estimate.speed else ''}; the evaluation comes on top.",
        f"Estimated memory: {memory}{'' if estimate.fits else ', WHICH DOES NOT FIT: lower target_length, or use more GPUs'}.",
    ]
