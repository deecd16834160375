"""The index of n-grams: all owners of each, the same for any ranges of merging, and cheap to send."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tasks.ngrams import document_index
from tasks.ngrams.document_index import NGRAM_FILES, HashFilter, NgramIndex, build_index, ngram_part
from tasks.ngrams.word_ngrams import distinct_ngrams


def prose(name: str, num_words: int) -> str:
    return " ".join(f"{name}{i}" for i in range(num_words))


def index_of(directory: Path, parts: list[list[str]]) -> NgramIndex:
    arrays = [ngram_part([distinct_ngrams(text, 13) for text in part]) for part in parts]
    return build_index(directory, arrays, [len(part) for part in parts])


def test_every_owner_of_an_ngram_is_known(tmp_path: Path) -> None:
    play = prose("play", 40)
    index = index_of(tmp_path, [[f"{play} {prose('more', 60)}", ""], [], ["", play, prose("else", 20)]])
    assert index.sizes.tolist() == [88, 0, 0, 28, 8]
    places = index.find(distinct_ngrams(f"{prose('own', 50)} {play}", 13))
    owners, which = index.owners_of(places)
    assert len(places) == 28
    assert sorted(zip(which.tolist(), owners.tolist(), strict=True)) == [(i, owner) for i in range(28) for owner in (0, 3)]
    assert index.count_by_document(np.ones(len(index), bool)).tolist() == index.sizes.tolist()
    is_play = np.zeros(len(index), bool)
    is_play[places] = True
    assert index.count_by_document(is_play).tolist() == [28, 0, 0, 28, 0]
    assert not len(index.find(distinct_ngrams(prose("other", 100), 13)))


def test_an_index_of_nothing(tmp_path: Path) -> None:
    index = index_of(tmp_path, [[], [""]])
    assert (len(index), index.sizes.tolist()) == (0, [0])
    assert not len(index.find(distinct_ngrams(prose("other", 100), 13)))
    assert not len(index.owners_of(np.empty(0, np.int64))[0])


def test_the_index_does_not_depend_on_ranges_and_can_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [[prose("held", 500), f"{prose('held', 200)} {prose('else', 300)}"], [""], [prose("last", 20)]]
    index_of(tmp_path / "whole", parts)
    monkeypatch.setattr(document_index, "_MERGE_NGRAMS", 50)
    index = index_of(tmp_path / "ranges", parts)
    assert {path.name for path in (tmp_path / "whole").iterdir()} == set(NGRAM_FILES)
    for name in NGRAM_FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "ranges" / name).read_bytes()
    sent = pickle.dumps(index)
    assert len(sent) < 300
    assert (
        pickle.loads(sent).find(distinct_ngrams(parts[2][0], 13)).tolist()
        == index.find(distinct_ngrams(parts[2][0], 13)).tolist()
    )
    assert isinstance(index.hashes, np.memmap)


def test_parts_come_from_files_too(tmp_path: Path) -> None:
    ngrams = [distinct_ngrams(prose(name, 30), 13) for name in ("a", "b")]
    for i, of_part in enumerate((ngrams, [], ngrams[1:])):
        np.save(tmp_path / f"part-{i}.npy", ngram_part(of_part), allow_pickle=False)
    index = build_index(tmp_path / "index", [tmp_path / f"part-{i}.npy" for i in range(3)], [2, 0, 1])
    assert sorted(index.hashes.tolist()) == sorted(np.concatenate(ngrams).tolist())
    assert index.sizes.tolist() == [18, 18, 18]


def test_the_filter_forgets_no_hash_and_stops_most_others() -> None:
    draw = np.random.default_rng(0)
    hashes = np.sort(draw.integers(0, 2**64, 5_000, np.uint64, endpoint=False))
    hashes[-1] = 2**64 - 1
    for num in (0, 1, 3, 5_000):
        seen = HashFilter(np.zeros(HashFilter.num_bytes(num), np.uint8))
        seen.add(hashes[len(hashes) - num :])
        assert seen.may_hold(hashes[len(hashes) - num :]).all()
    assert seen.may_hold(draw.integers(0, 2**64, 10_000, np.uint64, endpoint=False)).mean() < 1 / 8
