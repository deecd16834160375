"""What is measured, and how surely."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from data_schemas.closed import Params

RopeMethod = Literal["auto", "linear", "dynamic", "ntk", "yarn", "longrope", "llama3"]
TaskName = Literal[
    "passkey",
    "key_value",
    "niah_single",
    "niah_multikey",
    "niah_multivalue",
    "niah_multiquery",
    "variable_tracking",
    "common_words",
    "frequent_words",
    "document_qa",
]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
RULER_TASKS = tuple(name for name in TASK_NAMES if name not in ("passkey", "key_value", "document_qa"))


Length = Annotated[int, Field(ge=1)]


class EvaluationParams(Params):
    """What is measured, on base, scaling-only and fine-tuned alike."""

    lengths: tuple[Length, ...] | None = Field(
        None, description="Context lengths in tokens; empty: half the base's window, doubling up to the target."
    )
    target_tokens: int = Field(128, ge=8, description="Last tokens of each held-out document that perplexity is taken on.")
    num_documents: int = Field(64, ge=2, description="Held-out documents, at most.")
    position_curve: bool = Field(True, description="Perplexity by position as well, over whole windows of the longest length.")
    protocols: tuple[Literal["yarn", "longlora"], ...] = Field(
        (), description="Perplexity as those papers measured it, too, to compare with their tables; not comparable with ours."
    )
    longppl_evaluator: str | None = Field(
        "scaling_only",
        pattern=rf"^(base|scaling_only|fine_tuned|base_({'|'.join(get_args(RopeMethod))}))$",
        description="The arm whose log-probabilities say which target tokens need long context, for LongPPL of all arms; empty: none.",
    )
    tasks: tuple[TaskName, ...] = Field(
        ("passkey", "key_value"),
        description="Retrieval and tracking tasks; `passkey`, `key_value` of Lost in the Middle, RULER's, `document_qa` with `qa_file`.",
    )
    task_lengths: tuple[Length, ...] | None = Field(None, description="Context lengths of the tasks; empty: as `lengths`.")
    num_depths: int = Field(5, ge=2, le=101, description="Evenly spaced depths of the needle, from 0 to 1.")
    num_samples: int = Field(8, ge=1, description="Prompts for each task, length and depth.")
    qa_file: str | None = Field(
        None,
        description="For document_qa and `reorder_samples`: a JSON Lines file of {question, answers, gold, passages}: `gold` is the "
        "passage with the answer, `passages` are others without it, the best first.",
    )
    reorder_samples: int = Field(
        16,
        ge=0,
        le=1000,
        description="Questions on ranked passages, each asked under every order of them, that choose the reorder strategy of the "
        "fine-tuned model; from `qa_file` where that is given; 0: none.",
    )
    arms: tuple[Literal["base", "scaling_only", "fine_tuned"], ...] = Field(
        ("base", "scaling_only", "fine_tuned"), min_length=1, description="Models that are compared."
    )
    rope_methods: tuple[RopeMethod, ...] = Field(
        (), description="Further models: the base, not trained, with each of these methods, named `base_METHOD`."
    )
    lm_eval_tasks: tuple[str, ...] = Field(
        (), description="Short-context benchmarks by lm-evaluation-harness, where it is installed: its task names."
    )
    lm_eval_limit: int | None = Field(None, ge=1, description="Examples of each lm-evaluation-harness task; empty: all.")
    non_inferiority_margin: float = Field(
        0.05, gt=0, lt=1, description="Rise of perplexity, or fall of a score, at the base's window that still counts as none."
    )
    batch_tokens: int = Field(8192, ge=64, description="Tokens in one forward pass.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals.")
    seed: int = Field(0, ge=0, description="Seed of prompts and of the bootstrap.")

    @model_validator(mode="after")
    def _complete(self) -> EvaluationParams:
        if "document_qa" in self.tasks and not self.qa_file:
            raise ValueError("tasks has document_qa, which needs qa_file: name a JSON Lines file of questions and passages")
        return self
