"""The proof that a base can be extended: all checks on a small model of its configuration, before any work.

`ropeway plan` prints it, and every run refuses a base that fails, with the exception that its code raised or the difference found.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams, TrainingParams
from tasks.model.quiet import quiet_transformers
from tasks.model.supported import KNOWN_GOOD

if TYPE_CHECKING:
    from tasks.model.rope_plan import RopePlan

SHOWN = {
    "calls": "it runs with S2-Attn",
    "future": "no token sees a later one",
    "documents": "no document sees another in its row",
    "alone": "a packed document comes out as it does alone",
    "own": "groups over the whole row are the model's own attention",
    "loss": "loss and gradients are the model's own",
    "saved": "merged, saved and loaded it is the same",
}
_OF_LAYERS = ("layer_types", "layers_block_type")
_OF_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_proven: dict[str, Proof] = {}  # by what was proven, because every stage of a run asks for the same


@dataclass(frozen=True)
class Proof:
    """The checks that passed, in order, and why the next one failed ("" if none did)."""

    passed: tuple[str, ...]
    failed: str
    reason: str
    num_layers: int
    seconds: float
    passes_positions_on: bool = True  # to its attention layers, as the tensor that the model was given

    @property
    def holds(self) -> bool:
        return not self.failed

    def describe(self) -> str:
        """One line for people."""
        shown = "; ".join(SHOWN[name] for name in self.passed)
        return f"proven on {self.num_layers} small layers of this configuration in {self.seconds:.1f} s: {shown}"


class NotBuilt(Exception):
    """The small model could not be built; the message says why, in one clause."""


def prove(config: Any, training: TrainingParams, row_tokens: int, group_size: int, plan: RopePlan | None = None) -> Proof:
    """Run all checks on `config`, to which `plan` has been applied. NotBuilt if there is no small model of it."""
    import torch

    from ray_jobs.finetune.proof.checks import (
        ATTENTION_CHECKS,
        NO_INTERFACE,
        loss_and_gradients,
        save_and_load,
        wrapped_for_training,
    )
    from ray_jobs.finetune.proof.shrink import GROUP, shrunken
    from ray_jobs.finetune.proof.tiny import PROOF_ATTENTION, Calls, build, groups_of

    started = time.perf_counter()
    state = torch.random.get_rng_state()
    trained = training.model_copy(
        update={
            "lora_dropout": 0.0,
            "base_precision": "full",
            "loss_kernel": "auto",
            "lora_rank": min(4, training.lora_rank),
            "precision": "fp32",
        }
    )
    try:
        small = shrunken(config, row_tokens, group_size)
        model = build(small)
    except Exception as error:  # each configuration and model class raises what it likes
        if PROOF_ATTENTION in str(error):  # a class that chooses among attention functions of its own
            return Proof((), "calls", NO_INTERFACE, config.num_hidden_layers, time.perf_counter() - started)
        raise NotBuilt(_sentence(error)) from error
    passed: list[str] = []
    failed = reason = ""
    try:
        for name in SHOWN:
            failed = name
            with groups_of(model, GROUP), quiet_transformers():
                if name in ATTENTION_CHECKS:
                    reason = ATTENTION_CHECKS[name](model)
                elif name == "loss":
                    reason = loss_and_gradients(wrapped_for_training(copy.deepcopy(model), trained), trained)
                else:
                    reason = save_and_load(model, trained, plan)
            if reason:
                reason += _explained(config, name)
                break
            passed.append(name)
            failed = ""
    except (OSError, MemoryError):  # of the machine, not of the base
        raise
    except Exception as error:  # whatever the model's code raises is the reason
        reason = _sentence(error)
    finally:
        torch.random.set_rng_state(state)
    seconds = time.perf_counter() - started
    return Proof(tuple(passed), failed, reason, small.num_hidden_layers, seconds, bool(Calls.marked))


def prove_base(params: PipelineParams) -> Proof:
    """The proof for a run's base, computed once. UserError if there is no small model of it."""
    from ray_jobs.finetune.training.objective import group_size_at
    from tasks.model.as_served import served_plan
    from tasks.model.extended import extended_config, rope_plan_for

    # Training builds the model with one list for all lengths, and gives rows of short documents their own.
    config, training, plan = extended_config(params.model, as_served=True), params.training, rope_plan_for(params.model)
    group = group_size_at(0, params)
    asked = [config.to_dict(), training.lora_targets, training.train_norms, training.train_embeddings, training.dora, group]
    key = json.dumps([*asked, params.row_tokens], sort_keys=True, default=str)
    if key not in _proven:
        try:
            one_list = served_plan(plan) or plan
            _proven[key] = prove(config, training, params.row_tokens, min(group, params.row_tokens), one_list)
        except NotBuilt as error:
            raise _refusal(config, f"no small model of its configuration can be built to prove it ({error})") from error
    return _proven[key]


def refuse_unproven(params: PipelineParams) -> Proof:
    """The proof; UserError with the reason of the failed check for a base that would be trained wrongly, and for one whose rows cannot
    be cut as `ray.sequence_workers` asks."""
    from tasks.model.base_model import load_config

    proof = prove_base(params)
    if not proof.holds:
        raise _refusal(load_config(params.model), proof.reason)
    if params.ray.sequence_workers > 1 and not proof.passes_positions_on:
        raise UserError(
            f"A base of type {load_config(params.model).model_type!r} does not pass its positions on to its attention layers, so a row "
            "cannot be cut: set ray.sequence_workers to 1."
        )
    return proof


def _refusal(config: Any, why: str) -> UserError:
    return UserError(f"A base of type {config.model_type!r} cannot be extended: {why}; choose another base: {KNOWN_GOOD}.")


def _sentence(error: Exception) -> str:
    """The exception in one clause: its last line where several lines were raised."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return text.rstrip(".")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = (lines[-1] if lines else "").rstrip(".")[:300]
    return f"its code raises {type(error).__name__}" + (f": {said}" if said else "")


def _explained(config: Any, check: str) -> str:
    """What in the configuration may be the cause."""
    if check == "loss":
        names = [name for name in _OF_LOGITS if getattr(config, name, None) not in (None, 1, 1.0)]
        return f" (it has {', '.join(names)})" if names else ""
    kinds = sorted({str(kind) for name in _OF_LAYERS for kind in (getattr(config, name, None) or ())})
    return f" (it has layers of type {', '.join(kinds)})" if kinds else ""
