"""Parameters of the corpus: what is read, and what is never trained on."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from data_schemas.addresses import without_user
from data_schemas.closed import Params
from data_schemas.credentials import SCHEMA_WITHOUT_CREDENTIALS

# The formats that documents come in; JSON and CSV files are more often settings and figures, so they must be asked for.
# These match in upper and lower case; patterns that a user gives are case-sensitive.
_PROSE_KINDS = ("txt", "md", "markdown", "rst", "tex", "html", "htm", "xhtml", "pdf", "epub", "docx")
_RECORD_KINDS = ("jsonl", "ndjson", "parquet", "arrow", "warc")
DEFAULT_INCLUDE = tuple(f"**/*.{kind}" for kind in (*_PROSE_KINDS, *_RECORD_KINDS))
_INSTRUCTION_FIELDS = ("instructions", "messages_field", "context_field", "context_prompt")


class CorpusSource(Params):
    """Where documents come from, and under which licence."""

    uri: str = Field(
        min_length=1,
        description="A file, a folder or a glob pattern: a local path or an fsspec URI (s3://, gs://, https://, zip://, ...). "
        "`hf:NAME` reads a Hugging Face data set, by hub id or from a local folder. `stdlib:` reads the running Python's "
        "standard library, and `packages:` its installed packages; name those you want in `include`, such as numpy/**/*.py. It may not "
        "contain credentials.",
        json_schema_extra=SCHEMA_WITHOUT_CREDENTIALS,
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="Name of the source in reports and token budgets. Empty: made from `uri`.",
    )
    weight: float | None = Field(
        None,
        gt=0,
        description="Weight of the source in the training tokens: 2 beside 1 gives it two thirds. Set it for all sources or for "
        "none. Empty: every source is used in full.",
    )
    max_repeats: int = Field(1, ge=1, description="How often a document may be used to reach `weight`. 1: once.")
    include: tuple[str, ...] = Field(
        DEFAULT_INCLUDE,
        min_length=1,
        description="Glob patterns, relative to the folder `uri`, of the files to read. A pattern also matches the same name "
        "with .gz or .zst added. The default patterns ignore upper and lower case; yours are case-sensitive.",
    )
    exclude: tuple[str, ...] = Field((), description="Glob patterns, relative to the folder `uri`, of files to skip.")
    repository: Literal["no", "files", "whole"] = Field(
        "no",
        description="Read `uri` as a folder of code. files: each text file of any type is a document. whole: each repository is "
        "one document, a repository being each top-level folder, or `uri` itself if it contains .git. no: not as code.",
    )
    text_field: str = Field(
        "text",
        min_length=1,
        description="Field of a record, or column of a table or CSV file, that holds a document's text. `a.b`: field b in field "
        "a of a JSON record.",
    )
    records_field: str = Field(
        "",
        description="For .json files: the field that holds the list of records, such as `data` or `data.items`. Empty: the file "
        "is one record or a list of records.",
    )
    instructions: Literal["no", "auto", "messages", "sharegpt", "alpaca"] = Field(
        "no",
        description="Read the records as conversations, of which training learns the assistant's answers alone. messages: a list of "
        "`role` and `content` (OpenAI). sharegpt: a list `conversations` of `from` and `value`. alpaca: `instruction`, `input` and "
        "`output`. auto: whichever a record has. no: the records are documents.",
    )
    messages_field: str = Field(
        "",
        description="For `instructions`: field with the list of messages; `a.b` is field b in field a. Empty: `messages` or "
        "`conversations`.",
    )
    context_field: str = Field(
        "",
        description="For `instructions`: field with a document that the first question is about, as in LongAlpaca. Empty: the questions "
        "stand alone.",
    )
    context_prompt: str = Field(
        "{context}\n\n{question}",
        description="For `context_field`: how document and question make the first message. It holds {context} and {question} once each.",
    )
    format: Literal["plain", "markdown", "rst", "latex", "html", "python", "code"] | None = Field(
        None,
        description="Format of the texts in records and text files; it decides where documents can be cut. html: convert the "
        "texts to Markdown. Empty: by the file's name, and for records a guess, which is recorded.",
    )
    format_field: str | None = Field(
        None,
        min_length=1,
        description="Field of a record that names its format, such as `markdown` or `text/html`. Records without a known name "
        "get `format`.",
    )
    language: str | None = Field(
        None, pattern=r"^[a-z]{2,3}$", description="Language of the texts (ISO 639-1 code). Empty: it is detected."
    )
    replace_undecodable: float = Field(
        0,
        ge=0,
        le=0.01,
        description="Read a text with bytes that cannot be decoded if they are at most this share of its characters, and put "
        "U+FFFD in their place. `changes.parquet` counts them. 0: quarantine the text.",
    )
    dataset_config: str | None = Field(
        None, description="For `hf:`: the data set's configuration (subset). Empty: its default one."
    )
    dataset_split: str = Field("train", min_length=1, description="For `hf:`: the data set's split to read.")
    dataset_revision: str | None = Field(
        None, description="For `hf:`: hub revision. Only a commit hash makes the run reproducible. Empty: the latest."
    )
    streaming: bool = Field(True, description="For `hf:`: stream the data set instead of downloading it first.")
    licence: str = Field(
        "unknown", min_length=1, description="SPDX name of the text's licence. It is recorded with every document."
    )
    work_by: Literal["file", "top_level"] = Field(
        "file",
        description="What counts as one work. The held-out split never divides a work. file: each document is a work. top_level: "
        "everything below one top-level folder is. A record's own `work` field overrides this.",
    )
    min_bytes: int = Field(1, ge=1, description="Skip documents with fewer bytes. They are counted in the report.")
    train_only: bool = Field(
        False,
        description="Hold nothing of this source out: it is trained on, and validation and evaluation use the other sources alone. "
        "Copies of their held-out text are removed, as from any training text.",
    )

    @model_validator(mode="after")
    def _asks_in_full(self) -> CorpusSource:
        given = [name for name in ("messages_field", "context_field") if getattr(self, name)]
        if given and self.instructions == "no":
            raise ValueError(f"{given[0]} is for instruction data: set instructions to auto, messages, sharegpt or alpaca")
        if self.messages_field and self.instructions == "alpaca":
            raise ValueError("messages_field is not for alpaca, which has no list of messages: leave one of them out")
        if self.instructions != "no" and (self.repository != "no" or self.format_field or self.format):
            raise ValueError("instructions reads records of conversations: leave repository, format and format_field out")
        if any(self.context_prompt.count(name) != 1 for name in ("{context}", "{question}")):
            raise ValueError("context_prompt must hold {context} and {question} once each")
        return self

    @model_serializer(mode="wrap")
    def _as_named(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without fields that were added later and are not used, so that digests and names of such runs stay."""
        content: dict[str, Any] = handler(self)
        if not self.train_only:
            content.pop("train_only", None)
        if self.instructions == "no":
            for name in _INSTRUCTION_FIELDS:
                content.pop(name, None)
        return content

    @property
    def label(self) -> str:
        """`name`, or a short name made from the last part of `uri`, without user names, passwords and queries."""
        if self.name:
            return self.name
        plain = without_user(self.uri.split("::")[0]).split("?")[0].rstrip("/").rstrip(":")
        last = re.split(r"[/:]", re.sub(r"/[^/]*[*?\[].*", "", plain))[-1]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:96] or "source"


