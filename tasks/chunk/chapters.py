"""Titles without mark-up: chapters and other parts of books in several languages, and numbered sections.

Each is alone on its line, with a blank line above. Words and ordinals are those of English, German, French, Spanish, Italian,
Portuguese, Dutch, Polish, Swedish and Russian; Chinese, Japanese and Korean number their parts in one word (第一章, 第1章, 제1장).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

_LEVELS = {
    1: "volume tome band tomo volumen volumi deel tom том",
    2: "book part buch teil livre partie libro parte livro boek księga część bok книга часть",
    3: "act chapter canto stave letter appendix kapitel gesang brief anhang chapitre chant lettre annexe capítulo capitulo canto "
    "carta apéndice capitolo lettera appendice hoofdstuk rozdział глава песнь приложение",
    4: "scene section szene auftritt abschnitt scène scena escena sección sezione seção paragraaf сцена раздел",
}
_LEVEL_OF = {word: level for level, words in _LEVELS.items() for word in words.split()} | {
    "acte": 3,
    "akt": 3,
    "acto": 3,
    "atto": 3,
}
_ORDINAL = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    "(?:the )?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last)|"
    "(?:erst|zweit|dritt|viert|fünft|sechst|siebent|siebt|acht|neunt|zehnt|elft|zwölft|letzt)e[rs]?|"
    "eins|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf|"
    "premi(?:er|ère)|second|seconde|deuxième|troisième|quatrième|cinquième|sixième|septième|huitième|neuvième|dixième|derni(?:er|ère)|"
    "(?:primer|segund|tercer|cuart|quint|sext|séptim|octav|noven|décim|últim)[oa]|"
    "(?:prim|second|terz|quart|quint|sest|settim|ottav|non|decim|ultim|primeir|terceir|sétim|oitav)[oa]|"
    "перв(?:ая|ый)|втор(?:ая|ой)|треть?(?:я|ий)|четв[её]рт(?:ая|ый)|пят(?:ая|ый)|шест(?:ая|ой)|седьм(?:ая|ой)|восьм(?:ая|ой)|"
    "девят(?:ая|ый)|десят(?:ая|ый)|последн(?:яя|ий)"
)
_WORDS = "|".join(sorted(map(re.escape, _LEVEL_OF), key=len, reverse=True))
_PART = re.compile(
    rf"(?:(?i:({_WORDS}))[ \t]+(?:\d{{1,4}}|[IVXLCDM]+|[ivxlcdm]+|[A-ZА-Я]|(?i:{_ORDINAL}))\b|(?i:(?:{_ORDINAL})[ \t]+({_WORDS}))\b)"
    r"[.:]?(?P<title>[ \t]*[-–—:.]*[ \t]*[^\sa-zà-öø-ÿа-я,;].*)?"
)
_WIDE_NUMBER = r"[ \t]*[\d０-９一二三四五六七八九十百千零〇壱弐参上中下]{1,7}[ \t]*"
_WIDE_PART = re.compile(
    rf"(?:第{_WIDE_NUMBER}|제{_WIDE_NUMBER})(?P<kind>[卷巻部冊编編篇章回话話節节幕場장부권편절])(?P<title>[\s　:：、・-].*)?"
)
_WIDE_LEVEL = dict.fromkeys("卷巻冊권", 1) | dict.fromkeys("部编編篇부편", 2) | dict.fromkeys("節节場절", 4)
_UNNUMBERED = re.compile(
    "(?i:preface|foreword|prologue|epilogue|introduction|contents|table of contents|conclusions?|bibliography|glossary|"
    "acknowledge?ments|index|abstract|references|appendix|vorwort|einleitung|inhalt|inhaltsverzeichnis|nachwort|anhang|literatur|"
    "literaturverzeichnis|zusammenfassung|préface|avant-propos|table des matières|bibliographie|annexe|épilogue|prologue|résumé|"
    "prólogo|prefacio|introducción|índice|conclusión|bibliografía|epílogo|resumen|prefazione|introduzione|indice|conclusione|"
    "bibliografia|prefácio|introdução|conclusão|предисловие|введение|содержание|заключение|пролог|эпилог|оглавление)[.:]?"
    "|序[章文言]?|前言|目[录錄次]|[结結][论論语語]|[参參]考文[献獻]|はじめに|おわりに|あとがき|まえがき|摘要"
)
_OF_PAPERS = re.compile(
    "(?i:introduction|background|related work|motivation|preliminaries|(?:materials and )?methods?|methodology|approach|model|data|"
    "experiments?|experimental setup|evaluation|results?(?: and discussion)?|discussion|limitations?|conclusions?|future work|"
    "references|einleitung|grundlagen|methoden?|ergebnisse|diskussion|fazit|méthodes?|résultats|introducción|métodos|resultados)"
)
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3})*)\.?[ \t]+([^\W\d_].*)")
_CHAPTER_LEVEL, _FIRST_NUMBERED_LEVEL = 3, 3
_MIN_SECTION_CHARS = 200
MAX_TITLE_CHARS = 80


def part_level(line: str, is_alone: bool) -> int | None:
    """Level of a part's title such as "CHAPTER IV.", "Kapitel 3" or "第一章"; None if the line is none. A title may follow the
    number only if a blank line is below (`is_alone`)."""
    if len(line) > MAX_TITLE_CHARS:
        return None
    if part := _PART.fullmatch(line):
        level = _LEVEL_OF[(part[1] or part[2]).lower()]
    elif part := _WIDE_PART.fullmatch(line):
        level = _WIDE_LEVEL.get(part["kind"], _CHAPTER_LEVEL)
        if (part["title"] or "").endswith(("。", "！", "？")):
            return None
    else:
        return None
    return level if is_alone or not part["title"] else None


def unnumbered_level(line: str) -> int | None:
    """Level of a title such as "Preface" or "Vorwort"; None if the line is none."""
    return _CHAPTER_LEVEL if _UNNUMBERED.fullmatch(line) else None


def numbering(line: str) -> tuple[str, str] | None:
    """(number, title) of a line such as "1.2 Method of work"; None if the line is none."""
    number = _NUMBERED.fullmatch(line)
    return (number[1], number[2]) if number and number[2][0].isupper() and line[-1] not in ".,;:" else None


def numbered_level(number: str) -> int:
    """Level of a section with this number: "1.2" is one below "1"."""
    return _FIRST_NUMBERED_LEVEL + number.count(".")


def are_sections(numbers: Sequence[tuple[str, str]], sizes: Sequence[int], is_plain: bool) -> bool:
    """Whether numbered lines, as (number, title), are the titles of sections and not items of a list.

    `sizes` are the visible characters up to the next of them. Numbers of several parts are enough in plain text. Numbers such
    as 1, 2, 3 have to follow each other, with text below each, and either a title that papers use or long text.
    """
    if is_plain and any("." in number for number, _ in numbers):
        return True
    if len(numbers) < 2 or any("." in number for number, _ in numbers):
        return False
    values = [int(number) for number, _ in numbers]
    if values[0] > 1 or any(after != before + 1 for before, after in itertools.pairwise(values)) or not min(sizes):
        return False
    return any(_OF_PAPERS.fullmatch(title) for _, title in numbers) or (is_plain and min(sizes) >= _MIN_SECTION_CHARS)
