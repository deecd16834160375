"""Which causal architectures of the installed transformers can be extended: the proof of `ropeway plan` on each of them.

`python -m benchmarks.architectures [--only MODEL_TYPE ...] [--json FILE] [--again]`. Every model type that transformers has a causal
language model for gets its default configuration, a RoPE plan of four times its window, and the proof on a small model of it. The
answer is one of three: it works; it is refused, with the reason that a user would read; or no small model of the configuration
could be built. With FILE the answers are kept after each architecture, and a later call goes on where the last one stopped.
`docs/models.md` shows the recorded table.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_schemas.errors import UserError
from data_schemas.params import TrainingParams
from data_schemas.progress import message, print_progress
from data_schemas.storage import write_atomically

EXTENSION = 4
LIMIT_S = 30
WORKS, REFUSED, NOT_BUILT = "works", "refused", "not built"


EVERYWHERE = TrainingParams(lora_targets=("all-linear",))
# Where a class's defaults are no whole model or have no attention layer: what its released models have.
SETTINGS: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6, "n_group": 1, "topk_group": 1},
    "glm4_moe": {"head_dim": 128},
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "granitemoehybrid": {"layer_types": (["linear_attention"] * 5 + ["full_attention"]) * 5 + ["linear_attention"] * 2},
}


class TooLong(BaseException):
    """Not an Exception, because the proof takes every Exception for an answer."""


def model_types() -> list[str]:
    """Those that transformers has a causal language model for."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    return sorted(CAUSAL)


def judge(model_type: str) -> dict[str, Any]:
    """One row: the outcome, why, the RoPE method, and the failed check."""
    from transformers import CONFIG_MAPPING

    from ray_jobs.finetune.proof.prove import NotBuilt, prove
    from tasks.model.rope_plan import plan_rope
    from tasks.model.supported import refusal

    row: dict[str, Any] = {"model_type": model_type, "outcome": REFUSED, "reason": "", "method": "", "failed": ""}
    try:
        config = CONFIG_MAPPING[model_type](**SETTINGS.get(model_type, {}))
    except Exception as error:  # a class that has no defaults
        return row | {"outcome": NOT_BUILT, "reason": f"its configuration has no defaults ({type(error).__name__})"}
    if why := refusal(config):
        return row | {"reason": why}
    try:
        window = getattr(config, "max_position_embeddings", None)
        plan = plan_rope(config, EXTENSION * (window if isinstance(window, int) else 4096))
    except UserError as error:
        return row | {"reason": str(error).partition(": choose")[0].rstrip(".")}
    except Exception as error:  # an attribute that every other configuration has
        return row | {"outcome": NOT_BUILT, "reason": f"its configuration raises {type(error).__name__}: {error}"[:200]}
    plan.apply(config)
    row["method"] = plan.method
    try:
        with limited():
            proof = prove(config, EVERYWHERE, plan.target_length, plan.target_length // 4, plan)
            if proof.failed in ("loss", "saved"):  # what is trained decides there: LongLoRA trains the attention's projections
                of_attention = prove(config, TrainingParams(), plan.target_length, plan.target_length // 4, plan)
                if of_attention.holds:
                    return row | {
                        "outcome": WORKS,
                        "reason": f"with training.lora_targets as by default; with all-linear, {proof.reason}",
                    }
    except (NotBuilt, TooLong) as error:
        return row | {"outcome": NOT_BUILT, "reason": str(error)}
    return row | {"outcome": WORKS if proof.holds else REFUSED, "reason": proof.reason, "failed": proof.failed}


@contextmanager
def limited() -> Iterator[None]:
    """TooLong after LIMIT_S seconds of processor time; on systems without such timers nothing is limited."""

    def ring(*_: Any) -> None:
        raise TooLong(f"the proof takes longer than {LIMIT_S} s")

    if not hasattr(signal, "SIGPROF"):
        yield
        return
    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def record_of(rows: dict[str, dict[str, Any]], versions: dict[str, str]) -> dict[str, Any]:
    counts = Counter(row["outcome"] for row in rows.values())
    return {
        "versions": versions,
        "extension": EXTENSION,
        "total": len(model_types()),
        "counts": dict(sorted(counts.items())),
        "architectures": rows,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="MODEL_TYPE", help="judge these model types alone")
    parser.add_argument("--json", type=Path, help="record the answers here, and skip those that it has")
    parser.add_argument("--again", action="store_true", help="judge what the file has once more")
    args = parser.parse_args(arguments)
    versions = {name: version(name) for name in ("transformers", "torch", "peft")}
    known: dict[str, dict[str, Any]] = {}
    if args.json and args.json.is_file():
        recorded = json.loads(args.json.read_text())
        if recorded["versions"] != versions:
            sys.exit(f"{args.json} holds answers of {recorded['versions']}, not of {versions}: name another file.")
        known = recorded["architectures"]
    chosen = args.only or model_types()
    if unknown := sorted(set(chosen) - set(model_types())):
        sys.exit(f"transformers has no causal language model of type {', '.join(unknown)}.")
    for number, model_type in enumerate(chosen):
        if model_type in known and not args.again:
            continue
        started = time.perf_counter()
        known[model_type] = judge(model_type)
        row = known[model_type]
        told = f"{number + 1}/{len(chosen)} {model_type}: {row['outcome']} {row['reason']}"
        print_progress(message(f"{told} ({time.perf_counter() - started:.1f} s)"))
        if args.json:
            write_atomically(args.json, json.dumps(record_of(dict(sorted(known.items())), versions), indent=1) + "\n")
    shown = {name: row for name, row in known.items() if name in chosen}
    for name, row in shown.items():
        print(f"{name:28} {row['outcome']:10} {row['method']:9} {row['reason']}")
    print(", ".join(f"{count} {outcome}" for outcome, count in Counter(row["outcome"] for row in shown.values()).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
