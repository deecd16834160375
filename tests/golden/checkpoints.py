"""A few steps of training on fixed rows: losses, learning rates, trained weights, and the RoPE plan.

In this process, without Ray: Ray Train only starts the workers.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tasks.model.extended import rope_plan_for
from tests.golden.inputs import NUM_IDS, write_base
from tests.ray_jobs.finetune.training_example import Rows, make_params, run

LENGTHS = [(96,), (40, 56), (10, 20, 30), (90, 6), (64,), (33, 63), (96,), (5, 91)]
TIMED = {"seconds", "mfu"}


def output(folder: Path) -> Any:
    base = write_base(folder / "base", window=32)
    made = {}
    for name, changes in {
        "s2": {"learning_rate": 2e-3, "warmup_steps": 2, "micro_batch_rows": 2},
        "full attention": {"attention": "full", "learning_rate": 1e-3, "schedule": "linear", "weight_decay": 0.1},
    }.items():
        params = make_params(base, steps=6, **changes)
        scratch = folder / name.split()[0]
        scratch.mkdir()
        weights, reports, kept = run(params, scratch, rows=rows())
        made[name] = {
            "steps": [{key: value for key, value in metrics.items() if key not in TIMED} for metrics in reports],
            "weights": {key: [list(weight.shape), float(weight.double().norm())] for key, weight in sorted(weights.items())},
            "checkpoint": sorted(path.name for path in (kept[6] / "adapter").iterdir()),
            "rope_plan": json.loads(rope_plan_for(params.model).to_json()),
        }
    return made


def rows() -> Rows:
    draw = np.random.RandomState(5)
    return Rows(
        {
            "input_ids": draw.randint(2, NUM_IDS, sum(lengths)).astype(np.int32),
            "seq_lengths": np.array(lengths, np.int32),
            "chunk_ids": [f"d{number}:{i}" for i in range(len(lengths))],
        }
        for number, lengths in enumerate(LENGTHS)
    )
