"""Each scaling method on a base's rotary embedding: the new parameters, or the reason why it cannot be used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_schemas.errors import UserError
from tasks.model.reading_notes import reading_notes
from tasks.model.rope_config import BaseRope
from tasks.model.rope_frequencies import longrope_attention_factor, ntk_theta, yarn_attention_factor
from tasks.model.rope_keys import with_carried

Parameters = dict[str, Any]
Factors = Mapping[str, Any]  # of a factors file: short_factor and long_factor, and perhaps attention_factor

# Extension over the base's window up to which a method is usable without fine-tuning. YaRN, longrope: as their papers claim;
# ntk, dynamic: from the comparison in YaRN's. Linear interpolation always needs training, and there are no reports on llama3
# without it, nor can any hold for a rope_theta that the user chooses.
USABLE_UNTRAINED = {"linear": 1, "dynamic": 4, "ntk": 2, "yarn": 4, "longrope": 8, "llama3": 1, "theta": 1}

_MOST_TARGETS, _MOST_WINDOWS = 4, 32  # beyond these lengths RoPE is scaled for and extensions a plan has a note

# The scaled bases that each method can extend further: the result must again be one scaling that a config can hold. A dynamic
# base was trained unscaled and scales only longer prompts, so it counts as unscaled. `ntk` on llama3 raises rope_theta below the
# base's bands, and so does `theta`: llama3 maps each frequency by itself, so with `ntk` the lowest is divided by the extension and
# the highest kept. Only `auto` may choose `llama3` on llama3, see `refuse_impossible`.
_GOES_ON_FROM = {
    "linear": ("default", "dynamic", "linear"),
    "dynamic": ("default", "dynamic"),
    "ntk": ("default", "dynamic", "llama3"),
    "yarn": ("default", "dynamic", "yarn"),
    "longrope": ("default", "dynamic", "longrope"),
    "llama3": ("default", "dynamic", "llama3"),
    "theta": ("default", "dynamic", "llama3"),
}


def auto_method(base: BaseRope, factors: Factors | None, theta: float | None = None) -> str:
    """YaRN, unless `theta` or longrope factors are given, only the base's own method can extend it, or its class takes no YaRN."""
    if theta is not None:
        return "theta"
    if factors is not None or base.rope_type == "longrope":
        return "longrope"
    if base.rope_type in ("linear", "llama3"):
        return base.rope_type
    return "yarn" if base.takes_yarn else "ntk"


