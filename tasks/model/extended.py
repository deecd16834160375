"""The models that are trained, compared and published: the base, the base with scaled RoPE, and the fine-tuned one."""

from __future__ import annotations

import errno
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data_schemas.addresses import is_remote
from data_schemas.errors import UserError
from data_schemas.mapping_text import parse_json
from data_schemas.params import ModelParams, PipelineParams
from data_schemas.remote import Remote
from data_schemas.rope_search import FACTORS_NAME, RESULT_NAME, RopeSearchResult
from data_schemas.short_factors import read_short_factors
from tasks.model.as_served import served_plan
from tasks.model.base_model import base_fingerprint, load_base, load_config, locate
from tasks.model.optional_imports import load_peft
from tasks.model.rope_plan import RopePlan, plan_rope

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Arm = Literal["base", "scaling_only", "fine_tuned"]
ADAPTER_DIR = "adapter"


def rope_plan_for(model: ModelParams) -> RopePlan:
    """The RoPE plan for these parameters. UserError if the base and the method do not go together.

    It is computed once, and again only when the base's configuration or the factors file has changed.
    """
    return _computed_plan(model, json.dumps(planned_factors(model)), _config_state(model))


def checkpoint_plan(model: ModelParams) -> RopePlan:
    """`rope_plan_for`, as a checkpoint keeps it: one checkpoint serves runs that ask for a method and runs whose search chose it."""
    plan = rope_plan_for(model)
    return plan if model.rope_method == "auto" else plan.in_checkpoint()


@lru_cache(maxsize=32)
def _computed_plan(model: ModelParams, factors_json: str, config_state: tuple[int, int] | None) -> RopePlan:
    """`config_state` is only part of the cache's key."""
    factors = json.loads(factors_json)
    config, theta = load_config(model), planned_theta(model)
    asked = {"factors": factors, "theta": theta, "serving": model.serve_with, "window": model.window}
    # Training refuses two lists where it cannot give each row its own: `ray_jobs.finetune.short_window_rules`.
    return plan_rope(config, model.target_length, model.rope_method, **asked, rope_length=model.rope_length, two_lists=True)


