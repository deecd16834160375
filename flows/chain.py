"""Which stage follows which. Each method runs its stage and the stages it needs; finished artifacts are reused."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from prefect import get_run_logger, tags

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from flows.limits import gpu_turn
from ray_jobs.evaluate import evaluation_stage as evaluate_stage
from ray_jobs.finetune import checkpoint_stage as finetune_stage
from tasks.prefect_tasks.evaluate import evaluate
from tasks.prefect_tasks.finetune import finetune
from tasks.prefect_tasks.ingest import ingest
from tasks.prefect_tasks.prepare import prepare
from tasks.prefect_tasks.publish import publish
from tasks.prefect_tasks.run_labels import run_tags

_ON_GPU = ("checkpoint", "evaluation")


@dataclass
class Chain:
    """One run: the artifacts so far, recorded under `runs/<run_name>.json` after every stage."""

    params: PipelineParams
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._earlier = Storage(self.params.storage).recorded_run(self.params.run_name)

    def prepared(self) -> Artifact:
        documents = self._do("documents", ingest, self.params)
        return self._do("shards", prepare, self.params, documents)

    def finetuned(self) -> Artifact:
        shards = self.artifacts.get("shards") or self.prepared()
        found = finetune_stage.find(self.params, Storage(self.params.storage), shards)
        return self._do("checkpoint", finetune, self.params, shards, found=found)

    def evaluated(self) -> Artifact:
        """Trains first only if a fine-tuned model is to be measured."""
        if "fine_tuned" in self.params.evaluation.arms:
            shards = self.prepared()
            evaluate_stage.refuse_unmeasurable(self.params, Storage(self.params.storage), self.artifacts["documents"], shards)
            return self._measured(self.artifacts["documents"], self.finetuned())
        return self._measured(self._do("documents", ingest, self.params), None)

    def _measured(self, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
        found = evaluate_stage.find(self.params, Storage(self.params.storage), documents, checkpoint)
        return self._do("evaluation", evaluate, self.params, documents, checkpoint, found=found)

    def published(self) -> Artifact:
        if "fine_tuned" not in self.params.evaluation.arms:
            raise UserError(
                "evaluation.arms lacks fine_tuned, but a release reports how its model was measured: add it, or run only evaluate."
            )
        evaluation = self.evaluated()
        done = self.artifacts
        return self._do("release", publish, self.params, done["documents"], done["shards"], done["checkpoint"], evaluation)

    def _do(self, name: str, stage: Any, *inputs: Any, found: Artifact | None = None) -> Artifact:
        """Run a stage and record it. `found`: its artifact if that exists already; then no GPU is needed."""
        started = time.perf_counter()
        turn = gpu_turn(self.params.ray, get_run_logger().info) if name in _ON_GPU and found is None else nullcontext()
        with tags(*run_tags(self.params)), turn:
            artifact: Artifact = stage(*inputs)
        self.artifacts[name] = artifact
        self.record[name] = {
            "digest": artifact.digest,
            "path": artifact.location,
            "reused": artifact.reused,
            "seconds": round(time.perf_counter() - started, 1),
        }
        if self._earlier.get(name, {}).get("digest") != artifact.digest:
            self._earlier = {}  # what an earlier run of this name made from other inputs is not this run's any more
        carried_over = {stage: entry | {"of_earlier_run": True} for stage, entry in self._earlier.items()}
        Storage(self.params.storage).record_run(self.params.run_name, carried_over | self.record)
        return artifact
