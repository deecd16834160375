"""Encodings that write other letters in ASCII bytes: ISO-2022, HZ and UTF-7. Such a text is valid UTF-8, but not its letters.

ISO-2022 marks its letters by escape sequences (RFC 1468, 1554, 1557), which no other text holds. HZ (RFC 1843) and UTF-7
(RFC 2152) use marks that also occur in plain ASCII, so they count only if everything decodes to letters of one language.
"""

import re

from tasks.ingest.reading.encodings_by_language import customary_share
from tasks.ingest.reading.records import Unusable, odd_share

_SAMPLE_BYTES = 1 << 20
_MIN_LETTERS = 3  # beyond ASCII
_MIN_PROBABILITY = 0.5  # of the language
_MIN_CUSTOMARY = 0.9  # of the letters beyond ASCII

_ISO_2022 = re.compile(rb"\x1b\$(?:[@AB]|\([DOPQ]|\)C)|\x1b\([IJ]")  # not ESC ( B alone, which terminals write
_ISO_2022_NAMES = ("iso2022_jp_2", "iso2022_jp_2004", "iso2022_jp_3", "iso2022_jp_ext")
_HZ = re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}")
_UTF_7 = re.compile(rb"\+[A-Za-z0-9+/]{2,}(?:-|[^A-Za-z0-9+/])")


def seven_bit_text(data: bytes | bytearray) -> str | None:
    """The text of ASCII bytes in ISO-2022, HZ or UTF-7; None for plain ASCII.

    Raises Unusable("undecodable") for bytes with marks of ISO-2022 that do not decode.
    """
    if b"\x1b" in data and (mark := _ISO_2022.search(data)):
        return _iso_2022(data, ("iso2022_kr",) if mark[0].endswith(b")C") else _ISO_2022_NAMES)
    for name, marks in (("hz", _HZ), ("utf-7", _UTF_7)):
        sample = data[:_SAMPLE_BYTES]
        if marks.search(sample) and _is_of_one_language(_decoded(_whole_lines(sample, len(data)), name)):
            return _decoded(data, name)
    return None


def _iso_2022(data: bytes | bytearray, names: tuple[str, ...]) -> str:
    for name in names:
        if (text := _decoded(data, name)) is not None and not odd_share(text):
            return text
    raise Unusable("undecodable", "escape sequences of ISO-2022, but not valid in it")


def _is_of_one_language(text: str | None) -> bool:
    from tasks.ingest.reading.language_detection import identify

    if text is None or odd_share(text) or sum(c.isalpha() and not c.isascii() for c in text) < _MIN_LETTERS:
        return False
    language, probability = identify(text)
    return probability >= _MIN_PROBABILITY and customary_share(text, language) >= _MIN_CUSTOMARY


def _whole_lines(sample: bytes | bytearray, num_bytes: int) -> bytes | bytearray:
    end = sample.rfind(b"\n") + 1
    return sample if len(sample) == num_bytes or not end else sample[:end]


def _decoded(data: bytes | bytearray, name: str) -> str | None:
    try:
        return data.decode(name)
    except UnicodeError:
        return None
