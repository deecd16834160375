"""Headings and paragraphs as Markdown and reStructuredText write them, and what only looks like one."""

import numpy as np
import pytest

from tasks.chunk.format_guess import guess_format
from tasks.chunk.structure import PARAGRAPH, find_structure


def headings(text: str, text_format: str = "auto") -> list[tuple[int, str]]:
    return [(h.level, h.title) for h in find_structure(text, text_format).headings]


def boundaries(text: str, text_format: str = "auto") -> list[tuple[int, int, int, int]]:
    """(low, best, high, level) of each."""
    found = find_structure(text, text_format).boundaries
    return [tuple(row) for row in np.stack([found.low, found.best, found.high, found.level], axis=1).tolist()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One\ntext\n### Three ###\n", [(1, "One"), (3, "Three")]),
        ("text\n# Interrupts a paragraph\nmore", [(1, "Interrupts a paragraph")]),
        ("   ## C# and F#\r\n", [(2, "C# and F#")]),
        ("#hash\n####### seven\n    # code\n# \n#", []),
        ("```\n# in code\n```\n# out\n", [(1, "out")]),
        ("~~~ python\n# in code\n```\n# still in\n~~~\n# out", [(1, "out")]),
        ("````\n```\n# in\n````\n# out", [(1, "out")]),
        ("# a comment\n# of two lines\nx = 1\n", []),
        ("Top\n===\n\nSub\n---\n\n# A\n", [(1, "Top"), (2, "Sub"), (1, "A")]),
        ("Part\n~~~~\n\ntext\n\nSection\n=======\n\nPart\n~~~~\n", [(1, "Part"), (2, "Section"), (1, "Part")]),
        ("****\nPart\n****\n\nPart\n****\n", [(1, "Part"), (2, "Part")]),
        ("Long title\n~~~~\n", []),
        ("two lines of\nparagraph text\n====\n", []),
        ("- item\n---\n\n> quoted\n---\n", []),
        ("<!--\n# hidden\n-->\n# shown\n", [(1, "shown")]),
        ("<!-- never closed\n# shown\n", [(1, "shown")]),
        ("\\section{The \\emph{rope}}\ntext\n  \\subsection*[short]{Knots}\n", [(3, "The \\emph{rope}"), (4, "Knots")]),
        ("\\begin{verbatim}\n\\section{No}\n\\end{verbatim}\n\\chapter{Yes}\n", [(2, "Yes")]),
        (
            "Kapitel 3\n\ntext\n\nChapitre premier\n\ntext\n\nErstes Kapitel\n\ntext",
            [(3, "Kapitel 3"), (3, "Chapitre premier"), (3, "Erstes Kapitel")],
        ),
        ("第一章\n\n雨。\n\n第2章　出発\n\n風。", [(3, "第一章"), (3, "第2章　出発")]),
        ("第三章では話が続く。\n\n風。", []),
        ("a | b\n--- | ---\n", []),
        ("text\n\n---\n\ntext\n", []),
        ("---\ntitle: x\n---\n", []),
        ("", []),
        ("\n\n", []),
    ],
)
def test_headings(text: str, expected: list[tuple[int, str]]) -> None:
    assert headings(text) == expected


def test_boundaries_lie_in_white_space_and_carry_their_strength() -> None:
    text = "intro  \n\n  para\nsame para\n## H\nunder\r\n\r\nlast"
    found = [(text[low:high], text[best:][:4], level) for low, best, high, level in boundaries(text)]
    assert found == [("  \n\n  ", "  pa", PARAGRAPH), ("\n", "## H", 2), ("\r\n\r\n", "last", PARAGRAPH)]


def test_no_boundary_parts_a_heading_from_what_it_heads() -> None:
    assert boundaries("# A\n\n## B\n\ntext") == []
    assert [level for *_, level in boundaries("# A\n\n# B\n\ntext")] == [1]  # an empty section


