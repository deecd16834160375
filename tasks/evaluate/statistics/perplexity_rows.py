"""The report's perplexities: by context length, by position, paired ratios, and as two papers measured them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from data_schemas.report import EvaluationSettings
from data_schemas.report_sections import ComparisonRow, ModelAtLength, PerplexityRow, PositionRow, ProtocolRow
from data_schemas.samples import AS_SERVED, QUANTISED_ARM, is_served_arm
from tasks.evaluate.published.names import NOT_COMPARABLE
from tasks.evaluate.statistics.estimates import Estimate, perplexity_estimate, perplexity_ratio

PROTOCOL_LABELS = {
    "yarn": "YaRN, cut to the length (arXiv 2309.00071)",
    "yarn_sliding": "YaRN, sliding window (arXiv 2309.00071)",
    "longlora": "LongLoRA (arXiv 2309.12307)",
    "longppl": "LongPPL as published (arXiv 2410.23771)",
}
OWN_TEXTS = f", own texts: {NOT_COMPARABLE}"
# Ranges of positions that begin within the same half octave are one point of the curve.
_RANGES_PER_OCTAVE = 2


class IntervalSettings(Protocol):
    """What an interval depends on beside the rows: its level, and the seed of the bootstrap."""

    @property
    def confidence(self) -> float: ...

    @property
    def seed(self) -> int: ...


class Cell(NamedTuple):
    """A model at a context length."""

    arm: str
    length: int


def perplexity_cells(table: pa.Table, arms: Sequence[str]) -> dict[Cell, pa.Table]:
    """Rows of each (arm, length), ordered by document.

    Raises:
        ValueError: two cells do not hold the same targets.
    """
    of_arm, lengths = table["arm"].to_numpy(zero_copy_only=False), table["length"].to_numpy()
    cells = {
        Cell(arm, int(length)): table.filter(pa.array((of_arm == arm) & (lengths == length))).sort_by("doc_id")
        for arm in arms
        for length in np.unique(lengths[of_arm == arm])
    }
    targets = [rows.select(["doc_id", "target_start", "num_tokens"]) for rows in cells.values()]
    if any(not rows.equals(targets[0]) for rows in targets):
        raise ValueError("the perplexity samples do not hold the same targets for every arm and length")
    return cells


def perplexity_row(cell: Cell, rows: pa.Table, settings: IntervalSettings) -> PerplexityRow:
    """The report's row of one (arm, length)."""
    nll, num_tokens = rows["nll"].to_numpy(), rows["num_tokens"].to_numpy()
    estimate = perplexity_estimate(nll, num_tokens, confidence=settings.confidence, seed=settings.seed)
    return PerplexityRow(
        arm=cell.arm,
        length=cell.length,
        num_documents=len(nll),
        num_tokens=int(num_tokens.sum()),
        perplexity=estimate.value,
        low=estimate.low,
        high=estimate.high,
    )


def ratio_of(cells: dict[Cell, pa.Table], numerator: Cell, denominator: Cell, settings: IntervalSettings) -> Estimate:
    """Ratio of the two cells' perplexities, paired by document."""
    return perplexity_ratio(
        cells[numerator]["nll"].to_numpy(),
        cells[denominator]["nll"].to_numpy(),
        cells[numerator]["num_tokens"].to_numpy(),
        confidence=settings.confidence,
        seed=settings.seed,
    )


def comparisons(cells: dict[Cell, pa.Table], settings: EvaluationSettings) -> Iterator[ComparisonRow]:
    """The declared paired ratios whose two cells were both measured."""
    for numerator, denominator in _declared_pairs({cell.arm for cell in cells}, settings):
        if numerator == denominator or numerator not in cells or denominator not in cells:
            continue
        ratio = ratio_of(cells, numerator, denominator, settings)
        yield ComparisonRow(
            name=f"{numerator.arm}@{numerator.length} vs {denominator.arm}@{denominator.length}",
            numerator=ModelAtLength(**numerator._asdict()),
            denominator=ModelAtLength(**denominator._asdict()),
            ratio=ratio.value,
            low=ratio.low,
            high=ratio.high,
            num_documents=cells[numerator].num_rows,
        )


