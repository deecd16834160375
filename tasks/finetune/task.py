"""Fine-tuning as a Prefect task. It is called directly, not submitted: only the main thread hears a cancellation."""

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.finetune import stage
from tasks.finetune.plots import plot_training
from tasks.observed import run_log, show_plot, show_result


@task(name="finetune", persist_result=False)
def finetune(params: PipelineParams, shards: Artifact) -> Artifact:
    """Train the adapter on Ray, or go on with a run that was cut off."""
    artifact = stage.run(params, Storage(params.storage), shards, run_log())
    show_result(artifact)
    show_plot("training-loss", plot_training(artifact.path / "training_log.jsonl"))
    return artifact
