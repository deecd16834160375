"""Which stage follows which. Each method runs its stage and the stages it needs; finished artifacts are reused.

`Stages` says how a stage is run: in Prefect (`flows.prefect_stages`), by itself (`flows.plain_stages`), or not at all
(`flows.finished`).
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.rope_search import LAST_SEARCH
from data_schemas.storage import Artifact, Storage
from data_schemas.unused_params import unused_lines
from ray_jobs.advise import advice_key
from ray_jobs.evaluate import evaluation_key
from ray_jobs.finetune import checkpoint_stage
from ray_jobs.search_rope import search_key
from tasks.rope_search.plans import with_result, with_stand_in

_ON_GPU = (LAST_SEARCH, "checkpoint", "evaluation", "advice")


class Stages(Protocol):
    """The stages of one run. Each makes its artifact or finds it."""

    def ingest(self, params: PipelineParams) -> Artifact: ...

    def prepare(self, params: PipelineParams, documents: Artifact) -> Artifact: ...

    def search_rope(self, params: PipelineParams, documents: Artifact, start: Artifact | None = None) -> Artifact:
        """`start`: the checkpoint on whose model factors are searched; None: the base."""

    def refuse_unsearchable(self, params: PipelineParams, documents: Artifact) -> None:
        """UserError, before any training, if a stage of `training.stages` after the first could not search its factors."""

    def refuse_unmeasurable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        """UserError, before any training, if the evaluation is impossible."""

    def refuse_unadvisable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        """UserError, before any training, if no question can be asked for the advice."""

    def finetune(self, params: PipelineParams, shards: Artifact, start: Artifact | None = None) -> Artifact:
        """One training stage. `start`: the checkpoint that it goes on from; None: the base."""

    def evaluate(self, params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact: ...

    def advise(self, params: PipelineParams, documents: Artifact, checkpoint: Artifact | None) -> Artifact: ...

    def publish(
        self,
        params: PipelineParams,
        documents: Artifact,
        shards: Artifact,
        checkpoint: Artifact,
        evaluation: Artifact,
        advice: Artifact | None,
        searches: Mapping[str, Artifact] | None = None,
    ) -> Artifact:
        """`searches`: those of RoPE factors, by name; left out where there are none."""

    def tell(self, text: str) -> None:
        """Tell the user of the run something that no stage says."""

    def around(self, params: PipelineParams, needs_gpu: bool) -> AbstractContextManager[None]:
        """Open while a stage runs. `needs_gpu`: it will compute on the GPUs if `ray.use_gpu` is set."""


@dataclass
class Chain:
    """One run: the artifacts so far, recorded under `runs/<run_name>.json` after every stage if `records`.

    With `training.stages`, the names of what training stage 1, 2, ... makes end in _1, _2, ...; those of the last one are as ever.
    """

    params: PipelineParams
    stages: Stages
    records: bool = True
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._earlier = Storage(self.params.storage).recorded_run(self.params.run_name)
        self._training = list(self.params.by_stage())
        self._later_searches_checked = not any(stage.searches_rope for stage in self._training[1:])

    def reach(self, goal: str) -> Any:
        """Tell what is set and not used, then run up to `goal`, the name of a method."""
        for line in unused_lines(self.params):
            self.stages.tell(line)
        return getattr(self, goal)()

    def prepared(self) -> Artifact:
        """Pack rows for every training stage, before any training. The longest first, since a corpus may be too short for it alone."""
        documents = self._do("documents", self.stages.ingest, self.params)
        for number in reversed(range(len(self._training))):
            with self.params.naming_stage(number):
                self._do(self._name("shards", number), self.stages.prepare, self._training[number], documents)
        return self.artifacts["shards"]

    def searched(self) -> Artifact | None:
        """Search RoPE factors if the method needs some and has no file. From then on `params` has what the search chose."""
        if not self.params.searches_rope:
            return self.artifacts.get(LAST_SEARCH)
        last = len(self._training) - 1
        return self._search(last, self._trained(last))

    def finetuned(self) -> Artifact:
        if "shards" not in self.artifacts:
            self.prepared()
        self._trained(len(self._training))
        return self.artifacts["checkpoint"]

    def _trained(self, num_stages: int) -> Artifact | None:
        """The checkpoint after this many training stages; None for none."""
        start: Artifact | None = None
        for number in range(num_stages):
            start = self.artifacts.get(self._name("checkpoint", number)) or self._train(number, start)
        return start

    def _train(self, number: int, start: Artifact | None) -> Artifact:
        """Training stage `number`, from 0, with its search for factors where it needs one."""
        if "shards" not in self.artifacts:
            self.prepared()
        shards = self.artifacts[self._name("shards", number)]
        if self._training[number].searches_rope:
            self._search(number, start)
        params = self._training[number]
        name, storage = self._name("checkpoint", number), Storage(params.storage)
        if number == len(self._training) - 1:
            found = checkpoint_stage.find(params, storage, shards, start)
        else:
            found, told = checkpoint_stage.find_earlier(params, storage, shards, start)
            if found is not None and told:  # `finetune` would look for one that was computed in the same way
                self.stages.tell(told)
                return self._do(name, lambda: found, found=found)
        if found is None:
            self._refuse_unsearchable(self.artifacts["documents"])
        return self._do(name, self.stages.finetune, params, shards, *_given(start), found=found)

    def _search(self, number: int, start: Artifact | None) -> Artifact:
        params = self._training[number]
        documents = self.artifacts.get("documents") or self._do("documents", self.stages.ingest, self.params)
        found = search_key.find(params, Storage(params.storage), documents, start)
        if found is None:
            self._refuse_unsearchable(documents)
        name = self._name(LAST_SEARCH, number)
        search = self._do(name, self.stages.search_rope, params, documents, *_given(start), found=found)
        self._training[number] = with_result(params, search)
        if number == len(self._training) - 1:
            self.params = with_result(self.params, search)
        return search

    def _refuse_unsearchable(self, documents: Artifact) -> None:
        """Before anything is trained or searched: a later search begins when much is done."""
        if not self._later_searches_checked:
            self.stages.refuse_unsearchable(self.params, documents)
            self._later_searches_checked = True

    def _name(self, what: str, number: int) -> str:
        return what if number == len(self._training) - 1 else f"{what}_{number + 1}"

    def evaluated(self) -> Artifact:
        """Trains first only if a fine-tuned model is to be measured."""
        if "fine_tuned" in self.params.evaluation.arms:
            shards = self.prepared()
            self.stages.refuse_unmeasurable(with_stand_in(self.params), self.artifacts["documents"], shards)
            if self.params.advise.after_evaluation:
                self.stages.refuse_unadvisable(with_stand_in(self.params), self.artifacts["documents"], shards)
            self.searched()
            return self._measured(self.artifacts["documents"], self.finetuned())
        documents = self._do("documents", self.stages.ingest, self.params)
        self.searched()
        return self._measured(documents, None)

    def _measured(self, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
        found = evaluation_key.find(self.params, Storage(self.params.storage), documents, checkpoint)
        return self._do("evaluation", self.stages.evaluate, self.params, documents, checkpoint, found=found)

    def advised(self) -> Artifact:
        """Trains first only if the fine-tuned model is asked."""
        if "fine_tuned" in self.params.advise.arms:
            if "checkpoint" not in self.artifacts:
                shards = self.prepared()
                self.stages.refuse_unadvisable(with_stand_in(self.params), self.artifacts["documents"], shards)
                self.finetuned()
            return self._asked(self.artifacts["documents"], self.artifacts["checkpoint"])
        documents = self.artifacts.get("documents") or self._do("documents", self.stages.ingest, self.params)
        self.searched()
        return self._asked(documents, None)

    def _asked(self, documents: Artifact, checkpoint: Artifact | None) -> Artifact:
        found = advice_key.find(self.params, Storage(self.params.storage), documents, checkpoint)
        return self._do("advice", self.stages.advise, self.params, documents, checkpoint, found=found)

    def published(self) -> Artifact:
        if "fine_tuned" not in self.params.evaluation.arms:
            raise UserError(
                "evaluation.arms lacks fine_tuned, but a release reports how its model was measured: add it, or run only evaluate."
            )
        evaluation = self.evaluated()
        advice = self.advised() if self.params.advise.after_evaluation else None
        done = self.artifacts
        searches = {name: artifact for name, artifact in done.items() if name.startswith(LAST_SEARCH)}
        return self._do(
            "release",
            self.stages.publish,
            self.params,
            done["documents"],
            done["shards"],
            done["checkpoint"],
            evaluation,
            advice,
            *((searches,) if searches else ()),
        )

    def keep_record(self) -> None:
        """Write the stages so far under `runs/<run_name>.json`, beside those of an earlier run that still hold."""
        carried_over = {stage: entry | {"of_earlier_run": True} for stage, entry in self._earlier.items()}
        Storage(self.params.storage).record_run(self.params.run_name, carried_over | self.record)

    def _do(self, name: str, stage: Any, *inputs: Any, found: Artifact | None = None) -> Artifact:
        """Run a stage and record it. `found`: its artifact if that exists already; then no GPU is needed."""
        started = time.perf_counter()
        with self.stages.around(self.params, needs_gpu=name.startswith(_ON_GPU) and found is None):
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
        if self.records:
            self.keep_record()
        return artifact


def _given(start: Artifact | None) -> tuple[Artifact, ...]:
    return () if start is None else (start,)
