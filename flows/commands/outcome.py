"""What a finished run prints: tables, and the artifact's path as the last line."""

from typing import Any

from rich.console import Console
from rich.table import Table

from data_schemas.params import PipelineParams
from data_schemas.report import read_report
from data_schemas.storage import Storage, read_manifest
from tasks.evaluate.report.tables import print_tables
from tasks.pack.inspection.prepared import show_prepared


def print_outcome(params: PipelineParams, location: str) -> None:
    """Print the stages, the measured figures, and as the last line where the result is: a path or a URI."""
    console = Console()
    storage = Storage(params.storage)
    path = storage.local(location)
    record = storage.recorded_run(params.run_name)
    stages = Table("stage", "digest", "made or reused", "seconds", title=f"Run {params.run_name}", title_justify="left")
    for name, entry in record.items():
        if entry.get("of_earlier_run"):
            continue
        stages.add_row(name, entry["digest"][:12], "reused" if entry["reused"] else "made", f"{entry['seconds']:.1f}")
    console.print(stages)
    report = next((p for p in (path / "evaluation" / "report.json", path / "report.json") if p.is_file()), None)
    if report is not None:
        print_tables(read_report(report))
    elif "shards" in record and storage.local(location).name == record["shards"]["digest"]:
        _print_prepared(storage, record, console)
    elif manifest := read_manifest(path):
        table = Table("what", "value")
        for name, value in manifest.summary.items():
            table.add_row(name, str(value))
        console.print(table)
    print(location, flush=True)


def _print_prepared(storage: Storage, record: dict[str, Any], console: Console) -> None:
    documents, shards = (storage.find(kind, record[kind]["digest"]) for kind in ("documents", "shards"))
    if documents and shards:
        show_prepared(documents.manifest, shards.manifest, console)


def print_checks(checks: list[Any]) -> None:
    """Print the result of each check of a release."""
    table = Table("check", "result", "detail")
    for check in checks:
        table.add_row(check.name, "ok" if check.ok else "BROKEN", check.detail)
    Console().print(table)
