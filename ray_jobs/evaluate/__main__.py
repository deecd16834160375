"""Compare base, scaling-only and fine-tuned model on held-out documents.

Uses the results of earlier stages, and makes those that are missing. Trains nothing unless `fine_tuned` is among
evaluation.arms. Prints progress on standard error and the evaluation's location on standard output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressCallback, ProgressEvent, SamplesMeasured
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import Given, job_parser, run_command


def main() -> None:
    run_command(job_parser("evaluate", __doc__, ("documents", "shards", "checkpoints")).parse_args(), _evaluate)


def _evaluate(params: PipelineParams, storage: Storage, progress: ProgressCallback, given: Given) -> Artifact:
    from ray_jobs.evaluate import evaluation_stage as stage
    from ray_jobs.model_to_measure import documents_and_checkpoint
    from ray_jobs.preflight import refuse_unaskable
    from tasks.evaluate.report.closing_page import closing_page
    from tasks.evaluate.report.result_files import HTML_NAME

    refuse_unaskable(params)
    params, documents, checkpoint = documents_and_checkpoint(
        params,
        storage,
        progress,
        given,
        fine_tuned="fine_tuned" in params.evaluation.arms,
        refuse_unmeasurable=stage.refuse_unmeasurable,
    )
    with _bar(progress) as told_and_drawn:
        evaluation = stage.run(params, storage, documents, checkpoint, told_and_drawn)
    print(closing_page(stage.load_report(evaluation), f"{HTML_NAME} in the folder of the artifact has every figure and table."))
    return evaluation


@contextmanager
def _bar(progress: ProgressCallback) -> Iterator[ProgressCallback]:
    """`progress`, with a bar below its lines where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("evaluate"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("evaluate", total=1.0)

        def told_and_drawn(event: ProgressEvent) -> None:
            progress(event)
            if isinstance(event, SamplesMeasured):
                bar.update(task, completed=event.share)

        yield told_and_drawn


if __name__ == "__main__":
    main()