def refuse_impossible(
    method: str, base: BaseRope, factors: Factors | None, one_list: bool, target_length: int, by_auto: bool
) -> None:
    """UserError if `method` cannot extend this base, or cannot be trained as it will be used. `one_list`: longrope's lists must be equal.

    Two stacked llama3 scalings are not a llama3 scaling: the bands of the second would count turns within the scaled window over
    frequencies that the first has changed, and a config holds only one. Instead the base's own scaling can get a larger factor over
    its first window. `auto` plans that; `llama3` by name is refused, so that nobody thinks that two were stacked.
    """
    if base.rope_type == method == "llama3" and not by_auto:
        factor = base.parameters["factor"] * target_length / base.window
        raise UserError(
            f"rope_method llama3 cannot be stacked on a base that is already scaled by llama3, because a config holds one scaling: "
            f"choose auto, which raises the base's own factor from {base.parameters['factor']:g} to {factor:g} and keeps its bands, "
            "or ntk, which raises rope_theta below them."
        )
    if base.rope_type not in _GOES_ON_FROM[method]:
        own = {"llama3": "auto", "longrope": "longrope and give model.rope_factors_file"}  # factors are not searched there
        instead = own.get(base.rope_type, base.rope_type)
        raise UserError(
            f"rope_method {method} cannot extend a base that is scaled by {base.rope_type}, because a config holds only one scaling: "
            f"choose {instead}, which extends the base's own."
        )
    if method in ("ntk", "dynamic") and base.rotary_dim <= 2:
        raise UserError(
            f"rope_method {method} changes the base of a geometric series, but this model has only one frequency: choose linear."
        )
    if method != "longrope":
        if factors is not None:
            raise UserError(
                f"rope_factors_file is for longrope and rope_method is {method}: leave the file out, or choose longrope."
            )
        return
    if factors is None:
        raise UserError(
            "rope_method longrope needs factors found for this model and target: give model.rope_factors_file, or choose yarn"
            + (" on a base that has no longrope scaling." if base.rope_type == "longrope" else ".")
        )
    short, long = factor_lists(factors, base.rotary_dim // 2)
    if one_list and short != long:
        raise two_lists_refused(base.original_length)


def two_lists_refused(original_length: int) -> UserError:
    """Why two different lists need rows of short documents that are trained with the short one."""
    return UserError(
        "rope_method longrope with two different lists cannot be trained on packed rows: the model picks a list by the longest "
        f"document in a row, so rows without a document over {original_length} tokens would silently train short_factor; "
        "set training.short_window_share, give long_factor as both lists, or choose yarn."
    )


def factor_lists(factors: Factors, num_pairs: int) -> tuple[list[float], list[float]]:
    """The short and the long list of a factors file. UserError unless each has a positive number for each of the rotated pairs."""
    short, long = (_checked_factors(factors, name, num_pairs) for name in ("short_factor", "long_factor"))
    return short, long


def _checked_factors(factors: Factors, name: str, count: int) -> list[float]:
    values = factors.get(name)
    numbers = isinstance(values, Sequence) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        for value in values
    )
    keys = set(factors) - {"attention_factor"}
    if keys == {"short_factor", "long_factor"} and numbers and values and len(values) != count:
        raise UserError(
            f"rope_factors_file is not for this model: {name} has {len(values)} number{'s' * (len(values) != 1)}, and this model needs "
            f"{count}: correct the file, or choose yarn."
        )
    if keys != {"short_factor", "long_factor"} or not numbers or not values:
        raise UserError(
            f"rope_factors_file must hold exactly short_factor and long_factor, for this model each a list of {count} positive numbers; "
            f"it has the keys {sorted(factors)}, or {name} is not such a list: correct the file, or choose yarn."
        )
    attention = factors.get("attention_factor", 1.0)
    if isinstance(attention, bool) or not isinstance(attention, int | float) or not 0 < attention < math.inf:
        raise UserError(
            f"rope_factors_file has the attention_factor {attention!r}, which is not a positive number: correct it, or leave it out."
        )
    return [float(value) for value in values or ()]


def rope_parameters(
    method: str,
    base: BaseRope,
    target_length: int,
    factors: Factors | None,
    theta: float | None = None,
    packed_rows: bool = True,
) -> tuple[Parameters, int]:
    """The new `rope_parameters` (transformers 5) and the `max_position_embeddings` to publish with them.

    UserError if `method` would change the meaning of a key that the base needs.
    """
    stated = theta if method == "theta" else None
    built = _BUILDERS[method](base, target_length, factors or {}) if stated is None else _with_theta(base, stated)
    parameters = {"rope_theta": base.theta} | built
    if "partial_rotary_factor" in base.parameters:
        parameters["partial_rotary_factor"] = base.parameters["partial_rotary_factor"]
    # Linear: vLLM and SGLang multiply the maximum by the factor, but not for Gemma 3. Dynamic: transformers scales only beyond the
    # maximum.
    keeps_maximum = method == "dynamic" or (method == "linear" and not base.maximum_is_scaled)
    maximum = base.original_length if keeps_maximum else target_length
    return with_carried(base.parameters, parameters, method, maximum, packed_rows), maximum


def _scale(target: int, original: int) -> float:
    """target / original; one unit in the last place higher if readers that multiply back would truncate to target - 1."""
    factor = target / original
    return factor if int(original * factor) >= target else math.nextafter(factor, math.inf)


def _linear(base: BaseRope, target: int, factors: Factors) -> Parameters:
    return {"rope_type": "linear", "factor": _scale(target, base.original_length)}


def _dynamic(base: BaseRope, target: int, factors: Factors) -> Parameters:
    return {"rope_type": "dynamic", "factor": _scale(target, base.original_length)}


def _ntk(base: BaseRope, target: int, factors: Factors) -> Parameters:
    return _with_theta(base, ntk_theta(base.theta, target / base.window, base.rotary_dim))


