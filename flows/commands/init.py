"""`ropeway init`: looks at machine, base and corpus, asks what is missing, and writes a config that runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_schemas.devices import gpus
from data_schemas.errors import UserError
from data_schemas.params import CorpusSource, ModelParams, PipelineParams
from data_schemas.params_reading import validate_params
from data_schemas.storage import write_atomically
from flows.commands.plan import Machine, available_bytes
from flows.new_config import (
    CorpusSeen,
    PlanEstimate,
    as_yaml,
    estimate_lines,
    far_extension,
    first_parameters,
    fitting_steps,
    usual_name,
    usual_target,
    ways_to_fit,
    with_steps,
)
from flows.params_schema import params_schema

Ask = Callable[[str, str | None], str]
"""Takes a question and the default answer, None if there is none; gives the answer."""

SCHEMA_NAME = "ropeway.schema.json"
_CPU_HOURS, _GPU_HOURS = 1.0, 8.0


def write_config(
    model: str | None, corpus: str | None, target_length: int | None, hours: float | None, output: Path | None, ask: Ask
) -> Path:
    """Write a config and its schema, and print the estimates. What is None is asked, five questions at most.

    UserError if base or corpus cannot be used, the file exists, or an answer makes no sense.
    """
    from tasks.model.base_model import load_config
    from tasks.model.rope_config import read_base_rope

    model = model or ask("Base model: a folder, a hub id such as org/name, or demo", "demo")
    window = read_base_rope(load_config(ModelParams(base=model, target_length=target_length or 32))).window
    corpus = corpus or ask("Corpus: a folder of long documents", None)
    seen = _look_at(corpus)
    usual = usual_target(window, seen.longest_tokens)
    if target_length is None:
        target_length = _number(int, ask(f"Tokens of context to reach (the base has {window})", str(usual)))
    if hours is None:
        hours = _number(float, ask("Hours that training may take", f"{_GPU_HOURS if gpus() else _CPU_HOURS:g}"))
    name = usual_name("demo-base" if model == "demo" else model, target_length)
    output = output or Path(ask("File to write", f"{name}.yaml"))
    if output.exists():
        raise UserError(f"{output} exists already: remove it, or give another name with --output.")
    mapping, params, estimate = _chosen(first_parameters(model, corpus, target_length, window, name), hours, seen, str(output))
    write_atomically(output, as_yaml(mapping, params, seen, estimate, f"./{SCHEMA_NAME}", str(output)))
    write_atomically(output.with_name(SCHEMA_NAME), json.dumps(params_schema(), indent=1) + "\n")
    print(f"Wrote {output}, and {SCHEMA_NAME} beside it for your editor.")
    print(*estimate_lines(estimate), sep="\n")
    if seen.longest_tokens < target_length:
        print(
            f"The largest file has very roughly {seen.longest_tokens:,} tokens, but training needs a document of {target_length:,}: "
            "add longer documents, or lower model.target_length."
        )
    if far := far_extension(window, target_length):
        print(far)
    print(f"Next: ropeway plan {output}, then ropeway run {output}")
    return output


def _look_at(corpus: str) -> CorpusSeen:
    from tasks.ingest.listing.sources import list_files

    sizes = [file.num_bytes or 0 for file in list_files((CorpusSource(uri=corpus),)).files]
    return CorpusSeen(len(sizes), sum(sizes), max(sizes, default=0))


def _number(kind: Any, answer: str) -> Any:
    try:
        number = kind(answer)
    except ValueError:
        raise UserError(f"{answer!r} is not a number: run again.") from None
    if not 0 < number < math.inf:
        raise UserError(f"{answer} is not a number above 0: run again.")
    return number


def _chosen(
    mapping: dict[str, Any], hours: float, seen: CorpusSeen, origin: str
) -> tuple[dict[str, Any], PipelineParams, PlanEstimate]:
    """The parameters with the fastest training that fits, and as many steps as the hours allow."""
    from flows.check_inputs import check_inputs
    from ray_jobs.finetune.planning.estimate import find_speed, run_seconds
    from ray_jobs.finetune.planning.shape import training_shape
    from ray_jobs.finetune.planning.worker_memory import largest_micro_batch, memory_of_worker
    from tasks.model.extended import rope_plan_for

    check_inputs(validate_params(mapping, origin))
    workers, fits = mapping["ray"]["num_workers"], False
    for setting in ways_to_fit(workers):
        tried = mapping | {"training": mapping["training"] | setting}
        params = validate_params(tried, origin)
        shape, available = training_shape(params), available_bytes(params, Machine())[0]
        if largest_micro_batch(params, shape, params.training, available, most=1):
            fits = True
            break
    speed = find_speed(params, shape, None) if fits else None
    a_step = run_seconds(params, shape, speed) / params.training.steps if speed else None
    steps = fitting_steps(a_step, hours, seen, params.row_tokens, params.training.rows_per_step)
    mapping = with_steps(tried, steps)
    params = validate_params(mapping, origin)
    plan = rope_plan_for(params.model)
    peak = memory_of_worker(params, shape, available).estimate.total
    seconds, origin_of_speed = (a_step * steps, speed.origin) if a_step and speed else (None, "")
    estimate = PlanEstimate(plan.base_window, plan.method, seconds, origin_of_speed, peak, available, fits)
    return mapping, params, estimate
