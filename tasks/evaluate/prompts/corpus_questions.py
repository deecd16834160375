"""Questions made from documents without a model, each with the words that answer it.

    next         which words follow a sentence that occurs once
    title        how the document with this title begins
    caption      the caption of a numbered figure or table
    definition   how a term is defined

The idea is HELMET's retrieval on real text (Yen et al. 2024, arXiv 2410.02694), with the user's own documents. A question names nothing
that occurs twice, and its answer occurs once in all documents, so it has one right answer.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.evaluate.prompts.words import word_list

Kind = Literal["next", "title", "caption", "definition"]

ANSWER_WORDS, FEWEST_ANSWER_WORDS = 8, 3
SENTENCE_WORDS = (6, 24)
MAX_TITLE_WORDS = 10
MAX_SENTENCE_CHARACTERS = 400
MAX_CHARACTERS = 8_000_000  # of all documents; of more documents, as much of each as of every other

_ASKS: dict[Kind, str] = {
    "next": 'What comes right after "{}"?',
    "title": 'How does the text with the title "{}" begin?',
    "caption": 'What is the caption of "{}"?',
    "definition": 'How is "{}" defined?',
}
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
_CAPTION = re.compile(r"((?:Figure|Fig\.|Table|Listing|Chart|Plate|Box) \d+(?:\.\d+)*)[.:] +(\S.*)")
_DEFINES, _DEFINED = "(?:is|are|means|denotes|refers to)", "(?:an?|the|any|one of)"
_DEFINITION = re.compile(rf"(?:(?:An?|The) |(?=[A-Z]))(\w[\w-]*(?: [\w-]+){{0,3}}?) {_DEFINES} ({_DEFINED} .+)")
_IS_DEFINED = re.compile(rf" {_DEFINES} {_DEFINED} ")
_NO_TERMS = frozenset(
    word_list(
        "it this that these those there he she they we you i who which what here and but or so if as when then one all "
        "each such his her their its my our"
    )
)


@dataclass(frozen=True)
class CorpusText:
    """A document as paragraphs of sentences, white space reduced to single spaces."""

    paragraphs: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, text: str) -> CorpusText:
        paragraphs = []
        for block in re.split(r"\n\s*\n", text):
            if flat := " ".join(block.split()):
                paragraphs.append(tuple(piece for one in _SENTENCE_END.split(flat) for piece in _pieces(one)))
        return cls(tuple(paragraphs))

    @property
    def title(self) -> str:
        """The first paragraph, if it is one short line that ends like a title; else an empty string."""
        first = " ".join(self.paragraphs[0]).strip("#=*\"' ") if self.paragraphs else ""
        words = first.split()
        is_title = 1 <= len(words) <= MAX_TITLE_WORDS and first[-1] not in ".!?,;:" and not first[0].islower()
        return first if is_title else ""

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(sentence for paragraph in self.paragraphs for sentence in paragraph)

    @property
    def flat(self) -> str:
        return " ".join(self.sentences)


def _pieces(sentence: str) -> list[str]:
    """A sentence; one of unusual length, as in program code, in several pieces."""
    return [sentence] if len(sentence) <= MAX_SENTENCE_CHARACTERS else textwrap.wrap(sentence, MAX_SENTENCE_CHARACTERS)


@dataclass(frozen=True)
class CorpusQuestion:
    """A question about `named`. Sentences first..last of document number `document` hold it and the `answer`."""

    kind: Kind
    document: int
    first: int
    last: int
    named: str
    question: str
    answer: str


def corpus_texts(texts: Sequence[str]) -> tuple[CorpusText, ...]:
    most = MAX_CHARACTERS // max(1, len(texts))
    return tuple(CorpusText.of(text[:most]) for text in texts)


def corpus_questions(texts: Sequence[CorpusText], count: int, rng: np.random.Generator) -> list[CorpusQuestion]:
    """Up to `count` questions in random order, of all kinds in turn."""
    everything = "\n".join(text.flat for text in texts)
    titles = Counter(text.title for text in texts)
    found: dict[Kind, list[CorpusQuestion]] = {}
    for number, text in enumerate(texts):
        for question in _candidates(number, text):
            found.setdefault(question.kind, []).append(question)
    waiting = [iter([of_kind[i] for i in rng.permutation(len(of_kind)).tolist()]) for _, of_kind in sorted(found.items())]
    chosen: list[CorpusQuestion] = []
    while waiting and len(chosen) < count:
        kind = waiting.pop(0)
        for question in kind:
            if _is_unique(question, everything, titles):
                chosen.append(question)
                waiting.append(kind)
                break
    return chosen


def _is_unique(question: CorpusQuestion, everything: str, titles: Counter[str]) -> bool:
    if everything.count(question.answer) != 1:
        return False
    if question.kind == "title":
        return titles[question.named] == 1
    return _stands_once(question.named, everything, _IS_DEFINED if question.kind == "definition" else None)


def _stands_once(words: str, everything: str, before: re.Pattern[str] | None) -> bool:
    """Whether `words` stand exactly once as whole words, in front of the pattern if there is one."""
    times, start = 0, everything.find(words)
    while start >= 0 and times < 2:
        end = start + len(words)
        is_whole = not (everything[start - 1 : start].isalnum() or everything[end : end + 1].isalnum())
        times += is_whole and (before is None or before.match(everything, end) is not None)
        start = everything.find(words, start + 1)
    return times == 1


def _candidates(number: int, text: CorpusText) -> Iterator[CorpusQuestion]:
    place = 0
    for index, paragraph in enumerate(text.paragraphs):
        if index == 0 and len(text.paragraphs) > 1 and (title := text.title):
            yield from _question("title", number, (0, len(paragraph)), title, text.paragraphs[1][0])
        if found := _CAPTION.fullmatch(" ".join(paragraph)):
            yield from _question("caption", number, (place, place + len(paragraph) - 1), found[1], found[2])
        for i, sentence in enumerate(paragraph, start=place):
            if (found := _DEFINITION.match(sentence)) and found[1].split()[0].casefold() not in _NO_TERMS:
                yield from _question("definition", number, (i, i), found[1], found[2])
            if i + 1 < place + len(paragraph) and _is_sentence(sentence):
                yield from _question("next", number, (i, i + 1), sentence, paragraph[i + 1 - place])
        place += len(paragraph)


def _question(kind: Kind, number: int, span: tuple[int, int], named: str, answer: str) -> Iterator[CorpusQuestion]:
    words = answer.split()[:ANSWER_WORDS]
    if len(words) >= FEWEST_ANSWER_WORDS and _is_prose(words):
        yield CorpusQuestion(kind, number, *span, named, _ASKS[kind].format(named), " ".join(words).rstrip(".!?"))


def _is_sentence(text: str) -> bool:
    """A sentence of prose: of moderate length, most of its words are letters."""
    return SENTENCE_WORDS[0] <= len(text.split()) <= SENTENCE_WORDS[1] and _is_prose(text.split())


def _is_prose(words: Sequence[str]) -> bool:
    plain = sum(re.fullmatch(r"[\w'’,;-]+[.!?]?", word) is not None for word in words)
    return plain >= 0.7 * len(words)
