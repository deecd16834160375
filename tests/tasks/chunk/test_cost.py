"""The work of chunking grows with the text and no faster. Characters that are read are counted; no clock is used."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from data_schemas.tables import TEXT_FORMATS
from tasks.chunk import (
    blocks,
    chapters,
    cuts,
    definitions,
    format_guess,
    headings,
    lines,
    sentence_rules,
    structure,
    words_inside,
)
from tasks.chunk.cuts import SemanticCuts
from tasks.chunk.sentences import FastSegmenter
from tasks.tokens.encoding import Encoder
from tests.tasks.chunk.counting import CountingText, Work, count_steps, counting_work, parsed

MODULES = [blocks, chapters, cuts, definitions, format_guess, headings, lines, sentence_rules, structure, words_inside]
OPENINGS = [
    "`", "=", "# a\n\n", "a\n=\n\n", "\\\\",
    "/*", "*/", "/* x\n", '"""', "'''", '"', "```\n", "~~~", "<!--", "-->", "<!-- x\n", "\\begin{verbatim}\n",
    "\\section{", "\\section[", "\\", "|", "| a |\n", "|-", "-", "- ", "-\n", "=\n", "a\n-\n", "#", "# a\n", "# x #",
    "#\n", ">", "> ", "1. ", "1.", "a) ", ".", ". ", ". . ", "...", "…", "!", "。", "「", "«", ",", ", ", " (", "[",
    "[1]", "x.[1]", "\n", "\n\n", "\n \n", " ", "  \n", "\t", "\r\n", "\r", "x", "x ", "X", "A\n\n", "A. ", "1 A\n\n",
    "1.1 A\n\n", "CHAPTER I\n\n", "第一章\n\n", "Chapter ", "a {\n", "}\n", "@a\n", "def f(x):\n", "# a\ndef f(x):\n",
    "class A:\n  def f():\n", "func f(\n", "//\nx {\n", "{;", ";\n", "日", "日\n", "é", "́", "🇨", "👩\u200d",
    "[08:00] a: b\n", "a: ", "a,b\n", "+-", "+--+\n", "2. a ", "a. b. ", "• ", "N° ", "1.) ", "/ ", "<", "_", "*a*",
    "\xa0", "\x0b",
]  # fmt: skip
IN_LONG_BLOCKS = [
    "/*", "<!--", "|", "|-", "| a |\n", "- a\n", "> a\n", "1) a\n", ". ", "...", "!", "a) ", " (", "x", "x ", "word, ", "e\u0301",
    "\u0301", "🇨", "+--+\n", "a,b\n", "[1] ", "`a` ", "A word. ", "«", "日",
]  # fmt: skip
SIZES = (120, 240, 480)


def grown(unit: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size]


def is_linear(counts: list[int]) -> bool:
    """Of a text, one twice as long, and one four times as long. The second step may cost 2.5 times the first; it is 2 if the work
    is linear and 4 if it is quadratic."""
    first, second, third = counts
    return third - second <= 2.5 * max(second - first, first) + 400


@pytest.mark.parametrize("unit", OPENINGS)
@pytest.mark.slow
def test_structure(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text_format in ("auto", *TEXT_FORMATS):
        counts = []
        for size in SIZES:
            with counting_work(monkeypatch, MODULES) as work:
                structure.find_structure(CountingText.of(grown(unit, size), work), text_format)
            counts.append(work.num_chars)
        assert is_linear(counts), (text_format, counts)


@pytest.fixture(scope="module")
def demo() -> Encoder:
    root = Path(__file__).parents[3]
    return Encoder(Tokenizer.from_file(str(root / "tasks/model/demo_base/tokenizer.json")))


@pytest.mark.parametrize(
    ("text_format", "unit"), [*(("markdown", unit) for unit in IN_LONG_BLOCKS), ("code", "x"), ("code", ";\n")]
)
@pytest.mark.slow
def test_cuts(text_format: str, unit: str, demo: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for size in (500, 1000, 2000):
        (encoded,) = demo.encode([grown(unit, size)])
        found = structure.find_structure(encoded.text, text_format)
        with counting_work(monkeypatch, MODULES) as work:
            counted = replace(found, lines=CountingText.of(found.lines, work))
            list(SemanticCuts(encoded, counted, FastSegmenter("en"), 16, 0.95).spans())
        counts.append(work.num_chars)
    assert is_linear(counts), counts


# -- the counting itself


@pytest.mark.parametrize(
    ("expression", "text", "expected"),
    [(r"/\*.*?\*/", "/* " * 30, 4.0), (r"-[ -]*-x", "-" * 80, 4.0), (r"[ab]+c", "ab" * 40, 4.0), (r"(?:ab)++c", "x" * 80, 2.0)],
)
@pytest.mark.slow
def test_quadratic_work_is_counted_as_such(expression: str, text: str, expected: float) -> None:
    tree = parsed(re.compile(expression, re.DOTALL))
    small, large = (count_steps(tree, re.DOTALL, text * n, 0, len(text) * n, False) for n in (4, 8))
    assert large / small == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_engine_matches_what_re_matches(module: object) -> None:
    from tests.tasks.chunk.counting import _Engine

    texts = [
        "".join(OPENINGS),
        *OPENINGS,
        "Chapter 4. The end\n",
        "12. TERM AND NOTICE",
        "| a | b |",
        "    def f(x): # y",
        '"a" \'b\' """c"""',
    ]
    for pattern in [value for value in vars(module).values() if isinstance(value, re.Pattern)]:
        tree = parsed(pattern)
        for text in texts:
            for start in range(0, len(text), 3):
                found = pattern.match(text, start)
                assert _Engine(text, len(text), pattern.flags).run(tree, 0, start) == (found.end() if found else None)


def test_reading_a_string_is_counted() -> None:
    work = Work()
    text = CountingText.of("abc\ndef", work)
    assert text.find("\n") == 3
    assert text[4:].strip() == "def"
    assert work.num_chars == 4 + 3 + 4