# -- plain text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BOOK II\n\nCHAPTER IV.\n\nIt began.\n\nChapter 5: The Door\n\nMore.\n", 
         [(2, "BOOK II"), (3, "CHAPTER IV."), (3, "Chapter 5: The Door")]),
        ("CHAPTER I.\nThe Loomings of Morning\n\nText.\n", [(3, "CHAPTER I.")]),
        ("ACT I\n\nSCENE II. A street.\n\nText.\n", [(3, "ACT I"), (4, "SCENE II. A street.")]),
        ("   CHAPTER THE FIRST\n\ntext", [(3, "CHAPTER THE FIRST")]),
        ("Preface\n\nText.\n\nTHE LAST VOYAGE\n\nText.\n", [(3, "Preface"), (5, "THE LAST VOYAGE")]),
        ("1 Aims\n\nText\n\n1.2 Method of work\n\nText\n\n1.2.1 Tools\n\ntext", 
         [(3, "1 Aims"), (4, "1.2 Method of work"), (5, "1.2.1 Tools")]),
        ("Parts\n-----\n\ntext\n\nThe whole\n=========\n\ntext", [(1, "Parts"), (2, "The whole")]),
        ("Book II of the series was long\n\nand Chapter 5 was short.\n", []),
        ("1. Open the box\n\n2. Close the box\n\n", []),
        ("THIS LINE IS IN CAPITALS\nbut part of a paragraph\n", []),
        ("part one of many\n\nacted 1\n\nI AM\n\nA, B, C,\n", []),
        ("# a remark\n\ntext", []),
        ("Section 4 says, that\n\ntext", []),
        ("10 20 30\n\n$$$ 12%\n\n3.5 kg of flour\n", []),
        ("1 Introduction\n\nWe ask.\n\n2 Rope and water\n\nWe look.\n\n3 Discussion\n\nWe end.", 
         [(3, "1 Introduction"), (3, "2 Rope and water"), (3, "3 Discussion")]),
        ("1. Rope\n\nLong.\n\n2. Lamp\n\nBright.\n", []),
        ("1 Introduction\n\nWe ask.\n\n5 Results\n\nWe look.\n", []),
        ("Vorwort\n\ntext\n\nTeil II\n\ntext\n\nГлава первая\n\nтекст\n\nCapítulo 4. La cuerda\n\ntexto", 
         [(3, "Vorwort"), (2, "Teil II"), (3, "Глава первая"), (3, "Capítulo 4. La cuerda")]),
    ],
)  # fmt: skip
def test_plain_headings(text: str, expected: list[tuple[int, str]]) -> None:
    assert headings(text, "plain") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two lines\nof a title\n---\ntext", [(2, "Two lines of a title")]),
        ("One\n=\n\nTwo\n-\n", [(1, "One"), (2, "Two")]),
        ("# One\nTwo\n---\n", [(1, "One"), (2, "Two")]),
        ("- item\n---\n", []),
        ("- item\ngoes on\n---\n", []),
        ("> quoted\n---\n", []),
        ("    code\n---\n", []),
        ("| a |\n---\n", []),
        ("word " * 50 + "\n---\n", []),
        ("---\n---\n", []),
    ],
)
def test_underlined_titles_follow_commonmark(text: str, expected: list[tuple[int, str]]) -> None:
    assert headings(text, "markdown") == expected


def test_a_fence_is_one_block() -> None:
    text = "before\n```\na\n\nb\n```\nafter\n\nlast"
    assert [text[best:].split("\n")[0] for _, best, _, _ in boundaries(text, "markdown")] == ["```", "after", "last"]
    assert find_structure(text, "markdown").fences == ((7, 19),)


def test_each_format_has_its_own_marks() -> None:
    text = "# One\n\ntext\n\nTwo\n++++\n\ntext\n\nThree\n-----\n\nCHAPTER IV.\n\ntext\n"
    assert headings(text, "markdown") == [(1, "One"), (2, "Three")]
    assert headings(text, "rst") == [(1, "Two"), (2, "Three")]
    assert headings(text, "plain") == [(1, "Two"), (2, "Three"), (3, "CHAPTER IV.")]
    assert [title for _, title in headings(text, "auto")] == ["One", "Two", "Three", "CHAPTER IV."]
    assert headings(text, "python") == headings(text, "code") == []
    assert headings("# One\n# Two\n", "markdown") == [(1, "One"), (1, "Two")]


