"""One arm of `benchmarks.progressive` in a process of its own: train stage after stage, measure, write `result.json`.

python -m benchmarks.progressive_run ARM SEED LENGTH TOKENS FOLDER [--quick]
"""

from __future__ import annotations

import json
import math
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.recipes_arms import FULL_WEIGHT_RATE, RANK, RATE, UNTRAINED
from benchmarks.recipes_run import measure, prepare
from data_schemas.params import PipelineParams
from data_schemas.storage import Storage

WINDOW = 512
SHARE_OF_FIRST = 0.5  # of the tokens, for the arms in stages
CHECKPOINT_EVERY = 8
FULL_LAYERS = [
    3
]  # of the demo base's four, the one that the probe finds: it is stated, so that all arms train the same and none probes
# Arm: whether it has a first stage, and whether that is trained with the RoPE of the last.
ARMS = {"one-stage": (False, False), "stages": (True, False), "stages-one-rope": (True, True)}
FULL_BUDGET = {"num_documents": 16, "num_samples": 6, "num_depths": 5}
QUICK_BUDGET = {"num_documents": 3, "num_samples": 2, "num_depths": 2}


def main() -> None:
    arm, (seed, length, tokens), folder = sys.argv[1], map(int, sys.argv[2:5]), Path(sys.argv[5])
    torch.set_num_threads(1)
    work = folder.parent.parent / "artifacts"
    params = arm_params(arm, seed, length, tokens, work, quick="--quick" in sys.argv)
    storage = Storage(params.storage)
    result: dict[str, Any] = {"arm": arm, "seed": seed, "families": {}}
    documents, adapter = prepare(params.by_stage()[-1], storage)[0], None
    if arm not in UNTRAINED:
        stages = []
        for number, stage in enumerate(params.by_stage(), 1):
            shards = prepare(stage, storage)[1].path
            adapter, record = train_stage(stage, shards, folder / f"stage-{number}", adapter)
            stages.append(record)
        seconds = sum(stage["processor_seconds"] for stage in stages)
        result["training"] = {
            "steps": sum(stage["steps"] for stage in stages),
            "tokens": sum(stage["tokens"] for stage in stages),
            "tokens_per_s": round(sum(stage["tokens"] for stage in stages) / max(seconds, 0.001)),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "processor_seconds": round(seconds, 1),
            "full_attention_layers": FULL_LAYERS,
            "stages": stages,
        }
    measure(arm, params, documents.path, adapter.parent if adapter else None, folder)
    staged = folder / "result.json.part"
    staged.write_text(json.dumps(result, indent=1) + "\n")
    staged.rename(folder / "result.json")


def arm_params(arm: str, seed: int, length: int, tokens: int, work: Path, *, quick: bool) -> PipelineParams:
    """The demo's corpus and base from 512 to `length` tokens by YaRN, with the stages of the arm and `tokens` in all of them together.

    A step has `length` tokens: one row of that length, or several shorter ones. The first stage is half way, as a factor.
    """
    import flows

    preset = yaml.safe_load((Path(flows.__file__).parent / "presets" / "demo.yaml").read_text())
    preset.pop("retrieval", None)
    has_first, one_rope = ARMS.get(arm, (False, False))
    num_steps = max(2, tokens // length)
    first = round(SHARE_OF_FIRST * num_steps) if has_first else 0
    stages: list[dict[str, Any]] = [{"target_length": length, "rows_per_step": 1, "steps": num_steps - first}]
    if has_first:
        shorter = math.isqrt(WINDOW * length)
        rope = {"rope_length": length} if one_rope else {}
        stages.insert(0, {"target_length": shorter, "rows_per_step": length // shorter, "steps": first} | rope)
    training = {
        "lora_rank": RANK, "lora_alpha": 2 * RANK, "learning_rate": RATE, "full_weight_learning_rate": FULL_WEIGHT_RATE,
        "precision": "auto", "seed": seed, "validation_rows": 1, "validate_every": 1_000_000, "checkpoint_every": CHECKPOINT_EVERY,
        "full_attention_layers": FULL_LAYERS, "stages": stages,
    }  # fmt: skip
    preset["training"] |= training
    preset["storage"] = str(work)
    preset["model"] |= {"target_length": length, "rope_method": "yarn", "rope_length": None}
    preset["ray"] = {"num_workers": 1}
    preset["evaluation"] = {"lengths": [WINDOW, length], "task_lengths": [WINDOW, length], "position_curve": False,
                            "tasks": [] if arm == "base" else ["passkey"], "reorder_samples": 0, "longppl_evaluator": None}  # fmt: skip
    preset["evaluation"] |= QUICK_BUDGET if quick else FULL_BUDGET
    return PipelineParams.model_validate(preset)


def train_stage(params: PipelineParams, shards: Path, folder: Path, start: Path | None) -> tuple[Path, dict[str, Any]]:
    """Train one stage from the adapter `start`, or from its last checkpoint in `folder`; its adapter, and what it took."""
    from ray_jobs.finetune.training.checkpoint import last_complete
    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import train
    from tasks.pack.reading import open_rows

    scratch, log = folder / "scratch", folder / "log.jsonl"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    resume_from = last_complete(folder)
    first = json.loads((resume_from / "cursor.json").read_text())["step"] if resume_from else 0
    kept = _lines(log)[:first]  # what was done after the last checkpoint is done again
    log.write_text("".join(json.dumps(line) + "\n" for line in kept))
    if first < params.training.steps:
        before = time.process_time()

        def report(metrics: dict[str, Any], directory: Path | None) -> None:
            nonlocal before
            now = time.process_time()
            line = {"step": metrics["step"], "loss": metrics["loss"], "tokens": metrics["tokens"], "seconds": now - before}
            before = now
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{params.model.target_length} tokens, step {metrics['step']}: loss {metrics['loss']:.3f}", flush=True)
            if directory is not None:
                directory.rename(folder / f"checkpoint_{metrics['step']:06d}")

        worker = Worker(rank=0, world_size=1, device=torch.device("cpu"))
        rows, heldout = open_rows(shards), open_rows(shards / "heldout")
        train(params, rows, heldout, worker, report, resume_from, scratch, start=start)
    last = last_complete(folder)
    if last is None:
        raise RuntimeError(f"training left no checkpoint below {folder}")
    lines = _lines(log)
    return last / "adapter", {
        "target_length": params.model.target_length,
        "steps": len(lines),
        "tokens": sum(line["tokens"] for line in lines),
        "processor_seconds": sum(line["seconds"] for line in lines),
        "last_losses": [round(line["loss"], 4) for line in lines[-10:]],
    }


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


if __name__ == "__main__":
    main()
