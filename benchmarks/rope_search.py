"""The search for RoPE factors against every closed form, scaling only: the demo base (window 512) at 4, 8 and 16 times its window.

    python -m benchmarks.rope_search --storage FOLDER [--json FILE] [--extensions 4 8 16]

Every form is measured on the same needles and texts, from documents that neither the search nor the evaluation used. About 45 minutes
of processor time. A run that was stopped continues where it was, if it is given the same folder. After each extension the results so far
are written.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from typing import Any

from data_schemas.params import PipelineParams
from data_schemas.progress import print_progress
from data_schemas.rope_search import RopeSearchResult
from data_schemas.storage import Storage, write_atomically
from tasks.rope_search.table import NAMES

WINDOW = 512
# Candidates, samples of the search and of the decision, by extension: a pass over 8192 tokens costs ten times one over 2048.
BUDGETS = {
    4: {"evaluations": 72, "generation_size": 8, "samples": 16, "finalists": 2, "deciding_samples": 48},
    8: {"evaluations": 64, "generation_size": 8, "samples": 20, "finalists": 2, "deciding_samples": 64},
    16: {"evaluations": 48, "generation_size": 8, "samples": 16, "finalists": 2, "deciding_samples": 48},
}


def searched(extension: int, storage: str) -> RopeSearchResult:
    """The search at one extension, run or found."""
    from flows.config import load_config
    from ray_jobs.prepare.ray_data import workers_for
    from ray_jobs.search_rope import search_stage
    from tasks.ingest import documents_stage
    from tasks.rope_search.plans import load_result

    settings = [f"storage={storage}", "run_name=rope-search", f"model.target_length={WINDOW * extension}", "ray.num_workers=1"]
    settings += ["model.rope_method=longrope", f"rope_search={json.dumps(BUDGETS[extension])}"]
    params: PipelineParams = load_config("demo", [*settings, "evaluation.lengths=null", "model.rope_length=null"])
    place = Storage(params.storage)
    documents = documents_stage.run(params, place, partial(workers_for, params), print_progress)
    return load_result(search_stage.run(params, place, documents, print_progress))


def table(result: RopeSearchResult) -> list[str]:
    """Lines of a table, best form first."""
    found = next(form for form in result.forms if form.name == "longrope")
    lines = [f"{result.target_length} tokens, {result.settings.deciding_samples} samples; {result.verdict}"]
    lines.append(f"{'form':<24}{'needles':>9}{'text':>8}{'score':>8}  {'found minus this':<28}{'needle perplexity over found'}")
    for form in result.forms:
        against = "" if form.difference is None else f"{form.difference:+.3f} [{form.low:+.3f}, {form.high:+.3f}]"
        ratio = f"{2.718281828459045 ** (form.answers - found.answers):.1f}x"
        lines.append(f"{NAMES[form.name]:<24}{form.answers:>9.3f}{form.text:>8.3f}{form.score:>8.3f}  {against:<28}{ratio}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="folder that keeps what was measured")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--extensions", type=int, nargs="+", choices=tuple(BUDGETS), default=list(BUDGETS))
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for extension in arguments.extensions:
        result = searched(extension, arguments.storage)
        results[f"{extension}x"] = result.model_dump(mode="json")
        print("\n".join(["", *table(result)]), flush=True)
        if arguments.json:
            content = {"base": "demo", "machine": f"{platform.machine()}, one core", "extensions": results}
            write_atomically(arguments.json, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
