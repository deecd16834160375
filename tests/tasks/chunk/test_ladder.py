"""Where texts of every kind are cut at 64 tokens: at lines, rows, items, clauses, words, and never inside a grapheme cluster."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_schemas.params import ChunkingParams
from tasks.chunk.chunker import Chunker
from tasks.chunk.graphemes import starts_cluster
from tasks.chunk.lines import Habit, is_wrapped, line_starts
from tasks.chunk.structure import find_structure
from tests.conftest import TEXT

ROOT = Path(__file__).parents[3]
THINGS = ["rope", "lantern", "compass", "kettle", "ladder", "anchor", "bellows", "saddle", "oilskin", "barometer"]


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    return Tokenizer.from_file(str(ROOT / "tasks/model/demo_base/tokenizer.json"))


@pytest.fixture(scope="module")
def cut(demo: Tokenizer) -> Callable[..., list[str]]:
    cutters: dict[float, Chunker] = {}

    def pieces(text: str, text_format: str = "auto", language: str | None = None, min_fill: float = 0.95) -> list[str]:
        if min_fill not in cutters:
            cutters[min_fill] = Chunker(demo, ChunkingParams(max_tokens=64, min_fill=min_fill))
        chunks = cutters[min_fill].chunk(text, text_format, language)
        found = [text[c.char_start : c.char_end] for c in chunks]
        assert "".join(found) == text
        assert max(c.num_tokens for c in chunks) <= 64
        return found

    return pieces


def cut_inside_word(pieces: list[str]) -> list[str]:
    return [a[-8:] + "|" + b[:8] for a, b in pairwise(pieces) if a[-1].isalnum() and b[0].isalnum()]


LINES = {
    "list": lambda n: "# Stores\n\n" + "".join(
        f"- {thing}s of shelf {n}\n" + "".join(f"  - {other} kept in drawer {n + k}\n" for k, other in enumerate(THINGS[:6]))
        for thing in THINGS[:4]
    ),
    "numbered": lambda n: "".join(f"{k}. {thing} from harbour {n}, kept dry\n" for k, thing in enumerate(THINGS * 3, 1)),
    "table": lambda n: "# Prices\n\n| item | price | note |\n| --- | ---: | --- |\n" + "".join(
        f"| {thing} no. {n} | {n}.50 excl. VAT | see p. {k}. Sent approx. in week {k}. |\n" for k, thing in enumerate(THINGS)
    ),
    "chat": lambda n: "".join(
        f"[08:{k:02}] {'mara' if k % 2 else 'ole'}: {['ok', f'no idea where the {thing} went', 'we left it below the bridge'][k % 3]}\n"
        for k, thing in enumerate(THINGS * (2 + n % 3))
    ),
    "transcript": lambda n: "".join(f"SPEAKER {k % 3}: the {thing} number {n} was lost in march\n" for k, thing in enumerate(THINGS * 3)),
    "poem": lambda n: "\n".join(
        f"the {thing} hangs low across the water\nand nobody remembers who has tied it\na heron waits below\n"
        for thing in THINGS[: 5 + n % 5]
    ),
    "csv": lambda n: "name,count,place\n" + "".join(f"{thing},{n * k},harbour-{k}\n" for k, thing in enumerate(THINGS * 3)),
    "tsv": lambda n: "".join(f"{thing}\t{n * k}\tsee p. {k}. Then go\n" for k, thing in enumerate(THINGS * 3)),
    "crlf": lambda n: "".join(f"the {thing} above the silver water climbs hill {n}\r\n" for thing in THINGS * 2),
    "equal": lambda n: f"the moon above the silver water climbs hill {n}\n" * 20,
    "quotation": lambda n: "".join(f"> the {thing} hangs low in year {n}\n" for thing in THINGS * 2),
}  # fmt: skip


@pytest.mark.parametrize("number", range(1, 11))
@pytest.mark.parametrize("kind", LINES)
def test_every_cut_is_at_the_end_of_a_line(cut: Callable[..., list[str]], kind: str, number: int) -> None:
    for min_fill in (0.95, 0.5, 0.0):
        found = cut(LINES[kind](number), min_fill=min_fill)
        assert len(found) > 2
        assert all(piece.endswith("\n") or after.startswith("\n") for piece, after in pairwise(found))


@pytest.mark.parametrize("number", range(1, 11))
def test_a_clause_number_stays_with_its_text(cut: Callable[..., list[str]], number: int) -> None:
    for glue in ("\n", " "):
        text = "\n\n".join(
            f"{k}. {name}.{glue}The carrier shall, however, notwithstanding clause {number}.{k}, deliver the goods listed in "
            f"Annex {name[0]}; failing which the owner may, upon notice of no fewer than {5 * k} days, terminate this "
            "agreement and recover the deposit."
            for k, name in enumerate(["OBLIGATIONS", "DEPOSIT", "TERM AND NOTICE", "LIABILITY", "GOVERNING LAW"], 1)
        )  # fmt: skip
        found = cut(text)
        assert not any(
            piece.rstrip().endswith(("OBLIGATIONS.", "DEPOSIT.", "NOTICE.", "LIABILITY.", "LAW.")) for piece in found
        )
        assert not cut_inside_word(found)
        assert all(piece.rstrip()[-1] in ".,;" for piece in found)


SCRIPTS = {
    "hindi": "पहाड़ी पुल पर चलते हुए यात्री ने नीचे बहती नदी को देखा ",
    "tamil": "மலைப் பாலத்தில் நடந்த பயணி கீழே ஓடும் ஆற்றைப் பார்த்தார் ",
    "arabic": "نظر المسافر إلى النهر من فوق الجسر ثم مضى ببطء ",
    "korean": "나그네는 다리 위에서 강을 내려다보았다 그리고 천천히 걸었다 ",
    "greek": "ο ταξιδιώτης κοίταξε το ποτάμι από τη γέφυρα και προχώρησε ",
    "accents": "la e\u0301te\u0301 a\u0300 la mer et la fore\u0302t de\u0301serte ",
}


@pytest.mark.parametrize("copies", range(8, 18))
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_with_spaces_are_cut_at_spaces(cut: Callable[..., list[str]], script: str, copies: int) -> None:
    found = cut(SCRIPTS[script] * copies, "plain")
    assert len(found) > 1
    assert all(a[-1] == " " or b[0] == " " for a, b in pairwise(found))


CLUSTERS = ["👩‍👩‍👧‍👦", "🇨🇭", "e\u0301\u0323", "नि", "क्षि", "각", "\u1100\u1161\u11a8", "ก\u0e33", "❤\ufe0f", "👍🏽", "\r\n"]  # fmt: skip


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_cluster_is_never_parted(cut: Callable[..., list[str]], cluster: str) -> None:
    for lead in range(10):
        text = "x" * lead + cluster * 60
        ends = {match.end() for match in regex.finditer(r"\X", text)}
        position = 0
        for piece in cut(text, "plain"):
            position += len(piece)
            assert position in ends


def test_a_cluster_over_the_budget_is_cut_between_tokens(cut: Callable[..., list[str]]) -> None:
    assert len(cut("e" + "\u0301" * 400)) > 4


PARTS = [*"a \r\n\u0301\u200dक\u094dष\u093f👩👧🇨🇭\u1100\u1161\u11a8각가\u0600\u0e33🏽日"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PARTS), max_size=50).map("".join), st.sets(st.integers(0, 50)))
def test_clusters_start_where_unicode_says(text: str, places: set[int]) -> None:
    wanted = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    everywhere = np.arange(len(text) + 1)
    assert set(np.flatnonzero(starts_cluster(text, everywhere)).tolist()) == wanted
    some = np.array(sorted(place for place in places if place <= len(text)), np.int64)
    assert [place in wanted for place in some.tolist()] == starts_cluster(text, some).tolist()


# -- wrapped paragraphs

PROSE = (
    "The ferry left the harbour at noon, as it did on every day of that summer. Nobody waved from the pier; the keeper of the light "
    "had gone inland, and the two women who sold bread had closed their stall. We sat below, where it was warm, and did not speak. "
    "When the bell rang we climbed the ladder, counted the ropes, and found that one of them, the longest, had been cut."
)


def wrapped(text: str, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


@pytest.mark.parametrize("width", range(40, 100, 6))
def test_lines_of_a_wrapped_paragraph_are_no_place_to_cut(cut: Callable[..., list[str]], width: int) -> None:
    text = wrapped(PROSE, width)
    assert is_wrapped(text.split("\n"))
    assert all(piece.rstrip()[-1] in ".;" for piece in cut(text + "\n\n" + text, "plain"))
    upper = wrapped(PROSE.title(), width)  # no small letter says that a line runs on
    assert is_wrapped(upper.split("\n"))


@pytest.mark.parametrize("kind", ["chat", "poem", "transcript", "equal", "csv"])
def test_lines_that_mean_something_are_not_taken_for_wrapped(kind: str) -> None:
    for number in range(10):
        block = LINES[kind](number).split("\n\n")[-1].strip()
        assert len(line_starts(block, Habit)[0]) == block.count("\n")


# -- strength


def test_a_fence_that_fits_is_not_cut_and_a_long_one_is_cut_between_its_lines(cut: Callable[..., list[str]]) -> None:
    before, fence = "Words stand here. " * 6, "```\n" + "x = f(1)\n\n" * 6 + "```\n"
    assert fence in cut(before + "\n\n" + fence + "\nafter " * 20, "markdown")[1]
    long = "```\n" + "value = compute(1)\n" * 60 + "```\n"
    assert all(piece.endswith("\n") for piece in cut(before + "\n\n" + long, "markdown"))


def test_a_row_over_the_budget_is_cut_between_its_cells(cut: Callable[..., list[str]]) -> None:
    row = "| " + " | ".join(f"{thing} no. {k}. Then more" for k, thing in enumerate(THINGS * 2)) + " |\n"
    assert all(b.lstrip().startswith("|") for _, b in pairwise(cut(row)))


def test_the_head_of_a_table_stays_with_its_first_row(cut: Callable[..., list[str]]) -> None:
    table = "| item | price |\n| --- | --- |\n" + "".join(f"| {thing} | {k} |\n" for k, thing in enumerate(THINGS))
    for filler in range(5, 45):
        for piece in cut("word " * filler + "\n\n" + table, "markdown"):
            assert "| --- |" not in piece or "| rope | 0 |" in piece


def test_the_last_two_pieces_are_not_tiny(demo: Tokenizer, cut: Callable[..., list[str]]) -> None:
    for extra in range(1, 40):
        sizes = [len(demo.encode(piece).ids) for piece in cut("word " * 63 + "w" + " y" * extra)]
        assert len(sizes) == 1 or min(sizes) >= 15


def test_a_chunk_is_filled_before_it_is_cut_at_a_heading(demo: Tokenizer) -> None:
    sections = [
        f"## Part {k}\n\n" + "\n\n".join(f"Paragraph {n} says little. It ends." for n in range(1 + 7 * k % 23))
        for k in range(60)
    ]
    text = "# Book\n\n" + "\n\n".join(sections)
    fill, at_headings = {}, {}
    for min_fill in (0.0, 0.5, 0.95):
        chunks = Chunker(demo, ChunkingParams(max_tokens=512, min_fill=min_fill)).chunk(text, "markdown")[:-1]
        fill[min_fill] = min(c.num_tokens for c in chunks) / 512
        at_headings[min_fill] = sum(text[c.char_end :].startswith("## ") for c in chunks) / len(chunks)
    assert fill[0.95] > 0.88
    assert fill[0.5] >= 0.5
    assert at_headings[0.0] > at_headings[0.95]


@pytest.mark.parametrize("day", range(1, 11))
def test_a_documents_language_chooses_the_rules_of_sentences(cut: Callable[..., list[str]], day: int) -> None:
    text = f"Am {day}. Mai kam Dr. Weber an, vgl. Abb. {day}. Er blieb bis zum {day + 7}. Juni. " * 12
    german = cut(text, "plain", "de")
    assert all(piece.rstrip().endswith((f"Abb. {day}.", "Juni.")) for piece in german)
    unknown = cut(text, "plain", "qqq")
    assert "".join(unknown) == text


def test_kapitel_and_section_are_headings() -> None:
    tex = "".join(f"\\section{{Part {n}}}\nWe measure it in part {n}. It holds.\n\n" for n in range(1, 11))
    assert [h.title for h in find_structure(tex).headings] == [f"Part {n}" for n in range(1, 11)]
    german = "".join(f"Kapitel {n}\n\nAm 3. Mai kam Dr. Weber an.\n\n" for n in range(1, 11))
    assert [h.title for h in find_structure(german).headings] == [f"Kapitel {n}" for n in range(1, 11)]


@given(st.text(max_size=200), st.floats(0, 0.99))
@settings(max_examples=60)
@pytest.mark.slow
def test_any_minimum_fill_keeps_the_promises(demo: Tokenizer, noise: str, min_fill: float) -> None:
    text = (TEXT + noise + "\n| a | b |\n```\nx\n") * 2
    chunks = Chunker(demo, ChunkingParams(max_tokens=16, min_fill=min_fill, segmenter="fast")).chunk(text)
    assert "".join(text[c.char_start : c.char_end] for c in chunks) == text
    assert max(c.num_tokens for c in chunks) <= 16


# -- any markup

ANY_LINES = (
    "", " ", "\t", "\x0c", "\u2028", "\u3000", "\u00a0", ">", "> ", ">>", "> words and words and words.", "> - item", "> | a | b |",
    "|", "||", "| a | b |", "|---|---|", "+--+--+", "+==+", "-", "- ", "- item of a list", "  * nested", "1.", "1. OBLIGATIONS.", "(a) x",
    "#", "# Title", "###### Deep", "===", "---", "***", "```", "````", "~~~ python", "    indented", "<!--", "-->", "/*", "*/", '"""',
    "def f():", "class A:", "}", "\\section{One}", "\\begin{verbatim}", "%", "Kapitel 3", "第一章", "CHAPTER IV.", "[00:01] Ann: hello",
    "Ann: hello", "a,b,c", "A wrapped line of text that goes on for some time, as they do; and a", "second line of it. And more text here.",
    "हिन्दी में लिखा हुआ वाक्य।", "日本語の文。次の文。", "ไทยไม่มีช่องว่าง", "👩‍👩‍👧‍👦👩‍👩‍👧‍👦", "x" * 70, "e\u0301" * 9,
)  # fmt: skip
ANY_FORMATS = ("plain", "markdown", "rst", "latex", "python", "code", "auto")


