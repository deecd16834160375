"""Sentences, words, numbers and names of a text, by rules that need no model and no language."""

from __future__ import annotations

import re

# A sentence ends with a line, after `.!?` and a blank, or after the full stops of East and South Asian scripts.
_SENTENCE = re.compile(r"\S.*?(?:[.!?]+[\"'”’)\]]*(?=\s)|[。！？।॥]+[”’」』)\]]*|(?=\n)|\Z)", re.DOTALL)
_ALONE = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han and kana: a character is a word
_WORD = re.compile(rf"\d+(?:[.,:]\d+)*|[{_ALONE}]|[^\W\d_{_ALONE}]+")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"[^\W\d_][\w’'-]*")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, without the white space between them."""
    return [match.span() for match in _SENTENCE.finditer(text)]


def words_of(text: str) -> set[str]:
    """The words and numbers, ignoring case."""
    return set(_WORD.findall(text.casefold()))


def numbers_of(text: str) -> set[str]:
    """The numbers as they are written."""
    return set(_NUMBER.findall(text))


def names_of(text: str) -> set[str]:
    """Words that begin with a capital letter inside a sentence: names, in German also other nouns. None in scripts without case."""
    inside = (list(_NAME.finditer(text, start, end))[1:] for start, end in sentence_spans(text))
    return {word[0] for words in inside for word in words if word[0][0].isupper() and len(word[0]) > 1}


def spellings_of(text: str) -> set[str]:
    """Numbers and words as they are written."""
    return {*_NUMBER.findall(text), *_NAME.findall(text)}
