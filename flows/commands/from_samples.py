"""`ropeway evaluate --from-samples`: computes every figure of an evaluation again from its sample rows."""

from __future__ import annotations

from pathlib import Path

import typer

from data_schemas.report import read_report
from tasks.evaluate.report.closing_page import closing_page
from tasks.evaluate.report.result_files import HTML_NAME, recompute


def show_recomputed(samples: Path, output: Path | None) -> None:
    """Write report and plots from the rows in folder `samples` to `output`, and print the verdict.

    If `samples` also has a report, compare the two; exits with status 1 if a figure differs.
    """
    destination = output or Path(f"evaluation-{samples.resolve().name}")
    report = recompute(samples, destination)
    print(closing_page(report, f"{HTML_NAME} in the folder below has every figure and table."))
    recorded = samples / "report.json"
    if not recorded.is_file():
        print(f"{samples} has no report.json to compare with.\n{destination.resolve()}")
        return
    differing = _differing(read_report(recorded).model_dump(mode="json"), report.model_dump(mode="json"), "report")
    if differing:
        print(f"{len(differing)} figures differ from {recorded}: {', '.join(differing[:10])}\n{destination.resolve()}")
        raise typer.Exit(1)
    print(f"All figures equal those in {recorded}.\n{destination.resolve()}")


def _differing(recorded: object, computed: object, where: str) -> list[str]:
    """Names of the values that are not the same, such as report.perplexity[3].low."""
    if isinstance(recorded, dict) and isinstance(computed, dict):
        names = sorted({*recorded, *computed})
        return [d for name in names for d in _differing(recorded.get(name), computed.get(name), f"{where}.{name}")]
    if isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        return [d for i, pair in enumerate(zip(recorded, computed, strict=True)) for d in _differing(*pair, f"{where}[{i}]")]
    return [] if recorded == computed else [where]
