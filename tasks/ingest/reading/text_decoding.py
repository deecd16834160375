"""From bytes to text: UTF-8, else the encoding that a byte order mark, an HTML page or a statistical detector names.

A detector alone takes French in windows-1252 for windows-1257 and silently gives wrong letters. So its guess counts only if
the decoded text is in a language that was usually written in that encoding and with those letters, and if no other guess is
as good and gives another text.
"""

import codecs
import re
from typing import TYPE_CHECKING

from tasks.ingest.reading.encodings_by_language import ENCODINGS, customary_share, encodings_of
from tasks.ingest.reading.records import Unusable, odd_share
from tasks.ingest.reading.seven_bit_encodings import seven_bit_text

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

_SAMPLE_BYTES = 1 << 16
_MIN_PROBABILITY = 0.5  # of the language
_MIN_CUSTOMARY = 0.9  # of the characters beyond ASCII
_MIN_LETTERS = 16
_MARGIN = 0.02  # in the detector's mess ratio, between the best guess and one that gives another text

BYTE_ORDER_MARKS = (  # UTF-32 first: its little-endian mark starts with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_NOT_ENCODINGS = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "oem", "mbcs")
_HTML_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)


def decode(data: bytes | bytearray, *, is_start: bool = True, is_html: bool = False, declared: str | None = None) -> str:
    """The text of `data`, at the start of a file without its byte order mark. `declared`: an encoding named beside the data.

    Raises Unusable("undecodable") rather than guess badly.
    """
    if data.isascii() and (text := seven_bit_text(data)) is not None:
        return text
    try:
        return _without_mark(data.decode("utf-8"), is_start)
    except UnicodeDecodeError as error:
        where = error
    if encoding := marked_encoding(data):
        return _strictly(data, encoding)
    if named := _named_encoding(data, is_html, declared):
        text = _strictly(data, named)
    else:
        text = _strictly(data, _detected_encoding(_sample(data, where.start), f"byte {where.start}: {where.reason}"))
    if odd_share(text):
        raise Unusable(
            "undecodable", f"not UTF-8 (byte {where.start}: {where.reason}), and control characters in any other encoding"
        )
    return text


def decode_replacing(
    data: bytes | bytearray,
    max_share: float,
    *,
    is_start: bool = True,
    is_html: bool = False,
    declared: str | None = None,
) -> tuple[str, int]:
    """(text, number of replacement characters in it that stand for bytes which do not decode).

    Like `decode`, but damaged places become U+FFFD, if they are at most `max_share` of the characters. Raises Unusable.
    """
    try:
        return decode(data, is_start=is_start, is_html=is_html, declared=declared), 0
    except Unusable as problem:
        if not max_share:
            raise
        encoding = marked_encoding(data) or _named_encoding(data, is_html, declared) or "utf-8"
        text = _without_mark(data.decode(encoding, "replace"), is_start)
        num_replaced = text.count("\ufffd") - (data.count(b"\xef\xbf\xbd") if encoding == "utf-8" else 0)
        if not 0 < num_replaced <= max_share * len(text):
            raise
        if odd_share(text.replace("\ufffd", "")):
            raise Unusable("undecodable", f"{problem.detail}, and control characters beside the damaged places") from problem
        return text, num_replaced


def _without_mark(text: str, is_start: bool) -> str:
    return text[1:] if is_start and text.startswith("\ufeff") else text


def marked_encoding(start: bytes | bytearray) -> str | None:
    """UTF-16 or UTF-32 if the data starts with its byte order mark, else None."""
    return next((name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark)), None)


def _strictly(data: bytes | bytearray, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        raise Unusable("undecodable", f"taken for {encoding}, but {error}") from error


def _named_encoding(data: bytes | bytearray, is_html: bool, declared: str | None) -> str | None:
    """The encoding that is declared, or that an HTML page names near its start, if Python knows it and it is not UTF-8, which
    has failed."""
    found = _HTML_CHARSET.search(data, 0, 4096) if is_html and not declared else None
    named = found[1].decode() if found else declared
    if not named:
        return None
    try:
        name = codecs.lookup(named).name
        "".encode(name)  # no codec from bytes to bytes
    except (LookupError, ValueError):
        return None
    if name in _NOT_ENCODINGS or name.startswith(("utf-16", "utf-32")):  # a name in ASCII is in no such text
        return None
    # Browsers read pages that say Latin-1 or ASCII as windows-1252 (WHATWG Encoding Standard).
    return None if name == "utf-8" else "cp1252" if name in ("iso8859-1", "ascii") else name


def _sample(data: bytes | bytearray, first_bad: int) -> bytes:
    """Lines with bytes beyond ASCII, from the first bad one. No multi-byte encoding in use has LF inside a character."""
    lines: list[bytes | bytearray] = []
    num_bytes = 0
    at = max(data.rfind(b"\n", 0, first_bad) + 1, first_bad - _SAMPLE_BYTES // 4)
    while at < len(data) and num_bytes < _SAMPLE_BYTES and at < first_bad + (_SAMPLE_BYTES << 6):
        end = data.find(b"\n", at)
        end = min(len(data) if end < 0 else end + 1, at + _SAMPLE_BYTES)
        line = data[at:end]
        if not line.isascii():
            lines.append(line)
            num_bytes += len(line)
        at = end
    return b"".join(lines)


def _detected_encoding(sample: bytes, problem: str) -> str:
    """The one encoding in which the sample is plausible text. Raises Unusable if there is none, or more than one."""
    from charset_normalizer import from_bytes

    found = [(match, _customary(match)) for match in from_bytes(sample, cp_isolation=list(ENCODINGS))]
    likely = sorted((match.chaos, min(names), str(match)) for match, names in found if names)
    if not likely:
        raise Unusable("undecodable", f"not UTF-8 ({problem}), and not clearly in another encoding")
    mess, name, text = likely[0]
    if rivals := [other for rival_mess, other, rival in likely[1:] if rival_mess <= mess + _MARGIN and rival != text]:
        raise Unusable("undecodable", f"not UTF-8 ({problem}), but {name} as well as {rivals[0]}")
    return name


def _customary(match: "CharsetMatch") -> set[str]:
    """The encodings that give this text and are usual for its language; empty if its language or letters are unclear."""
    from tasks.ingest.reading.language_detection import identify

    text = str(match)
    if sum(map(str.isalpha, text[:4096])) < _MIN_LETTERS:
        return set()
    language, probability = identify(text)
    if probability < _MIN_PROBABILITY or customary_share(text, language) < _MIN_CUSTOMARY:
        return set()
    return set(encodings_of(language)) & set(match.could_be_from_charset)