def _config_state(model: ModelParams) -> tuple[int, int] | None:
    """(time of the last change in ns, bytes) of the local file that holds the base's configuration; None for a hub id."""
    file = Path(locate(model)) / (model.gguf_file or "config.json")
    return (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None


def planned_factors(model: ModelParams) -> dict[str, Any] | None:
    """`rope_factors` if the method may take them; otherwise they are for a longrope arm of the evaluation."""
    return rope_factors(model) if may_take_factors(model) else None


def may_take_factors(model: ModelParams) -> bool:
    """Whether the plan's method may take a factors file."""
    return model.rope_method in ("longrope", "auto")


def planned_theta(model: ModelParams) -> float | None:
    """`rope_theta` if the method may take it; otherwise it is for another arm of the evaluation."""
    return model.rope_theta if model.rope_method in ("theta", "auto") else None


def rope_factors(model: ModelParams) -> dict[str, Any] | None:
    """The content of `rope_factors_file`, None if there is none.

    UserError for a file without a JSON object, and for one that was found for another base or length.
    """
    factors = factors_in_file(model)
    if factors is not None:
        _refuse_other_search(model)
    return factors


def factors_in_file(model: ModelParams) -> dict[str, Any] | None:
    """`rope_factors`, whatever base and length they were found for."""
    if not model.rope_factors_file:
        return None
    try:
        text = read_factors_file(model.rope_factors_file).decode("utf-8")
        factors = parse_json(text, f"model.rope_factors_file {model.rope_factors_file}")
    except FileNotFoundError as error:
        raise UserError(
            f"model.rope_factors_file {model.rope_factors_file} cannot be read, because there is no such file: give an existing one, or "
            "leave it out."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"model.rope_factors_file {model.rope_factors_file} cannot be read as JSON: {error}.") from error
    if not isinstance(factors, dict):
        raise UserError(
            f"model.rope_factors_file {model.rope_factors_file} must hold an object with short_factor and long_factor."
        )
    return factors


def _refuse_other_search(model: ModelParams) -> None:
    """UserError for the factors of a search, if that was for another base or length. Other files do not say what they are for."""
    folder, _, name = (model.rope_factors_file or "").rpartition("/")
    if name != FACTORS_NAME:
        return
    try:
        found = RopeSearchResult.model_validate_json(read_factors_file(f"{folder}/{RESULT_NAME}" if folder else RESULT_NAME))
    except (OSError, ValueError):
        return
    if found.target_length != model.target_length:
        raise UserError(
            f"model.rope_factors_file {model.rope_factors_file} was found for {found.target_length} tokens, and model.target_length is "
            f"{model.target_length}: search again (leave the file out), or set that length."
        )
    if found.base not in ("", base_fingerprint(model)):
        raise UserError(
            f"model.rope_factors_file {model.rope_factors_file} was found for another base than {model.base}: search again (leave the "
            "file out), or copy the file elsewhere to use it all the same."
        )


def read_factors_file(address: str) -> bytes:
    """The content of a factors file at a path or URI. OSError if there is none."""
    if not is_remote(address):
        return Path(address).expanduser().read_bytes()
    folder, _, name = address.rpartition("/")
    content = Remote(folder).read(name)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file")
    return content


def base_window(model: ModelParams) -> int:
    """The context length in tokens that the base works up to, by its own configuration."""
    return rope_plan_for(model).base_window


def trained_plan(model: ModelParams, checkpoint: Path | None) -> RopePlan:
    """`rope_plan_for`, with the list for short prompts that was found after training, if the checkpoint's folder has one."""
    plan = rope_plan_for(model)
    found = read_short_factors(checkpoint) if checkpoint else None
    return plan.with_short_factors(found.short_factor) if found else plan


def extended_config(model: ModelParams, *, as_served: bool = False, checkpoint: Path | None = None) -> PretrainedConfig:
    """The base's configuration with the RoPE plan applied; `as_served`: as vLLM serves it at its full window.

    `checkpoint`: folder of the checkpoint whose model it is for, see `trained_plan`.
    """
    config = load_config(model)
    plan = trained_plan(model, checkpoint)
    ((served_plan(plan) or plan) if as_served else plan).apply(config)
    return config


def load_arm(
    params: PipelineParams, arm: Arm, checkpoint: Path | None = None, *, as_served: bool = False, as_trained: bool = False
) -> PreTrainedModel:
    """One of the compared models, float32, full attention, evaluation mode; `checkpoint` is a checkpoint artifact's folder.

    Scaling only has RoPE scaled for the target length, whatever `model.rope_length` says: that is what people get without training.
    `as_served` is for the models with scaled RoPE: see `extended_config`. `as_trained` is for the fine-tuned model: its adapter is
    merged into what `training.base_precision` leaves of the base's weights, as they were held in training, and not into the original
    ones. Inputs, which fp8 rounds in training, are not rounded.
    """
    if arm == "base":
        return load_base(params.model).eval()
    scaled = params.model if arm == "fine_tuned" else params.model.model_copy(update={"rope_length": None})
    trained = checkpoint if arm == "fine_tuned" else None
    model = load_base(scaled, config=extended_config(scaled, as_served=as_served, checkpoint=trained))
    if as_trained and params.training.base_precision != "full":
        from tasks.model.quantised_linear import round_trip

        round_trip(model, params.training.base_precision)
    if arm == "fine_tuned":
        if checkpoint is None:
            raise ValueError("the fine_tuned arm needs a checkpoint")
        model = merge_adapter(model, checkpoint / ADAPTER_DIR)
    return model.eval()


def merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """`model` with LoRA folded into its weights and the trained norms and embeddings in place; tied weights stay tied."""
    load_peft()
    from peft import PeftModel

    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.tie_weights()
    return merged
