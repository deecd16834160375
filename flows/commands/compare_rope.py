"""`ropeway compare-rope`: the untrained base with each RoPE method, measured before any GPU time is spent."""

from functools import partial

from rich.console import Console

from data_schemas.params import PipelineParams
from data_schemas.progress import ProgressEvent, describe
from data_schemas.storage import Storage
from flows.commands.plain_table import plain_table


def show_comparison(params: PipelineParams, num_documents: int) -> None:
    """Measure or find the comparison. Print its table, its findings, and its folder as the last line.

    UserError if no method applies, or too few held-out documents are as long as the target.
    """
    from ray_jobs.evaluate import compare_rope
    from ray_jobs.evaluate.compare_rope_report import comparison_table
    from ray_jobs.prepare.ray_data import workers_for
    from tasks.evaluate.labels import percent
    from tasks.ingest import documents_stage as ingest

    console = Console()

    def tell(event: ProgressEvent) -> None:
        console.print(describe(event), style="dim", highlight=False, markup=False, soft_wrap=True)

    compare_rope.candidates(params.model)  # refuses before a document is read
    storage = Storage(params.storage)
    documents = ingest.run(params, storage, partial(workers_for, params), tell)
    artifact = compare_rope.run(params, storage, documents, num_documents, tell)
    report = compare_rope.load_comparison(artifact)
    columns, rows = comparison_table(report)
    level = report.settings.confidence
    title = (
        f"Perplexity of the last {report.settings.target_tokens} tokens of {report.num_documents} held-out "
        f"documents, by context length [{percent(level)} interval], without training; none: the base unchanged"
    )
    console.print(plain_table(columns, rows, title))
    for method, why in report.refused.items():
        console.print(f"left out: {method}: {why}", highlight=False, markup=False, soft_wrap=True)
    for sentence in report.findings:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    print(artifact.path / "rope_comparison.png")
    print(artifact.location, flush=True)
