"""Parameters of the search for LongRoPE's factors."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from data_schemas.closed import Params

OF_SHORT_FACTORS = ("samples", "deciding_samples", "confidence")  # used by `training.find_short_factors` too


class RopeSearchParams(Params):
    """The search for factors, where model.rope_method is longrope and there is no model.rope_factors_file."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"short_factors"})

    space: Literal["compact", "full"] = Field(
        "compact",
        description="compact: the critical dimension and a rising curve of a few numbers. full: a number for each pair of channels.",
    )
    evaluations: int = Field(
        160,
        ge=20,
        le=448,
        description="Candidates to measure at most. At most a third of what LongRoPE's paper measures (1,344).",
    )
    generation_size: int = Field(16, ge=2, le=64, description="Candidates that are proposed and measured together.")
    first_samples: int = Field(2, ge=1, description="Samples that every candidate is measured on.")
    samples: int = Field(10, ge=2, le=256, description="Samples that the best candidates of a generation are measured on.")
    finalists: int = Field(3, ge=1, le=16, description="Candidates of a generation that are measured on all samples at most.")
    deciding_samples: int = Field(
        16, ge=4, le=512, description="Samples from other documents that decide whether the result beats YaRN and NTK."
    )
    depths: int = Field(8, ge=1, le=12, description="Needles in a sample, one in each equal part of its text.")
    text_tokens: int = Field(
        256, ge=1, le=65_536, description="Text tokens at the end of a sample that are scored too, for plain perplexity."
    )
    text_weight: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Weight of a text token's mean loss beside that of an answer's token. 0: needles alone count.",
    )
    lower_bound: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Lowest factor at and above the critical dimension, in extensions. 1: the theoretical factor.",
    )
    upper_bound: float = Field(4.0, ge=1, le=8, description="Highest factor, in extensions (target over original length).")
    attention: Literal["auto", "longrope", "searched"] = Field(
        "auto",
        description="The factor on cosine and sine. longrope: its paper's, which all readers compute. searched: found like the factors. "
        "auto: searched, unless a program of model.serve_with computes its own, or short_factors is original.",
    )
    short_factors: Literal["equal", "original"] = Field(
        "equal",
        description="The list for prompts within the base's window. equal: the found factors too, as programs with one table serve them. "
        "original: the base's own frequencies, where every program of model.serve_with switches between two lists; needs "
        "training.short_window_share. Both lists share one factor on cosine and sine, which is then 1: short prompts are computed as by "
        "the base, and the search does not vary it.",
    )
    knots: int = Field(
        4, ge=2, le=8, description="Numbers of the compact space above the critical dimension; three are below it."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level at which the result must beat the closed forms.")
    seed: int = Field(0, ge=0, description="Seed of samples and proposals.")

    @model_validator(mode="after")
    def _fits_together(self) -> RopeSearchParams:
        if self.first_samples > self.samples:
            raise ValueError(
                f"first_samples is {self.first_samples}, above samples {self.samples}: choose at most {self.samples}"
            )
        if self.short_factors == "original" and self.attention != "auto":
            raise ValueError(
                f"attention is {self.attention}, but with short_factors original the factor on cosine and sine is 1, because short prompts "
                "have it too: set attention to auto, or short_factors to equal"
            )
        return self
