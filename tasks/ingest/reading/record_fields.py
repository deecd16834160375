"""The document in one record: a JSON object, or a row of a table or a data set."""

import hashlib
from collections.abc import Mapping
from typing import Any

from tasks.ingest.reading.conversations import Conversation, conversation_of, hint, value_at
from tasks.ingest.reading.format_guess import guess_format, named_format
from tasks.ingest.reading.html.main_text import main_text
from tasks.ingest.reading.records import Document, Origin, Unusable, checked, work_of


def from_fields(
    fields: Mapping[str, Any],
    record: int,
    span: tuple[int, int] | None,
    origin: Origin,
    changes: tuple[tuple[str, int], ...] = (),
    text_format: str | None = None,
) -> Document:
    """The document in one record of a file; `span` is the record's place in bytes. Raises Unusable.

    `text_format`, one of TEXT_FORMATS, is given if the text is in it already.

    The record's own `id`, `licence` (or `license`) and `work` override the source's. Without a `work`, each record is a work
    of its own (`work_by` "file"), named by its `id`, else by its text, or belongs to the work of its folder.
    """
    source = origin.source
    if source.instructions != "no":
        return _asked(conversation_of(fields, source), fields, record, span, origin, changes)
    try:
        text = value_at(fields, source.text_field)
    except Unusable as missing:
        raise Unusable(missing.reason, missing.detail + hint(fields)) from None
    if not isinstance(text, str):
        raise Unusable("not_text", f"the field {source.text_field!r} holds a {type(text).__name__}")
    identifier = _label(fields.get("id"))
    work = _label(fields.get("work")) or _work_of_record(origin, identifier, text)
    named = named_format(fields.get(source.format_field)) if source.format_field else None
    text, text_format = (checked(text), text_format) if text_format else in_format(text, named or source.format)
    return Document(
        text=text,
        source=source.label,
        source_uri=f"{origin.uri}#{identifier}" if identifier else origin.uri,
        record=record,
        byte_start=span[0] if span else None,
        byte_end=span[1] if span else None,
        licence=_label(fields.get("licence")) or _label(fields.get("license")) or source.licence,
        work=work,
        format=text_format,
        changes=changes,
    )


def in_format(text: str, named: str | None) -> tuple[str, str]:
    """(text, its name in TEXT_FORMATS): HTML as Markdown, a guess without a name. Raises Unusable."""
    text = checked(text)
    if named == "html":
        return checked(main_text(text)), "markdown"
    return text, named or guess_format(text)


def _asked(
    found: Conversation,
    fields: Mapping[str, Any],
    record: int,
    span: tuple[int, int] | None,
    origin: Origin,
    changes: tuple[tuple[str, int], ...],
) -> Document:
    """The conversation of one record. Questions about one document are one work, so the held-out split never divides them."""
    source, identifier = origin.source, _label(fields.get("id"))
    of_context = f"context:{_short_hash(found.text[slice(*found.context)])}" if found.context else None
    by_folder = source.work_by == "top_level"
    work = _label(fields.get("work")) or (None if by_folder else of_context) or _work_of_record(origin, identifier, found.text)
    return Document(
        text=checked(found.text),
        source=source.label,
        source_uri=f"{origin.uri}#{identifier}" if identifier else origin.uri,
        record=record,
        byte_start=span[0] if span else None,
        byte_end=span[1] if span else None,
        licence=_label(fields.get("licence")) or _label(fields.get("license")) or source.licence,
        work=work,
        format="plain",
        changes=changes,
        turns=found.turns,
        context=found.context,
    )


def _work_of_record(origin: Origin, identifier: str | None, text: str) -> str:
    """Nothing that depends on a record's place in a file or on how records are dealt out to files: the split follows it."""
    if origin.source.work_by == "top_level":
        return work_of(origin.relative, "top_level")
    if identifier:
        return f"{origin.source.label}#{identifier}"
    return f"sha256:{_short_hash(text)}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _label(value: object) -> str | None:
    """A short field as valid Unicode; None where it is absent, empty, or neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).encode("utf-8", "replace").decode() or None
