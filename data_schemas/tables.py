"""Arrow schemas of the tables that one stage writes and another reads.

Written by ingest, in parts `NAME-00000-of-00012.parquet` if there are many rows:
documents      DOCUMENTS      one row for each document; CONVERSATIONS in parts of instruction data
quarantine     QUARANTINE     one row for each input that was refused
changes        CHANGES        one row for each document and kind of text that was replaced in it
duplicates     DUPLICATES     one row for each document removed as a duplicate of another
excerpts       EXCERPTS       one row for each pair of documents of which one repeats a passage of the other
contamination  CONTAMINATION  one row for each passage of a training document that evaluation data contains too
shared_text    SHARED_TEXT    one row for each held-out document with text that many training documents share

Written by the retrieval stage, in parts `retrieval-00000-of-00012.parquet`:
retrieval      RETRIEVAL      one row for each retrieval document

Written by prepare:
chunks         CHUNKS         one row for each chunk
*.arrow        PACKED_ROWS    one row for each training row, of whole chunks; WEIGHTED_ROWS with retrieval documents
seen_heldout   SEEN_HELDOUT   one row for each held-out document: how much of its text is in the packed training rows
"""

import pyarrow as pa

# How the text's structure is marked. HTML, EPUB and DOCX become Markdown, PDF becomes plain text.
TEXT_FORMATS = ("plain", "markdown", "rst", "latex", "python", "code")

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # the source's label
        pa.field("record", pa.int64(), nullable=False),  # line or row number from 1 in a file of records, 0 for a whole file
        pa.field("byte_start", pa.int64()),  # span of the record in the (decompressed) file; null if the format has none
        pa.field("byte_end", pa.int64()),
        pa.field("num_bytes", pa.int64(), nullable=False),  # of the text in UTF-8
        pa.field("format", pa.string(), nullable=False),  # one of TEXT_FORMATS
        pa.field("language", pa.string()),  # ISO 639-1; null if not detected
        pa.field("content_hash", pa.string(), nullable=False),  # sha256 of the UTF-8 text
        pa.field("licence", pa.string(), nullable=False),
        pa.field("work", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # "train" or "heldout"
    ]
)

# A part of the documents whose source is instruction data. `text` is the messages' contents, joined by blank lines.
CONVERSATIONS = (
    DOCUMENTS.append(
        pa.field(
            "turns",  # in order; spans of characters of `text`
            pa.list_(
                pa.struct([("role", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("is_learned", pa.bool_())])
            ),
            nullable=False,
        )
    )
    .append(pa.field("context_start", pa.int64()))  # span of the document that is asked about; null without one
    .append(pa.field("context_end", pa.int64()))
)
TURNS = "turns"  # the column by which such a part is known

QUARANTINE = pa.schema(
    [
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # a code, such as "undecodable"
        pa.field("detail", pa.string(), nullable=False),
    ]
)

CHANGES = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # "undecodable", "email", "phone", "iban", "ip"; "formula": left out
        pa.field("num_places", pa.int64(), nullable=False),
    ]
)

DUPLICATES = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # "exact" or "near"
        pa.field("similarity", pa.float64(), nullable=False),  # estimated Jaccard similarity of shingles, 1.0 for exact
        pa.field("kept_doc_id", pa.string(), nullable=False),  # the document that is kept instead
        pa.field("kept_source_uri", pa.string(), nullable=False),
        pa.field("kept_split", pa.string(), nullable=False),
    ]
)

EXCERPTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),  # the later document: a training one if the other is held out
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("other_doc_id", pa.string(), nullable=False),
        pa.field("other_source_uri", pa.string(), nullable=False),
        pa.field("other_record", pa.int64(), nullable=False),
        pa.field("other_split", pa.string(), nullable=False),
        pa.field("num_shared", pa.int64(), nullable=False),  # different word n-grams that both contain
        pa.field("share", pa.float64(), nullable=False),  # num_shared of the n-grams of the shorter document
        pa.field("removed", pa.bool_(), nullable=False),  # whether the later document was removed for this
    ]
)

CONTAMINATION = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("evaluated_in", pa.string(), nullable=False),  # "heldout", or the prompt file and line
        pa.field("num_shared", pa.int64(), nullable=False),  # n-grams of the document that are found there
        pa.field("share", pa.float64(), nullable=False),  # of the document's n-grams
        pa.field(
            "copied_share", pa.float64(), nullable=False
        ),  # largest share of one held-out document that this document contains
        pa.field("example", pa.string(), nullable=False),  # the first shared passage, at most 200 characters
        pa.field("removed", pa.bool_(), nullable=False),
    ]
)

SHARED_TEXT = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),  # of a held-out document
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("num_ngrams", pa.int64(), nullable=False),  # of the document
        pa.field("num_shared", pa.int64(), nullable=False),  # those that count as boilerplate
        pa.field("share", pa.float64(), nullable=False),  # num_shared of num_ngrams
        pa.field("num_documents", pa.int64(), nullable=False),  # training documents with the most common one, at most 65,535
        pa.field("example", pa.string(), nullable=False),  # the first passage, at most 200 characters
        pa.field(
            "is_given_up", pa.bool_(), nullable=False
        ),  # a copied document whose copies are too much training text to remove
    ]
)

RETRIEVAL = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),  # without control tokens
        pa.field("licence", pa.string(), nullable=False),  # of its sources, joined by " + " if they differ
        pa.field("language", pa.string()),  # null if its sources have several or none
        pa.field("made_from", pa.list_(pa.string()), nullable=False),  # ids of training documents
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),  # BOS and EOS included
        pa.field("loss_weights", pa.list_(pa.float32()), nullable=False),  # one for each of input_ids
        pa.field("is_answer", pa.list_(pa.bool_()), nullable=False),  # one for each of input_ids
        pa.field("evidence", pa.list_(pa.int32()), nullable=False),  # token at which each question's evidence begins
        pa.field("answered", pa.list_(pa.int32()), nullable=False),  # token at which each question's answer begins
    ]
)

CHUNKS = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),  # "<doc_id>:<index>"
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("previous_chunk_id", pa.string()),  # links between the fragments of a document that did not fit
        pa.field("next_chunk_id", pa.string()),
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
        pa.field("chunk_ids", pa.list_(pa.string()), nullable=False),  # one for each sequence
    ]
)

# The rows of shards with retrieval documents.
WEIGHTED_ROWS = (
    PACKED_ROWS.append(pa.field("loss_weights", pa.list_(pa.float32()))).append(  # one for each of input_ids; null: all are 1
        pa.field("full_attention", pa.list_(pa.bool_()))
    )  # one for each sequence: attends in full; null: none does
)

SEEN_HELDOUT_FILE = "seen_heldout.parquet"
SEEN_HELDOUT = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),  # of a held-out document
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("num_ngrams", pa.int64(), nullable=False),  # different 13-grams of words; 0 for a text without a word
        pa.field("num_seen", pa.int64(), nullable=False),  # those of them that occur in the text of the packed training chunks
        pa.field("share", pa.float64(), nullable=False),  # num_seen of num_ngrams
    ]
)
