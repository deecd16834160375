"""What a search for RoPE factors cost, beside what was foreseen, and what it found.

    python -m benchmarks.rope_search_cost CONFIG [--set NAME=VALUE ...] [--model WORDS] [--json FILE]

Runs the search of CONFIG, or continues it, or finds it. Foreseen are the passes that `ropeway plan` names, and the time that the search
names after its first two passes. A pass is timed as it was measured, with whatever else ran on the machine at that time.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rope_search import table
from data_schemas.params import PipelineParams
from data_schemas.progress import print_progress
from data_schemas.quantities import duration
from data_schemas.rope_search import LOG_NAME
from data_schemas.storage import Artifact, Storage, write_atomically
from flows.config import load_config
from ray_jobs.prepare.ray_data import workers_for
from ray_jobs.search_rope import search_stage
from tasks.ingest import documents_stage
from tasks.rope_search.plans import as_search, foreseen_passes, load_result, space_of

_FIRST = 2  # passes after which the search says how long it takes


def cost(params: PipelineParams, search: Artifact) -> dict[str, Any]:
    """Passes and seconds, foreseen and real. Seconds are of passes on one worker, without loading the model."""
    lines = (search.path / LOG_NAME).read_text(encoding="utf-8").splitlines()
    seconds = [float(json.loads(line)["seconds"]) for line in lines]
    foreseen = foreseen_passes(params, space_of(params))
    return {
        "passes_foreseen_at_most": foreseen,
        "passes": len(seconds),
        "seconds_foreseen_at_most": round(foreseen * sum(seconds[:_FIRST]) / _FIRST, 1),
        "seconds": round(sum(seconds), 1),
        "fastest_and_slowest_pass_s": [round(min(seconds), 1), round(max(seconds), 1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config or a preset")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="change a parameter, as for ropeway")
    parser.add_argument("--model", default="", help="what the base is, for the record")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    params = as_search(load_config(arguments.config, arguments.settings))
    place = Storage(params.storage)
    documents = documents_stage.run(params, place, partial(workers_for, params), print_progress)
    search = search_stage.run(params, place, documents, print_progress)
    result, found = load_result(search), cost(params, search)
    print("\n".join(table(result)))
    took = [duration(found[name]) for name in ("seconds_foreseen_at_most", "seconds")]
    print(
        f"{found['passes']} passes, foreseen at most {found['passes_foreseen_at_most']}; {took[1]}, foreseen at most {took[0]}"
    )
    if arguments.json:
        machine = f"{platform.machine()}, {params.ray.num_workers} x {params.ray.cpus_per_worker:g} CPU"
        content = {"base": arguments.model, "machine": machine, "cost": found, "result": result.model_dump(mode="json")}
        write_atomically(arguments.json, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
