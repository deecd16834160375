"""The floating-point operations that a step needs and that the device could do: their ratio is MFU.

Only operations that the mathematics needs count, not recomputed activations (Chowdhery et al. 2022, arXiv 2204.02311, appendix B):

matrix products  2 N a token forward, 2 N backward through the activations, 2 N_trained for gradients of weights. With LoRA the
                 last term is small, so a step needs 4 N + 2 N_trained and not 6 N.
experts          a matrix that is there once for each expert counts as often as a token uses it: k of its n copies.
attention        12 D a layer, head and pair of query and key: 4 D forward (scores, mixing), 8 D backward, over the pairs
                 inside causal segments. A layer with a sliding window has the pairs inside its window, unless it is in groups, which
                 are no longer; and a layer that does not attend has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data_schemas.errors import UserError
from ray_jobs.finetune.grouped_layers import attention_windows

# Dense bfloat16 FLOP/s from the makers' data sheets; the first entry whose words are in the device's name counts.
_PEAK_FLOPS = (
    ("B200", 2250e12),
    ("GH200", 989e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("L4", 121e12),
    ("RTX 4090", 165e12),
    ("MI300X", 1307e12),
)
_EXPERTS_A_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_k", "top_k_experts")


@dataclass(frozen=True)
class ModelCost:
    """The sizes that decide a model's operations; weights are counted in elements.

    `windows`: of each layer that attends, the tokens of its sliding window, or None if it sees the whole document. Without it, all
    `layers` do.
    """

    matrix_weights: int
    trained_matrix_weights: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    windows: tuple[int | None, ...] | None = None

    def step_flops(
        self, lengths: np.ndarray, group_size: int, num_full_layers: float = 0, in_full: np.ndarray | None = None
    ) -> float:
        """Operations of one step on sequences of `lengths` int [num_sequences] with S2-Attn in groups of `group_size` tokens.

        `num_full_layers` layers attend in full, or as many heads as cost the same, and in all layers the sequences with True in
        `in_full` [num_sequences]. A layer in full costs the mean of all that can be in groups: which of them it is, is not known here.
        """
        lengths = np.asarray(lengths)
        whole = np.zeros(len(lengths), bool) if in_full is None else np.asarray(in_full, bool)
        grouped = lengths[~whole]
        split = (self.kv_heads + 1) // 2 * (self.heads // self.kv_heads) if self.kv_heads > 1 else (self.heads + 1) // 2
        sparse = split * segment_pairs(grouped, group_size, 0)
        sparse += (self.heads - split) * segment_pairs(grouped, group_size, group_size // 2)
        num_open, in_windows = self._windowed(lengths, group_size)
        num_full = min(
            num_full_layers, num_open
        )  # with groups longer than a row, layers that were chosen may have shorter windows
        pairs = num_full / max(1, num_open) * self._in_full(grouped, group_size) + (num_open - num_full) * sparse
        pairs += self._in_full(lengths[whole], group_size) + in_windows
        matrices = (4 * self.matrix_weights + 2 * self.trained_matrix_weights) * float(np.sum(lengths))
        return matrices + 12.0 * self.head_dim * pairs

    def forward_flops(self, lengths: np.ndarray | Sequence[int]) -> float:
        """Operations of a forward pass alone on sequences of `lengths` int [num_sequences], with full attention.

        The output layer counts for every token.
        """
        lengths = np.asarray(lengths)
        longest = int(lengths.max(initial=1))
        num_open, in_windows = self._windowed(lengths, longest)
        pairs = num_open * self.heads * segment_pairs(lengths, longest, 0) + in_windows
        return 2.0 * self.matrix_weights * float(np.sum(lengths)) + 4.0 * self.head_dim * pairs

    def _windowed(self, lengths: np.ndarray, group_size: int) -> tuple[int, float]:
        """How many layers attend further than a window shorter than a group, and the pairs of all heads of the layers with one."""
        windows = self._all_windows
        short = [window for window in windows if window is not None and window < group_size]
        return len(windows) - len(short), self.heads * sum(window_pairs(lengths, window) for window in short)

    def _in_full(self, lengths: np.ndarray, group_size: int) -> float:
        """The pairs of all heads of the layers that can be in groups, all in full: those inside the window where a layer has one."""
        longest = int(lengths.max(initial=1))
        reach = [
            longest if window is None else window for window in self._all_windows if window is None or window >= group_size
        ]
        return self.heads * sum(count * window_pairs(lengths, window) for window, count in Counter(reach).items())

    @property
    def _all_windows(self) -> tuple[int | None, ...]:
        return (None,) * self.layers if self.windows is None else self.windows


def segment_pairs(lengths: np.ndarray, group_size: int, first: int) -> float:
    """Causal pairs of query and key in segments of `group_size`; a sequence's first segment has `first` tokens if that is not 0."""
    lengths = np.asarray(lengths, np.float64)
    head = np.minimum(lengths, first)
    groups, tail = np.divmod(lengths - head, group_size)
    return float(sum(np.sum(count * (n * (n + 1) / 2)) for count, n in ((1, head), (groups, float(group_size)), (1, tail))))


