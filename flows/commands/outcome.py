"""What a finished run prints: the verdict or tables, and the artifact's path as the last line."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from data_schemas.earlier_stages import EARLIER_STAGES, RETRIEVAL, describe_mix, describe_stages
from data_schemas.params import PipelineParams
from data_schemas.report import read_report
from data_schemas.storage import Storage, read_manifest
from flows.commands.plain_table import plain_table
from tasks.evaluate.report.closing_page import COLUMNS, closing_page
from tasks.evaluate.report.result_files import HTML_NAME, REPORT_NAME
from tasks.pack.inspection.prepared import show_prepared
from tasks.publish.serving.table import serving_table
from tasks.publish.standing import Standing, standing


def print_outcome(params: PipelineParams, location: str) -> Standing | None:
    """Print the stages, the verdict or the figures, and as the last line where the result is: a path or a URI.

    Of a release it also prints whether it is served, and returns that.
    """
    console = Console()
    storage = Storage(params.storage)
    path = storage.local(location)
    record = storage.recorded_run(params.run_name)
    published: Standing | None = None
    report = next((file for file in (path / "evaluation" / REPORT_NAME, path / REPORT_NAME) if file.is_file()), None)
    if report is not None:
        print(_stages_in_short(params.run_name, record), end="\n\n")
        published = standing(params, path.name, path) if report.parent != path else None
        told = [row for line in published.lines() for row in _wrapped(line)] if published else []
        told += _next(path, published)
        where = f"Every figure and table: {report.with_name(HTML_NAME)}"
        print(closing_page(read_report(report), where, len(told)))
        print("".join(f"{row}\n" for row in told), end="")
    else:
        _print_stages(params.run_name, record, console)
        if "shards" in record and storage.local(location).name == record["shards"]["digest"]:
            _print_prepared(storage, record, console)
        elif manifest := read_manifest(path):
            in_words: dict[str, Callable[[Any], str]] = {EARLIER_STAGES: describe_stages, RETRIEVAL: describe_mix}
            figures = {name: in_words.get(name, str)(value) for name, value in manifest.summary.items()}
            console.print(plain_table(("what", "value"), figures.items()))
    print(location, flush=True)
    return published


def _next(path: Path, published: Standing | None) -> list[str]:
    """Three commands for a release that is served: check it, serve it, order passages for it."""
    if published is None or not published.is_current:
        return []
    commands = {row.consumer: row.commands for row in serving_table(path, str(path))}
    serve = [commands[name][0] for name in ("vllm", "transformers-5", "llama.cpp") if commands.get(name)][:1]
    verify, reorder = f"ropeway verify {path}", f"ropeway reorder --config {path} PASSAGES.jsonl"
    return ["Next:", *(f"  {command}" for command in (verify, *serve, reorder))]


def _wrapped(line: str) -> list[str]:
    """A command stays on one line, so that it can be copied."""
    what, command, rest = line.partition("ropeway ")
    if command:
        return [what.rstrip(), f"  {command}{rest}"]
    return textwrap.wrap(line, COLUMNS, subsequent_indent="     ", break_on_hyphens=False, break_long_words=False)


def _stages_in_short(run_name: str, record: dict[str, Any]) -> str:
    """One line or two, since the verdict needs the rest of the screen."""
    done = [
        f"{name} {'reused' if entry['reused'] else _duration(entry['seconds'])}"
        for name, entry in record.items()
        if not entry.get("of_earlier_run")
    ]
    return textwrap.fill(f"Run {run_name}: {', '.join(done)}", COLUMNS)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _print_stages(run_name: str, record: dict[str, Any], console: Console) -> None:
    rows = [
        (name, entry["digest"][:12], "reused" if entry["reused"] else "made", f"{entry['seconds']:.1f}")
        for name, entry in record.items()
        if not entry.get("of_earlier_run")
    ]
    console.print(plain_table(("stage", "digest", "made or reused", "seconds"), rows, f"Run {run_name}"))


def _print_prepared(storage: Storage, record: dict[str, Any], console: Console) -> None:
    documents, shards = (storage.find(kind, record[kind]["digest"]) for kind in ("documents", "shards"))
    if documents and shards:
        show_prepared(documents.manifest, shards.manifest, console)


def print_checks(checks: list[Any]) -> None:
    """Print the result of each check of a release."""
    rows = [(check.name, "ok" if check.ok else "BROKEN", check.detail) for check in checks]
    Console().print(plain_table(("check", "result", "detail"), rows))
