"""What a user may set for one run. The Prefect UI renders these models as its run form, so every field has a description."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from data_schemas.advise_params import AdviseParams, PriceParams
from data_schemas.chunking_params import ChunkingParams
from data_schemas.closed import Params
from data_schemas.corpus_params import (
    DEFAULT_INCLUDE,
    CorpusParams,
    CorpusSource,
    DecontaminationParams,
    ExcerptParams,
    NearDuplicateParams,
    QualityParams,
)
from data_schemas.credentials import SCHEMA_WITHOUT_CREDENTIALS, refuse_credentials
from data_schemas.errors import UserError
from data_schemas.evaluation_params import EvaluationParams
from data_schemas.model_params import ModelParams, RopeMethod
from data_schemas.packing_params import PackingParams, TokenBudget
from data_schemas.params_addresses import refuse_misspelt_addresses
from data_schemas.precision import auto_precision
from data_schemas.publish_params import PublishParams
from data_schemas.ray_params import RayParams
from data_schemas.retrieval_params import RetrievalParams
from data_schemas.rope_search_params import RopeSearchParams
from data_schemas.stage_params import StageParams, refuse_unordered
from data_schemas.training_params import TrainingParams

__all__ = [
    "DEFAULT_INCLUDE",
    "AdviseParams",
    "ChunkingParams",
    "CorpusParams",
    "CorpusSource",
    "DecontaminationParams",
    "EvaluationParams",
    "ExcerptParams",
    "ModelParams",
    "NearDuplicateParams",
    "PackingParams",
    "PipelineParams",
    "PriceParams",
    "PublishParams",
    "QualityParams",
    "RayParams",
    "RetrievalParams",
    "RopeMethod",
    "RopeSearchParams",
    "StageParams",
    "TokenBudget",
    "TrainingParams",
]


# Parameters of S2-Attn, with the values that ask for nothing.
_UNUSED_IN_FULL: dict[str, tuple[Any, ...]] = {
    "full_attention_layers": ("none", "auto", ()),
    "full_attention_heads": ("none", ()),
    "full_attention_every": (0,),
    "full_attention_steps": (0,),
}


class PipelineParams(Params):
    """One run of the whole chain."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a refused credential is not printed either

    run_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="Name of the run. Also the release's name, unless `publish.name` is set.",
    )
    storage: str = Field(
        "ropeway-storage",
        min_length=1,
        description="Where everything is stored: a local folder, or a URI such as s3://bucket/folder.",
        json_schema_extra=SCHEMA_WITHOUT_CREDENTIALS,
    )
    model: ModelParams
    corpus: CorpusParams
    retrieval: RetrievalParams = RetrievalParams()
    chunking: ChunkingParams = ChunkingParams()
    packing: PackingParams = PackingParams()
    rope_search: RopeSearchParams = RopeSearchParams()
    training: TrainingParams = TrainingParams()
    evaluation: EvaluationParams = EvaluationParams()
    advise: AdviseParams = AdviseParams()
    publish: PublishParams = PublishParams()
    ray: RayParams = RayParams()

    @model_validator(mode="before")
    @classmethod
    def _holds_no_credentials(cls, given: Any) -> Any:
        refuse_credentials(given)  # before anything else, so that no other error repeats one
        return given

    @model_validator(mode="after")
    def _names_the_precision(self) -> PipelineParams:
        """Replace `auto` at once, so that every digest, job and record says which precision was used.

        Hidden states are in it too where it is fp32.
        """
        if self.training.precision == "auto":
            precision = auto_precision(self.ray)
            of_states = {"hidden_states": "fp32"} if precision == "fp32" else {}
            self.__dict__["training"] = self.training.model_copy(update={"precision": precision} | of_states)  # frozen
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> PipelineParams:
        if self.training.stages:
            self._refuse_unfit_stages()
        else:
            self._refuse_unfit()
        return self

    def _refuse_unfit(self) -> None:
        """ValueError where parameters of different groups cannot be used together."""
        refuse_misspelt_addresses(
            self.storage, self.corpus, self.model, self.chunking, self.evaluation, self.advise, self.publish, self.ray
        )
        self.retrieval.refuse_no_families()  # once more: a training stage has kinds of its own
        target = self.model.target_length
        labels = [source.label for source in self.corpus.sources]
        for i, budget in enumerate(self.packing.budgets):
            if budget.source not in ("*", *labels):
                raise ValueError(
                    f"packing.budgets[{i}] names a source {budget.source!r}, which does not exist: choose from {', '.join(labels)}"
                )
        _refuse_unused_attention(self.training)
        group = self.training.s2_group_size
        if group is not None and group >= self.row_tokens:
            raise ValueError(
                f"training.s2_group_size is {group}, but rows have {self.row_tokens} tokens ({self.row_limit}): choose fewer, such as a "
                f"quarter, {self.row_tokens // 4}, or set training.attention to full and leave it empty"
            )
        if self.training.full_attention_every and self.training.full_attention_layers not in ("none", "auto", ()):
            raise ValueError(
                "training.full_attention_every and training.full_attention_layers both choose layers: leave one of them out"
            )
        if self.training.full_attention_heads not in ("none", ()):
            if self.training.full_attention_every or self.training.full_attention_layers not in ("none", "auto", ()):
                raise ValueError(
                    "training.full_attention_heads chooses heads, so leave out training.full_attention_layers and "
                    "training.full_attention_every, which choose whole layers"
                )
            if self.ray.sequence_workers > 1:
                raise ValueError(
                    "training.full_attention_heads cannot be used where workers share a row: use training.full_attention_layers, "
                    "or set ray.sequence_workers to 1"
                )
        row = self.packing.row_length
        if row is not None and row > target:
            raise ValueError(f"packing.row_length is {row}, above model.target_length {target}: choose at most {target}")
        if self.chunking.max_tokens is not None and self.chunking.max_tokens > self.row_tokens:
            limit = f"packing.row_length {row}" if row is not None else f"model.target_length {target}"
            raise ValueError(
                f"chunking.max_tokens is {self.chunking.max_tokens}, above {limit}: "
                "a chunk must fit a row, so lower it or leave it empty"
            )
        if self.training.optimizer == "adamw_8bit" and (self.training.parallelism == "fsdp" or not self.ray.use_gpu):
            why = (
                "cannot be split over workers: set training.parallelism to ddp"
                if self.ray.use_gpu
                else "needs a GPU: set ray.use_gpu"
            )
            raise ValueError(f"training.optimizer adamw_8bit {why}, or choose adamw")
        if self.training.hidden_states == "bf16" and self.training.precision == "fp32":
            raise ValueError(
                "training.hidden_states bf16 needs training.precision bf16, but that is fp32: change one of them, or set precision to auto"
            )
        if self.training.activation_offload and not self.training.gradient_checkpointing:
            raise ValueError(
                "training.activation_offload needs training.gradient_checkpointing: switch that on, or offloading off"
            )
        if self.training.attention_outputs == "kept" and (
            not self.training.gradient_checkpointing or self.training.activation_offload or self.training.compile_layers
        ):
            raise ValueError(
                "training.attention_outputs kept needs training.gradient_checkpointing, and neither training.activation_offload nor "
                "training.compile_layers: change those, or set it to auto"
            )
        if self.ray.min_workers is not None and self.ray.min_workers > self.ray.num_workers:
            raise ValueError(
                f"ray.min_workers is {self.ray.min_workers}, above ray.num_workers {self.ray.num_workers}: "
                "give at most that, or leave it empty"
            )
        weights = {
            "training.loss_weighting": self.training.loss_weighting != "none",
            "retrieval.share": self.retrieval.share > 0,
            "instruction data": self.corpus.has_instructions,
        }
        weighting = next((name for name, is_used in weights.items() if is_used), None)
        if weighting and self.training.loss_kernel in ("torch", "liger"):
            raise ValueError(
                f"training.loss_kernel {self.training.loss_kernel} cannot weight tokens as {weighting} asks: choose auto or chunked"
            )
        long_from = self.training.loss_long_from
        if self.training.loss_weighting != "none" and long_from is not None and long_from >= self.row_tokens:
            raise ValueError(
                f"training.loss_long_from is {long_from}, but rows have {self.row_tokens} tokens, so no target has that much left "
                f"context: choose at most {self.row_tokens - 1}"
            )
        if self.ray.sequence_workers > 1 and self.training.loss_weighting == "long_ce":
            raise ValueError(
                "training.loss_weighting long_ce needs whole rows: set ray.sequence_workers to 1, or choose another weighting"
            )
        if self.row_tokens < self.ray.sequence_workers:
            raise ValueError(
                f"ray.sequence_workers {self.ray.sequence_workers} is more than the {self.row_tokens} tokens of a row: lower it"
            )
        per_pass = self.ray.num_workers // self.ray.sequence_workers * self.training.micro_batch_rows
        if self.training.rows_per_step % per_pass:
            readers = "ray.num_workers" if self.ray.sequence_workers == 1 else "ray.num_workers / ray.sequence_workers"
            raise ValueError(
                f"training.rows_per_step is {self.training.rows_per_step}, not a multiple of {readers} x "
                f"training.micro_batch_rows = {per_pass}: choose {per_pass * max(1, self.training.rows_per_step // per_pass)}"
            )
        too_long = [n for n in (*(self.evaluation.lengths or ()), *(self.evaluation.task_lengths or ())) if n > target]
        if too_long:
            raise ValueError(f"evaluation length {too_long[0]} is above model.target_length {target}: remove it")
        if self.model.rope_length is not None and self.model.rope_length < target:
            raise ValueError(
                f"model.rope_length {self.model.rope_length} is below model.target_length {target}: choose {target} or more, or none"
            )
        if self.model.rope_length not in (None, target) and self.model.rope_method in (
            "dynamic",
            "linear",
            "longrope",
            "theta",
        ):
            raise ValueError(
                f"model.rope_length cannot be used with model.rope_method {self.model.rope_method}, which is not scaled for a stated "
                "length: remove it, or choose yarn"
            )
        if self.model.rope_length not in (None, target) and (self.model.rope_theta is not None or self.model.rope_factors_file):
            raise ValueError(
                "model.rope_length cannot be used with model.rope_theta or model.rope_factors_file: remove one of them"
            )
        if self.ray.sequence_workers > 1 and self.model.rope_method == "dynamic":
            raise ValueError(
                "ray.sequence_workers cuts rows, and the frequencies of model.rope_method dynamic depend on a row's "
                "longest document: set ray.sequence_workers to 1, or choose yarn"
            )
        if self.training.short_window_share and self.training.loss_weighting != "none":
            raise ValueError(
                f"training.short_window_share cuts rows into short documents, and training.loss_weighting {self.training.loss_weighting} "
                "counts on their left context: use one of them"
            )
        if self.searches_rope and self.rope_search.short_factors == "original" and not self.training.short_window_share:
            raise ValueError(
                "rope_search.short_factors original gives short prompts their own list, which no row would train: set "
                "training.short_window_share, or choose equal"
            )
        if self.searches_rope and self.rope_search.text_tokens >= target:
            raise ValueError(
                f"rope_search.text_tokens is {self.rope_search.text_tokens}, not below model.target_length {target}, so a sample has no "
                "room for needles and questions: choose fewer"
            )
        if self.training.find_short_factors and not self._may_have_two_lists():
            raise ValueError(
                "training.find_short_factors is for longrope's two lists: give model.rope_factors_file, set model.rope_method to longrope "
                "and rope_search.short_factors to original, or set it to false"
            )
        if self.training.average_last_steps > self.training.steps:
            raise ValueError(
                f"training.average_last_steps is {self.training.average_last_steps}, above training.steps {self.training.steps}: "
                f"choose at most {self.training.steps}"
            )
        if self.training.full_attention_steps > self.training.steps:
            raise ValueError(
                f"training.full_attention_steps is {self.training.full_attention_steps}, above training.steps {self.training.steps}: "
                f"choose at most {self.training.steps}"
            )
        if self.model.rope_method == "theta" and self.model.rope_theta is None:
            raise ValueError("model.rope_method theta needs model.rope_theta: give the new base frequency, or choose ntk")
        if "theta" in self.evaluation.rope_methods and self.model.rope_theta is None:
            raise ValueError("evaluation.rope_methods has theta, which needs model.rope_theta: give it, or remove theta")
        if self.model.rope_theta is not None and self.model.rope_factors_file and self.model.rope_method == "auto":
            raise ValueError(
                "model.rope_theta and model.rope_factors_file both choose a RoPE method: remove one, or set model.rope_method"
            )
        if self.model.rope_theta is not None and self.searches_rope:
            raise ValueError(
                "model.rope_theta cannot be used where factors are searched, because the search may choose a rope_theta of its own: "
                "remove it, and theta from evaluation.rope_methods, or give model.rope_factors_file"
            )
        if self.model.rope_theta is not None and not {"theta", "auto"} & {
            self.model.rope_method,
            *self.evaluation.rope_methods,
        }:
            raise ValueError(
                f"model.rope_theta is for theta, but model.rope_method is {self.model.rope_method}: remove it, choose theta, or add "
                "theta to evaluation.rope_methods to compare the two"
            )
        if self.model.rope_factors_file and not {"longrope", "auto"} & {self.model.rope_method, *self.evaluation.rope_methods}:
            raise ValueError(
                f"model.rope_factors_file is for longrope, but model.rope_method is {self.model.rope_method}: remove "
                "the file, choose longrope, or add longrope to evaluation.rope_methods to compare the two"
            )

    def _refuse_unfit_stages(self) -> None:
        """ValueError where a stage by itself cannot work. The last one comes first, since it has what concerns them all."""
        refuse_unordered(self.training.stages, self.model.target_length)
        *earlier, last = self.by_stage()
        try:
            last._refuse_unfit()
        except ValueError as error:
            number = len(earlier)
            raise ValueError(self.training.stages[number].in_own_names(str(error), number, is_last=True)) from error
        for number, params in enumerate(earlier):
            try:
                params._refuse_unfit()
            except ValueError as error:
                raise ValueError(self.told_of_stage(number, error)) from error

    def told_of_stage(self, number: int, error: Exception) -> str:
        """The sentence for what is wrong in a training stage, from the `error` of its run by itself."""
        stage, is_last = self.training.stages[number], number == len(self.training.stages) - 1
        named = stage.in_own_names(str(error), number, is_last=is_last)
        return f"training.stages[{number}] ({stage.target_length} tokens): {named}"

    @contextmanager
    def naming_stage(self, number: int) -> Iterator[None]:
        """A UserError within names the training stage; where there is but one, it stays as it is."""
        try:
            yield
        except UserError as error:
            if not self.training.stages:
                raise
            raise UserError(self.told_of_stage(number, error)) from error

    def by_stage(self) -> tuple[PipelineParams, ...]:
        """The run of each training stage by itself, in order; this run alone where `training.stages` is empty."""
        if not self.training.stages:
            return (self,)
        *earlier, last = self.training.stages
        return (*(self._of_earlier_stage(stage) for stage in earlier), self._of_stage(last))

    def _of_stage(self, stage: StageParams) -> PipelineParams:
        training = self.training.model_copy(update=stage.changes_of_training())
        retrieval = self.retrieval.model_copy(update=stage.changes_of_retrieval())
        return self.model_copy(update={"training": training, "retrieval": retrieval})

    def _of_earlier_stage(self, stage: StageParams) -> PipelineParams:
        params = self._of_stage(stage)
        training = params.training.model_copy(update={"find_short_factors": False})
        # What is measured is the last stage's.
        evaluation = self.evaluation.model_copy(update={"lengths": None, "task_lengths": None, "rope_methods": ()})
        model = self.model.model_copy(update=stage.changes_of_model(self.model))
        return params.model_copy(update={"model": model, "training": training, "evaluation": evaluation})

    def _may_have_two_lists(self) -> bool:
        """Also where a search of longrope's factors chose another method: what it chose is in `model` then."""
        return bool(self.model.rope_factors_file) or self.rope_search.short_factors == "original"

    @property
    def searches_rope(self) -> bool:
        """Whether factors are searched before training: longrope without a file of them."""
        return self.model.rope_method == "longrope" and not self.model.rope_factors_file

    @property
    def release_name(self) -> str:
        return self.publish.name or self.run_name

    @property
    def row_tokens(self) -> int:
        """Tokens in a full row."""
        return self.packing.row_length or self.model.target_length

    @property
    def row_limit(self) -> str:
        """Name of the parameter that decides `row_tokens`."""
        return "packing.row_length" if self.packing.row_length else "model.target_length"

    @property
    def chunk_tokens(self) -> int:
        return self.chunking.max_tokens or self.row_tokens


def _refuse_unused_attention(training: TrainingParams) -> None:
    """ValueError for a parameter that chooses where S2-Attn attends in full, without S2-Attn."""
    if training.attention != "full":
        return
    for name, unused in _UNUSED_IN_FULL.items():
        if getattr(training, name) not in unused:
            raise ValueError(
                f"training.{name} is for training.attention s2, and with full all layers attend in full in all steps: leave it out, or set "
                "training.attention to s2"
            )
