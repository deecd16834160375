"""What a command prints when it has succeeded: a table, and the artifact's path as the last line."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_schemas.params import PipelineParams
from data_schemas.storage import Storage, read_manifest


def print_outcome(params: PipelineParams, path: Path) -> None:
    """Tables of the stages and of what was measured, then the path."""
    console = Console()
    record = json.loads((Storage(params.storage).root / "runs" / f"{params.run_name}.json").read_text())
    stages = Table("stage", "digest", "made or found", "seconds", title=f"Run {params.run_name}", title_justify="left")
    for name, entry in record.items():
        stages.add_row(name, entry["digest"][:12], "found" if entry["reused"] else "made", f"{entry['seconds']:.1f}")
    console.print(stages)
    report = next((p for p in (path / "evaluation" / "report.json", path / "report.json") if p.is_file()), None)
    if report is not None:
        _print_report(console, json.loads(report.read_text()))
    elif manifest := read_manifest(path):
        table = Table("what", "value")
        for name, value in manifest.summary.items():
            table.add_row(name, str(value))
        console.print(table)
    print(path, flush=True)


def _print_report(console: Console, report: dict[str, Any]) -> None:
    from tasks.evaluate.report_tables import comparison_table, passkey_table, perplexity_table

    for title, (columns, rows) in (
        ("Perplexity of fixed target tokens, by context length [interval]", perplexity_table(report)),
        ("Ratios of perplexity, paired by document [interval]", comparison_table(report)),
        ("Passkey", passkey_table(report)),
    ):
        if not rows:
            continue
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def print_checks(checks: list[Any]) -> None:
    table = Table("check", "result", "detail")
    for check in checks:
        table.add_row(check.name, "ok" if check.ok else "BROKEN", check.detail)
    Console().print(table)
