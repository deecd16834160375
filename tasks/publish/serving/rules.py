"""How each consumer reads the files of a model folder, by the rules in its source.

`data_schemas.consumers.CONSUMERS` names these functions, with the version and the places in the source they were read at.

transformers-4.57   reads `rope_scaling` and a top-level `rope_theta`; nothing reads `rope_parameters`.
transformers-5      `rope_scaling` overrides `rope_parameters` (`convert_rope_params_to_dict`), and a top-level original length
                    overrides the one inside (`standardize_rope_params`).
vllm                reads the config through transformers 5, and derives the length it serves by itself.
by layer type       see `tasks.model.rope_layers`; the frequencies here are those of the layers in full.
sglang              derives a length; its frequencies are not computed here.

transformers itself has no limit. Its context length is taken to be the smaller of the config's and the tokenizer's
`model_max_length`, at which it warns and truncates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_schemas.consumers import CONSUMERS, SERVABLE, ConsumerId, ServableId
from tasks.model.rope_layers import LOCAL, LOCAL_THETA, is_by_layer, maximum_is_scaled, of_full_layers, other_layers
from tasks.publish.serving import formulas
from tasks.publish.serving.formulas import Frequencies

_DEFAULT_THETA = 10_000.0
_WITH_ORIGINAL = ("yarn", "longrope", "llama3")
# Types whose maximum vLLM takes unchanged; for the others it multiplies the maximum by `factor`, if there is one.
_EXTENDED_IN_VLLM = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


@dataclass(frozen=True)
class Written:
    """The contents of config.json and tokenizer_config.json (empty if there is none)."""

    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]

    @classmethod
    def load(cls, directory: Path) -> Written:
        """FileNotFoundError without a config.json."""
        tokenizer = directory / "tokenizer_config.json"
        return cls(
            json.loads((directory / "config.json").read_text(encoding="utf-8")),
            json.loads(tokenizer.read_text(encoding="utf-8")) if tokenizer.is_file() else {},
        )


@dataclass(frozen=True)
class Reading:
    """`context_length` in tokens. `frequencies` maps a prompt's number of tokens to the inverse frequencies, float64
    [rotary_dim / 2] in radians a token, and the factor on cosine and sine, of a freshly loaded model. `layers` has the
    `rope_parameters` of the other layers, if RoPE differs by layer type."""

    context_length: int
    rope_type: str
    frequencies: Callable[[int], tuple[Frequencies, float]]
    layers: Mapping[str, Any] = field(default_factory=dict)


def read_as_transformers4(written: Written) -> Reading:
    config = written.config
    scaling = dict(config.get("rope_scaling") or {})
    rope_type = scaling.get("rope_type") or scaling.get("type") or "default"
    theta, maximum = _legacy_theta(config), config["max_position_embeddings"]
    dim = _rotary_dim(config, config.get("partial_rotary_factor", config.get("rotary_pct", 1.0)))
    top_level = config.get("original_max_position_embeddings")

    def frequencies(length: int) -> tuple[Frequencies, float]:
        if rope_type == "longrope":
            original = top_level or maximum  # never the one inside the dict
            extension = maximum / top_level if top_level else float(scaling["factor"])
            factor = scaling.get("attention_factor")
            if factor is None:
                factor = formulas.longrope_factor(extension, original)
            chosen = scaling["long_factor" if length > original else "short_factor"]
            return formulas.longrope(formulas.unscaled(theta, dim), chosen), float(factor)
        original = scaling.get("original_max_position_embeddings") or maximum
        return _by_type(rope_type, theta, dim, scaling, original, maximum, length)

    local = {LOCAL: {"rope_type": "default", "rope_theta": config[LOCAL_THETA]}} if LOCAL_THETA in config else {}
    return Reading(_transformers_length(written, rope_type, scaling), rope_type, frequencies, local)


def read_as_transformers5(written: Written) -> Reading:
    config = written.config
    parameters = _parameters_of_5(config)
    rope_type, maximum = parameters["rope_type"], config["max_position_embeddings"]
    dim = _rotary_dim(config, parameters.get("partial_rotary_factor", 1.0))
    original = parameters.get("original_max_position_embeddings", maximum)

    def frequencies(length: int) -> tuple[Frequencies, float]:
        if rope_type == "longrope":
            factor = parameters.get("attention_factor")
            if factor is None:
                factor = formulas.longrope_factor(parameters.get("factor") or maximum / original, original)
            chosen = parameters["long_factor" if length > original else "short_factor"]
            return formulas.longrope(formulas.unscaled(parameters["rope_theta"], dim), chosen), float(factor)
        return _by_type(rope_type, parameters["rope_theta"], dim, parameters, original, maximum, length)

    layers = other_layers(config.get("rope_parameters"))
    return Reading(_transformers_length(written, rope_type, parameters), rope_type, frequencies, layers)


def read_as_vllm(written: Written) -> Reading:
    """One table of cosines for all prompts, made when the model is loaded, for the length that vLLM derives."""
    config = written.config
    parameters = _parameters_of_5(config)
    rope_type, maximum = parameters["rope_type"], config["max_position_embeddings"]
    if rope_type == "su":
        rope_type = "longrope"
    dim = _rotary_dim(config, parameters.get("partial_rotary_factor", 1.0))
    is_extended = rope_type in _EXTENDED_IN_VLLM or maximum_is_scaled(config.get("model_type", ""))
    served = maximum if is_extended else int(maximum * (parameters.get("factor") or 1.0))
    if rope_type == "longrope":
        served = int(config.get("original_max_position_embeddings") or served)
    original = parameters.get("original_max_position_embeddings", maximum)

    def frequencies(length: int) -> tuple[Frequencies, float]:
        theta = parameters["rope_theta"]
        if rope_type == "linear" and not isinstance(parameters["factor"], float):
            raise ValueError("vLLM does not load a linear factor that is not a float: it takes it for a list of factors")
        if rope_type == "dynamic":
            return formulas.unscaled(theta, dim), 1.0  # scaled for a length of `maximum`, which means unscaled
        if rope_type == "longrope":
            chosen = parameters["long_factor" if served > original else "short_factor"]
            factor = parameters.get("long_mscale" if served > original else "short_mscale")
            if factor is None:
                factor = formulas.longrope_factor(maximum / original, original)
            return formulas.longrope(formulas.unscaled(theta, dim), chosen), float(factor)
        return _by_type(rope_type, theta, dim, parameters, original, maximum, length)

    return Reading(served, rope_type, frequencies, other_layers(config.get("rope_parameters")))


def sglang_context_length(config: Mapping[str, Any]) -> int:
    """The maximum times the factor, unless an original length is given as well or the type is llama3."""
    scaling = _parameters_of_5(config)
    extended = "original_max_position_embeddings" in scaling or scaling["rope_type"] == "llama3"
    return int((1 if extended else scaling.get("factor", 1)) * config["max_position_embeddings"])


READERS: dict[ServableId, Callable[[Written], Reading]] = {name: globals()[str(CONSUMERS[name].rule)] for name in SERVABLE}
"""The `rule` of each servable consumer."""
LENGTH_READERS: dict[ConsumerId, Callable[[Mapping[str, Any]], int]] = {
    consumer.id: globals()[consumer.length_rule] for consumer in CONSUMERS.values() if consumer.length_rule
}
"""The `length_rule` of the consumers whose frequencies are not computed."""


def spelling_problems(config: Mapping[str, Any]) -> list[str]:
    """One phrase for each value that differs between the spellings of transformers 4 and 5, if both are there.

    Programs differ in which spelling they prefer, so they would serve a config that contradicts itself in different ways.
    """
    new, old = of_full_layers(config.get("rope_parameters")), config.get("rope_scaling")
    if not new or not ("rope_scaling" in config or "rope_theta" in config):
        return []
    legacy = {"rope_theta": _legacy_theta(config), "rope_type": "default", **(old or {})}
    if config.get("partial_rotary_factor") is not None:
        legacy["partial_rotary_factor"] = config["partial_rotary_factor"]
    keys = sorted((set(legacy) | set(new)) - {"type"})
    local = other_layers(config.get("rope_parameters")).get(LOCAL) or {}
    other = (
        []
        if config.get(LOCAL_THETA) == local.get("rope_theta")
        else [f"{LOCAL_THETA} is {config.get(LOCAL_THETA)!r}, and rope_theta of {LOCAL} {local.get('rope_theta')!r}"]
    )
    return other + [
        f"{key} is {new.get(key)!r} in rope_parameters and {legacy.get(key)!r} in the older spelling"
        for key in keys
        if new.get(key) != legacy.get(key)
    ]


def _by_type(
    rope_type: str, theta: float, dim: int, parameters: Mapping[str, Any], original: int, maximum: int, length: int
) -> tuple[Frequencies, float]:
    """The types that all consumers read alike. ValueError for an unknown type."""
    inv_freq = formulas.unscaled(theta, dim)
    match rope_type:
        case "default":
            return inv_freq, 1.0
        case "linear":
            return inv_freq / parameters["factor"], 1.0
        case "dynamic":
            return formulas.dynamic(theta, dim, parameters["factor"], maximum, length), 1.0
        case "yarn":
            return formulas.yarn(theta, dim, parameters, original), formulas.yarn_factor(parameters)
        case "llama3":
            return formulas.llama3(inv_freq, parameters), 1.0
        case other:
            raise ValueError(f"there is no rule for rope type {other!r}")


def _parameters_of_5(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("rope_parameters") or {}
    if is_by_layer(given):
        parameters = {**of_full_layers(given), **(config.get("rope_scaling") or {})}
        if not parameters:
            raise ValueError("the config has rotary frequencies for each layer type, and none for layers that attend in full")
    else:
        parameters = dict(config.get("rope_scaling") or given)
    parameters.setdefault("rope_theta", _legacy_theta(config))
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    partial = config.get("partial_rotary_factor", config.get("rotary_pct"))
    if partial is not None:
        parameters.setdefault("partial_rotary_factor", partial)
    if parameters["rope_type"] in _WITH_ORIGINAL:
        if config.get("original_max_position_embeddings"):
            parameters["original_max_position_embeddings"] = config["original_max_position_embeddings"]
        parameters.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    return parameters


def _legacy_theta(config: Mapping[str, Any]) -> float:
    # GPT-NeoX has its own name for it; without either, all programs silently take 10000.
    return float(config.get("rope_theta", config.get("rotary_emb_base", _DEFAULT_THETA)))


def _rotary_dim(config: Mapping[str, Any], partial: float | None) -> int:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(head_dim * (1.0 if partial is None else partial))


def _transformers_length(written: Written, rope_type: str, parameters: Mapping[str, Any]) -> int:
    stated = written.config["max_position_embeddings"]
    if rope_type == "dynamic" or (rope_type == "linear" and not maximum_is_scaled(written.config.get("model_type", ""))):
        stated = int(stated * parameters["factor"])
    return int(min(stated, written.tokenizer.get("model_max_length") or stated))
