"""`ropeway search-rope`: the factors of LongRoPE for a base and a target length."""

import json
from typing import Any

from rich.console import Console

from data_schemas.params import PipelineParams
from data_schemas.rope_search import FACTORS_NAME, RopeSearchResult
from data_schemas.storage import Artifact, Storage
from flows.commands.plain_table import plain_table


def show_search(search: Artifact, params: PipelineParams) -> None:
    """Print a finished search: its table, its verdict, how a run of `params` takes what it chose, and its folder as the last line."""
    from tasks.rope_search.plans import chosen_rope, load_result
    from tasks.rope_search.table import forms_table

    console = Console()
    result = load_result(search)
    columns, rows = forms_table(result)
    level = f"{result.level_of_each_comparison:.1%}"
    title = (
        f"{result.target_length} tokens without training, {result.settings.deciding_samples} samples that the search never saw"
    )
    console.print(plain_table(columns, rows, f"{title} [{level} interval]"))
    to_use = settings_of(chosen_rope(result, search.location), params)
    for sentence in _sentences(result, f"{search.location}/{FACTORS_NAME}", to_use):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    print(search.location, flush=True)


def settings_of(chosen: dict[str, Any], params: PipelineParams) -> list[str]:
    """Values of `--set` with which a run of `params` has the `chosen` fields of its model, and none that contradict them."""
    stated = params.model.model_dump(include={"rope_theta", "rope_length"}, exclude_none=True)
    compared, others = params.evaluation.rope_methods, []
    if "theta" in compared and not {"rope_theta", "rope_length"} & chosen.keys():
        stated.pop("rope_theta", None)  # also measured beside the chosen method
    elif "theta" in compared:  # it needs model.rope_theta, which cannot be combined with what was chosen
        others = [f"evaluation.rope_methods=[{','.join(method for method in compared if method != 'theta')}]"]
    fields = dict.fromkeys(stated) | chosen
    return [f"model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()] + others


def _sentences(result: RopeSearchResult, factors: str, to_use: list[str]) -> list[str]:
    critical, theory = result.critical_pair, result.theoretical_critical_pair
    return [
        f"{result.num_evaluations} candidates were measured in {result.num_passes} forward passes.",
        f"NTK is best with pair {critical} as the critical one (in theory {theory}): model.rope_method theta with model.rope_theta "
        f"{result.critical_theta:.6g}.",
        result.verdict,
        f"To use what was chosen: {' '.join(f'--set {setting}' for setting in to_use)}",
        f"Factors: {factors}",
    ]


def search(params: PipelineParams, no_prefect: bool) -> None:
    """Search, or find the search, as `run` would, and print it.

    UserError if this base or budget allows no search, or too few training documents are as long as the target.
    """
    from tasks.rope_search.asked import refuse_search

    refuse_search(params)  # before imports that take seconds
    from flows.terminal import run_here
    from ray_jobs.search_rope.search_key import KIND
    from tasks.rope_search.plans import as_search

    location = run_here("search_rope", as_search(params), no_prefect)
    artifact = Storage(params.storage).find(KIND, location.rstrip("/").rpartition("/")[2])
    assert artifact is not None, "a finished run has made it"
    show_search(artifact, params)
