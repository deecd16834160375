"""Arrow schemas of the evaluation's tables.

What was measured, one row a sample; every figure of the report is computed from these alone:

perplexity_samples.parquet  PERPLEXITY_SAMPLES  one row an arm, context length and held-out document
position_samples.parquet    POSITION_SAMPLES    one row an arm, held-out document and range of positions
protocol_samples.parquet    PROTOCOL_SAMPLES    one row an arm, protocol of another paper, length, document and window
task_samples.parquet        TASK_SAMPLES        one row an arm, task, length, depth and prompt
reorder_samples.parquet     REORDER_SAMPLES     one row a length, question and order of its passages, for the published arm
advice_samples.parquet      ADVICE_SAMPLES      one row a way and question of the advice, which is an artifact of its own

What is asked, written once so that all workers read the same:

prompts-TASK-LENGTH.parquet PROMPTS             one row a prompt
ranked-LENGTH.parquet       RANKED_QUESTIONS    one row a question on ranked passages
"""

import pyarrow as pa

ARMS = ("base", "scaling_only", "fine_tuned")  # followed by base_METHOD for each of evaluation.rope_methods

AS_SERVED = "_as_served"  # after the name of an arm: as vLLM serves its release; measured up to the base's window
# The fine-tuned model as it was trained under `training.base_precision`: the adapter on the quantised base. Perplexity only.
QUANTISED_ARM = "fine_tuned_quantised"

TOKENS = pa.list_(pa.int32())

PERPLEXITY_SAMPLES = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),  # tokens in the window, targets included
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("target_start", pa.int64(), nullable=False),  # index in the document of the first target token
        pa.field("num_tokens", pa.int32(), nullable=False),  # target tokens
        pa.field("nll", pa.float64(), nullable=False),  # their summed negative log-likelihood, nats
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),  # of each target token, for LongPPL
    ]
)

POSITION_SAMPLES = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),  # tokens in the window: the longest length
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),  # positions start..end-1 of the window, 1 <= start < end
        pa.field("end", pa.int32(), nullable=False),
        pa.field("nll", pa.float64(), nullable=False),  # summed over those tokens, each given all before it
    ]
)

PROTOCOL_SAMPLES = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),  # yarn | longlora
        pa.field("length", pa.int32(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("window", pa.int32(), nullable=False),  # number of the window in the document
        pa.field("num_tokens", pa.int32(), nullable=False),  # scored in this window
        pa.field("nll", pa.float64(), nullable=False),
    ]
)

TASK_SAMPLES = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),  # tokens of prompt and answer, at most
        pa.field("depth", pa.float64()),  # 0: gold first; 1: gold right before the question; null: spread over the prompt
        pa.field("position", pa.float64()),  # of the gold's first token, as a share of the prompt
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("golds", pa.list_(pa.string()), nullable=False),
        pa.field("output", pa.string(), nullable=False),  # most likely token at each answer position, or what was generated
        pa.field("mode", pa.string(), nullable=False),  # forced | generated
        pa.field("score", pa.float64(), nullable=False),  # share of the golds found: 0 or 1 for a single gold
        pa.field("correct", pa.bool_(), nullable=False),  # score == 1
        pa.field("logprob", pa.float64(), nullable=False),  # of the canonical answer, nats
        pa.field("control_logprob", pa.float64()),  # the same without the needle
        pa.field("gain", pa.float64()),  # logprob - control_logprob
        pa.field("num_evidence", pa.int32()),  # facts that the answer needs; null: the task has no count
        pa.field("distance", pa.float64()),  # 0: first and last fact stand together; 1: at both ends; null: not controlled
        pa.field("distance_tokens", pa.int32()),  # from the first token of the first fact to that of the last; null: one fact
    ]
)

REORDER_SAMPLES = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),  # tokens of prompt and answer, at most
        pa.field("sample", pa.int32(), nullable=False),  # a question; at another length the same with more passages
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("strategy", pa.string(), nullable=False),  # a reorder strategy, or random
        pa.field("order", pa.list_(pa.int32()), nullable=False),  # ranks in the order of the prompt, 1 the best
        pa.field("gold_rank", pa.int32(), nullable=False),
        pa.field("position", pa.float64(), nullable=False),  # of the gold's first token, as a share of the prompt
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("golds", pa.list_(pa.string()), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),  # forced | generated
        pa.field("score", pa.float64(), nullable=False),  # 0 or 1
        pa.field("logprob", pa.float64(), nullable=False),  # of the canonical answer, nats
    ]
)

PROMPTS = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("depth", pa.float64()),  # as in TASK_SAMPLES
        pa.field("position", pa.float64()),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("tokens", TOKENS, nullable=False),  # the prompt, which ends where the answer starts
        pa.field("golds", pa.list_(pa.string()), nullable=False),
        pa.field("answer", TOKENS, nullable=False),  # the canonical answer
        pa.field("control", TOKENS),  # the prompt with other text in the needle's place; null: the task has no needle
        pa.field("is_forced", pa.bool_(), nullable=False),  # one teacher-forced pass decides; else the model generates
        pa.field("max_new_tokens", pa.int32(), nullable=False),
        pa.field("num_evidence", pa.int32()),  # as in TASK_SAMPLES
        pa.field("distance", pa.float64()),
        pa.field("distance_tokens", pa.int32()),
    ]
)

RANKED_QUESTIONS = pa.schema(
    [
        pa.field("length", pa.int32(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("front", TOKENS, nullable=False),  # before the first passage
        pa.field("labels", pa.list_(TOKENS), nullable=False),  # labels[i] opens place i
        pa.field("passages", pa.list_(TOKENS), nullable=False),  # the best ranked first
        pa.field("gold_rank", pa.int32(), nullable=False),  # from 1
        pa.field("gold_at", pa.int32(), nullable=False),  # the gold's first token in its passage
        pa.field("question", TOKENS, nullable=False),
        pa.field("answer", TOKENS, nullable=False),
        pa.field("golds", pa.list_(pa.string()), nullable=False),
        pa.field("is_forced", pa.bool_(), nullable=False),
        pa.field("max_new_tokens", pa.int32(), nullable=False),
    ]
)


def served_arm(arm: str) -> str:
    """The arm of the same model with the frequencies under which vLLM serves it."""
    return arm + AS_SERVED


def is_served_arm(arm: str) -> bool:
    return arm.endswith(AS_SERVED)


ADVICE_SAMPLES = pa.schema(
    [
        pa.field("way", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # 0 where it was not asked
        pa.field("control_score", pa.float64(), nullable=True),  # with the evidence taken out
        pa.field("logprob", pa.float64(), nullable=True),  # of the right answer, mean nats a token
        pa.field("control_logprob", pa.float64(), nullable=True),
        pa.field("own_logprob", pa.float64(), nullable=True),  # of the given answer, for `route`
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("answer_tokens", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("control_output", pa.string(), nullable=True),
        pa.field("why_not", pa.string(), nullable=False),  # why it was not asked; empty where it was
    ]
)
