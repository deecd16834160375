"""MLPs computed on a few thousand tokens at a time, so that their memory does not grow with the row.

A gated MLP keeps three values of F channels for each token, more than all else inside a layer. A tile's are computed again in the backward
pass (ALST, Bekman et al. 2025, arXiv 2506.13996, section 3.1). Autograd adds up the gradients of the tiles, so those of LoRA weights,
norms and biases inside the MLP are complete.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from data_schemas.errors import UserError
from ray_jobs.finetune.training.fast_layers import layers_of


def tile_mlps(base: torch.nn.Module, tile_tokens: int) -> None:
    """Make the `mlp` of each decoder layer compute `tile_tokens` tokens at a time while it trains.

    UserError for a model whose layers have no such module, and later for one that returns more than hidden states.
    """
    for layer in layers_of(base):
        mlp = getattr(layer, "mlp", None)
        if not isinstance(mlp, torch.nn.Module):
            raise UserError(
                f"training.mlp_tile_tokens needs layers with an mlp, and {type(layer).__name__} of {type(base).__name__} has none: "
                "leave it out."
            )
        mlp.forward = partial(_tiled, mlp.forward, mlp, tile_tokens)  # type: ignore[method-assign]


def _tiled(forward: Any, mlp: torch.nn.Module, tile_tokens: int, hidden_BLE: torch.Tensor) -> torch.Tensor:
    if hidden_BLE.shape[1] <= tile_tokens or not torch.is_grad_enabled():
        tiles = [forward(tile) for tile in hidden_BLE.split(tile_tokens, dim=1)]
    else:
        tiles = [checkpoint(forward, tile, use_reentrant=False) for tile in hidden_BLE.split(tile_tokens, dim=1)]
    if not isinstance(tiles[0], torch.Tensor):
        raise UserError(
            f"training.mlp_tile_tokens cannot be used with {type(mlp).__name__}, which returns more than one tensor: leave it out."
        )
    return tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=1)
