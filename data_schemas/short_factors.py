"""What is found for short prompts after training with longrope's two lists: `short_factors.json` of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from data_schemas.record import Record, read_record

SHORT_FACTORS_NAME = "short_factors.json"


class ShortFactors(Record):
    """Losses are in nats a token, lower is better: of the second half of texts that are as long as a short prompt may be."""

    share: float = Field(description="Where the best list lies: 0 is the trained short list, 1 the long one.")
    short_factor: tuple[float, ...] = Field(description="The list for short prompts that is published, one factor a pair.")
    loss_by_share: dict[str, float] = Field(description="Mean loss of each list that was tried, by share.")
    num_samples: int = Field(description="Texts that chose the share.")
    num_deciding: int = Field(
        description="Other texts, which decided whether it is used: of other works, unless the corpus has fewer than four."
    )
    difference: float = Field(description="Loss of the best list minus that of the trained one, on the deciding texts.")
    low: float
    high: float
    is_used: bool = Field(description="Whether `short_factor` is the list that was found, and not the trained one.")
    verdict: str = Field(description="The decision, in a sentence.")


def read_short_factors(checkpoint: Path) -> ShortFactors | None:
    """Those of a checkpoint artifact's folder; None where none were looked for. UserError where the file was changed."""
    path = checkpoint / SHORT_FACTORS_NAME
    return read_record(path, ShortFactors, "a list of short factors", "run finetune again") if path.exists() else None