@pytest.mark.parametrize("text_format", ["plain", "markdown", "rst", "auto"])
def test_line_ends_of_any_kind_give_the_same_headings(text_format: str) -> None:
    text = "Top\n===\n\n# A\n\ntext\n\nCHAPTER IV.\n\ntext\nmore\n\n```\n# no\n```\n\nlast"
    for line_end in ("\r\n", "\r"):
        other = text.replace("\n", line_end)
        assert headings(other, text_format) == headings(text, text_format)
        places = [(other[low:high].strip(), other[high:][:3]) for low, _, high, _ in boundaries(other, text_format)]
        assert places == [("", text[high:][:3]) for _, _, high, _ in boundaries(text, text_format)]


# -- program text

PYTHON = '''"""Doc.

def not_a_definition():
    pass
"""
import os

# About first.
# In two lines.
@decorator(
    1,
)
@other
def first(x):
    text = """
def hidden():
class Hidden:
    """

    def inner():
        return "it's", \'\'\'
def hidden_too(): \'\'\'
    return inner


X = 1
# A lone comment

class Second:
    # about method
    @property
    def method(self):
        return '#"""'

    async def later(self):
        pass
async def third(): pass
'''


def opened(text: str, text_format: str) -> list[tuple[int, str]]:
    """(level, line) of the boundaries that are stronger than a paragraph."""
    return [
        (level, text[best:].splitlines()[0].strip()) for _, best, _, level in boundaries(text, text_format) if level < PARAGRAPH
    ]


def test_python_definitions_come_with_decorators_and_comments_and_strings_do_not_fool() -> None:
    assert headings(PYTHON, "python") == headings(PYTHON) == []
    assert opened(PYTHON, "python") == opened(PYTHON, "auto") == [
        (1, "# About first."),
        (2, "def inner():"),
        (1, "class Second:"),
        (2, "async def later(self):"),
        (1, "async def third(): pass"),
    ]  # fmt: skip


def test_definitions_of_other_languages() -> None:
    go = "package main\n\n// Greets.\n// Twice.\nfunc greet(name string) {\n\treturn\n}\nfunc next() {\n}\n/*\nfunc hidden() {\n}\n*/\n"
    assert opened(go, "code") == [(1, "// Greets."), (1, "func next() {")]
    c = "#include <stdio.h>\n\nstatic int add(int a, int b)\n{\n  return a + b;\n}\n\nint main(void) {\n  if (x)\n    y();\n}\n"
    assert opened(c, "code") == [(1, "static int add(int a, int b)"), (1, "int main(void) {")]
    java = "package a;\n\n/** Doc. */\n@Anno\npublic class A {\n\n    private int x;\n\n    public void run() {\n    }\n}\n"
    assert opened(java, "code")[0] == (1, "/** Doc. */")
    assert (2, "public void run() {") in opened(java, "code")
    rust = "use a;\n\n#[derive(Debug)]\nstruct A {\n    x: u8,\n}\n\nimpl A {\n    fn new() {\n    }\n\n    pub fn x(&self) {}\n}\n"
    assert opened(rust, "code") == [(1, "#[derive(Debug)]"), (1, "impl A {"), (2, "pub fn x(&self) {}")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PYTHON, "python"),
        ("import os\nimport sys\n\n\ndef main():\n    return 1\n", "python"),
        ("The class of 1999 met.\n\nimport taxes rose.\n", "auto"),
        ("# Title\n\nUse it:\n\n```python\nimport os\ndef f():\n    pass\n```\n", "auto"),
        ("int main() {\n  int x = 1;\n  f(x);\n  g(x);\n  h(x);\n  return 0;\n}\nvoid f() {\n}\n", "code"),
        ("First; second; third;\nwhat follows is prose.\nAnd more of it.\n" * 8, "auto"),
        ("\\documentclass{article}\n" + "\\section{Rope}\n\\label{x}\n" * 8, "auto"),
        ("", "auto"),
    ],
)
def test_the_guess_is_conservative(text: str, expected: str) -> None:
    assert guess_format(text) == expected
