"""Keys of a base's rotary embedding that no method here computes with: carried into the plan as they are, or refused by name.

    llama_4_scaling_beta      Ministral 3: queries times 1 + beta ln(1 + floor(position / original length))
    short_mscale, long_mscale Phi-3.5-MoE: the factor on cosine and sine, in place of attention_factor
    alpha                     HunYuan: with rope type dynamic, a base frequency of theta alpha^(d/(d-2)) at every length

A key that is unknown here is carried, because the model may need it; the plan says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_schemas.errors import UserError
from tasks.model.rope_frequencies import ntk_theta

COMPUTED = frozenset({
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
    "max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim", "short_factor",
    "long_factor", "low_freq_factor", "high_freq_factor",
})  # fmt: skip
_ORIGINAL, _MAXIMUM, _BETA, _MSCALES = (
    "original_max_position_embeddings", "max_position_embeddings", "llama_4_scaling_beta", ("short_mscale", "long_mscale"),
)  # fmt: skip


def carried_keys(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a base's `rope_parameters` that a plan takes over as they are."""
    return tuple(sorted(set(parameters) - COMPUTED))


def with_carried(
    base: Mapping[str, Any], planned: dict[str, Any], method: str, max_position_embeddings: int, packed_rows: bool
) -> dict[str, Any]:
    """`planned` with what it must keep of the `base`'s `rope_parameters`.

    UserError for a key whose meaning the plan would change, or that cannot be trained on `packed_rows`.
    """
    kept = planned | {key: base[key] for key in carried_keys(base)}
    if _MAXIMUM in base:
        kept[_MAXIMUM] = max_position_embeddings
    if _BETA in base and _ORIGINAL in base:
        if kept.setdefault(_ORIGINAL, base[_ORIGINAL]) != base[_ORIGINAL]:
            raise UserError(
                f"rope_method {method} would change the original length of {base[_ORIGINAL]} tokens from which this base's {_BETA} "
                "counts, and with it the model within its window: choose ntk."
            )
    if set(_MSCALES) <= set(base):
        short, long = (float(base[name]) for name in _MSCALES)
        if packed_rows and short != long:
            raise UserError(
                f"This base scales its rotary embedding by short_mscale {short:g} or long_mscale {long:g}, chosen by the longest document "
                "in a row, so packed rows would train the wrong one: write long_mscale as both into its config.json, or choose another "
                "base."
            )
        if planned["rope_type"] != "default":
            kept["attention_factor"] = long
    return kept


def refuse_own_scaling(name: str, parameters: Mapping[str, Any], rotary_dim: int) -> None:
    """UserError for a base whose rope type means something else than its name."""
    alpha = parameters.get("alpha")
    if parameters["rope_type"] == "dynamic" and alpha and rotary_dim > 2:
        theta = ntk_theta(float(parameters["rope_theta"]), float(alpha), rotary_dim)
        raise UserError(
            f"{name} has alpha {alpha:g} in its rope_parameters, which changes its base frequency at every length and is no dynamic "
            f"scaling: write rope_type default and rope_theta {theta!r} into its config.json, which is the same model, and remove alpha."
        )
