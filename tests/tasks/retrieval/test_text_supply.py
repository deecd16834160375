"""The supply gives out its documents joined by empty lines, whatever the number of characters asked for."""

import numpy as np
import pytest

from tasks.retrieval.text_supply import BETWEEN, SourceText, TextSupply


@pytest.mark.parametrize("used", [0, 3, 10])
def test_a_passage_is_the_beginning_of_what_is_left(used: int) -> None:
    """Also where it ends inside the empty line between two documents."""
    texts = ["first one", "x", "the third document", "last"]
    documents = [SourceText(str(i), text, "CC0-1.0", "en") for i, text in enumerate(texts)]
    supply = TextSupply(documents, np.random.default_rng(0))
    supply.use(used)
    joined = BETWEEN.join(document.text for document in supply.documents)
    left = supply.passage(1000)
    assert left
    assert joined.endswith(left)
    skipped = len(joined) - len(left)
    bounds = np.cumsum([0, *(len(document.text) + len(BETWEEN) for document in supply.documents)])
    for num_chars in range(len(left) + 1):
        assert supply.passage(num_chars) == left[:num_chars]
        spanned = [
            document.doc_id
            for document, start, end in zip(supply.documents, bounds, bounds[1:], strict=False)
            if end - len(BETWEEN) > skipped and max(start, skipped) < skipped + num_chars
        ]
        assert list(supply.doc_ids(num_chars)) == spanned


TEXT = "one line of it\nthe next line. A sentence! and more without an end " + "word " * 100


@pytest.mark.parametrize(
    ("used", "begins"), [(0, "one line"), (3, "the next"), (15, "the next"), (17, "A sentence"), (31, "and more"), (45, "more")]
)
def test_what_is_left_begins_with_a_line_or_a_sentence_or_else_a_word(used: int, begins: str) -> None:
    supply = TextSupply([SourceText("a", TEXT, "CC0-1.0", "en")], np.random.default_rng(0))
    supply.use(used)
    assert supply.passage(100).startswith(begins)
    assert supply.num_left == len(TEXT.strip()) - TEXT.index(begins)


def test_text_can_be_taken_of_single_documents() -> None:
    documents = [SourceText(str(i), f"{i}" * size, "CC0-1.0", "en") for i, size in enumerate((5, 30, 9, 40, 20))]
    supply = TextSupply(documents, np.random.default_rng(0))
    long_enough = [document for document in supply.documents if len(document.text) >= 20]
    taken = supply.within(20, 4)
    assert [supply.text(one) for one in taken] == [document.text[:20] for document in long_enough]
    assert supply.within(20, 2) == taken[:2]
    assert supply.within(41) == []
    whole = supply.passage(1000)
    rest = supply.without(taken)
    assert supply.passage(1000) == whole
    left = [document.text[20:] if document in long_enough else document.text for document in supply.documents]
    assert rest.passage(1000) == BETWEEN.join(filter(None, left))
    assert rest.doc_ids(1000) == tuple(d.doc_id for d, text in zip(supply.documents, left, strict=True) if text)
    supply.take(taken)
    assert supply.passage(1000) == rest.passage(1000)
    assert supply.num_left == sum(map(len, left))
