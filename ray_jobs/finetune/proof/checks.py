"""What must hold for a base to be extended. Each check returns "" or one clause that says what is wrong.

The row holds three documents: longer than two groups, just longer than half a group, and longer than one group.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from data_schemas.params import TrainingParams
from ray_jobs.finetune.proof.shrink import GROUP, ROW
from ray_jobs.finetune.proof.tiny import OWN_ATTENTION, Calls, attention, groups_of, logits, make_visible, tokens
from ray_jobs.finetune.proof.tiny import positions as positions_of
from tasks.model.rope_plan import RopePlan

NO_INTERFACE = "its layers do not call transformers' attention interface"
LENGTHS = (25, 7, 16)
_FAR = 1e-4  # of the largest logit: far above rounding in float32, far below what one other token does
_FAR_GRADIENT = 1e-3


def bounds() -> Iterator[tuple[int, int]]:
    """First token and end of each document in the row."""
    start = 0
    for length in LENGTHS:
        yield start, start + length
        start += length


def calls_attention(model: Any) -> str:
    """Whether its layers call transformers' attention interface at all."""
    with groups_of(model, GROUP):
        found = logits(model, tokens(LENGTHS), LENGTHS)
    if not Calls.layers:
        return NO_INTERFACE
    return "" if found.isfinite().all() else "its logits are not finite"


