"""Logits of a model at fixed tokens, recorded before saving and compared after reloading.

Two probes: one at neighbouring positions, one at positions spread over the whole target length. Rotary attention depends on
distances only, so the spread probe shows a wrong frequency beyond the base's window.

A slice of the logits and each position's log-sum-exp over the whole vocabulary are kept. The second shows a changed row of the
output head, and the file stays small for large vocabularies.

`tasks.publish.serving.next_tokens` records what other programs must reproduce.

    N probes, L positions, K token ids sampled from the vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.model.rope_layers import of_full_layers
from tasks.model.rotary_modules import forget_lengths
from tasks.publish.portable import write_json
from tasks.publish.serving import next_tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FOLDER = "verification"
_LENGTH = 64
_SAMPLED_IDS = 512
# Covers float32 sums in another order on another machine; one bfloat16 rounding of the weights changes far more.
RELATIVE_TOLERANCE = 2e-4


@dataclass(frozen=True)
class Probe:
    """Inputs of one forward pass: two lists of equal length."""

    token_ids: list[int]
    position_ids: list[int]


def make_probes(vocab_size: int, target_length: int) -> list[Probe]:
    """The neighbouring and the spread probe; the spread one ends at position `target_length` - 1."""
    length = min(_LENGTH, target_length)
    tokens = [(7919 * i + 13) % vocab_size for i in range(length)]
    spread = [i * (target_length - 1) // (length - 1) for i in range(length)]
    return [Probe(tokens, list(range(length))), Probe(tokens, spread)]


def probe_logits(model: PreTrainedModel, probes: list[Probe]) -> dict[str, torch.Tensor]:
    """`logits` [N, L, K] and `logsumexp` [N, L], float32, of a model that computes in float32."""
    import torch

    sampled_ids = torch.arange(0, model.config.vocab_size, max(1, model.config.vocab_size // _SAMPLED_IDS))
    logits, sums = [], []
    with torch.inference_mode():
        for probe in probes:
            forget_lengths(model)
            tokens = torch.tensor([probe.token_ids])
            # A full mask tells transformers that positions which jump do not start a new packed sequence.
            output = model(
                input_ids=tokens,
                position_ids=torch.tensor([probe.position_ids]),
                attention_mask=torch.ones_like(tokens),
                use_cache=False,
            )
            logits_LV = output.logits[0].float()
            logits.append(logits_LV[:, sampled_ids])
            sums.append(logits_LV.logsumexp(-1))
    return {"logits": torch.stack(logits).contiguous(), "logsumexp": torch.stack(sums).contiguous()}


def record(directory: Path, model: PreTrainedModel, target_length: int, window: int | None = None) -> None:
    """Write `verification/probes.json`, `logits.safetensors` and `next_tokens.json` below `directory`.

    `window` is the base's window in tokens; without it, the config's original length, else a quarter of the target.
    """
    from safetensors.torch import save_file

    folder = directory / FOLDER
    folder.mkdir()
    probes = make_probes(model.config.vocab_size, target_length)
    content = {"probes": [vars(probe) for probe in probes], "relative_tolerance": RELATIVE_TOLERANCE}
    write_json(folder / "probes.json", content)
    # Beside the model's own weights, a server that globs for *.safetensors would load this file as weights.
    save_file(probe_logits(model, probes), folder / "logits.safetensors")
    next_tokens.record(directory, model, window or _stated_window(model, target_length), target_length)


def _stated_window(model: PreTrainedModel, target_length: int) -> int:
    scaling = of_full_layers(getattr(model.config, "rope_parameters", None))
    stated = int(scaling.get("original_max_position_embeddings") or model.config.max_position_embeddings)
    return stated if stated < target_length else max(1, target_length // 4)


def largest_difference(directory: Path, model: PreTrainedModel) -> tuple[float, float]:
    """The largest absolute difference between recorded and present logits, and the largest allowed."""
    import json

    from safetensors.torch import load_file

    content = json.loads((directory / FOLDER / "probes.json").read_text(encoding="utf-8"))
    recorded = load_file(directory / FOLDER / "logits.safetensors")
    present = probe_logits(model, [Probe(**probe) for probe in content["probes"]])
    differences = [float((recorded[name] - present[name]).abs().max()) for name in ("logits", "logsumexp")]
    scale = max(1.0, float(recorded["logits"].abs().max()))
    # A comparison with NaN is false, so a NaN anywhere must not become a small maximum.
    worst = max(differences) if all(d == d for d in differences) else float("inf")
    return worst, min(content["relative_tolerance"], RELATIVE_TOLERANCE) * scale
