"""One real extension in pieces of a few minutes each: train, measure three models, report.

Everything is read from two folders that `ropeway prepare` made anywhere else: shards and documents. What is done is kept in a
work folder (checkpoints, one table an arm), so the next call goes on; on a machine that is given back, carry that folder along.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data_schemas.params import PipelineParams
from data_schemas.report import Report

ARMS = ("base", "scaling_only", "fine_tuned")
LOG = "training_log.jsonl"


class OutOfTime(Exception):
    """This call's time is over; what is done is kept."""


def train_on(
    params: PipelineParams, shards: Path, work: Path, device: torch.device, deadline: float, say: Callable[[str], None]
) -> Path:
    """The finished checkpoint's folder. Raises OutOfTime after a checkpoint, where training does not end before `deadline`."""
    from ray_jobs.finetune.training.checkpoint import last_complete
    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import train
    from tasks.pack.reading import open_rows

    work.mkdir(parents=True, exist_ok=True)
    latest = last_complete(work)
    done = json.loads((latest / "cursor.json").read_text())["step"] if latest else 0
    if latest and done >= params.training.steps:
        return latest
    say(f"training goes on after step {done} of {params.training.steps}")

    def over() -> bool:
        return time.monotonic() > deadline

    def report(metrics: dict[str, Any], directory: Path | None) -> None:
        with (work / LOG).open("a") as log:
            log.write(json.dumps(metrics) + "\n")
        say(f"step {metrics['step']}: loss {metrics['loss']:.3f}, {metrics['tokens'] / metrics['seconds']:,.0f} tokens/s")
        if directory is None:
            return
        keep(directory, work, metrics["step"])
        if over() and metrics["step"] < params.training.steps:
            raise OutOfTime(f"stopped after step {metrics['step']}")

    worker = Worker(rank=0, world_size=1, device=device)
    train(params, open_rows(shards), open_rows(shards / "heldout"), worker, report, latest, work, over)
    finished = last_complete(work)
    assert finished is not None
    return finished


def keep(directory: Path, work: Path, step: int) -> Path:
    """Move a new checkpoint into `work` beside the ones before, then remove those: at every moment a complete one is there."""
    kept = work / f"checkpoint_{step:06d}"
    shutil.rmtree(kept, ignore_errors=True)  # debris of a stopped run, or this very step done again
    directory.rename(kept)
    for other in work.glob("checkpoint_*"):
        if other != kept:
            shutil.rmtree(other)
    return kept


def measure_arms(
    params: PipelineParams, documents: Path, checkpoint: Path, work: Path, device: torch.device, deadline: float,
    say: Callable[[str], None],
) -> dict[str, Path]:  # fmt: skip
    """Folder of the tables of each arm. Raises OutOfTime between arms."""
    from ray_jobs.evaluate.measuring_units import Unit, measure_arm
    from ray_jobs.evaluate.workload import prepare_workload
    from tasks.model.base_model import load_tokenizer
    from tasks.model.extended import base_window, load_arm

    missing = [arm for arm in ARMS if not (work / f"{arm}.done").is_dir()]
    if missing:
        tokenizer = load_tokenizer(params.model)
        workload = prepare_workload(params, base_window(params.model), documents, tokenizer)
    for arm in missing:
        if time.monotonic() > deadline:
            raise OutOfTime(f"{arm} is not measured yet")
        model = load_arm(params, arm, checkpoint if arm == "fine_tuned" else None).to(device).eval()  # type: ignore[arg-type]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):

            def told(unit: Unit, arm: str = arm) -> None:
                say(f"evaluate {arm}: {unit.kind} {unit.name} at {unit.length} tokens, {unit.num_samples} samples")

            samples = measure_arm(model, arm, workload, tokenizer, batch_tokens=params.evaluation.batch_tokens, told=told)
        staged = work / f"{arm}.part"
        samples.write(staged)
        staged.rename(work / f"{arm}.done")
        del model
    return {arm: work / f"{arm}.done" for arm in ARMS}


def report_on(params: PipelineParams, documents: Path, folders: dict[str, Path]) -> Report:
    """Perplexity by length, passkey and effective context length of the three arms. ImportError without scipy."""
    import pyarrow as pa

    from ray_jobs.evaluate.arms import choose_arms
    from ray_jobs.evaluate.evaluation_stage import report_settings
    from ray_jobs.evaluate.workload import prepare_workload
    from tasks.evaluate.report.build import build_report
    from tasks.evaluate.sample_set import SCHEMAS, Samples
    from tasks.model.base_model import load_tokenizer
    from tasks.model.extended import base_window

    window = base_window(params.model)
    workload = prepare_workload(params, window, documents, load_tokenizer(params.model))
    of_arms = [Samples.read(folder) for folder in folders.values()]
    samples = Samples(**{kind: pa.concat_tables([getattr(of_arm, kind) for of_arm in of_arms]) for kind in SCHEMAS})
    settings = report_settings(params, window, workload, choose_arms(params, has_checkpoint=True))
    return build_report(samples, settings)
