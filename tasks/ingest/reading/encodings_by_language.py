"""The encodings and the letters beyond ASCII that each language was usually written with before UTF-8.

Encodings by language follow the defaults that the WHATWG lists by locale, with the older ones they replaced.
"""

import re
from functools import cache

_LANGUAGES = {
    "cp1252": "en fr de es pt it nl sv no nn da fi is ca eu gl ga af id ms oc sq",
    "cp1250": "pl cs sk hu sl hr bs ro",
    "iso8859_2": "pl cs sk hu sl hr bs ro",
    "cp1251": "ru uk bg be sr mk kk ky mn tt tg ba",
    "koi8_r": "ru",
    "koi8_u": "uk",
    "cp866": "ru be",
    "cp1253": "el",
    "cp1254": "tr",
    "cp1255": "he",
    "cp1256": "ar fa ur",
    "cp1257": "lt lv et",
    "cp932": "ja",
    "euc_jp": "ja",
    "gb18030": "zh",
    "big5": "zh",
    "cp949": "ko",
}
ENCODINGS = tuple(_LANGUAGES)

# Members of a regular expression's character class.
_PUNCTUATION = "“”‘’–—…«»„•·§°©®™€£¥¿¡½¼¾²³ªº×±µ\u00a0\u00ad"
_CYRILLIC = "\u0400-\u04ff№"
_ARABIC = "\u0600-\u06ff\u200c-\u200f"
_CHINESE = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef"
_LETTERS = {
    "en": "àâçèéêëîïñôöüæœ",
    "fr": "àâæçéèêëîïôœùûüÿ",
    "de": "äöüßéàè",
    "es": "áéíñóúüç",
    "pt": "áâãàçéêíóôõúü",
    "it": "àèéìíîòóùú",
    "nl": "áéëïóöüèêíú",
    "sv": "åäöéàü",
    "no": "æøåéèêòóôäöü",
    "nn": "æøåéèêòóôäöü",
    "da": "æøåéèêòóôäöü",
    "fi": "äöåšžé",
    "is": "áðéíóúýþæö",
    "ca": "àçèéíïòóúü",
    "eu": "ñçü",
    "gl": "áéíñóúüï",
    "ga": "áéíóú",
    "af": "áéèêëîïôöûü",
    "id": "é",
    "ms": "é",
    "oc": "áàçèéíïóòúü",
    "sq": "çë",
    "pl": "ąćęłńóśźż",
    "cs": "áčďéěíňóřšťúůýž",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "hu": "áéíóöőúüű",
    "sl": "čšžćđ",
    "hr": "čćđšž",
    "bs": "čćđšž",
    "ro": "ăâîşţșț",
    "tr": "çğıöşüâîûİ",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūž",
    "et": "äõöüšž",
    "el": "\u0370-\u03ff",
    "he": "\u0590-\u05ff\u200e-\u200f",
    "ar": _ARABIC,
    "fa": _ARABIC,
    "ur": _ARABIC,
    "ja": f"{_CHINESE}\u3040-\u30ff",
    "zh": _CHINESE,
    "ko": "\u3000-\u303f\u3130-\u318f\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef",
}


@cache
def encodings_of(language: str) -> frozenset[str]:
    """Python's names of the encodings that are usual for texts in `language` (ISO 639-1)."""
    return frozenset(name for name, languages in _LANGUAGES.items() if language in languages.split())


def customary_share(text: str, language: str) -> float:
    """Share of the characters beyond ASCII that are usual in `language`; 1.0 if there are none."""
    num_beyond = sum(not character.isascii() for character in text)
    return len(_beyond_ascii(language).findall(text)) / num_beyond if num_beyond else 1.0


@cache
def _beyond_ascii(language: str) -> re.Pattern[str]:
    letters = _LETTERS.get(language, _CYRILLIC if "cp1251" in encodings_of(language) else "")
    capitals = "" if "-" in letters else letters.upper()  # a range has its own
    return re.compile(f"(?![\\x00-\\x7f])[{letters}{capitals}{_PUNCTUATION}]")  # SS is the capital of ß, but ASCII