_PlainSource = Annotated[str, Field(json_schema_extra=SCHEMA_WITHOUT_CREDENTIALS)]


def _as_source(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


class NearDuplicateParams(Params):
    """Removal of documents that are almost the same as another, by MinHash over word shingles."""

    model_config = ConfigDict(title="Near duplicates")

    enabled: bool = Field(True, description="Remove near-duplicates. Exact duplicates are always removed.")
    similarity: float = Field(
        0.8, gt=0, le=1, description="Remove a document whose estimated Jaccard similarity to another is at least this."
    )
    num_permutations: int = Field(
        128, ge=16, le=1024, description="Length of the MinHash signature. A longer one estimates better and takes more time."
    )
    shingle_words: int = Field(5, ge=1, le=64, description="Number of words in a shingle, the unit that is compared.")


class ExcerptParams(Params):
    """Passages of a document that are repeated in another one."""

    enabled: bool = Field(True, description="Find and report documents that repeat a passage of another one.")
    remove: bool = Field(
        False,
        description="Remove the later of two such documents from training. A training document is later than a held-out one.",
    )
    share: float = Field(
        0.2, ge=0.05, le=1, description="Length of the passages, as a share of the n-grams of 13 words of the shorter document."
    )
    max_documents: int = Field(
        8, ge=2, le=64, description="Ignore n-grams that occur in more documents than this, as boilerplate."
    )


class DecontaminationParams(Params):
    """Removal of training documents that contain evaluation data, by shared word n-grams."""

    enabled: bool = Field(
        True,
        description="Remove training documents that contain evaluation data: held-out documents, `prompt_files`, and from "
        "`evaluation.qa_file` the questions, longer answers and gold passages. Its other `passages` may be in the corpus.",
    )
    ngram_words: int = Field(13, ge=3, le=64, description="Length in words of the n-grams compared. GPT-3 used 13.")
    prompt_files: tuple[str, ...] = Field(
        (), description="Text or JSONL files of evaluation prompts. A training document that shares one n-gram is removed."
    )
    heldout_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Remove a training document if this share of its n-grams occurs in held-out documents, or if it brings a "
        "held-out document to this share of its own n-grams, together with passages of the training documents before it.",
    )
    boilerplate_documents: int = Field(
        4,
        ge=1,
        description="Held-out text that more training documents than this contain is boilerplate, such as a licence: it is "
        "reported and removes nothing.",
    )
    boilerplate_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Text that so many training documents contain is a copy instead, and removes them, if it makes up this share "
        "of the held-out document.",
    )
    max_removed_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Such copies remove at most this share of the training text. Held-out documents with more copies are given "
        "up: the copies stay, and evaluation leaves the documents out.",
    )
    common_documents: int = Field(
        10, ge=1, description="Ignore n-grams of prompts that occur in more training documents than this, as boilerplate."
    )


