"""Headings and paragraphs as Markdown and reStructuredText write them, and what only looks like one."""

import time

import pytest

from tasks.chunk.structure import PARAGRAPH, find_structure


def headings(text: str) -> list[tuple[int, str]]:
    return [(h.level, h.title) for h in find_structure(text).headings]


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
    found = [(text[b.low : b.high], text[b.best :][:4], b.level) for b in find_structure(text).boundaries]
    assert found == [("  \n\n  ", "  pa", PARAGRAPH), ("\n", "## H", 2), ("\r\n\r\n", "last", PARAGRAPH)]


def test_no_boundary_parts_a_heading_from_what_it_heads() -> None:
    assert find_structure("# A\n\n## B\n\ntext").boundaries == ()
    assert [b.level for b in find_structure("# A\n\n# B\n\ntext").boundaries] == [1]  # an empty section


@pytest.mark.parametrize("unit", ["# x #", " ", "#", "`", "- ", "=", "\n", "# a\n\n", "a\n=\n\n"])
def test_the_cost_is_linear(unit: str) -> None:
    def seconds(repeats: int) -> float:
        text = unit * repeats
        start = time.process_time()
        find_structure(text)
        return time.process_time() - start

    short = min(seconds(1_500) for _ in range(3))
    assert min(seconds(12_000) for _ in range(2)) < 30 * short + 0.05  # 8 if linear, 64 if quadratic
