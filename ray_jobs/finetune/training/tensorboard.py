"""The run as TensorBoard events: `tensorboard --logdir FOLDER` shows it while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# metric -> chart
CHARTS = {
    "loss": "loss/training",
    "weighted_loss": "loss/training_weighted",
    "validation_loss": "loss/held_out_full_attention",
    "s2_validation_loss": "loss/held_out_s2_attention",
    "learning_rate": "optimizer/learning_rate",
    "grad_norm": "optimizer/gradient_norm",
    "tokens_per_s": "speed/tokens_per_second",
    "mfu": "speed/model_flops_utilisation",
    "peak_memory_mb": "memory/peak_megabytes",
}


class TensorBoardEvents:
    """Writes event files into `folder`. Events that a killed run wrote after `first_step` are marked as purged."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboardX import SummaryWriter  # a dependency of Ray Train; TensorBoard itself is only needed for viewing

        self._writer = SummaryWriter(
            str(folder),
            purge_step=first_step + 1 if first_step else None,
            flush_secs=5,
            filename_suffix=f".after-{first_step}",  # else a writer that starts in the same second would overwrite this file
        )

    def append(self, line: dict[str, Any]) -> None:
        """Every metric of one step that has a chart."""
        for name, chart in CHARTS.items():
            if name in line:
                self._writer.add_scalar(chart, line[name], line["step"])

    def close(self) -> None:
        self._writer.close()