@given(
    st.lists(st.tuples(st.sampled_from(ANY_LINES), st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n", " "])), max_size=25),
    st.sampled_from(ANY_FORMATS),
    st.sampled_from([0.0, 0.5, 0.95]),
)
@settings(max_examples=150)
@pytest.mark.slow
def test_no_markup_breaks_the_promises(
    demo: Tokenizer, lines: list[tuple[str, str]], text_format: str, min_fill: float
) -> None:
    text = "".join(line + end for line, end in lines)
    chunks = Chunker(demo, ChunkingParams(max_tokens=16, min_fill=min_fill, segmenter="fast")).chunk(text, text_format)
    assert "".join(text[c.char_start : c.char_end] for c in chunks) == text
    assert max((c.num_tokens for c in chunks), default=0) <= 16


@pytest.mark.parametrize("empty", [">", "> ", ">>", ">\t"])
def test_empty_lines_of_a_quotation(demo: Tokenizer, empty: str) -> None:
    text = "\n".join(
        [f"> line {number} of the quotation, which has some more words" if number % 2 else empty for number in range(20)]
    )
    chunks = Chunker(demo, ChunkingParams(max_tokens=32, segmenter="fast")).chunk(text, "markdown")
    assert all(text[c.char_end - 1] == "\n" for c in chunks[:-1])
