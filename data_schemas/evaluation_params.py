"""Parameters of the evaluation: what is measured, and on how many samples."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from data_schemas.closed import Params
from data_schemas.model_params import RopeMethod
from data_schemas.published_params import PublishedDataParams, PublishedName

TaskName = Literal[
    "passkey",
    "key_value",
    "short_key_value",
    "niah_single",
    "niah_multikey",
    "niah_multivalue",
    "niah_multiquery",
    "variable_tracking",
    "common_words",
    "frequent_words",
    "document_qa",
    "facts_in_text",
    "associative_needle",
    "graph_walk",
    "spaced_evidence",
    "own_corpus",
]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)


Length = Annotated[int, Field(ge=1)]


class EvaluationParams(Params):
    """What is measured, in the same way for every arm: base, scaling only, fine-tuned."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"chat_template"})

    lengths: tuple[Length, ...] | None = Field(
        None,
        description="Context lengths to measure, in tokens. Empty: from half the base's window, doubling up to the target.",
    )
    target_tokens: int = Field(
        128, ge=8, description="Perplexity is measured on this many last tokens of each held-out document."
    )
    num_documents: int = Field(64, ge=2, description="Largest number of held-out documents.")
    position_curve: bool = Field(
        True, description="Also measure perplexity by position, over whole windows of the longest length."
    )
    published: tuple[PublishedName, ...] = Field(
        (),
        description="Also measure as published: prompts, parameters, scores and truncation of the authors' code. ruler: all 13 "
        "configurations. Only these figures can be compared with published ones.",
    )
    published_data: PublishedDataParams = Field(
        PublishedDataParams(),
        description="The files that `published` needs.",  # type: ignore[call-arg]
    )
    published_samples: int | None = Field(
        None, ge=1, description="Number of samples of each published task. Empty: as many as published (RULER: 500)."
    )
    longppl_evaluator: str | None = Field(
        "each",
        pattern=rf"^(each|base|scaling_only|fine_tuned|base_({'|'.join(get_args(RopeMethod))}))$",
        description="For LongPPL: the arm whose log-probabilities decide which tokens need long context. each: scaling_only, then "
        "fine_tuned, as either favours itself. Empty: LongPPL is not measured.",
    )
    tasks: tuple[TaskName, ...] = Field(
        ("passkey", "key_value"),
        description="Tasks to measure: passkey, key_value and document_qa (both from Lost in the Middle; document_qa needs "
        "`qa_file`), short_key_value (short keys and values, for small models), like RULER's (niah_*, variable_tracking, "
        "common_words, frequent_words), several facts (facts_in_text, spaced_evidence, graph_walk), a needle without the "
        "question's words (associative_needle), and questions from the held-out documents (own_corpus).",
    )
    task_lengths: tuple[Length, ...] | None = Field(
        None, description="Context lengths of the tasks, in tokens. Empty: the same as `lengths`."
    )
    num_depths: int = Field(
        5, ge=2, le=101, description="Number of evenly spaced depths of the needle, from the start of the prompt to its end."
    )
    num_samples: int | None = Field(
        None,
        ge=1,
        description="Number of prompts for each task, length and depth. Empty: as many as find `detectable_effect` with 80 % power.",
    )
    detectable_effect: float = Field(
        15.0,
        gt=0,
        le=100,
        description="Difference of two models' task scores, in percentage points, that the evaluation should find.",
    )
    time_budget: float | None = Field(
        None,
        gt=0,
        description="Minutes that measuring may take. Task samples are lowered until the estimate fits. Empty: no limit.",
    )
    qa_file: str | None = Field(
        None,
        description="For document_qa and `reorder_samples`: a JSONL file of {question, answers, gold, passages}. `gold` is the "
        "passage with the answer; `passages` are others without it, best first. Empty: no such questions.",
    )
    chat_template: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Ask the tasks through the base's chat template: the prompt is the user's message, and its last words begin the "
        "answer. Perplexity and `published` stay on plain text. auto: with instruction data in the corpus, if the base has a template. "
        "on: always. off: never.",
    )
    reorder_samples: int = Field(
        16,
        ge=0,
        le=1000,
        description="Number of questions on ranked passages that choose the reorder strategy. Each is asked once for every "
        "order of the passages. They come from `qa_file`, else they are generated. 0: not measured.",
    )
    arms: tuple[Literal["base", "scaling_only", "fine_tuned"], ...] = Field(
        ("base", "scaling_only", "fine_tuned"),
        min_length=1,
        description="Arms (models) to compare: the base, the base with RoPE scaling only, the fine-tuned model.",
    )
    as_served: bool = Field(
        True,
        description="Also measure lengths up to the base's window as vLLM serves the release at its full window: LongRoPE's long "
        "factors for every prompt. Other methods are served as they are measured.",
    )
    rope_methods: tuple[RopeMethod, ...] = Field(
        (), description="Further arms to compare: the untrained base with each of these RoPE methods, named `base_METHOD`."
    )
    lm_eval_tasks: tuple[str, ...] = Field(
        (), description="Short-context benchmarks: names of lm-evaluation-harness tasks. Needs that package. Empty: none."
    )
    lm_eval_include: str | None = Field(
        None, description="A folder with lm-evaluation-harness tasks of your own, as its YAML files. Empty: none."
    )
    lm_eval_limit: int | None = Field(
        None, ge=1, description="Number of examples of each lm-evaluation-harness task. Empty: all."
    )
    non_inferiority_margin: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share by which perplexity at the base's window may rise, or a task score may fall, and still count as no "
        "loss.",
    )
    max_seen_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Leave out held-out documents if more than this share of their 13-grams of words occurs in the packed training "
        "rows. 1: leave none out.",
    )
    batch_tokens: int = Field(8192, ge=64, description="Largest number of tokens in one forward pass.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the confidence intervals.")
    seed: int = Field(0, ge=0, description="Seed of the prompts and of the bootstrap.")

    @model_validator(mode="after")
    def _complete(self) -> EvaluationParams:
        if "document_qa" in self.tasks and not self.qa_file:
            raise ValueError("tasks has document_qa, which needs qa_file: give a JSONL file of questions and passages")
        return self
