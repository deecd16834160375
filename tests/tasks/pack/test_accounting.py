"""Promises of prepare's ledger: for any corpus and mix it adds up exactly, and its lines are what a plain count gives."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.ledger import NO_SOURCE, Ledger, LedgerLine
from data_schemas.params import PackingParams
from tasks.pack.accounting import prepare_ledger
from tasks.pack.budgets import SourceShare
from tasks.pack.counted import Counted, add
from tasks.pack.packer import PackingPlan, plan_rows
from tasks.pack.sequences import Entries
from tasks.tokens.special_tokens import SpecialTokens

TARGET, SPECIAL, BYTES_A_TOKEN = 64, 2, 3
LABELS = ("books", "web")
Document = tuple[int, int, int]  # tokens without BOS and EOS, source, tokens that neighbouring chunks share

DOCUMENTS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 1), st.integers(0, 8)), min_size=1, max_size=40)
BUDGETS = st.lists(
    st.fixed_dictionaries(
        {
            "source": st.sampled_from(["*", *LABELS]),
            "bucket": st.sampled_from([None, 16, 32, 64]),
            "max_tokens": st.none() | st.integers(0, 3000),
            "repeats": st.integers(0, 3),
        }
    ),
    max_size=3,
)
RECIPES = st.sampled_from([{}, {"recipe": "long_context_mix", "long_from": 30, "long_share": 0.5}])
WEIGHTS = st.sampled_from([(None, None, 1), (1.0, 1.0, 1), (3.0, 1.0, 3)])


def cut(tokens: int, shared: int) -> list[int]:
    """Lengths of the chunks of a document: whole if it fits, else windows that share `shared` tokens with the one before."""
    budget = TARGET - SPECIAL
    lengths, start = [], 0
    while tokens - start > budget:
        lengths.append(budget)
        start += budget - shared
    return [*lengths, tokens - start]


def corpus(documents: list[Document]) -> tuple[Entries, Counted]:
    """What chunking writes of these documents; those without a token are in no sequence."""
    rows: list[tuple[int, int, int, int, int]] = []
    counted: Counted = {}
    add(counted, [["heldout", source, "cc0", "en", 1, 20, 7, 0, 0, 0, 0, 0] for source in (0, 1)])
    number = 0
    for tokens, source, shared in documents:
        chunks = cut(tokens, shared)
        is_cut = len(chunks) > 1
        size = tokens * BYTES_A_TOKEN
        cut_counts = (1, size, tokens) if is_cut else (0, 0, 0)
        later = len(chunks) - 1
        add(counted, [["train", source, "cc0", "en", 1, size, tokens, *cut_counts, int(tokens == 0), 0, later]])
        if tokens:
            for index, length in enumerate(chunks):
                around = 1 + (index == later)
                rows.append((length + around, source, length * BYTES_A_TOKEN, tokens + SPECIAL + later, number))
            number += 1
    columns = np.array(rows, np.int32).reshape(-1, 5).T
    return Entries(*columns), counted


def planned(entries: Entries, shares: tuple[SourceShare, ...], packing: dict[str, Any]) -> PackingPlan:
    params = PackingParams(min_bucket=16, **packing)
    return plan_rows(entries.lengths, TARGET, params, entries.sources, shares, entries.document_lengths)


def ingested(documents: list[Document]) -> Ledger:
    """Ingest's ledger: a quarantined and a held-out document besides the ones for training, in each source."""
    lines = []
    for number, label in enumerate(LABELS):
        sizes = [tokens * BYTES_A_TOKEN for tokens, source, _ in documents if source == number]
        read, left = (len(sizes) + 2, sum(sizes) + 30), (len(sizes), sum(sizes))
        for step, (of_step, num_bytes) in {
            "read": read,
            "quarantined": (1, 10),
            "held_out": (1, 20),
            "remaining": left,
        }.items():
            lines.append(LedgerLine.model_validate({"step": step, "source": label, "documents": of_step, "bytes": num_bytes}))
    return Ledger.of(lines)


