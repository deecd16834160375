"""The ledger of ingest adds up for any corpus, and its lines are what a plain count gives."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.accounting import add_reasons, by_reason, ingest_ledger
from tasks.ingest.duplicates.selection import DOCUMENT_FACTS, Selection

SOURCES = ("books", "web", "empty")
FATES = ("duplicate", "near_duplicate", "excerpt", "contaminated", "held_out", "remaining")
DOCUMENT = st.tuples(st.sampled_from(FATES), st.integers(1, 10**9))
REASONS = st.dictionaries(
    st.tuples(st.integers(0, 1), st.sampled_from(["short", "language", "empty"])),
    st.tuples(st.integers(1, 9), st.integers(0, 99)),
)


@given(st.lists(st.tuples(st.integers(0, 1), st.lists(DOCUMENT, max_size=6)), max_size=5), REASONS, REASONS)
def test_every_document_is_in_one_line_of_its_source(units: list[tuple[int, list[Any]]], refused: Any, filtered: Any) -> None:
    documents = [(source, fate, size) for source, of_unit in units for fate, size in of_unit]
    fates = np.array([fate for _, fate, _ in documents], "U20")
    facts = np.zeros(len(documents), DOCUMENT_FACTS)
    facts["num_bytes"] = [size for _, _, size in documents]
    facts["heldout"] = fates == "held_out"
    is_exact = fates == "duplicate"
    kept_by = np.where(is_exact | (fates == "near_duplicate"), 0, -1)
    ends = np.cumsum([len(of_unit) for _, of_unit in units], dtype=np.int64)
    selection = Selection(facts, kept_by, np.zeros(len(documents)), is_exact, ends)
    unit_sources = [source for source, _ in units]
    ledger = ingest_ledger(SOURCES, unit_sources, refused, filtered, selection, fates == "excerpt", fates == "contaminated")
    ledger.check()
    expected: Counter[tuple[str, str]] = Counter()
    for source, fate, size in documents:
        expected[SOURCES[source], fate] += 1
        expected[SOURCES[source], f"{fate} bytes"] += size
    for source in SOURCES:
        for fate in FATES:
            line = ledger.total(fate, source)  # type: ignore[arg-type]
            assert (line.documents, line.bytes) == (expected[source, fate], expected[source, f"{fate} bytes"])
    num_unread = sum(number for number, _ in [*refused.values(), *filtered.values()])
    assert ledger.total("read").documents == len(documents) + num_unread


def test_reasons_add_up_over_units() -> None:
    counts: dict[tuple[int, str], tuple[int, int]] = {}
    add_reasons(counts, 0, {"short": [2, 10]})
    add_reasons(counts, 1, {"short": [1, 5], "language": [3, 70]})
    add_reasons(counts, 0, {"short": [1, 1]})
    assert counts == {(0, "short"): (3, 11), (1, "short"): (1, 5), (1, "language"): (3, 70)}
    assert by_reason(counts) == {"short": 4, "language": 3}
