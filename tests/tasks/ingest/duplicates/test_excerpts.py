"""A passage of one document that another repeats is found, whichever units they are in; text that many share is not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.params import ExcerptParams
from data_schemas.parts import Parts
from data_schemas.tables import EXCERPTS
from tasks.ingest.duplicates.excerpts import EXCERPT_WORDS, Excerpts, excerpt_rows, find_excerpts, sampled, shared_pairs
from tasks.ingest.duplicates.selection import DOCUMENT_FACTS, Selection
from tasks.ngrams.document_index import ngram_part
from tasks.ngrams.word_ngrams import distinct_ngrams
from tasks.work import InProcess


def prose(name: str, num_words: int, first: int = 0) -> str:
    return " ".join(f"{name}{i}" for i in range(first, first + num_words))


def _sampled(text: str) -> np.ndarray:
    return sampled(distinct_ngrams(text, EXCERPT_WORDS))


def found(
    folder: Path, texts: Sequence[str], heldout: Sequence[int] = (), gone: Sequence[int] = (), unit: int = 2, **options: object
) -> tuple[Excerpts, list[dict[str, object]]]:
    """Excerpts among `texts`, `unit` of them in a unit; `gone` are those that a step before has removed."""
    folder.mkdir(exist_ok=True)
    parts = Parts(str(folder))
    facts = np.zeros(len(texts), DOCUMENT_FACTS)
    facts["heldout"][list(heldout)] = True
    kept_by = np.full(len(texts), -1)
    kept_by[list(gone)] = 0
    ends = [min(start + unit, len(texts)) for start in range(0, len(texts), unit)]
    selection = Selection(facts, kept_by, np.zeros(len(texts)), np.zeros(len(texts), bool), np.array(ends, np.int64))
    for number, end in enumerate(ends):
        mine = range(number * unit, end)
        with parts.writing(f"sampled-{number:05d}.npy") as path, path.open("wb") as file:
            np.save(file, ngram_part([_sampled(texts[i]) for i in mine]))
        rows = [
            {"doc_id": f"d{i}", "source_uri": f"/{i}", "record": 0, "split": "heldout" if i in heldout else "train"}
            | {"text": texts[i]}
            for i in mine
        ]
        with parts.writing(f"read-{number:05d}.parquet") as path:
            pq.write_table(pa.Table.from_pylist(rows), path)
    result = find_excerpts(ExcerptParams.model_validate(options), parts, selection, InProcess())
    batches = list(excerpt_rows(result, selection, parts))
    assert all(batch.schema.equals(EXCERPTS) for batch in batches)
    return result, [row for batch in batches for row in batch.to_pylist()]


def pairs(result: Excerpts) -> dict[tuple[int, int], float]:
    names = zip(result.later.tolist(), result.earlier.tolist(), strict=True)
    return dict(zip(names, result.share.tolist(), strict=True))


@pytest.mark.parametrize("unit", [1, 2, 10])
def test_a_fifth_of_the_shorter_document_is_found_and_reported(tmp_path: Path, unit: int) -> None:
    essay = prose("essay", 1_000)
    texts = [
        f"{prose('reader', 9_000)} {prose('essay', 300, 400)} {prose('more', 9_000)}",
        prose("other", 5_000),
        essay,
        f"{prose('quotes', 5_000)} {prose('essay', 60, 100)}",
    ]
    result, rows = found(tmp_path, texts, unit=unit)
    assert pairs(result) == {(2, 0): pytest.approx(288 / 988)}
    assert not result.removed.any()
    assert rows == [
        {"doc_id": "d2", "source_uri": "/2", "record": 0, "split": "train", "other_doc_id": "d0", "other_source_uri": "/0"}
        | {"other_record": 0, "other_split": "train", "num_shared": 288, "share": round(288 / 988, 4), "removed": False}
    ]
    assert pairs(found(tmp_path / "half", texts, share=0.5)[0]) == {}


def test_removal_keeps_the_earlier_and_the_heldout_document(tmp_path: Path) -> None:
    passage = prose("passage", 300)
    texts = [f"{prose('a', 500)} {passage}", f"{passage} {prose('b', 500)}", f"{prose('c', 600)} {prose('b', 400)}"]
    result, _ = found(tmp_path / "train", texts, remove=True)
    assert set(pairs(result)) == {(1, 0), (2, 1)}
    assert result.removed.tolist() == [False, True, False]  # the third shares its passage with a document that is gone
    result, rows = found(tmp_path / "heldout", texts, heldout=[1], remove=True)
    assert set(pairs(result)) == {(0, 1), (2, 1)}
    assert result.removed.tolist() == [True, False, True]
    assert {(row["split"], row["other_split"], row["removed"]) for row in rows} == {("train", "heldout", True)}
    both, _ = found(tmp_path / "both", texts[:2], heldout=[0, 1], remove=True)
    assert set(pairs(both)) == {(1, 0)}
    assert not both.removed.any()
    assert pairs(found(tmp_path / "gone", texts, gone=[1])[0]) == {}


def test_text_that_many_documents_share_is_no_excerpt(tmp_path: Path) -> None:
    licence = prose("licence", 300)
    texts = [f"{licence} {prose(f'book{i}', 500)}" for i in range(9)]
    assert pairs(found(tmp_path / "nine", texts)[0]) == {}
    assert len(pairs(found(tmp_path / "eight", texts[:8])[0])) == 28
    assert len(pairs(found(tmp_path / "more", texts, max_documents=9)[0])) == 36


def test_off_means_off(tmp_path: Path) -> None:
    passage = prose("passage", 300)
    assert pairs(found(tmp_path, [f"{passage} one", f"{passage} two"], enabled=False)[0]) == {}


def test_samples_find_a_fifth_in_documents_of_usual_length(tmp_path: Path) -> None:
    """Of a hundred passages of 22 % in documents of 1,000 words each, at most two are missed by the sampling."""
    draw = random.Random(0)
    num_missed = 0
    for _ in range(100):
        words = [f"w{draw.randrange(10**9)}" for _ in range(3_000)]
        first, second = " ".join(words[:1_000]), " ".join(words[780:1_780])
        shared = np.intersect1d(_sampled(first), _sampled(second))
        num_missed += len(shared) < 0.4 * 0.2 * min(len(_sampled(first)), len(_sampled(second)))
    assert num_missed <= 2


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sets(st.integers(0, 15)), max_size=8), st.integers(2, 5), st.integers(1, 3), st.data())
def test_pairs_are_those_of_plain_sets(documents: list[set[int]], most: int, unit: int, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.booleans(), min_size=len(documents), max_size=len(documents)))
    arrays, sizes = [], []
    for start in range(0, len(documents), unit):
        of_unit = documents[start : start + unit]
        arrays.append(ngram_part([np.array(sorted(d), np.uint64) for d in of_unit]))
        sizes.append(len(of_unit))
    counted = {g for g in range(16) if sum(g in d for d, w in zip(documents, wanted, strict=True) if w) <= most}
    expected = {
        (i, j): len(documents[i] & documents[j] & counted)
        for i, j in combinations(range(len(documents)), 2)
        if wanted[i] and wanted[j] and documents[i] & documents[j] & counted
    }
    first, second, count = shared_pairs(arrays, sizes, np.array(wanted, bool), most)
    assert dict(zip(zip(first.tolist(), second.tolist(), strict=True), count.tolist(), strict=True)) == expected
