"""Compare each consumer's reading of a release with what was trained: context length and rotary frequencies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.consumers import ServableId
from tasks.model.rope_layers import of_full_layers
from tasks.publish.checks import Check, ProblemFound, require, run_check
from tasks.publish.serving.formulas import Frequencies
from tasks.publish.serving.rules import READERS, Written, read_as_transformers5, spelling_problems

if TYPE_CHECKING:
    from tasks.model.rope_plan import RopePlan

_PLAN = "rope_plan.json"
# Consumers compute in float32. A frequency with this relative error is wrong by 0.1 rad only after 10^5 radians.
RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Trained:
    """What was trained and is to be served; lengths in tokens.

    `declined` maps a consumer to the reason why the release is not meant for it. `source` says where all this comes from. `layers`
    has the RoPE of layer types that keep theirs; the frequencies are those of the layers in full.
    """

    context_length: int
    window: int
    frequencies: Callable[[int], tuple[Frequencies, float]]
    declined: Mapping[str, str]
    source: str
    layers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def planned(self) -> bool:
        """Whether it comes from a plan, not from the folder's own config."""
        return self.source == _PLAN


def read_plan(directory: Path) -> RopePlan:
    """The plan of a release; FileNotFoundError if it has none."""
    from tasks.model.rope_plan import RopePlan

    return RopePlan.from_json((directory / _PLAN).read_text(encoding="utf-8"))


def trained_as_planned(plan: RopePlan) -> Trained:
    """The plan's own frequencies, and the consumers that do not compute them."""
    declined: dict[str, str] = {name: why for name, why in plan.servable_by().items() if why}
    return Trained(plan.target_length, plan.base_window, plan.frequencies, declined, _PLAN, plan.layers)


def trained(directory: Path) -> Trained:
    """By the release's plan; for a folder without one, as transformers 5 reads it."""
    if (directory / _PLAN).is_file():
        return trained_as_planned(read_plan(directory))
    written = Written.load(directory)
    reading = read_as_transformers5(written)
    scaling = written.config.get("rope_scaling") or of_full_layers(written.config.get("rope_parameters"))
    window = scaling.get("original_max_position_embeddings") or written.config["max_position_embeddings"]
    length = reading.context_length
    return Trained(
        length,
        int(window) if window < length else length // 2,
        reading.frequencies,
        {},
        "transformers 5, because there is no plan",
        reading.layers,
    )


def compared_lengths(window: int, target: int) -> list[int]:
    """Tokens: below, at and beyond the old window, up to the target."""
    lengths = {max(4, window // 2), window, window + 1, 2 * window, target}
    return sorted(length for length in lengths if length <= target)


def contract_problems(consumer: ServableId, written: Written, meant: Trained) -> list[str]:
    """One phrase for each difference between what was trained and what `consumer` would compute from these files."""
    reading = READERS[consumer](written)
    problems = []
    if reading.context_length != meant.context_length:
        problems.append(f"it would serve {reading.context_length} tokens instead of {meant.context_length}")
    for kind, expected_layers in meant.layers.items():
        if reading.layers.get(kind) != expected_layers:
            problems.append(f"RoPE of {kind} layers would be {reading.layers.get(kind)} instead of {expected_layers}")
    for length in compared_lengths(meant.window, meant.context_length):
        inv_freq, factor = reading.frequencies(length)
        expected, expected_factor = meant.frequencies(length)
        if inv_freq.shape != expected.shape:
            problems.append(f"it would rotate {2 * inv_freq.size} channels of a head instead of {2 * expected.size}")
            break
        if not np.allclose(inv_freq, expected, rtol=RELATIVE_TOLERANCE, atol=0):
            ratio = float(np.max(np.abs(inv_freq / expected - 1)))
            problems.append(f"frequencies at {length} tokens differ by up to {ratio:.2g} of their value")
        if not np.isclose(factor, expected_factor, rtol=RELATIVE_TOLERANCE, atol=0):
            problems.append(
                f"the factor on cosine and sine at {length} tokens is {factor:.6g} instead of {expected_factor:.6g}"
            )
    return problems


def check_contract(directory: Path) -> list[Check]:
    """One check for each consumer that has a rule, and one that the config does not contradict itself."""
    checks = [run_check(f"RoPE as {name} reads it", partial(_consumer, directory, name)) for name in READERS]
    return [*checks, run_check("RoPE spelled alike", lambda: _spelled_alike(directory))]


def _consumer(directory: Path, name: ServableId) -> str:
    meant, written = trained(directory), Written.load(directory)
    if reason := meant.declined.get(name):
        return f"not claimed: {reason}"
    lengths = ", ".join(map(str, compared_lengths(meant.window, meant.context_length)))
    fine = f"up to {meant.context_length} tokens; frequencies at {lengths} as in {meant.source}"
    return require(contract_problems(name, written, meant), fine)


def _spelled_alike(directory: Path) -> str:
    config = Written.load(directory).config
    if not config.get("rope_parameters") and not config.get("rope_scaling") and "rope_theta" not in config:
        raise ProblemFound("absent: config.json has no rotary positions")
    return require(spelling_problems(config), "the spellings of transformers 4 and 5 in config.json agree")
