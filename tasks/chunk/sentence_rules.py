"""Whether a sentence starts after a full stop, decided by the few words around it.

Each decision reads 160 characters to the left and 64 to the right, nothing else. So it is the same whether a paragraph is
searched whole or only around the place where it has to be cut.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tasks.chunk.languages import LanguageRules

MAX_GAP_CHARS = 1000  # of white space between two sentences; nothing is found across a longer gap
_BEFORE, _AFTER = 160, 64
_MAX_RUN = 16  # stops, and closing marks, in one place
_STOPS = ".!?…‼⁇⁈⁉؟۔।॥։።"
_WIDE_STOPS = "。！？｡"
_CLOSERS = "\"'”’»›“‘«‹)]}*_」』）】》〉"
_OPENERS = "\"'“”„‚‘’«»‹›([{*_¿¡「『（【《〈—–-•"
_LIST_MARK = r"(?:[-*+•]|\d{1,3}[.)])[ \t]"
_CLOSING = rf"[{re.escape(_CLOSERS)}]{{0,{_MAX_RUN}}}+(?:[ \u00a0\u202f][»›])?+"
_INLINE_MARK = r"(?:[•⁃‣◦] ?(?:\d{1,2}[.)])?|\d{1,2}(?:\.\)|[.)])|[a-z](?:\.\)|[.)]))"
_ANCHOR = re.compile(rf"[{_STOPS}{_WIDE_STOPS}\n]|[ \t](?={_INLINE_MARK}\s)")
_INLINE_ITEM = re.compile(rf"[ \t]{{1,32}}+(?={_INLINE_MARK}\s)")
_CANDIDATE = re.compile(
    rf"(?:(?<![{_STOPS}])([{_STOPS}]{{1,{_MAX_RUN}}}+)({_CLOSING}(?:\[[^\s\[\]]{{1,6}}\]){{0,4}}+)\s{{1,{MAX_GAP_CHARS}}}+"
    rf"|(?<![{_WIDE_STOPS}])([{_WIDE_STOPS}][{_WIDE_STOPS}…!?]{{0,{_MAX_RUN}}}+)({_CLOSING})(?![{_WIDE_STOPS}])\s{{0,{MAX_GAP_CHARS}}}+"
    rf"|\n[ \t]{{0,32}}+(?={_LIST_MARK}))(?=\S)"
)
_MOST_MARKS = 6 * _MAX_RUN
_ENDS_A_LINE = tuple(".:;!?,)")  # in front of a list item
_LIST_ITEM = re.compile(_LIST_MARK)
_MARK = re.compile(r"([•⁃‣◦]?) ?(\d{1,2}|[a-z]?)(\.\)|[.)]|)(?=\s)")
_SPACED_DOTS = re.compile(r"\.(?:[ \u00a0]\.){2}(?![ \u00a0]?\.)\s+\S")
_DOTS_BEFORE = re.compile(r"(?<!\.[ \u00a0])(?:\.[ \u00a0])+\Z")
_INITIALS = re.compile(r"[^\W\d_a-zа-я]\.\s?[^\W\d_]")
_WORD = re.compile(r"[^\W_]+")
_NUMBERING = re.compile(r"\d{1,2}|[A-Za-z]|[ivxIVX]{1,4}")
_DOTTED = re.compile(r"(?:[^\W\d_]{1,3}\.[-–]?)+[^\W\d_]{1,3}")
_ELIDED = re.compile(r"[^\W\d_]{1,4}['’](?=\w)")  # as in "l'art."
_LETTERED = re.compile(r"[a-z][.)]\s")
_ROMAN = re.compile(r"[IVXLC]{1,6}")
_QUOTED_ON = "とっをがの、，,"  # behind a Japanese quotation: the sentence goes on


class Candidate(NamedTuple):
    """A place where a sentence might start: stops in text[stop:end], closing marks up to `gap`, white space up to
    `start`. Without stops it is an item of a list on a line of its own."""

    stop: int
    end: int
    gap: int
    start: int
    is_full_stop: bool  # a single "."


def candidates(text: str, low: int, high: int) -> list[Candidate]:
    """Candidates with low <= start < high, in order."""
    position, end = _before_gap(text, min(low, len(text))), min(len(text), high + _AFTER)
    found = []
    while anchor := _ANCHOR.search(text, position, end):
        position = anchor.start() + 1
        match = _CANDIDATE.match(text, anchor.start(), end)
        if match is None:
            item = _INLINE_ITEM.match(text, anchor.start(), end)
            if item and low <= item.end() < high and _is_inline_item(text, item.end()):
                found.append(Candidate(anchor.start(), anchor.start(), anchor.start(), item.end(), False))
            continue
        start = match.end()
        if match[1] or match[3]:
            position = start
            marks = 1 if match[1] else 3
            candidate = Candidate(*match.span(marks), match.end(marks + 1), start, match[1] == ".")
        elif text[max(0, anchor.start() - _MAX_RUN) : anchor.start()].rstrip(" \t")[-1:] in _ENDS_A_LINE:
            candidate = Candidate(anchor.start(), anchor.start(), anchor.start(), start, False)
        else:
            continue
        if low <= start < high:
            found.append(candidate)
    return found


def _before_gap(text: str, low: int) -> int:
    """Where to begin the search for a start at `low`: the gap and the marks before it may be left of `low`."""
    position, lowest = low, max(0, low - MAX_GAP_CHARS)
    while position > lowest and text[position - 1].isspace():
        position -= 1
    return max(0, position - _MOST_MARKS)


def starts_sentence(text: str, candidate: Candidate, rules: LanguageRules, is_abbreviated: bool) -> bool:
    """Whether a sentence starts at `candidate.start`; `is_abbreviated`: the full stop is known to belong to its word."""
    stop, end, gap, start, _ = candidate
    after = text[start : start + _AFTER]
    if stop < end and (_goes_on(text, stop, end, gap, after) or _ends_mark(text, stop)):
        return False
    if stop == end or ("\n" in text[gap:start] and _LIST_ITEM.match(after)):
        return True
    if text[stop] in _WIDE_STOPS:
        title = text[max(0, stop - _BEFORE) : stop]
        if title.rfind("《") > title.rfind("》"):
            return False
        return gap == end or after[0] not in _QUOTED_ON
    following = after.lstrip(_OPENERS + " \t\n\r\u00a0")
    if not following:
        return True
    if following[0] in _STOPS:
        is_spaced = text[stop:end] == "." and stop > 0 and text[stop - 1].isalnum() and _SPACED_DOTS.match(after)
        return after[0] in "[(" or bool(is_spaced)
    before = text[max(0, stop - _BEFORE) : stop]
    last = before.rsplit(None, 1)[-1].lstrip(_OPENERS) if before and not before[-1].isspace() else ""
    word = _WORD.match(following)
    next_word = word[0].casefold() if word else ""
    stops = text[stop:end][-8:]
    is_ellipsis = stops != "." and not stops.strip(".…")
    if following[0].islower() and not following[1:2].isupper() and not _LETTERED.match(following):  # "iPhone" may start one
        is_all_lower = not any(map(str.isupper, before + following))
        if is_ellipsis or gap > end or not is_all_lower or is_abbreviated or last.casefold() in rules.abbreviations:
            return False
    if stops != ".":
        is_stutter = next_word in [w.casefold().strip(_OPENERS) for w in before.split()[-2:]]
        is_omission = not last and gap > end  # "[...]"
        goes_on = before.rstrip(_OPENERS + " \n\t")[-1:] not in _STOPS if is_omission else is_stutter
        return not is_ellipsis or not goes_on
    is_bracketed = any(c in ")]}" for c in text[end:gap])
    return _ends_word(before, last, following, next_word, rules, is_abbreviated, is_bracketed)


def _goes_on(text: str, stop: int, end: int, gap: int, after: str) -> bool:
    """Whether the text after stops shows that no sentence ends: spaced dots, verse with slashes, speech that goes on."""
    before = text[max(0, stop - _BEFORE) : stop]
    if text[stop:end] == "." and (dots := _DOTS_BEFORE.search(before)):  # the last of ". . ."
        return len(dots[0]) < 6 or not before[: dots.start()][-1:].isspace()  # four are an omission and a full stop
    if after[:2] == "/ " or " / " in after[:40]:
        return True
    if after[:1] == "," and gap > end:
        return True
    return after[:2] in ("– ", "— ") and before.rfind("«") > before.rfind("»")


def _ends_mark(text: str, stop: int) -> bool:
    """Whether the stop belongs to the mark of an item in the line, such as the second in "1. Wash 2. Dry"."""
    start = stop
    lowest = max(0, stop - 4)
    while start > lowest and not text[start - 1].isspace() and text[start - 1] not in "•⁃‣◦":
        start -= 1
    while (
        start > lowest
        and text[start - 1] in "•⁃‣◦ "
        and (start == stop or text[start - 1] in "•⁃‣◦" or text[start - 2 : start - 1] in "•⁃‣◦")
    ):
        start -= 1
    return start < stop and (start == 0 or text[start - 1].isspace()) and _is_inline_item(text, start)


def _is_inline_item(text: str, start: int) -> bool:
    """Whether an item of a list in the line starts at `start`: a bullet, or a number or letter that follows the one before it.

    The first of them starts the text or a line, or comes after a stop or colon; it or the two items before have to be among the
    160 characters in front.
    """
    mark = _MARK.match(text, start)
    if mark is None:
        return False
    if mark[1]:
        return True
    if not (mark[2] and mark[3]):
        return False
    before = text[max(0, start - _BEFORE) : start]
    if before.rstrip(" \t")[-1:] in tuple("•⁃‣◦*-"):
        return False
    style = re.escape(mark[3])
    value = int(mark[2]) if mark[2].isdecimal() else ord(mark[2]) - ord("a") + 1
    seen = 0
    position = len(before)
    for wanted in range(value - 1, 0, -1):
        name = str(wanted) if mark[2].isdecimal() else chr(ord("a") + wanted - 1)
        found = [m.start() for m in re.finditer(rf"(?<!\S){name}{style}(?=\s)", before[:position])]
        if not found:
            break
        position, seen = found[-1], seen + 1
        if wanted == 1:
            visible = before[:position].rstrip()
            return (not visible and start <= _BEFORE) or visible[-1:] in tuple(".:;!?") or before[:position].endswith("\n")
    return seen >= 2


def _ends_word(
    before: str, last: str, following: str, next_word: str, rules: LanguageRules, is_abbreviated: bool, is_bracketed: bool
) -> bool:
    """Whether the single full stop after the word `last` ends a sentence when `following` comes next."""
    if not last:
        return True
    head = before[: len(before) - len(last)].rstrip(_OPENERS)
    if _NUMBERING.fullmatch(last) and _is_numbering(head, rules):
        return False
    elided = _ELIDED.match(last)
    folded = last[elided.end() if elided else 0 :].casefold()
    pair = _with_word_before(head, folded)
    is_starter = next_word in rules.starters
    if last.isdecimal() or (rules.has_ordinals and _ROMAN.fullmatch(last)):
        return is_starter or not rules.has_ordinals or (len(last) > 2 and last.isdecimal())
    if folded in rules.numeric and folded not in rules.abbreviations:
        return not following[0].isdigit() and (len(last) > 1 or is_starter)
    if (folded in rules.leading and pair not in rules.closing) or pair in rules.leading:
        return False
    if folded in rules.closing or pair in rules.closing:
        return not is_bracketed and (is_starter or (not rules.has_capital_nouns and following[0].isupper()))
    if len(last) == 1 and last.isalpha() and last.upper() != last.lower():
        if last.isupper() and _INITIALS.match(following):
            return False
        return _ends_letter(last, head, is_starter, rules)
    if is_abbreviated or folded in rules.other or folded in rules.numeric or _DOTTED.fullmatch(last):
        return is_starter and not is_bracketed and not (folded in rules.numeric and following[0].isdigit())
    return True


def _with_word_before(head: str, folded: str) -> str:
    """ "т. д." and "z. B." as "т.д" and "z.b"."""
    before = head.rsplit(None, 1)[-1] if head[-1:].isspace() and head.strip() else ""
    return before.casefold() + folded if before.endswith(".") else folded


def _is_numbering(head: str, rules: LanguageRules) -> bool:
    """Whether the text before a number or letter shows that it numbers an item."""
    visible = head.rstrip(" \t")
    if not visible:
        return len(head) < _BEFORE - 4
    if visible[-1] != ".":
        return visible[-1] in "\n\r:;"
    word = visible.rsplit(None, 1)[-1].strip(_OPENERS + ".").casefold()
    return len(word) > 1 and word not in rules.numeric and word not in rules.abbreviations


def _ends_letter(letter: str, head: str, is_starter: bool, rules: LanguageRules) -> bool:
    """A single letter is an initial, unless a new sentence is likely: "Plan B. We", "taller than I. That"."""
    before = head.rsplit(None, 1)[-1] if head.strip() else ""
    is_pronoun = letter == "I" and "i" in rules.starters
    return before.isalpha() and (is_starter or (is_pronoun and before.islower()))