def _with_theta(base: BaseRope, theta: float) -> Parameters:
    """Another base frequency (Xiong et al. 2023, arXiv 2309.16039), below the bands of a llama3 base."""
    if base.rope_type == "llama3":
        bands = ("factor", "low_freq_factor", "high_freq_factor")
        kept = {name: base.parameters[name] for name in bands}
        return {"rope_type": "llama3", "rope_theta": theta, **kept, "original_max_position_embeddings": base.original_length}
    return {"rope_type": "default", "rope_theta": theta}


def _yarn(base: BaseRope, target: int, factors: Factors) -> Parameters:
    original = base.original_length
    parameters: Parameters = {
        "rope_type": "yarn",
        "factor": _scale(target, original),
        "original_max_position_embeddings": original,
    }
    if base.rope_type == "yarn":
        kept = ("beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim")
        parameters |= {key: base.parameters[key] for key in kept if key in base.parameters}
        implied = yarn_attention_factor(
            {"factor": base.window / original}
            | {key: value for key, value in base.parameters.items() if key != "attention_factor"}
        )
        # An explicit factor that equals the implied one follows the new length; any other is the base's own choice.
        explicit = base.parameters.get("attention_factor")
        if explicit is not None and not math.isclose(explicit, implied, rel_tol=1e-6):
            parameters["attention_factor"] = float(explicit)
    return parameters


