"""The results of reading a corpus: documents, refused inputs, and inputs that the parameters leave out."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from data_schemas.params import CorpusSource
from tasks.ingest.reading.file_formats import without_compression

# U+FFFD and what no text holds: C0 and C1 controls (but white space, and ESC as logs of terminals have) and noncharacters.
_ODD = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffd-\uffff]")
MAX_ODD_SHARE = 0.01


@dataclass(frozen=True)
class Refused:
    """An input that cannot be read, with a reason code; becomes one QUARANTINE row. Record 0 is a whole file.

    Reason codes: undecodable, invalid_json, missing_text, not_text, empty, nul_bytes, lone_surrogates, unreadable,
    too_large, truncated, corrupt, decompression_bomb, encrypted, scanned, outside_root; of conversations no_messages, no_role,
    unknown_role, roles_out_of_order, no_answer, unknown_weight.
    """

    source_uri: str
    record: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Skipped:
    """A readable input that the parameters leave out: "short", "language", or, in a repository, "binary" or "large_file".

    `num_bytes` of its text in UTF-8; 0 where it was not read as text.
    """

    source_uri: str
    record: int
    reason: str
    num_bytes: int = 0


@dataclass(frozen=True)
class Unmatched:
    """A file in a listed folder that matches neither an include nor an exclude pattern."""

    relative: str


@dataclass(frozen=True)
class Turn:
    """A message of a conversation: characters `start` to `end` of its text. `role` is "system", "user" or "assistant".

    `is_learned`: an answer that training learns.
    """

    role: str
    start: int
    end: int
    is_learned: bool


@dataclass(frozen=True)
class Document:
    """One document with its text exactly as stored (line ends included, byte order mark dropped); HTML as Markdown.

    changes   what was replaced in the text: ((kind, number of places), ...), such as (("undecodable", 1),)
    turns     of a conversation: its messages; empty for any other document
    context   of a conversation: the span of the document that it asks about, if it has one
    """

    text: str
    source: str
    source_uri: str
    record: int
    byte_start: int | None
    byte_end: int | None
    licence: str
    work: str
    format: str
    language: str | None = None
    changes: tuple[tuple[str, int], ...] = ()
    turns: tuple[Turn, ...] = ()
    context: tuple[int, int] | None = None

    @cached_property
    def utf8(self) -> bytes:
        return self.text.encode()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the UTF-8 text, in hex."""
        return hashlib.sha256(self.utf8).hexdigest()

    @property
    def doc_id(self) -> str:
        return self.content_hash[:16]


class Unusable(Exception):
    """An input that cannot be used; caught where its Refused is made. Arguments: reason code, detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail[:500].encode("utf-8", "replace").decode()

    def refused(self, source_uri: str, record: int) -> Refused:
        return Refused(source_uri, record, self.reason, self.detail)


@dataclass(frozen=True)
class Origin:
    """Where records come from: the file's URI, its path below the source's root, and the source's parameters."""

    uri: str
    relative: str
    source: CorpusSource


def work_of(relative: str, work_by: str) -> str:
    """The work a file belongs to: its path without suffixes, or the first part of that path ("top_level")."""
    path = PurePosixPath(without_compression(relative))
    if work_by == "file":
        return path.with_suffix("").as_posix()
    return path.parts[0] if len(path.parts) > 1 else path.stem


def whole_file(
    text: str,
    num_bytes: int,
    text_format: str,
    origin: Origin,
    changes: tuple[tuple[str, int], ...] = (),
    language: str | None = None,
) -> Document:
    """The document that a file of `num_bytes` (decompressed) consists of. Raises Unusable."""
    return Document(
        text=checked(text),
        source=origin.source.label,
        source_uri=origin.uri,
        record=0,
        byte_start=0,
        byte_end=num_bytes,
        licence=origin.source.licence,
        work=work_of(origin.relative, origin.source.work_by),
        format=text_format,
        changes=changes,
        language=language,
    )


def checked(text: str) -> str:
    """`text`, if it is fit for training. Raises Unusable if not."""
    if not text or text.isspace():
        raise Unusable("empty", "no text")
    if (position := text.find("\0")) >= 0:
        raise Unusable("nul_bytes", f"a NUL at character {position}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("lone_surrogates", f"half a surrogate pair at character {error.start}") from error
    if (share := odd_share(text)) > MAX_ODD_SHARE:
        raise Unusable("undecodable", f"{share:.1%} of the characters are replacement or control characters")
    return text


def odd_share(text: str) -> float:
    """Share of control, replacement and noncharacters, which show that decoding went wrong."""
    return sum(1 for _ in _ODD.finditer(text)) / len(text) if text else 0.0
