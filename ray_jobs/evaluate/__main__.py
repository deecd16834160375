"""`python -m ray_jobs.evaluate --params FILE|JSON`: compare base, scaling-only and fine-tuned model.

What the stages before it left is found and used; what is missing is made first. Without `fine_tuned` among
evaluation.arms nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from data_schemas.params import PipelineParams
from data_schemas.storage import Artifact, Storage
from ray_jobs.command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", required=True, help="YAML or JSON file of PipelineParams, or JSON text")
    run_command(parser.parse_args().params, _evaluate)


def _evaluate(params: PipelineParams, storage: Storage, progress: Callable[[str], None]) -> Artifact:
    from ray_jobs.evaluate import stage
    from ray_jobs.prepare.job import make_documents, make_shards
    from tasks.evaluate.report_tables import print_tables

    checkpoint = None
    if "fine_tuned" in params.evaluation.arms:
        from ray_jobs.finetune import stage as finetune

        documents, shards = make_shards(params, storage, progress)
        checkpoint = finetune.run(params, storage, shards, progress)
    else:
        documents = make_documents(params, storage, progress)
    with _bar() as shares:
        evaluation = stage.run(params, storage, documents, checkpoint, progress, shares)
    print_tables(stage.load_report(evaluation))
    return evaluation


@contextmanager
def _bar() -> Iterator[Callable[[float], None]]:
    """A progress bar on a terminal; where standard error is none, nothing: progress is told in lines."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("evaluate"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("evaluate", total=1.0)
        yield lambda share: bar.update(task, completed=share)


if __name__ == "__main__":
    main()
