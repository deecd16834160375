"""Write the table of longest rows into docs/attention.md: `python docs/tools/longest_rows.py`.

The record is made by `python -m benchmarks.longest_rows --json benchmarks/results/longest-rows.json`.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "attention.md"
RECORD = ROOT / "benchmarks" / "results" / "longest-rows.json"
BEGIN, END = "<!-- longest rows: written by docs/tools/longest_rows.py -->", "<!-- end of longest rows -->"
# Arctic Long Sequence Training (Bekman et al. 2025, arXiv 2506.13996): full attention and full fine-tuning of Llama-8B, GPUs of 80 GB.
ALST = {("8B", 1): "500,000", ("8B", 8): "3,700,000"}
HEAD = (
    "| model | GPUs of 80 GB | longest row, tokens | published by ALST | memory of the host a GPU | hours a billion tokens: groups / ring "
    "/ Ulysses |\n| --- | --- | --- | --- | --- | --- |\n"
)


def table() -> str:
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    return HEAD + "\n".join(map(_line, rows))


def _line(row: dict[str, Any]) -> str:
    begin = f"| {row['model']} | {row['gpus']} |"
    if not row["tokens"]:
        return f"{begin} none: the weights do not fit | | | |"
    hours = " / ".join(_two_digits(row[f"hours_{name}"]) for name in ("groups", "ring", "ulysses"))
    alst = ALST.get((row["model"], row["gpus"]), "")
    return f"{begin} {row['tokens']:,} | {alst} | {row['host_bytes'] / 1e9:,.0f} GB | {hours} |"


def _two_digits(hours: float) -> str:
    """At least two digits that count, so that a few minutes are not 0 hours."""
    return f"{hours:#.2g}" if hours < 9.95 else f"{hours:,.0f}"


def with_table(page: str) -> str:
    """The page with the present table between the marks."""
    return re.sub(re.escape(BEGIN) + r".*?" + re.escape(END), lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
