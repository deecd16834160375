"""The candidates of a search: a list of factors for each pair of channels, found from a few numbers, the genome.

Pair i of P turns by base^(-2i/d) / factor_i a token. As in LongRoPE (arXiv 2402.13753, section 3.1) factors never fall from one pair
to the next, so that a lower frequency is never interpolated less than a higher one. With s = target / original length:

    full      one number a pair: log factor_i, between 0 and log(upper * s)
    compact   LongRoPE2 (arXiv 2502.20082, section 3.2) in few numbers. The critical pair c splits the list. Above it, some knots hold
              log(factor / s), between log(lower) and log(upper), joined by straight lines. Below it, three knots at c/4, c/2 and 3c/4
              say which share of log factor_c is reached there. With shares of 1/4, 1/2, 3/4 that is NTK with the base that gives
              factor_c at c.

With `attention` the genome ends with the factor on cosine and sine. Without, that is LongRoPE's sqrt(1 + ln s / ln L); or 1 where short
prompts keep the base's own frequencies, because readers of longrope have one such factor for both lists.

The start-token threshold of LongRoPE is not searched: neither transformers nor vLLM nor llama.cpp reads one from a config.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import UserError
from tasks.model.rope_frequencies import longrope_attention_factor

Floats = NDArray[np.float64]
Genome = tuple[float, ...]
Space = Literal["compact", "full"]

BELOW = (0.25, 0.5, 0.75)  # where the knots below the critical pair are, as shares of it
_HIGHEST_ATTENTION = 0.25  # 1 + this times ln s bounds the factor on cosine and sine; YaRN's has 0.1
_DECIMALS = 6  # of a genome and of factors: far finer than any difference that can be measured


@dataclass(frozen=True)
class Candidate:
    """`factors` [pairs], and the factor on cosine and sine."""

    factors: tuple[float, ...]
    attention: float

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of both as IEEE doubles: equal rotations have the same."""
        content = np.asarray([*self.factors, self.attention], "<f8").tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class RopeSpace:
    """`num_pairs`: P; lengths in tokens; `num_knots`: numbers above the critical pair of the compact form.

    `lower` and `upper` bound the factors at and above the critical pair, as multiples of s. `attention`: whether the factor on cosine and
    sine is searched too. `keeps_short`: whether prompts within the original length turn as the base does, so that this factor is 1.
    """

    kind: Space
    theta: float
    num_pairs: int
    original_length: int
    target_length: int
    lower: float
    upper: float
    num_knots: int
    attention: bool
    keeps_short: bool = False

    @property
    def extension(self) -> float:
        """s, above 1."""
        return self.target_length / self.original_length

    @property
    def theoretical_critical(self) -> int:
        """The first pair that does not complete a turn within the original length; `num_pairs` if all do (LongRoPE2, eq. 3)."""
        wavelengths = 2 * math.pi * self.theta ** (np.arange(self.num_pairs) / self.num_pairs)
        beyond = np.flatnonzero(wavelengths > self.original_length)
        return int(beyond[0]) if len(beyond) else self.num_pairs

    @property
    def size(self) -> int:
        """Numbers in a genome, but for that of attention."""
        return self.num_pairs if self.kind == "full" else 1 + len(BELOW) + self.num_knots

    @property
    def longrope_attention(self) -> float:
        """The factor on cosine and sine that readers of longrope compute by themselves."""
        return longrope_attention_factor(self.extension, self.original_length)

    @property
    def kept_attention(self) -> float:
        """The factor on cosine and sine of every candidate where it is not searched."""
        return 1.0 if self.keeps_short else self.longrope_attention

    @property
    def critical_bounds(self) -> tuple[int, int]:
        """The first and the last pair that may be critical: both sides keep at least two pairs."""
        return 2, self.num_pairs - 2

    def check(self) -> None:
        """UserError where there is nothing to search."""
        if self.extension <= 1:
            raise nothing_to_search(self.target_length, self.original_length)
        if self.num_pairs < 8:
            raise UserError(
                f"This base rotates only {self.num_pairs} pairs of channels, too few for a search: choose rope_method ntk or yarn."
            )
        if self.kind == "compact" and self.theoretical_critical > self.critical_bounds[1]:
            raise UserError(
                f"This base has no critical dimension: each of its {self.num_pairs} pairs of channels turns fully within "
                f"{self.original_length} tokens, so none is extrapolated; set rope_search.space to full, or choose rope_method yarn."
            )

    def repaired(self, numbers: Sequence[float] | Floats) -> Genome:
        """The nearest genome within the bounds whose factors never fall, rounded."""
        values, rest = np.split(np.asarray(numbers, dtype=np.float64), [self.size])
        attention = np.clip(rest, 1.0, 1.0 + _HIGHEST_ATTENTION * math.log(self.extension))
        if self.kind == "full":
            highest = math.log(self.upper * self.extension)
            return _rounded(np.concatenate([np.clip(np.maximum.accumulate(values), 0, highest), attention]))
        low, high = self.critical_bounds
        critical, below, above = np.split(values, [1, 1 + len(BELOW)])
        critical = np.clip(critical, low, high)
        below = np.clip(np.maximum.accumulate(below), 0, 1)
        above = np.clip(np.maximum.accumulate(above), math.log(self.lower), math.log(self.upper))
        return _rounded(np.concatenate([critical, below, above, attention]))

    def candidate(self, genome: Genome) -> Candidate:
        """Factors, non-decreasing and at least 1, and the factor on cosine and sine."""
        attention = genome[-1] if self.attention else self.kept_attention
        values = np.asarray(genome[: self.size])
        if self.kind == "full":
            return Candidate(_rounded(np.exp(values)), attention)
        critical, below, above = float(values[0]), values[1 : 1 + len(BELOW)], values[1 + len(BELOW) :]
        above = math.log(self.extension) + above
        places = [0.0, *(share * critical for share in BELOW), *np.linspace(critical, self.num_pairs - 1, self.num_knots)]
        logs = np.concatenate([[0.0], below * max(0.0, above[0]), above])
        return Candidate(_rounded(np.exp(np.maximum(0, np.interp(np.arange(self.num_pairs), places, logs)))), attention)

    def fitted(self, factors: Sequence[float] | Floats, attention: float, critical: float | None = None) -> Genome:
        """The genome nearest to a list of factors. `critical`: where the compact form splits it; default: the theoretical pair."""
        logs = np.log(np.maximum(1.0, np.asarray(factors, dtype=np.float64)))
        end = [attention] if self.attention else []
        if self.kind == "full":
            return self.repaired([*logs, *end])
        low, high = self.critical_bounds
        split = min(max(self.theoretical_critical if critical is None else critical, low), high)

        def at(places: Sequence[float] | Floats) -> Floats:
            return np.asarray(np.interp(places, np.arange(self.num_pairs), logs), dtype=np.float64)

        above = at(np.linspace(split, self.num_pairs - 1, self.num_knots)) - math.log(self.extension)
        reached = float(np.clip(above[0], math.log(self.lower), math.log(self.upper))) + math.log(self.extension)
        below = at([share * split for share in BELOW]) / max(1e-9, reached)
        return self.repaired([split, *below, *above, *end])


def nothing_to_search(target_length: int, original_length: int) -> UserError:
    """Why no factors are searched for a target within the base's length."""
    return UserError(
        f"There is nothing to search: model.target_length {target_length} is within the base's {original_length} tokens; choose a longer "
        "target."
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(value), _DECIMALS) for value in values)
