"""Plan how a base's rotary frequencies are scaled to a target length.

plan = plan_rope(config, 2048)         # reads the base's own scaling; composes with it or refuses
plan.apply(config)                     # before the model is built from this config
model.save_pretrained(directory)
plan.write_config(directory)           # last: save_pretrained drops the spelling that older readers need
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_schemas.consumers import SERVABLE, ServableId, current_id, why_not
from data_schemas.errors import UserError
from data_schemas.params import RopeMethod
from tasks.model.base_lengths import nothing_to_extend
from tasks.model.quiet import quiet_transformers
from tasks.model.rope_config import (
    DUAL_CHUNK,
    published_config,
    read_base_rope,
    reading_difference,
    write_published_config,
)
from tasks.model.rope_frequencies import FloatArray, scaled_frequencies
from tasks.model.rope_layers import joined
from tasks.model.rope_methods import (
    USABLE_UNTRAINED,
    auto_method,
    notes,
    reason,
    reason_before_search,
    reason_if_asked,
    reason_in_checkpoint,
    reason_of_search,
    refuse_impossible,
    rope_parameters,
    unusual_factors,
)
from tasks.model.rope_use import rope_use

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class RopePlan:
    """Rotary embedding of the extended model; lengths in tokens.

    `factor` is that of the method's formula. `base_window` is the length that the base works up to, and `original_length` the length
    it was trained on before any scaling; they differ only if the base is an extended model. `layers` has the layer types that keep
    their RoPE (see `rope_layers`); all else is about the layers in full.
    """

    method: str
    factor: float
    original_length: int
    base_window: int
    target_length: int
    rope_theta: float
    rope_parameters: dict[str, Any]
    max_position_embeddings: int
    rotary_dim: int
    model_type: str
    training_required: bool
    reason: str
    notes: tuple[str, ...] = ()
    layers: dict[str, Any] = field(default_factory=dict)

    @property
    def extension(self) -> float:
        """Target over the base's window."""
        return self.target_length / self.base_window

    def apply(self, config: PreTrainedConfig) -> None:
        """Write the plan into a transformers config; build the model from it afterwards, not before."""
        # A top-level original length overrides the one in the dict; some classes declare it, so it cannot be deleted.
        if hasattr(type(config), "original_max_position_embeddings"):
            config.original_max_position_embeddings = self.original_length
        else:
            config.__dict__.pop("original_max_position_embeddings", None)
        config.__dict__.pop(DUAL_CHUNK, None)
        config.rope_parameters = copy.deepcopy(joined(self.rope_parameters, self.layers))
        config.max_position_embeddings = self.max_position_embeddings

    def frequencies(self, seq_len: int) -> tuple[FloatArray, float]:
        """Inverse frequencies, float64 [rotary_dim / 2], and the factor on cosine and sine, for `seq_len` tokens.

        Only for dynamic and longrope do they depend on `seq_len`; they are those of a model that saw nothing longer before.
        """
        return scaled_frequencies(self.rope_parameters, self.rotary_dim, self.max_position_embeddings, seq_len)

    @property
    def has_short_rotation(self) -> bool:
        """Whether prompts of at most `short_length` turn with other frequencies than longer ones, as longrope's two lists do."""
        parameters = self.rope_parameters
        return self.method == "longrope" and list(parameters["short_factor"]) != list(parameters["long_factor"])

    @property
    def short_length(self) -> int:
        """Tokens up to which a prompt is short: the base's window, or with two lists the original length, at which programs switch."""
        return self.original_length if self.has_short_rotation else self.base_window

    def with_short_factors(self, factors: Sequence[float]) -> RopePlan:
        """The plan with another `short_factor` for longrope."""
        return replace(self, rope_parameters=self.rope_parameters | {"short_factor": list(factors)})

    def write_config(self, model_dir: Path) -> None:
        """Rewrite `model_dir`/config.json so that every reader finds this plan; call it after `save_pretrained`."""
        write_published_config(Path(model_dir), self.rope_parameters, self.max_position_embeddings, self.layers)

    def servable_by(self) -> dict[ServableId, str]:
        """Consumer to "" if it computes the same frequencies up to the target, else the reason why not."""
        config = {
            "model_type": self.model_type,
            "rope_parameters": joined(self.rope_parameters, self.layers),
            "max_position_embeddings": self.max_position_embeddings,
        }
        use = rope_use(config, self.target_length)
        return {consumer: why_not(consumer, use) for consumer in SERVABLE}

    def describe(self) -> list[tuple[str, str]]:
        """Rows (what, value) of a table for people."""
        scaling = {key: value for key, value in self.rope_parameters.items() if not isinstance(value, list)}
        return [
            ("method", self.method),
            ("context length", f"{self.base_window} -> {self.target_length} tokens ({self.extension:g}x)"),
            ("why", self.reason),
            ("training", "required" if self.training_required else "recommended"),
            ("rope_parameters", ", ".join(f"{key}={value}" for key, value in sorted(scaling.items()))),
            ("max_position_embeddings", str(self.max_position_embeddings)),
            *((f"read by {name}", f"no: {why}" if why else "yes") for name, why in self.servable_by().items()),
            *(("note", note) for note in (*self.notes, *unusual_factors(self.rope_parameters))),
        ]

    def asked_for(self) -> RopePlan:
        """The plan with its reason: the method was stated."""
        return replace(self, reason=reason_if_asked(self.method, self.extension))

    def in_checkpoint(self) -> RopePlan:
        """The plan with a reason for a stated method that leaves open whether a user or a search stated it."""
        return replace(self, reason=reason_in_checkpoint(self.method, self.extension))

    def chosen_by_search(self, search: str) -> RopePlan:
        """The plan with its reason: a search of factors chose it. `search`: such as `rope_searches/DIGEST`."""
        return replace(self, reason=reason_of_search(self.method, self.extension, search))

    def before_search(self) -> RopePlan:
        """The plan with its reason: it is shown in place of longrope, whose factors are still to be searched."""
        return replace(self, reason=reason_before_search(self.method, self.extension))

    def to_json(self) -> str:
        """Canonical JSON: the same plan gives the same text. `layers` is in it only where there are any."""
        content = {key: value for key, value in asdict(self).items() if key != "layers" or value}
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RopePlan:
        """The plan that `to_json` wrote; UserError for any other text."""
        try:
            data = json.loads(text)
            if set(data) | {"layers"} != {one.name for one in fields(cls)}:
                raise ValueError(f"it has the keys {sorted(data)}")
            return cls(**{**data, "notes": tuple(data["notes"])})
        except (ValueError, TypeError) as error:
            raise UserError(
                f"This is not a RoPE plan ({error}): run the fine-tuning stage again to write a new one."
            ) from error


