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
