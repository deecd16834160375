"""What casting the weights to the published type costs: the logits of the merged model in float32, before and after.

The report's figures are measured on the float32 model, users get the rounded one. Both compute in float32 here, so only the rounding
of the weights is measured. Rounding to bfloat16 changes each weight by up to 0.4 %.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError

if TYPE_CHECKING:
    import torch

# Shares of the largest absolute logit. Beyond them, weights have overflowed or lost what was trained.
LARGEST_ALLOWED, MEAN_ALLOWED = 0.1, 0.02


@dataclass(frozen=True)
class Rounding:
    """Absolute differences of logits over `num_tokens` tokens; `scale` is the largest absolute logit before rounding."""

    dtype: str
    largest: float
    mean: float
    scale: float
    num_tokens: int

    def describe(self) -> str:
        return (
            f"{self.dtype} weights change logits by at most {self.largest:.2g}, {self.mean:.2g} on average, where the largest is "
            f"{self.scale:.3g} (over {self.num_tokens} tokens)"
        )

    def to_json(self) -> dict[str, Any]:
        """Two digits, which are the same on machines that add in another order."""
        return {name: float(f"{value:.2g}") if isinstance(value, float) else value for name, value in asdict(self).items()}


def measure_rounding(before: torch.Tensor, after: torch.Tensor, dtype: str) -> Rounding:
    """`before` and `after`: logits float32 [..., tokens, ids] of the same tokens."""
    difference = (after.double() - before.double()).abs()
    num_tokens = before[..., 0].numel()
    return Rounding(dtype, float(difference.max()), float(difference.mean()), float(before.abs().max()), num_tokens)


def refuse_too_coarse(rounding: Rounding) -> None:
    """UserError if rounding changes the model more than the bounds above, or makes it not finite."""
    within = rounding.largest <= LARGEST_ALLOWED * rounding.scale and rounding.mean <= MEAN_ALLOWED * rounding.scale
    if not within:  # a comparison with NaN is false
        raise UserError(
            f"The release was not published: {rounding.describe()}; allowed are {LARGEST_ALLOWED:.0%} of the largest logit, and "
            f"{MEAN_ALLOWED:.0%} on average, so set publish.dtype to float32."
        )
