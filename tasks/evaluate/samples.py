"""Arrow schemas of the evaluation's per-sample rows; every figure of the report is computed from these alone.

perplexity_samples.parquet  PERPLEXITY_SAMPLES  one row an arm, context length and held-out document
passkey_samples.parquet     PASSKEY_SAMPLES     one row an arm, context length, depth and prompt
"""

import pyarrow as pa

ARMS = ("base", "scaling_only", "fine_tuned")

PERPLEXITY_SAMPLES = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),  # tokens in the window, targets included
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("target_start", pa.int64(), nullable=False),  # index in the document of the first target token
        pa.field("num_tokens", pa.int32(), nullable=False),  # target tokens
        pa.field("nll", pa.float64(), nullable=False),  # their summed negative log-likelihood, nats
    ]
)

PASSKEY_SAMPLES = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),  # tokens of prompt and answer
        pa.field("depth", pa.float64(), nullable=False),  # 0: needle first; 1: needle right before the question
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("gold", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),  # most likely token at each answer position, decoded
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("logprob", pa.float64(), nullable=False),  # of the answer, nats, needle present
        pa.field("control_logprob", pa.float64(), nullable=False),  # of the answer, nats, needle absent
        pa.field("gain", pa.float64(), nullable=False),  # logprob - control_logprob
    ]
)
