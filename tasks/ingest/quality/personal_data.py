"""E-mail addresses, phone numbers, IBANs and IP addresses, replaced by markers.

Patterns find most of them and some that are none; names and postal addresses are not looked for. A phone number needs a
country code, the form of a North American number, or a word such as `Tel.` in front.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence

_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![\w-])"
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
_PHONE = re.compile(
    r"(?<![\w+.])(?:\+|00)[1-9]\d{0,2}(?:[ ./()-]{0,3}\d){6,13}(?![\w])"
    r"|(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-])"
    r"|(?:(?<=tel)|(?<=phone)|(?<=mobile)|(?<=mobil)|(?<=fax)|(?<=telefon)|(?<=handy)|(?<=téléphone))"
    r"[.:]{0,2} {0,2}[(\d](?:[ ./()-]{0,3}\d){5,14}(?!\w)",
    re.IGNORECASE,
)
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}\.){3}\d{1,3}(?![\w:]|\.\d)|(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:]|\.\d)"
)
# Lengths by country: the IBAN registry of SWIFT.
_IBAN_LENGTHS = {
    name[:2]: int(name[2:])
    for name in [
        "AD24",
        "AE23",
        "AL28",
        "AT20",
        "AZ28",
        "BA20",
        "BE16",
        "BG22",
        "BH22",
        "BI27",
        "BR29",
        "BY28",
        "CH21",
        "CR22",
        "CY28",
        "CZ24",
        "DE22",
        "DJ27",
        "DK18",
        "DO28",
        "EE20",
        "EG29",
        "ES24",
        "FI18",
        "FK18",
        "FO18",
        "FR27",
        "GB22",
        "GE22",
        "GI23",
        "GL18",
        "GR27",
        "GT28",
        "HN28",
        "HR21",
        "HU28",
        "IE22",
        "IL23",
        "IQ23",
        "IS26",
        "IT27",
        "JO30",
        "KW30",
        "KZ20",
        "LB28",
        "LC32",
        "LI21",
        "LT20",
        "LU20",
        "LV21",
        "LY25",
        "MC27",
        "MD24",
        "ME22",
        "MK19",
        "MN20",
        "MR27",
        "MT31",
        "MU30",
        "NI28",
        "NL18",
        "NO15",
        "OM23",
        "PK24",
        "PL28",
        "PS29",
        "PT25",
        "QA29",
        "RO24",
        "RS22",
        "RU33",
        "SA24",
        "SC31",
        "SD18",
        "SE24",
        "SI19",
        "SK24",
        "SM27",
        "SO23",
        "ST25",
        "SV28",
        "TL23",
        "TN24",
        "TR26",
        "UA29",
        "VA22",
        "VG24",
        "XK20",
        "YE30",
    ]
}


def replaced(text: str, kinds: Sequence[str]) -> tuple[str, tuple[tuple[str, int], ...]]:
    """(the text with markers in place of what was found, ((kind, number of places), ...) of the kinds that were found)."""
    counts = []
    for kind, replace in _REPLACING.items():
        if kind in kinds:
            text, num_found = replace(text)
            if num_found:
                counts.append((kind, num_found))
    return text, tuple(counts)


def _replacing(pattern: re.Pattern[str], marker: str, part: Callable[[str], str]) -> Callable[[str], tuple[str, int]]:
    """Replaces what the pattern finds: of each match the beginning that `part` gives, nothing if that is empty."""

    def replace(text: str) -> tuple[str, int]:
        num_found = 0

        def marked(match: re.Match[str]) -> str:
            nonlocal num_found
            found = part(match[0])
            if not found:
                return match[0]
            num_found += 1
            start = match[0].index(found)
            return match[0][:start] + marker + match[0][start + len(found) :]

        return pattern.sub(marked, text), num_found

    return replace


def _iban(found: str) -> str:
    """The beginning that is an IBAN by its country's length and its check digits (ISO 13616); else empty."""
    length = _IBAN_LENGTHS.get(found[:2])
    end = num_characters = 0
    while length and end < len(found) and num_characters < length:
        num_characters += found[end] != " "
        end += 1
    number = found[:end].replace(" ", "")
    if num_characters != length or (end < len(found) and found[end] != " "):
        return ""
    digits = "".join(str(int(character, 36)) for character in number[4:] + number[:4])
    return found[:end] if int(digits) % 97 == 1 else ""


def _ip(found: str) -> str:
    """An address that can be reached in the internet; others, such as 127.0.0.1, are nobody's."""
    try:
        return found if ipaddress.ip_address(found).is_global else ""
    except ValueError:
        return ""


def _phone(found: str) -> str:
    return found.lstrip(".: ")


_REPLACING: dict[str, Callable[[str], tuple[str, int]]] = {
    "email": _replacing(_EMAIL, "<EMAIL>", str),
    "iban": _replacing(_IBAN, "<IBAN>", _iban),
    "ip": _replacing(_IP, "<IP>", _ip),
    "phone": _replacing(_PHONE, "<PHONE>", _phone),
}
