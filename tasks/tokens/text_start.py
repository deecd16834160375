"""What a tokenizer puts in front of a text: SentencePiece-like ones add a space, so that the first word is encoded like the others.

Text that continues other text must not get it, or it reads as a space that is not there.
"""

from __future__ import annotations

from typing import Any

_DROPS_SPACES = ("WhitespaceSplit", "Whitespace", "BertPreTokenizer")


def without_prefix(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings (`tokenizer.json`) of the same tokenizer without that space; equal ones where it adds none.

    Tokenizers that drop spaces before they add their own are left as they are: for them text has no spaces to tell apart.
    """
    return settings | {
        "normalizer": _normalizer(settings.get("normalizer")),
        "pre_tokenizer": _pre_tokenizer(settings.get("pre_tokenizer")),
    }


def _normalizer(one: dict[str, Any] | None) -> dict[str, Any] | None:
    if not one or one["type"] == "Prepend":
        return None
    if one["type"] != "Sequence":
        return one
    kept = [inner for each in one["normalizers"] if (inner := _normalizer(each))]
    return one | {"normalizers": kept}


def _pre_tokenizer(one: dict[str, Any] | None) -> dict[str, Any] | None:
    if not one:
        return None
    if one["type"] == "Sequence":
        inner = one["pretokenizers"]
        if any(each["type"] in _DROPS_SPACES for each in inner):
            return one
        return one | {"pretokenizers": [_pre_tokenizer(each) for each in inner]}
    changes = {"prepend_scheme": "never", "add_prefix_space": False}
    if one["type"] not in ("Metaspace", "ByteLevel"):
        return one
    return one | {key: value for key, value in changes.items() if key in one}
