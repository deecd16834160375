"""JSON files: one record, or a list of records at the path `records_field`; numbered from 1."""

import json
from collections.abc import Iterator
from typing import Any

from tasks.ingest.reading.record_fields import from_fields
from tasks.ingest.reading.records import Document, Origin, Refused, Unusable
from tasks.ingest.reading.text_decoding import decode_replacing

MAX_JSON_BYTES = 256_000_000  # the parsed file takes several times its size


def read_json(data: bytes | bytearray, origin: Origin) -> Iterator[Document | Refused]:
    """Documents of the records; a Refused for a file that is not JSON, or has no such field."""
    try:
        text, num_replaced = decode_replacing(data, origin.source.replace_undecodable)
        try:
            records = _at_path(json.loads(text), origin.source.records_field)
        except RecursionError as error:
            raise Unusable("invalid_json", "nested too deeply") from error
        except ValueError as error:
            raise Unusable("invalid_json", f"{error}; for one object a line, name the file .jsonl") from error
        del text
    except Unusable as problem:
        yield problem.refused(origin.uri, 0)
        return
    for number, fields in enumerate(records, 1):
        try:
            if not isinstance(fields, dict):
                raise Unusable("invalid_json", f"a record must be an object, this one is a {type(fields).__name__}")
            yield from_fields(fields, number, None, origin, (("undecodable", num_replaced),) if num_replaced else ())
        except Unusable as problem:
            yield problem.refused(origin.uri, number)


def _at_path(found: Any, path: str) -> list[Any]:
    """The records at a path such as `data.items`; an object is one record. Raises Unusable."""
    for name in path.split(".") if path else ():
        if not isinstance(found, dict) or name not in found:
            raise Unusable("missing_text", f"no field {path!r}")
        found = found[name]
    return found if isinstance(found, list) else [found]
