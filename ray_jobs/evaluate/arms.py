"""The compared models (arms), and how each is loaded where it is measured.

base  scaling_only  fine_tuned      as evaluation.arms names them
fine_tuned_quantised                the adapter on the base as it was held in training, where training.base_precision is not full
base_METHOD                         the base, not trained, with a method of evaluation.rope_methods
ARM_as_served                       scaling_only or fine_tuned as vLLM serves prompts at its full window
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_schemas.absolute_paths import absolute_paths
from data_schemas.addresses import is_remote
from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from data_schemas.samples import AS_SERVED, QUANTISED_ARM, is_served_arm, served_arm
from data_schemas.storage import Storage
from tasks.model.base_model import load_tokenizer

if TYPE_CHECKING:
    from tasks.model.rope_plan import RopePlan

_METHOD_ARM = "base_"


@dataclass(frozen=True)
class Arms:
    """Names of the measured arms, in the order of the report, and of those left out, each with the reason.

    `as_served_note`: why no arm is measured as it is served; empty where one is, or none was asked for.
    """

    names: tuple[str, ...]
    left_out: dict[str, str]
    as_served_note: str = ""


def choose_arms(params: PipelineParams, has_checkpoint: bool) -> Arms:
    """The arms of these parameters; a RoPE method that does not apply to this base is left out.

    Raises:
        UserError: no arm is left, or model.rope_method itself does not apply.
    """
    from tasks.model.extended import rope_plan_for

    evaluation = params.evaluation
    names: list[str] = [arm for arm in dict.fromkeys(evaluation.arms) if has_checkpoint or arm != "fine_tuned"]
    left_out: dict[str, str] = {}
    if "fine_tuned" in evaluation.arms and not has_checkpoint:
        left_out["fine_tuned"] = "there is no checkpoint"
    plan = rope_plan_for(params.model)
    planned = plan.method
    for method in dict.fromkeys(evaluation.rope_methods):
        arm = _METHOD_ARM + method
        try:
            found = rope_plan_for(_with_method(params, arm).model).method
        except UserError as error:
            left_out[arm] = str(error)
            continue
        if found == planned and "scaling_only" in names:
            left_out[arm] = "scaling_only is the same model"
        elif found != method and _METHOD_ARM + found in (*names, *(_METHOD_ARM + m for m in evaluation.rope_methods)):
            left_out[arm] = f"{_METHOD_ARM}{found} is the same model"  # what auto chose
        else:
            names.append(arm)
    if not names:
        raise UserError("evaluation.arms names only fine_tuned and there is no checkpoint: finetune first or add base.")
    if params.training.base_precision != "full" and "fine_tuned" in names:
        names.append(QUANTISED_ARM)
    served, note = served_arms(plan, names) if evaluation.as_served else ((), "")
    return Arms((*names, *served), left_out, note)


def served_arms(plan: RopePlan, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The arms to measure as they are served, beside `names`; or none, and why."""
    from tasks.model.as_served import why_same

    if why := why_same(plan):
        return (), why
    return tuple(served_arm(arm) for arm in ("scaling_only", "fine_tuned") if arm in names), ""


def _with_method(params: PipelineParams, arm: str) -> PipelineParams:
    """`params` with the RoPE method that `arm` is named after. It is only compared, so no server has to support it."""
    changes: dict[str, Any] = {"rope_method": arm.removeprefix(_METHOD_ARM), "rope_length": None, "serve_with": ()}
    return params.model_copy(update={"model": params.model.model_copy(update=changes)})


@dataclass(frozen=True)
class ArmModel:
    """How to load any arm: small, picklable, and the same on every machine.

    `params_json` holds PipelineParams with absolute paths. `storage` is the storage root. `checkpoint` is the location of the
    checkpoint artifact, None if nothing was trained.
    """

    params_json: str
    storage: str
    checkpoint: str | None

    @classmethod
    def of(cls, params: PipelineParams, storage: Storage, checkpoint: str | None) -> ArmModel:
        """`checkpoint`: location of the checkpoint artifact."""
        root = storage.remote.uri if storage.remote else str(storage.root)
        return cls(absolute_paths(params).model_dump_json(), root, checkpoint)

    @property
    def params(self) -> PipelineParams:
        return PipelineParams.model_validate_json(self.params_json)

    def tokenizer(self) -> Any:
        return _tokenizer(self)

    def load(self, arm: str) -> Any:
        """The arm on its device, in evaluation mode. UserError if ray.use_gpu is set and no GPU is visible."""
        import torch

        from tasks.model.extended import load_arm

        params = self.params
        if params.ray.use_gpu and not torch.cuda.is_available():
            raise UserError(
                "ray.use_gpu is set, but this machine has no visible GPU: evaluate on a machine with one, or set it to false."
            )
        if arm.startswith(_METHOD_ARM):
            model: Any = load_arm(_with_method(params, arm), "scaling_only")
        elif arm == QUANTISED_ARM:
            model = load_arm(params, "fine_tuned", self._checkpoint_folder(), as_trained=True)
        else:
            usual: Any = arm.removesuffix(AS_SERVED)
            checkpoint = self._checkpoint_folder() if usual == "fine_tuned" else None
            model = load_arm(params, usual, checkpoint, as_served=is_served_arm(arm))
        return model.to("cuda" if params.ray.use_gpu else "cpu").eval()

    def _checkpoint_folder(self) -> Path:
        assert self.checkpoint is not None, "choose_arms names fine_tuned only where there is a checkpoint"
        if not is_remote(self.checkpoint):
            return Path(self.checkpoint)
        kind, digest = self.checkpoint.rsplit("/", 2)[-2:]
        artifact = Storage(self.storage).find(kind, digest)
        if artifact is None:
            raise UserError(f"The checkpoint {self.checkpoint} no longer exists: run again to make it again.")
        return artifact.path


@lru_cache(maxsize=1)
def _tokenizer(models: ArmModel) -> Any:
    return load_tokenizer(models.params.model)


_in_memory: dict[tuple[ArmModel, str], Any] = {}


def loaded_model(models: ArmModel, arm: str) -> Any:
    """The arm's model, kept in this process until another is asked for, so that only one is in memory."""
    if (models, arm) not in _in_memory:
        forget_model()
        _in_memory[models, arm] = models.load(arm)
    return _in_memory[models, arm]


def forget_model() -> None:
    """Free the memory of the model kept in this process."""
    import torch

    if _in_memory:
        _in_memory.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
