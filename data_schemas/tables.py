"""Arrow schemas of the tables that stages hand to each other.

documents.parquet  DOCUMENTS     one row a document, written by ingest
quarantine.parquet QUARANTINE    one row a refused input
chunks.parquet     CHUNKS        one row a chunk, written by prepare
*.arrow            PACKED_ROWS   one row a training row of whole chunks
"""

import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),  # line number in a JSONL file, 0 for a whole file
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),  # sha256 of the UTF-8 text
        pa.field("licence", pa.string(), nullable=False),
        pa.field("work", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # "train" or "heldout"
    ]
)

QUARANTINE = pa.schema(
    [
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # a code, such as "invalid_utf8"
        pa.field("detail", pa.string(), nullable=False),
    ]
)

CHUNKS = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),  # "<doc_id>:<index>"
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("char_start", pa.int64(), nullable=False),
        pa.field("char_end", pa.int64(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),  # without BOS and EOS
        pa.field("heading_path", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

PACKED_ROWS = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("seq_lengths", pa.list_(pa.int32()), nullable=False),  # sums to len(input_ids)
        pa.field("chunk_ids", pa.list_(pa.string()), nullable=False),  # one a sequence
    ]
)
