"""`ropeway evaluate --from-samples`: every figure of an evaluation, computed again from its rows."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from tasks.evaluate.report.result_files import recompute
from tasks.evaluate.report.tables import print_tables


def show_recomputed(samples: Path, output: Path | None) -> None:
    """Write report and plots of the rows in `samples` to `output`, print the tables, and say whether a report that stands beside
    the rows says the same; exits with 1 where it does not."""
    destination = output or Path(f"evaluation-{samples.resolve().name}")
    report = recompute(samples, destination)
    print_tables(report)
    recorded = samples / "report.json"
    if not recorded.is_file():
        print(f"There is no report beside the samples to compare with.\n{destination.resolve()}")
        return
    differing = _differing(json.loads(recorded.read_text(encoding="utf-8")), json.loads(json.dumps(report)), "report")
    if differing:
        print(f"{len(differing)} figures differ from {recorded}: {', '.join(differing[:10])}\n{destination.resolve()}")
        raise typer.Exit(1)
    print(f"Every figure equals that in {recorded}.\n{destination.resolve()}")


def _differing(recorded: object, computed: object, where: str) -> list[str]:
    """Names of the values that are not the same, such as report.perplexity[3].low."""
    if isinstance(recorded, dict) and isinstance(computed, dict):
        names = sorted({*recorded, *computed})
        return [d for name in names for d in _differing(recorded.get(name), computed.get(name), f"{where}.{name}")]
    if isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        return [d for i, pair in enumerate(zip(recorded, computed, strict=True)) for d in _differing(*pair, f"{where}[{i}]")]
    return [] if recorded == computed else [where]
