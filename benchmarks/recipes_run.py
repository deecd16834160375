"""One arm of `benchmarks.recipes` in a process of its own: train for the stated processor time, measure, write `result.json`.

python -m benchmarks.recipes_run ARM SEED LENGTH SECONDS FOLDER
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recipes_arms import ARMS, UNTRAINED, arm_params
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from tasks.work import InProcess

TRIAL_STEPS = 8
WARM_UP_STEPS = 2  # of the trial, not timed
DOCUMENTS_A_FAMILY = 8


def main() -> None:
    arm, seed, length, seconds, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
    torch.set_num_threads(1)
    work = folder.parent.parent / "artifacts"
    params = arm_params(arm, seed, length, work)
    documents, shards = prepare(params, Storage(str(work)))
    result: dict[str, Any] = {"arm": arm, "seed": seed}
    checkpoint = None
    if arm not in UNTRAINED:
        result["training"], checkpoint = train_for(arm, params, shards.path, seconds, folder)
    model, tokenizer = measure(arm, params, documents.path, checkpoint, folder)
    result["families"] = answers_by_family(model, params, documents, tokenizer, Storage(str(work)))
    staged = folder / "result.json.part"
    staged.write_text(json.dumps(result, indent=1) + "\n")
    staged.rename(folder / "result.json")


def prepare(params: PipelineParams, storage: Storage) -> tuple[Artifact, Artifact]:
    """Make, or find, the documents and the rows of this arm."""
    from tasks.ingest import documents_stage
    from tasks.pack import shards_stage

    def workers_for(num_bytes: int) -> nullcontext[InProcess]:
        return nullcontext(InProcess())

    documents = documents_stage.run(params, storage, workers_for, print)
    return documents, shards_stage.run(params, storage, documents, workers_for, print)


def train_for(arm: str, params: PipelineParams, shards: Path, seconds: int, folder: Path) -> tuple[dict[str, Any], Path]:
    """Train for about `seconds` of processor time, with loading and the probe of layers; what it took, and the checkpoint."""
    trial = _timed_training(_with_steps(arm, params, TRIAL_STEPS), shards, folder / "trial")
    a_step = (trial["times"][-1] - trial["times"][WARM_UP_STEPS - 1]) / (TRIAL_STEPS - WARM_UP_STEPS)
    before_steps = max(0.0, trial["times"][0] - a_step)
    steps = max(1, round((seconds - before_steps) / a_step))
    done = _timed_training(_with_steps(arm, params, steps), shards, folder / "training")
    shutil.rmtree(folder / "trial")
    taken = done["times"][-1]
    return {
        "steps": steps,
        "processor_seconds": round(taken, 1),
        "tokens_per_s": round(done["tokens"] / taken),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "last_losses": done["losses"][-20:],
    }, done["checkpoint"]


def _with_steps(arm: str, params: PipelineParams, steps: int) -> PipelineParams:
    share = ARMS[arm].get("training", {}).get("full_attention_steps", 0)
    changed = {"steps": steps, "full_attention_steps": round(share * steps)}
    return params.model_copy(update={"training": params.training.model_copy(update=changed)})


def _timed_training(params: PipelineParams, shards: Path, scratch: Path) -> dict[str, Any]:
    from ray_jobs.finetune.training.distributed import Worker
    from ray_jobs.finetune.training.loop import train
    from tasks.pack.reading import open_rows

    scratch.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"times": [], "losses": [], "tokens": 0}
    started = time.process_time()

    def report(metrics: dict[str, Any], directory: Path | None) -> None:
        found["times"].append(time.process_time() - started)
        found["losses"].append(round(metrics["loss"], 4))
        found["tokens"] += metrics["tokens"]
        print(f"step {metrics['step']} of {params.training.steps}: loss {metrics['loss']:.3f}", flush=True)
        if directory is not None:
            found["checkpoint"] = directory

    worker = Worker(rank=0, world_size=1, device=torch.device("cpu"))
    train(params, open_rows(shards), open_rows(shards / "heldout"), worker, report, None, scratch)
    return found


def measure(arm: str, params: PipelineParams, documents: Path, checkpoint: Path | None, folder: Path) -> tuple[Any, Any]:
    """Write the arm's tables of samples below `folder`; the model and its tokenizer."""
    from ray_jobs.evaluate.measuring_units import measure_arm
    from ray_jobs.evaluate.workload import prepare_workload
    from tasks.model.base_model import load_tokenizer
    from tasks.model.extended import base_window, load_arm

    tokenizer = load_tokenizer(params.model)
    workload = prepare_workload(params, base_window(params.model), documents, tokenizer)
    name: Any = arm if arm in UNTRAINED else "fine_tuned"
    model = load_arm(params, name, checkpoint).eval()
    samples = measure_arm(model, name, workload, tokenizer, batch_tokens=params.evaluation.batch_tokens)
    shutil.rmtree(folder / "samples", ignore_errors=True)
    samples.write(folder / "samples")
    return model, tokenizer


@torch.inference_mode()
def answers_by_family(
    model: Any, params: PipelineParams, documents: Artifact, tokenizer: Any, storage: Storage
) -> dict[str, list[list[bool]]]:
    """For each kind of retrieval document, made of held-out text: of each document, which answers are right by the likeliest token."""
    import pyarrow.parquet as pq

    right: dict[str, list[list[bool]]] = {}
    for path in sorted(_heldout_retrieval(params, documents, tokenizer, storage).glob("retrieval-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if not row["answered"] or len(right.setdefault(row["family"], [])) == DOCUMENTS_A_FAMILY:
                continue
            tokens = torch.tensor([row["input_ids"]])
            likeliest = model(input_ids=tokens).logits[0, :-1].argmax(-1)
            is_right = np.concatenate([[True], (likeliest == tokens[0, 1:]).numpy()])
            is_answer = np.array(row["is_answer"])
            ends = [_end(is_answer, start) for start in row["answered"]]
            spans = zip(row["answered"], ends, strict=True)
            right[row["family"]].append([bool(is_right[start:end].all()) for start, end in spans])
    return right


def _end(is_answer: np.ndarray, start: int) -> int:
    """The first token from `start` that is not an answer's."""
    others = np.flatnonzero(~is_answer[start:])
    return start + int(others[0]) if len(others) else len(is_answer)


def _heldout_retrieval(params: PipelineParams, documents: Artifact, tokenizer: Any, storage: Storage) -> Path:
    """The folder of the retrieval documents of held-out text, made once for a length."""
    from data_schemas.documents import part_names
    from data_schemas.params import RetrievalParams
    from tasks.retrieval.make_job import TOKENIZER_FILE, RetrievalJob
    from tasks.tokens.special_tokens import special_tokens

    key = f"recipes-{params.model.target_length}"
    done = storage.root / f"{key}.done"
    if not done.exists():
        staged = storage.root / f"{key}.part"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        with storage.parts(key, False) as parts:
            with parts.writing(TOKENIZER_FILE) as path:
                path.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
            every = RetrievalParams(share=0.5, questions=params.retrieval.questions, seed=1)
            job = RetrievalJob(documents.as_parts(), parts, every, special_tokens(tokenizer), None, params.model.target_length)
            job = replace(job, split="heldout")
            for number, name in enumerate(part_names(documents.manifest)):
                job((number, name))
                parts.take(f"retrieval-{number:05d}.parquet", staged / f"retrieval-{number:05d}.parquet")
        staged.rename(done)
    return done


if __name__ == "__main__":
    main()
