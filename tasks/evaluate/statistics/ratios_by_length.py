"""Every model's perplexity over that of one reference at the same length, where models that lie close can be told apart."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_schemas.report_sections import RatioByLength
from tasks.evaluate.statistics.perplexity_rows import Cell, IntervalSettings, ratio_of

_REFERENCES = ("scaling_only", "base")


def ratios_by_length(cells: dict[Cell, pa.Table], settings: IntervalSettings) -> Iterator[RatioByLength]:
    """Against scaling only, or against the base where that was not measured: what would be used without training."""
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    reference = next((arm for arm in _REFERENCES if arm in arms), None)
    if reference is None:
        return
    for cell in cells:
        denominator = Cell(reference, cell.length)
        if cell.arm != reference and denominator in cells:
            ratio = ratio_of(cells, cell, denominator, settings)
            yield RatioByLength(
                arm=cell.arm,
                reference=reference,
                length=cell.length,
                ratio=ratio.value,
                low=ratio.low,
                high=ratio.high,
                num_documents=cells[cell].num_rows,
            )
