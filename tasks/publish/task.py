"""Publishing as a Prefect task."""

from prefect import task

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from tasks.observed import run_log, show_markdown, show_result
from tasks.publish import stage


@task(name="publish", persist_result=False)
def publish(
    params: PipelineParams, documents: Artifact, shards: Artifact, checkpoint: Artifact, evaluation: Artifact
) -> Artifact:
    """Write the release, verify it, and point `current` at it."""
    artifact = stage.run(params, Storage(params.storage), documents, shards, checkpoint, evaluation, run_log())
    show_result(artifact)
    show_markdown("release", f"Release **{params.release_name}** `{artifact.digest}` at `{artifact.path}`")
    return artifact