def _llama3(base: BaseRope, target: int, factors: Factors) -> Parameters:
    # On a llama3 base the bands stay and only the factor grows: one scaling, not two.
    known = base.parameters if base.rope_type == "llama3" else {"factor": 1.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return {
        "rope_type": "llama3",
        "factor": known["factor"] * target / base.window,
        "low_freq_factor": known["low_freq_factor"],
        "high_freq_factor": known["high_freq_factor"],
        "original_max_position_embeddings": base.original_length,
    }


def _longrope(base: BaseRope, target: int, factors: Factors) -> Parameters:
    factor = target / base.original_length
    return {
        "rope_type": "longrope",
        "factor": factor,
        "original_max_position_embeddings": base.original_length,
        "short_factor": [float(value) for value in factors["short_factor"]],
        "long_factor": [float(value) for value in factors["long_factor"]],
        # Also where it is the default, because transformers 4 would derive another one.
        "attention_factor": factors.get("attention_factor") or longrope_attention_factor(factor, base.original_length),
    }


_BUILDERS: dict[str, Callable[[BaseRope, int, Factors], Parameters]] = {
    "linear": _linear,
    "dynamic": _dynamic,
    "ntk": _ntk,
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _longrope,
}


def unusual_factors(parameters: Parameters) -> list[str]:
    """What of longrope's lists is unlike LongRoPE's, a sentence each; none for another method.

    They are no error: MiniCPM4's published lists begin below 1.
    """
    found = []
    for name in ("short_factor", "long_factor"):
        values = parameters.get(name, [])
        falls = [pair for pair in range(1, len(values)) if values[pair] < values[pair - 1]]
        if falls:
            found.append(
                f"{name} falls at pair {falls[0]} from {values[falls[0] - 1]:g} to {values[falls[0]]:g}, so a slower pair is slowed "
                "less than a faster one. LongRoPE's lists never fall: is the file for this model, and in the right order?"
            )
        if any(value < 1 for value in values):
            found.append(f"{name} has values below 1, so these pairs turn faster than in the base: is that meant so?")
    if values and max(values) <= 1:
        found.append("long_factor slows no pair, so nothing is scaled for the longer context: is it the right file?")
    return found


def reason(method: str, chosen_here: bool, base: BaseRope, extension: float) -> str:
    """One sentence: why this method, and whether it needs training at this extension."""
    if not chosen_here:
        return reason_if_asked(method, extension)
    if method == "theta":
        why = "model.rope_theta was given"
    elif method == "yarn":
        why = "YaRN keeps the high frequencies, which order nearby tokens, as the base learned them"
        if base.rope_type == "yarn":
            why += ", and the base already uses it"
    elif method == "ntk":
        why = f"the config class of {base.model_type} does not take YaRN, and a changed rope_theta needs no scaling"
    elif base.rope_type == method:
        why = f"the base is already scaled by {method}, and only {method} can extend it further"
    else:
        why = "longrope factors were given"
    return _with_need(why, method, extension)


def reason_if_asked(method: str, extension: float) -> str:
    """As `reason`, where the method is stated."""
    return _with_need(f"{method} was asked for", method, extension)


def reason_in_checkpoint(method: str, extension: float) -> str:
    """As `reason`, for a stated method in a checkpoint, which serves runs that asked for it and runs whose search chose it."""
    return _with_need(f"{method} was asked for, or chosen by a search of factors", method, extension)


def reason_of_search(method: str, extension: float, search: str) -> str:
    """As `reason`, where a search of factors chose the method. `search`: its place in the storage."""
    return _with_need(f"{method} was chosen by a search of factors ({search})", method, extension)


def reason_before_search(method: str, extension: float) -> str:
    """As `reason`, where longrope is asked for, and `method` takes its place in a plan until its factors are searched."""
    return _with_need(f"longrope was asked for, and {method} is shown until its factors are searched", method, extension)


def _with_need(why: str, method: str, extension: float) -> str:
    limit = USABLE_UNTRAINED[method]
    if limit == 1:
        return f"{why}; it needs fine-tuning at any extension, here {extension:g}x."
    if extension > limit:
        return f"{why}; {extension:g}x is above the {limit}x at which it is usable untrained, so fine-tuning is required."
    return f"{why}; {extension:g}x is within the {limit}x at which it is usable untrained, and fine-tuning improves it."


def unusual_rope_length(name: str, rope_length: int | None, target_length: int) -> list[str]:
    """Says so where `name`, a parameter, scales RoPE for far more than the target."""
    if rope_length is None or rope_length <= _MOST_TARGETS * target_length:
        return []
    return [
        f"{name} {rope_length} is more than {_MOST_TARGETS} times the target of {target_length} tokens; up to 2 times were measured: is it "
        "meant so?"
    ]


def unusual_extension(base_window: int, target_length: int) -> list[str]:
    """Says so where the target is further than the program was made for."""
    extension = target_length / base_window
    if extension <= _MOST_WINDOWS:
        return []
    return [f"The target is {extension:g} times the base's window; Ropeway is made for 2 to {_MOST_WINDOWS} times."]


def notes(
    method: str, base: BaseRope, parameters: Parameters, target_length: int, scaled_for: int, packed_rows: bool
) -> tuple[str, ...]:
    """What a user of the extended model should know, one sentence each."""
    found = reading_notes(base)
    if base.rope_type == "dynamic":
        found.append("The base's dynamic scaling is replaced; within its window, where it was trained, nothing changes.")
    if base.rope_type == "llama3" and method == "llama3":
        found.append(
            f"The base's llama3 bands stay, and its factor rises from {base.parameters['factor']:g} to {parameters['factor']:g}: one "
            "scaling of the original window, not a second on top of the first."
        )
    if method == "theta":
        changed = f"rope_theta changes from {base.theta:g} to {parameters['rope_theta']:g}"
        if base.rotary_dim > 2:
            by_ntk = ntk_theta(base.theta, target_length / base.window, base.rotary_dim)
            changed += f"; for this extension ntk would choose {by_ntk:g}"
        found.append(changed + ".")
        if parameters["rope_theta"] < base.theta:
            found.append(
                "A smaller rope_theta turns all pairs faster, which longer contexts rarely gain from: is it what you want?"
            )
    if base.rope_type == "llama3" and method in ("ntk", "theta"):
        found.append(
            "rope_theta is raised below the base's llama3 bands, so some frequencies that were kept may now be in the bands."
        )
    if method == "dynamic":
        found.append(
            "Frequencies follow the longest position so far, so the model computes a short prompt differently after a long one."
        )
        if packed_rows:
            found.append("The rows of a micro-batch are trained with the frequencies of their longest document.")
    if "attention_factor" in parameters and method == "yarn":
        found.append("The base's own attention_factor is kept, because it differs from the one its factor implies.")
    if scaled_for != target_length:
        found.append(
            f"RoPE is scaled for {scaled_for} tokens and trained up to {target_length}, which is the published maximum; transformers may "
            "warn that factor and maximum do not fit, which is meant so."
        )
    if target_length % base.original_length and method not in ("ntk", "theta"):
        found.append(f"The target is {target_length / base.original_length:g} times the original length, not a whole number.")
    if (
        base.sliding_window and base.sliding_window < target_length and not base.layers
    ):  # `reading_notes` says it of layer types
        found.append(f"Layers with a sliding window still see only {base.sliding_window} tokens back.")
    return tuple(found)