def window_pairs(lengths: np.ndarray, window: int) -> float:
    """Causal pairs of query and key where each token sees the last `window` tokens, itself included."""
    lengths = np.asarray(lengths, np.float64)
    head = np.minimum(lengths, window)
    return float(np.sum(head * (head + 1) / 2 + (lengths - head) * window))


def cost_of(model: torch.nn.Module, config: Any) -> ModelCost:
    """The cost of a peft model. UserError for one with experts whose configuration does not say how many a token uses."""
    updates_of_experts = {id(inner) for module in model.modules() if is_by_tensor(module) for inner in module.modules()}
    matrices = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("original_module") and id(module) not in updates_of_experts
    ]
    sizes = [module.in_features * module.out_features for module in matrices]  # a quantised layer's weight is not held as such
    trained = [any(n == "weight" and p.requires_grad for n, p in module.named_parameters(recurse=False)) for module in matrices]
    of_experts = expert_tensors(model)
    active = (
        round(float(np.mean(_experts_of_layers(config))) * sum(t.shape[1:].numel() for t in of_experts)) if of_experts else 0
    )
    heads = int(config.num_attention_heads)
    return ModelCost(
        matrix_weights=sum(sizes) + active,
        trained_matrix_weights=sum(size for size, is_trained in zip(sizes, trained, strict=True) if is_trained),
        layers=int(config.num_hidden_layers),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        windows=tuple(attention_windows(model, int(config.num_hidden_layers)).values()),
    )


def expert_tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    """The weights [experts, ...] that hold one matrix for each expert of a layer."""
    return [p for name, p in model.named_parameters() if p.dim() == 3 and "experts" in name.split(".")]


def experts_a_token(config: Any) -> int:
    """How many experts of a layer compute each token, of the layer with the most. UserError if the configuration does not say it."""
    return max(_experts_of_layers(config))


def _experts_of_layers(config: Any) -> list[int]:
    """One number for all layers, or one for each, as the configuration says it."""
    found = next((count for name in _EXPERTS_A_TOKEN if (count := getattr(config, name, None))), None)
    if found is None:
        raise UserError(
            f"The cost of {config.model_type} cannot be predicted, because its config does not say how many experts a token uses: choose "
            "another base."
        )
    return [int(count) for count in found] if isinstance(found, (list, tuple)) else [int(found)]


def is_by_tensor(module: torch.nn.Module) -> bool:
    """Whether peft updates a tensor of this module, such as those of experts, and not a linear layer."""
    return type(module).__name__ == "ParamWrapper"


def peak_flops(device: torch.device, stated_tflops: float | None, precision: str) -> float | None:
    """FLOP/s of one device: as stated, else by its name for bfloat16; None if unknown."""
    if stated_tflops is not None:
        return stated_tflops * 1e12
    if device.type != "cuda" or precision != "bf16":
        return None
    return known_peak(torch.cuda.get_device_name(device))


def known_peak(device_name: str) -> float | None:
    """FLOP/s in dense bfloat16 by the device's name, such as "NVIDIA H100 80GB HBM3"; None if it is not listed."""
    return next((flops for known, flops in _PEAK_FLOPS if re.search(rf"\b{known}\b", device_name)), None)
