"""From a base to the space that is searched, and from what was found to the parameters that later stages plan with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, RopeMethod
from data_schemas.params_reading import validate_params
from data_schemas.rope_search import FACTORS_NAME, RESULT_NAME, Form, RopeSearchResult, read_rope_search
from data_schemas.storage import Artifact
from tasks.model.base_model import load_config
from tasks.model.rope_config import read_base_rope
from tasks.model.rope_plan import plan_rope
from tasks.rope_search.asked import refuse_search
from tasks.rope_search.decision import FOUND
from tasks.rope_search.race import RaceSettings, fewest_evaluations, most_passes
from tasks.rope_search.seeds import CLOSED_FORMS, LONGER_YARN, NTK_CRITICAL, critical_theta, scaled_length
from tasks.rope_search.served import publishes_two_lists, searches_attention
from tasks.rope_search.space import RopeSpace

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_UNSCALED = ("default", "dynamic")  # RoPE of bases that were trained with unscaled frequencies


def space_of(params: PipelineParams) -> RopeSpace:
    """The space for this base and target.

    Raises:
        UserError: no RoPE, RoPE by layer type, a target within the window, no critical dimension, too small a budget, or a program of
            model.serve_with that cannot read longrope.
    """
    return space_for(load_config(params.model), params)


def bare_space(config: PreTrainedConfig, params: PipelineParams) -> RopeSpace:
    """The space without a look at servers and budget. UserError where the base, such as one that is already scaled, or the target
    leaves nothing to search."""
    search, model = params.rope_search, params.model
    base = read_base_rope(config, model.window)
    if base.layers:
        raise UserError(
            "This base has separate rotary frequencies for each layer type, for which no factors are searched: choose rope_method yarn or "
            "ntk, or give model.rope_factors_file."
        )
    if base.rope_type == "longrope":
        raise UserError(
            "This base is already scaled by longrope, for which no factors are searched, because no closed form could take their place: "
            "give model.rope_factors_file, with lists found for this base and model.target_length."
        )
    if base.rope_type not in _UNSCALED:
        raise UserError(
            f"This base is already scaled by {base.rope_type}, and neither factors nor a critical pair are searched on scaled frequencies: "
            "choose rope_method auto, which extends the base's own scaling."
        )
    space = RopeSpace(
        kind=search.space,
        theta=base.theta,
        num_pairs=base.rotary_dim // 2,
        original_length=base.original_length,
        target_length=model.target_length,
        lower=search.lower_bound,
        upper=search.upper_bound,
        num_knots=search.knots,
        attention=searches_attention(params),
        keeps_short=publishes_two_lists(params),
    )
    space.check()
    return space


def space_for(config: PreTrainedConfig, params: PipelineParams) -> RopeSpace:
    """`space_of` with the base's configuration at hand."""
    search, model = params.rope_search, params.model
    space = bare_space(config, params)
    # A plan with linear factors stands for any other: it has everything that a base or a server may refuse.
    factors: dict[str, Any] = dict.fromkeys(("short_factor", "long_factor"), [space.extension] * space.num_pairs)
    if space.attention:
        factors["attention_factor"] = space.longrope_attention + 0.01
    if space.keeps_short:
        factors |= _as_the_base(space.num_pairs)
    asked: dict[str, Any] = {"serving": model.serve_with, "window": model.window, "two_lists": space.keeps_short}
    plan_rope(config, model.target_length, "longrope", factors=factors, **asked)
    if (fewest := fewest_evaluations(space)) > search.evaluations:
        raise UserError(
            f"rope_search.evaluations is {search.evaluations}, but the critical dimension and the seeds alone take {fewest}: raise it."
        )
    return space


def race_settings(params: PipelineParams) -> RaceSettings:
    """The search's settings, for `tasks.rope_search.race`."""
    search = params.rope_search
    return RaceSettings(
        evaluations=search.evaluations,
        generation_size=search.generation_size,
        first_samples=search.first_samples,
        samples=search.samples,
        finalists=search.finalists,
        text_weight=search.text_weight,
        seed=search.seed,
    )