def _declared_pairs(arms: set[str], settings: EvaluationSettings) -> list[tuple[Cell, Cell]]:
    window, target = settings.base_window, settings.target_length
    pairs = [
        (Cell("fine_tuned", target), Cell("scaling_only", target)),
        (Cell("fine_tuned", target), Cell("base", target)),
        (Cell("fine_tuned", target), Cell("base", window)),
        (Cell("fine_tuned", window), Cell("base", window)),
        (Cell("scaling_only", target), Cell("base", window)),
        (Cell("base", target), Cell("base", window)),
    ]
    if QUANTISED_ARM in arms:
        pairs += [(Cell("fine_tuned", length), Cell(QUANTISED_ARM, length)) for length in (target, window)]
    for arm in sorted(arm for arm in arms if is_served_arm(arm)):
        pairs += [(Cell(arm, window), Cell("base", window)), (Cell(arm, window), Cell(arm.removesuffix(AS_SERVED), window))]
    for arm in sorted(arm for arm in arms if arm.startswith("base_")):
        pairs += [
            (Cell("fine_tuned", target), Cell(arm, target)),
            (Cell(arm, target), Cell("base", window)),
            (Cell(arm, window), Cell("base", window)),
        ]
    return list(dict.fromkeys(pairs))


def position_rows(table: pa.Table, arms: Sequence[str], settings: EvaluationSettings) -> Iterator[PositionRow]:
    """Perplexity of the tokens at positions start..end-1 of the windows, in log-spaced ranges, token-weighted."""
    names = ("arm", "length", "doc_id", "start", "end", "nll")
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in names}
    octave = np.floor(np.log2(np.maximum(columns["start"], 1)) * _RANGES_PER_OCTAVE + 1e-9)
    for arm in arms:
        for length in np.unique(columns["length"][columns["arm"] == arm]):
            for part in np.unique(octave[(columns["arm"] == arm) & (columns["length"] == length)]):
                here = np.flatnonzero((columns["arm"] == arm) & (columns["length"] == length) & (octave == part))
                documents, place = np.unique(columns["doc_id"][here].astype(str), return_inverse=True)
                order = np.argsort(columns["start"][here], kind="stable")
                here, place = here[order], place[order]
                nll = np.bincount(place, weights=columns["nll"][here])
                num_tokens = np.bincount(place, weights=(columns["end"] - columns["start"])[here])
                estimate = perplexity_estimate(nll, num_tokens, confidence=settings.confidence, seed=settings.seed)
                yield PositionRow(
                    arm=arm,
                    length=int(length),
                    start=int(columns["start"][here].min()),
                    end=int(columns["end"][here].max()),
                    num_documents=len(documents),
                    num_tokens=int(num_tokens.sum()),
                    perplexity=estimate.value,
                    low=estimate.low,
                    high=estimate.high,
                )


def protocol_rows(table: pa.Table, arms: Sequence[str], settings: EvaluationSettings) -> Iterator[ProtocolRow]:
    """Perplexity as the papers computed it: YaRN averages the windows' means, LongLoRA and LongPPL over all scored tokens.

    Compare it with those papers' tables only: the scored tokens change with the context length.
    """
    names = ("arm", "protocol", "length", "doc_id", "window", "num_tokens", "nll")
    rows = table.sort_by([("doc_id", "ascending"), ("window", "ascending")])
    columns = {name: rows[name].to_numpy(zero_copy_only=False) for name in names}
    keys = {(p, a, int(n)) for p, a, n in zip(columns["protocol"], columns["arm"], columns["length"], strict=True)}
    for protocol, arm, length in sorted(keys, key=lambda k: (k[0], arms.index(k[1]), k[2])):
        here = (columns["protocol"] == protocol) & (columns["arm"] == arm) & (columns["length"] == length)
        nll, num_tokens = columns["nll"][here], columns["num_tokens"][here].astype(np.float64)
        if protocol in ("yarn", "yarn_sliding"):
            nll, num_tokens = nll / num_tokens, np.ones_like(num_tokens)
        documents, place = np.unique(columns["doc_id"][here].astype(str), return_inverse=True)
        sums, weights = np.bincount(place, weights=nll), np.bincount(place, weights=num_tokens)
        estimate = perplexity_estimate(sums, weights, confidence=settings.confidence, seed=settings.seed)
        yield ProtocolRow(
            arm=arm,
            protocol=protocol,
            label=PROTOCOL_LABELS.get(protocol, protocol) + ("" if "texts" in settings.published_data else OWN_TEXTS),
            length=length,
            num_documents=len(documents),
            num_windows=int(here.sum()),
            num_tokens=int(columns["num_tokens"][here].sum()),
            perplexity=estimate.value,
            low=estimate.low,
            high=estimate.high,
        )
