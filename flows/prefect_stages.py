"""The stages as Prefect tasks, with tags, and one run at a time on the GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from prefect import get_run_logger, tags

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from flows.limits import gpu_turn
from ray_jobs.advise.advice_stage import refuse_unadvisable
from ray_jobs.evaluate.evaluation_stage import refuse_unmeasurable
from ray_jobs.search_rope.before_training import refuse_unsearchable
from tasks.prefect_tasks import advise, evaluate, finetune, ingest, prepare, publish, search_rope
from tasks.prefect_tasks.run_labels import run_tags


class PrefectStages:
    """See `flows.chain.Stages`. Needs a flow run."""

    ingest = staticmethod(ingest.ingest)
    prepare = staticmethod(prepare.prepare)
    search_rope = staticmethod(search_rope.search_rope)
    finetune = staticmethod(finetune.finetune)
    evaluate = staticmethod(evaluate.evaluate)
    advise = staticmethod(advise.advise)
    publish = staticmethod(publish.publish)

    def refuse_unsearchable(self, params: PipelineParams, documents: Artifact) -> None:
        refuse_unsearchable(params, documents)

    def refuse_unmeasurable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        refuse_unmeasurable(params, Storage(params.storage), documents, shards)

    def refuse_unadvisable(self, params: PipelineParams, documents: Artifact, shards: Artifact) -> None:
        refuse_unadvisable(params, Storage(params.storage), documents, shards)

    def tell(self, text: str) -> None:
        get_run_logger().info(text)

    @contextmanager
    def around(self, params: PipelineParams, needs_gpu: bool) -> Iterator[None]:
        turn = gpu_turn(params.ray, get_run_logger().info) if needs_gpu else nullcontext()
        with tags(*run_tags(params)), turn:
            yield