def rivals(space: RopeSpace, params: PipelineParams, config: PreTrainedConfig) -> tuple[Form, ...]:
    """The closed forms that the result must beat: those that this base, and the programs it is served with, can take."""
    asked: dict[str, Any] = {"serving": params.model.serve_with, "window": params.model.window}
    theta = critical_theta(space, space.critical_bounds[1])  # any other would be taken or refused alike
    plans: dict[Form, tuple[RopeMethod, dict[str, Any]]] = {
        "yarn": ("yarn", {}),
        **{form: ("yarn", {"rope_length": scaled_length(space, form)}) for form in LONGER_YARN},
        "ntk": ("ntk", {}),
        NTK_CRITICAL: ("theta", {"theta": theta}),
    }
    found: list[Form] = []
    for form, (method, given) in plans.items():
        try:
            plan_rope(config, space.target_length, method, **asked, **given)
        except UserError:
            continue
        found.append(form)
    return tuple(found)


def factors_file(result: RopeSearchResult, two_lists: bool = False) -> dict[str, Any]:
    """What `factors.json` holds: the factors as both lists, as programs serve them that make one table for prompts of every length; or
    with `two_lists` the base's own frequencies for prompts within its window."""
    found: dict[str, Any] = {"short_factor": list(result.factors), "long_factor": list(result.factors)}
    if result.attention_searched:
        found["attention_factor"] = result.attention_factor
    return found | (_as_the_base(len(result.factors)) if two_lists else {})


def _as_the_base(num_pairs: int) -> dict[str, Any]:
    """What of longrope makes prompts within the original length turn as the base does. Without `attention_factor`, readers multiply cosine
    and sine by a factor above 1 there too."""
    return {"short_factor": [1.0] * num_pairs, "attention_factor": 1.0}


def with_result(params: PipelineParams, search: Artifact) -> PipelineParams:
    """The parameters of the later stages: with the found factors, or with the closed form that was not beaten.

    UserError if a file of the search was changed.
    """
    changes = chosen_rope(load_result(search), search.location)
    return params.model_copy(update={"model": params.model.model_copy(update=changes)})


def chosen_rope(result: RopeSearchResult, location: str) -> dict[str, Any]:
    """The fields of `model` with which a plan takes what the search chose. `location`: the folder of its files."""
    if result.chosen == FOUND:
        return {"rope_method": "longrope", "rope_factors_file": f"{location}/{FACTORS_NAME}"}
    if result.chosen in LONGER_YARN:
        return {"rope_method": "yarn", "rope_length": round(LONGER_YARN[result.chosen] * result.target_length)}
    if result.chosen == NTK_CRITICAL:
        return {"rope_method": "theta", "rope_theta": result.critical_theta}
    return {"rope_method": result.chosen}


def load_result(search: Artifact) -> RopeSearchResult:
    """The result of a finished search. UserError where the file was changed."""
    return read_rope_search(search.path / RESULT_NAME)


def with_stand_in(params: PipelineParams) -> PipelineParams:
    """`params` for checks before a search: refuses what cannot be searched, and plans with NTK in place of what will be found."""
    if not params.searches_rope:
        return params
    space_of(params)
    return params.model_copy(update={"model": params.model.model_copy(update={"rope_method": "ntk", "serve_with": ()})})


def as_search(params: PipelineParams) -> PipelineParams:
    """`params` for a search that is asked for by name, whatever RoPE they state.

    UserError if they have a factors file or stages, or if a search cannot have what else they ask for.
    """
    refuse_search(params)
    given = params.model_dump(mode="json")
    given["model"] |= {"rope_method": "longrope", "rope_theta": None, "rope_length": None}
    given["evaluation"]["rope_methods"] = []  # such as theta, which would need the frequency
    return validate_params(given, origin="this search")


def foreseen_passes(params: PipelineParams, space: RopeSpace) -> int:
    """Forward passes of the target's length that a search and its decision take at most."""
    num_forms = len(CLOSED_FORMS) + 2  # the found factors, and NTK at the critical pair
    return most_passes(space, race_settings(params)) + num_forms * params.rope_search.deciding_samples


def foreseen(params: PipelineParams) -> str:
    """What `ropeway plan` says of a search that is still to be done."""
    passes = foreseen_passes(params, space_of(params))
    return (
        f"RoPE factors are searched first: at most {params.rope_search.evaluations} candidates, which take at most {passes:,} forward "
        f"passes of {params.model.target_length:,} tokens. Until then this plan shows ntk in their place."
    )