@settings(max_examples=200)
@given(DOCUMENTS, BUDGETS, RECIPES, WEIGHTS, st.integers(0, 2))
def test_the_ledger_adds_up_for_any_corpus_budgets_mix_and_repeats(
    documents: list[Document], budgets: list[dict[str, Any]], recipe: dict[str, Any], weights: Any, seed: int
) -> None:
    entries, counted = corpus(documents)
    shares = tuple(SourceShare(label, weight, weights[2]) for label, weight in zip(LABELS, weights, strict=False))
    try:
        plan = planned(entries, shares, {"budgets": budgets, "seed": seed, **recipe})
    except UserError:
        return
    ledger = prepare_ledger(
        ingested(documents), LABELS, counted, SpecialTokens(bos=0, eos=1), entries, plan
    )  # it checks the sums
    for number, label in enumerate(LABELS):
        of_source = [document for document in documents if document[1] == number]
        assert (ledger.total("remaining", label).tokens or 0) == sum(tokens for tokens, _, _ in of_source)
        special = sum(1 + len(cut(tokens, shared)) for tokens, _, shared in of_source if tokens)
        assert (ledger.total("special", label).tokens or 0) == special
        in_rows = [i for i in plan.members.tolist() if entries.sources[i] == number]
        packed = ledger.total("packed", label)
        assert packed.tokens == sum(int(entries.lengths[i]) for i in in_rows)
        assert packed.bytes == sum(int(entries.num_bytes[i]) for i in in_rows)
        lines = {(line.step, line.reason): line for line in ledger.summed(label)}
        times = np.bincount(in_rows, minlength=len(entries.lengths)) if in_rows else np.zeros(len(entries.lengths), int)
        mine = np.flatnonzero(entries.sources == number)
        never = sum(int(entries.lengths[i]) for i in mine if not times[i])
        dropped = [lines[key].tokens or 0 for key in lines if key[0] == "dropped"]
        assert sum(dropped) >= never
        again = sum(int(entries.lengths[i]) * max(0, int(times[i]) - 1) for i in mine)
        repeated = [lines[key].tokens or 0 for key in lines if key[0] == "repeated" and key[1] != "overlap"]
        assert sum(repeated) - sum(dropped) == again - never
        assert lines["held_out", ""].tokens == 7
    rows = ledger.total("rows")
    assert rows.tokens == plan.num_rows * TARGET
    assert (ledger.total("padding").tokens or 0) == rows.tokens - plan.num_tokens
    assert {line.source for line in ledger.lines if line.step in ("rows", "padding")} <= {NO_SOURCE}


def test_what_became_of_a_small_corpus_is_readable_line_by_line() -> None:
    """A book of three chunks, of which a budget drops one, a page that is used three times, and one without a token."""
    documents: list[Document] = [(150, 0, 0), (30, 1, 0), (0, 1, 0)]
    entries, counted = corpus(documents)
    budgets = [{"source": "books", "max_tokens": 127}, {"source": "web", "repeats": 3}]
    plan = planned(entries, tuple(map(SourceShare, LABELS)), {"budgets": budgets, "seed": 1})
    ledger = prepare_ledger(ingested(documents), LABELS, counted, SpecialTokens(bos=0, eos=1), entries, plan)
    lines = {(line.step, line.source, line.reason): (line.documents, line.bytes, line.tokens) for line in ledger.lines}
    assert lines["cut", "books", ""] == (1, 450, 150)
    assert lines["special", "books", ""] == (0, 0, 4)  # BOS in front of each of three pieces, one EOS
    assert lines["special", "web", ""] == (0, 0, 2)
    assert lines["repeated", "web", "budget"] == (2, 180, 64)
    assert lines["dropped", "web", "no token"] == (1, 0, 0)
    assert lines["dropped", "books", "budget"][0] == 0  # other pieces of the book are packed
    assert lines["dropped", "books", "budget"][2] == 154 - (lines["packed", "books", ""][2] or 0)
    assert lines["packed", "books", ""][0] == 1
    assert lines["packed", "web", ""] == (3, 270, 96)


def test_what_neighbouring_chunks_share_is_repeated_text() -> None:
    documents: list[Document] = [(150, 0, 8), (10, 1, 0)]
    entries, counted = corpus(documents)
    plan = planned(entries, tuple(map(SourceShare, LABELS)), {})
    ledger = prepare_ledger(ingested(documents), LABELS, counted, SpecialTokens(bos=0, eos=1), entries, plan)
    (overlap,) = [line for line in ledger.lines if line.step == "repeated"]
    assert (overlap.source, overlap.reason, overlap.documents, overlap.bytes, overlap.tokens) == ("books", "overlap", 0, 48, 16)


def test_a_lost_sequence_is_found() -> None:
    documents: list[Document] = [(150, 0, 0), (30, 1, 0)]
    entries, counted = corpus(documents)
    plan = planned(entries, tuple(map(SourceShare, LABELS)), {})
    lost = PackingPlan(**{**vars(plan), "members": plan.members[:-1]})
    with pytest.raises(ValueError, match="the ledger does not add up"):
        prepare_ledger(ingested(documents), LABELS, counted, SpecialTokens(bos=0, eos=1), entries, lost)