class QualityParams(Params):
    """Documents to leave out because their text is poor. Each filter is off unless you set it; the report counts each one."""

    min_words: int = Field(0, ge=0, description="Leave out documents with fewer words. 0: off.")
    max_repetition: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Leave out prose if more than this share of its characters is in repeated lines, or more than this share of "
        "its 5-word sequences is repeated. Gopher used 0.3 and less. Empty: off.",
    )
    max_symbols: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Leave out prose if more than this share of its visible characters is neither a letter, a digit nor common "
        "punctuation. Empty: off.",
    )
    min_language_confidence: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Leave out prose whose language is detected with a lower probability. Empty: off.",
    )


class CorpusParams(Params):
    """What is read, and what is never trained on."""

    sources: tuple[
        Annotated[CorpusSource, BeforeValidator(_as_source, json_schema_input_type=_PlainSource | CorpusSource)], ...
    ] = Field(min_length=1, description="Where the documents come from: paths, URIs or source objects.")
    heldout_fraction: float = Field(
        0.1, gt=0, le=0.9, description="Expected share of works kept out of training, for validation and evaluation."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the split into training and held-out works.")
    max_quarantined_fraction: float = Field(
        0.5, ge=0, le=1, description="Stop the run if more than this share of the inputs cannot be read."
    )
    max_document_megabytes: float = Field(
        256, gt=0, le=1000, description="Quarantine documents and lines larger than this many MB."
    )
    max_expansion: float = Field(
        200, ge=2, description="Quarantine a compressed file that grows by more than this factor, as a decompression bomb."
    )
    keep_units: bool = Field(
        True,
        description="Keep what was read from each part of the corpus, and its chunks, in the storage, so that a grown corpus is "
        "read and chunked only where it changed. Takes about the size of the text once more.",
    )
    detect_language: bool = Field(
        True,
        description="Detect each document's language from three short samples and record it. Chunking uses it to find sentences.",
    )
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...] = Field(
        (), description="Keep only documents in these languages (ISO 639-1 codes). Turns detection on. Empty: keep all."
    )
    quality: QualityParams = Field(QualityParams(), description="Documents to leave out because their text is poor.")
    replace_personal_data: tuple[Literal["email", "phone", "iban", "ip"], ...] = Field(
        (),
        description="Kinds of personal data to replace by a marker such as `<EMAIL>`. `changes.parquet` counts them. Empty: none.",
    )
    near_duplicates: NearDuplicateParams = Field(
        NearDuplicateParams(), description="How documents that are almost equal to another are found and removed."
    )
    excerpts: ExcerptParams = Field(
        ExcerptParams(), description="How documents that repeat a passage of another are found, and whether they are removed."
    )
    decontamination: DecontaminationParams = Field(
        DecontaminationParams(), description="How training documents that contain evaluation data are found and removed."
    )

    @property
    def has_instructions(self) -> bool:
        """Whether a source is read as conversations."""
        return any(source.instructions != "no" for source in self.sources)

    @model_validator(mode="after")
    def _sources_fit_together(self) -> CorpusParams:
        labels = [source.label for source in self.sources]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two sources are called {twice[0]!r}: give each its own `name`")
        weighted = sum(source.weight is not None for source in self.sources)
        if weighted not in (0, len(self.sources)):
            raise ValueError("some sources have a weight and some do not: give one to each, or to none")
        if all(source.train_only for source in self.sources):
            raise ValueError("every source is train_only, so nothing could be held out: leave it out of one source at least")
        return self