def no_future(model: Any) -> str:
    """Whether a token moves when later tokens of its document change."""
    ids, other = tokens(LENGTHS), tokens(LENGTHS, seed=1)
    plain = logits(model, ids, LENGTHS)
    for cut in (1, GROUP // 2, GROUP, GROUP + 1, 2 * GROUP, LENGTHS[0] + 1, LENGTHS[0] + LENGTHS[1] + GROUP + 2):
        changed = torch.cat([ids[:, :cut], other[:, cut:]], dim=1)
        moved = _distance(logits(model, changed, LENGTHS)[:cut], plain[:cut])
        if moved > _FAR:
            return f"a token changes by {moved:.3g} of the largest logit when tokens after it change"
    return ""


def no_other_document(model: Any) -> str:
    """Whether a document moves when the others in its row change."""
    ids, other = tokens(LENGTHS), tokens(LENGTHS, seed=1)
    plain = logits(model, ids, LENGTHS)
    for number, (start, end) in enumerate(bounds()):
        changed = other.clone()
        changed[:, start:end] = ids[:, start:end]
        moved = _distance(logits(model, changed, LENGTHS)[start:end], plain[start:end])
        if moved > _FAR:
            return f"document {number + 1} of a packed row changes by {moved:.3g} of the largest logit when the others in it change"
    return ""


def packed_as_alone(model: Any) -> str:
    """Whether a document comes out of a packed row as it does alone."""
    ids = tokens(LENGTHS)
    packed = logits(model, ids, LENGTHS)
    for start, end in bounds():
        alone = logits(model, ids[:, start:end], [end - start])
        if (moved := _distance(packed[start:end], alone)) > _FAR:
            return f"a document of {end - start} tokens in a packed row differs by {moved:.3g} of the largest logit from the same one alone"
    return ""


def own_attention(model: Any) -> str:
    """Whether groups over the whole row, and the attention of evaluations, give what the model's own attention gives."""
    from tasks.model.attention_scores import register_full_attention

    ids = tokens(LENGTHS)
    with groups_of(model, 2 * ROW):
        packed = logits(model, ids, LENGTHS)
    evaluated = register_full_attention()
    for start, end in bounds():
        one = ids[:, start:end]
        with attention(model, OWN_ATTENTION):
            own = logits(model, one, [end - start])
        with attention(model, evaluated):
            in_evaluation = logits(model, one, [end - start])
        for name, found in (("with groups over the whole row", packed[start:end]), ("in evaluation", in_evaluation)):
            if (moved := _distance(found, own)) > _FAR:
                return f"{name}, logits differ by {moved:.3g} of the largest from those of the model's own attention"
    return ""


def loss_and_gradients(wrapped: Any, training: TrainingParams) -> str:
    """Whether the loss and the gradients of the trained weights are those of the model's own loss, one document at a time."""
    from ray_jobs.finetune.training.batches import MicroBatch
    from ray_jobs.finetune.training.lora import trainable
    from ray_jobs.finetune.training.objective import summed_loss

    ids, base = tokens(LENGTHS), wrapped.get_base_model()
    weights = trainable(wrapped)
    with groups_of(wrapped, 2 * ROW):
        ours = summed_loss(wrapped, MicroBatch(ids, positions_of(LENGTHS)), training.loss_chunk_tokens, training.loss_kernel)
        ours.backward()
    gradients = {name: weight.grad for name, weight in weights}
    wrapped.zero_grad(set_to_none=True)
    theirs = torch.zeros(())
    with attention(base, OWN_ATTENTION):
        for start, end in bounds():
            one = ids[:, start:end]
            loss = base(input_ids=one, labels=one, use_cache=False).loss * (end - start - 1)
            loss.backward()
            theirs = theirs + loss.detach()
    if abs(ours.item() - theirs.item()) > _FAR * abs(theirs.item()):
        return f"its loss is {ours.item():.6g} where the model's own is {theirs.item():.6g}"
    largest = max((w.grad.abs().max().item() for _, w in weights if w.grad is not None), default=0.0)
    for name, weight in weights:
        one_gradient, own = (torch.zeros_like(weight) if g is None else g for g in (gradients[name], weight.grad))
        allowed = _FAR_GRADIENT * own.abs().max().item() + 1e-5 * largest
        if (moved := (one_gradient - own).abs().max().item()) > allowed:
            return f"the gradient of {name.removeprefix('base_model.model.')} differs by {moved:.3g} from the model's own"
    return ""


def save_and_load(base: Any, training: TrainingParams, plan: RopePlan | None) -> str:
    """Whether the trained, merged and reloaded model computes what was trained. The last check: it changes the model."""
    from transformers import AutoModelForCausalLM

    from ray_jobs.finetune.training.lora import add_trainable_weights
    from tasks.model.extended import merge_adapter

    ids = tokens([ROW])

    def read(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=OWN_ATTENTION)

    with tempfile.TemporaryDirectory(prefix="ropeway-proof-") as name:
        folder = Path(name)
        base.save_pretrained(folder / "base")
        if plan is not None:
            plan.write_config(folder / "base")
        wrapped = add_trainable_weights(base, training)
        trained = [p for p in wrapped.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.data += 0.05 * torch.randn_like(parameter)
        with attention(base, OWN_ATTENTION):
            meant = logits(wrapped.eval(), ids, [ROW])
        wrapped.save_pretrained(str(folder / "adapter"))
        merged = merge_adapter(read(folder / "base"), folder / "adapter").eval()
        if (moved := _distance(logits(merged, ids, [ROW]), meant)) > _FAR:
            return f"the merged model's logits differ by {moved:.3g} of the largest from the trained one's"
        merged.save_pretrained(folder / "merged")
        if plan is not None:
            plan.write_config(folder / "merged")
        again = logits(read(folder / "merged").eval(), ids, [ROW])
        if (moved := _distance(again, meant)) > _FAR:
            return f"the model that is saved and loaded again differs by {moved:.3g} of the largest logit from the trained one"
    return ""


def wrapped_for_training(base: Any, training: TrainingParams) -> Any:
    """`base` with what is trained, LoRA's second matrix not zero, so that every trained weight has a gradient."""
    from ray_jobs.finetune.training.lora import add_trainable_weights, trainable

    wrapped = add_trainable_weights(base, training).train()
    for name, weight in trainable(wrapped):
        if "lora_B" in name:
            make_visible(torch.nn.ParameterList([weight]))
    return wrapped


def _distance(found: torch.Tensor, meant: torch.Tensor) -> float:
    """Largest difference, as a share of the largest logit."""
    return ((found - meant).abs().max() / meant.abs().max().clamp_min(1e-30)).item()


Check = Callable[[Any], str]
ATTENTION_CHECKS: dict[str, Check] = {
    "calls": calls_attention,
    "future": no_future,
    "documents": no_other_document,
    "alone": packed_as_alone,
    "own": own_attention,
}
