"""A base that stays in memory while its rotary frequencies change, and what a sample scores under them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.errors import UserError
from data_schemas.params import ModelParams
from tasks.model.rotary_modules import rotary_modules

if TYPE_CHECKING:
    from tasks.rope_search.samples import SearchSample


@dataclass(frozen=True)
class Rotation:
    """Inverse frequencies in radians a token, [pairs], and the factor on cosine and sine."""

    inv_freq: tuple[float, ...]
    attention: float


class SwappingModel:
    """The base in evaluation mode with full attention. `swap` changes its frequencies; `score` measures a sample.

    With `adapter`, the folder of a trained adapter, it is the base with that merged into it.
    """

    def __init__(self, model: ModelParams, *, use_gpu: bool, adapter: Path | None = None) -> None:
        import torch

        from tasks.model.base_model import load_base, load_config
        from tasks.model.extended import merge_adapter
        from tasks.model.rope_config import read_base_rope

        if use_gpu and not torch.cuda.is_available():
            raise UserError(
                "ray.use_gpu is set, but this machine has no visible GPU: search on a machine with one, or set it to false."
            )
        config = load_config(model)
        base = read_base_rope(config, model.window)
        if base.layers:
            raise UserError(
                f"A base of type {config.model_type!r} has RoPE by layer type, which the search does not swap: choose rope_method yarn."
            )
        # Frequencies that depend on the length would be computed anew in every forward pass, over the swapped ones.
        plain: dict[str, Any] = {"rope_type": "default", "rope_theta": base.theta}
        if "partial_rotary_factor" in base.parameters:
            plain["partial_rotary_factor"] = base.parameters["partial_rotary_factor"]
        config.rope_parameters = plain
        config.__dict__.pop("original_max_position_embeddings", None)
        config.max_position_embeddings = max(model.target_length, base.max_position_embeddings)
        self._device = "cuda" if use_gpu else "cpu"
        loaded: Any = load_base(model, config=config)
        if adapter is not None:
            loaded = merge_adapter(loaded, adapter)
        self._model: Any = loaded.to(self._device).eval()
        self.num_pairs = base.rotary_dim // 2
        self._rotary = rotary_modules(self._model, self.num_pairs)

    def swap(self, rotation: Rotation) -> None:
        """Compute all later samples with these frequencies."""
        import torch

        for module in self._rotary:
            fresh = torch.tensor(rotation.inv_freq, dtype=torch.float64).to(module.inv_freq)
            module.inv_freq.copy_(fresh)
            module.attention_scaling = rotation.attention

    def score(self, sample: SearchSample) -> tuple[float, float]:
        """Mean nats a token of the answers, 0 where there are none, and of the scored text.

        The logits are computed only where they are scored.
        """
        import torch

        positions = np.concatenate([sample.answers, sample.text])
        ids = torch.from_numpy(sample.tokens.astype(np.int64)).to(self._device)
        at = torch.from_numpy(positions).to(self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids[None], use_cache=False, logits_to_keep=at - 1).logits[0].float()
            nll = torch.nn.functional.cross_entropy(logits, ids[at], reduction="none").double().cpu().numpy()
        answers, text = np.split(nll, [len(sample.answers)])
        return float(answers.mean()) if len(answers) else 0.0, float(text.mean())