def plan_rope(
    config: PreTrainedConfig,
    target_length: int,
    method: RopeMethod = "auto",
    *,
    factors: Mapping[str, Sequence[float]] | None = None,
    theta: float | None = None,
    packed_rows: bool = True,
    serving: tuple[str, ...] = (),
    window: int | None = None,
    rope_length: int | None = None,
    two_lists: bool = False,
) -> RopePlan:
    """Choose and check the scaling that extends `config`'s model to `target_length` tokens; `config` is not changed.

    `factors` holds longrope's `short_factor` and `long_factor`, a number for each pair of rotated channels.
    `theta` is the new base frequency for the method of that name.
    `packed_rows` says that training rows hold several documents, each counted from position 0. `serving` names consumers
    (keys of `servable_by`) that must compute what the plan says. `window` states how many tokens the base works up to, where its config
    can be read in two ways. `rope_length` is the length that frequencies are scaled for, if it is not the
    target. `two_lists`: longrope's lists may differ, because training gives each row its own (`ray_jobs.finetune.training.short_windows`).
    Refusals are UserErrors that say what to use instead.
    """
    base = read_base_rope(config, window)
    if target_length <= base.window:
        raise nothing_to_extend(target_length, base.window)
    chosen = auto_method(base, factors, theta) if method == "auto" else method
    one_list = packed_rows and not two_lists
    refuse_impossible(chosen, base, factors, one_list, rope_length or target_length, by_auto=method == "auto")
    if (chosen == "theta") != (theta is not None):
        raise UserError(
            "rope_method theta needs model.rope_theta: give the new base frequency, or choose ntk."
            if theta is None
            else f"model.rope_theta is for theta, and rope_method is {chosen}: remove it, or choose theta."
        )
    if rope_length not in (None, target_length) and chosen in ("dynamic", "linear", "longrope", "theta"):
        raise UserError(
            f"model.rope_length cannot be used with rope_method {chosen}, which is not scaled for a stated length: remove it, or choose "
            "yarn."
        )
    scaled_for = rope_length or target_length
    parameters, maximum = rope_parameters(chosen, base, scaled_for, factors, theta, packed_rows)
    maximum = target_length if maximum == scaled_for else maximum
    extension = target_length / base.window
    training_required = extension > USABLE_UNTRAINED[chosen]
    plan = RopePlan(
        method=chosen,
        factor=scaled_for / base.window if chosen in ("ntk", "theta") else float(parameters.get("factor", extension)),
        original_length=base.original_length,
        base_window=base.window,
        target_length=target_length,
        rope_theta=float(parameters["rope_theta"]),
        rope_parameters=parameters,
        max_position_embeddings=maximum,
        rotary_dim=base.rotary_dim,
        model_type=base.model_type,
        training_required=training_required,
        reason=reason(chosen, method == "auto", base, extension),
        notes=notes(chosen, base, parameters, target_length, scaled_for, packed_rows),
        layers=base.layers,
    )
    _refuse_unless_read_back(plan, config)
    _refuse_unless_servable(plan, serving)
    return plan


def _refuse_unless_read_back(plan: RopePlan, config: PreTrainedConfig) -> None:
    """Publish the plan in memory and load it with the base's own config class, which may not know every method."""
    trial = copy.deepcopy(config)
    try:
        # It warns of a YaRN factor for more than the maximum, which `model.rope_length` asks for.
        with quiet_transformers():
            plan.apply(trial)
            planned = (plan.rope_parameters, plan.max_position_embeddings, plan.layers)
            difference = reading_difference(type(config).from_dict(published_config(trial.to_dict(), *planned)), *planned)
    except Exception as error:  # each config class refuses in its own way
        difference = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
    if difference:
        raise UserError(
            f"{type(config).__name__} does not take rope_method {plan.method} ({difference}): choose another, such as ntk."
        )


def _refuse_unless_servable(plan: RopePlan, serving: tuple[str, ...]) -> None:
    readers = plan.servable_by()
    for consumer in map(current_id, serving):
        if consumer not in readers:
            raise UserError(f"A plan is not judged for {consumer!r}: choose among {', '.join(readers)}.")
        if why := readers[consumer]:
            instead = "ntk" if plan.method == "yarn" else "yarn or ntk"
            if plan.has_short_rotation:
                instead = "long_factor as both lists"
            raise UserError(
                f"{consumer} does not read rope_method {plan.method} as it is trained ({why}): choose {instead} instead."
            )
