import os
import subprocess
import sys
import sysconfig
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_schemas.params import NearDuplicateParams
from tasks.ingest.duplicates import bands
from tasks.ingest.duplicates.near_duplicates import NearDuplicates, band_rows, find_duplicates, sketch_of
from tasks.ngrams import word_ngrams
from tasks.ngrams.word_ngrams import distinct_ngrams

DEFAULT = NearDuplicateParams()


def library_texts(num: int) -> list[str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return [text for text in texts if 3_000 < len(text) < 60_000][:num]


def edited(text: str, share: float, rng: np.random.Generator) -> str:
    """`text` with about `share` of its words replaced, a run of up to ten at a time, as an editor would."""
    words = text.split(" ")
    num_left = int(share * len(words))
    while num_left > 0:
        at, length = int(rng.integers(len(words))), min(int(rng.integers(1, 11)), num_left)
        for i in range(at, min(at + length, len(words))):
            words[i] = f"w{rng.integers(10**9)}"
        num_left -= length
    return " ".join(words)


def jaccard(one: str, other: str, words: int = DEFAULT.shingle_words) -> float:
    a, b = (set(distinct_ngrams(t, words).tolist()) for t in (one, other))
    return len(a & b) / len(a | b)


def by_definition(sketches: np.ndarray, order: list[int], params: NearDuplicateParams) -> NearDuplicates:
    """One document after another, against every kept one; the slow obvious form of `find_duplicates`."""
    rows = band_rows(params.similarity, params.num_permutations)
    num_bands = params.num_permutations // rows
    kept_by, similarity = np.full(len(sketches), -1, np.int64), np.zeros(len(sketches), np.float32)
    kept: list[int] = []
    for document in order:
        mine = sketches[document]
        best, best_share = -1, 0.0
        compared = set()
        for band in range(num_bands):
            place = slice(band * rows, band * rows + rows)
            compared.update([d for d in kept if np.array_equal(sketches[d][place], mine[place])][-bands.MAX_COMPARED :])
        for other in (d for d in kept if d in compared):
            share = float(np.mean(sketches[other] == mine))
            if share >= params.similarity - 1e-9 and share > best_share:
                best, best_share = other, share
        if best < 0:
            kept.append(document)
        else:
            kept_by[document], similarity[document] = best, best_share
    return NearDuplicates(kept_by, similarity)


def clustered_sketches(num: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Sketches around a few centres, at distances on both sides of the threshold, so that chains A ~ B ~ C appear."""
    centres = rng.integers(0, 2**32, (max(1, num // 12), size), dtype=np.uint32)
    sketches = centres[rng.integers(len(centres), size=num)].copy()
    for sketch in sketches:
        changed = rng.random(size) < rng.choice([0.0, 0.05, 0.12, 0.2])
        sketch[changed] = rng.integers(0, 2**32, int(changed.sum()), dtype=np.uint32)
    return sketches


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("max_compared", [1, 3, 200])
def test_equals_its_definition(similarity: float, max_compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "MAX_COMPARED", max_compared)
    params = NearDuplicateParams(similarity=similarity, num_permutations=64)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sketches = clustered_sketches(120, 64, rng)
        order = rng.permutation(120)[:110]
        expected, found = by_definition(sketches, order.tolist(), params), find_duplicates(sketches, order, params)
        assert found.kept_by.tolist() == expected.kept_by.tolist()
        np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-6)
        if similarity == 0.8 and max_compared == 200:
            assert 20 < (found.kept_by >= 0).sum() < 110


def test_a_removed_document_keeps_nobody_out() -> None:
    first = np.arange(128, dtype=np.uint32)
    second, third = first.copy(), first.copy()
    second[:20] += 1000  # 0.84 like the first
    third[:40] += 1000  # 0.84 like the second, 0.69 like the first
    found = find_duplicates(np.stack([first, second, third]), np.array([0, 1, 2]), DEFAULT)
    assert found.kept_by.tolist() == [-1, 0, -1]
    found = find_duplicates(np.stack([first, second, third]), np.array([1, 2, 0]), DEFAULT)
    assert found.kept_by.tolist() == [1, -1, 1]
    assert found.similarity.tolist() == pytest.approx([108 / 128, 0, 108 / 128])


def test_the_most_similar_one_is_named_and_the_order_decides_who_stays() -> None:
    base = np.arange(128, dtype=np.uint32)
    far, near = base.copy(), base.copy()
    far[:24] += 1000
    near[100:104] += 1000
    sketches = np.stack([far, near, base])
    assert find_duplicates(sketches, np.array([0, 1, 2]), DEFAULT).kept_by.tolist() == [-1, -1, 1]
    assert find_duplicates(sketches, np.array([2, 1]), DEFAULT).kept_by.tolist() == [-1, 2, -1]
    assert find_duplicates(sketches, np.array([], np.int64), DEFAULT).kept_by.tolist() == [-1, -1, -1]


def test_works_on_a_read_only_memory_map(tmp_path: Path) -> None:
    sketches = clustered_sketches(60, 128, np.random.default_rng(1))
    sketches.tofile(tmp_path / "sketches.bin")
    mapped = np.memmap(tmp_path / "sketches.bin", np.uint32, "r", shape=sketches.shape)
    one, other = (find_duplicates(s, np.arange(60), DEFAULT) for s in (sketches, mapped))
    assert one.kept_by.tolist() == other.kept_by.tolist()


def test_memory_beside_the_sketches_is_bounded() -> None:
    num = 30_000
    sketches = np.random.default_rng(0).integers(0, 2**32, (num, 128), dtype=np.uint32)
    find_duplicates(sketches[:10], np.arange(10), DEFAULT)  # compiles
    tracemalloc.start()
    find_duplicates(sketches, np.arange(num), DEFAULT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / num < 300


@pytest.mark.slow
def test_recall_and_precision_against_exact_jaccard() -> None:
    """Above the threshold by 0.05, at least 95 % are found; below it by 0.15, nothing is."""
    rng = np.random.default_rng(0)
    texts = library_texts(110)
    copies = [edited(text, share, rng) for text in texts for share in (0.005, 0.015, 0.03, 0.08)]
    originals = np.repeat(np.arange(len(texts)), 4)
    sketches = np.stack([sketch_of(text, DEFAULT) for text in (*texts, *copies)])
    found_near, wanted = [], []
    for i, copy in enumerate(copies):  # each copy against all originals, so that copies do not keep each other out
        order = np.array([*range(len(texts)), len(texts) + i])
        found_near.append(find_duplicates(sketches, order, DEFAULT).kept_by[len(texts) + i] == originals[i])
        wanted.append(jaccard(texts[originals[i]], copy))
    near, similarity = np.array(found_near), np.array(wanted)
    above, below = similarity >= DEFAULT.similarity + 0.05, similarity <= DEFAULT.similarity - 0.15
    assert above.sum() > 100
    assert below.sum() > 50
    assert near[above].mean() >= 0.95
    assert not near[below].any()


def test_the_estimate_is_close_to_exact_jaccard() -> None:
    rng = np.random.default_rng(1)
    errors = []
    for text in library_texts(40):
        other = edited(text, 0.03, rng)
        errors.append(np.mean(sketch_of(text, DEFAULT) == sketch_of(other, DEFAULT)) - jaccard(text, other))
    assert abs(np.mean(errors)) < 0.02
    assert np.abs(errors).max() < 5 * np.sqrt(0.25 / DEFAULT.num_permutations)


@pytest.mark.parametrize("num_permutations", [16, 100, 128])
def test_a_sketch_made_in_blocks_is_that_of_the_whole(num_permutations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    params = NearDuplicateParams(num_permutations=num_permutations)
    texts = [*library_texts(12), " ".join(f"few{i}" for i in range(70))]
    whole = [sketch_of(text, params) for text in texts]
    monkeypatch.setattr(word_ngrams, "_BLOCK_CHARACTERS", 300)
    for text, expected in zip(texts, whole, strict=True):
        assert np.array_equal(sketch_of(text, params), expected)


def test_short_texts_are_near_only_to_themselves() -> None:
    texts = ["one two", "One — two!", "one three", "!!!", "???", "!!! ", ""]
    sketches = np.stack([sketch_of(text, DEFAULT) for text in texts])
    assert sketches.dtype == np.uint32
    assert find_duplicates(sketches, np.arange(len(texts)), DEFAULT).kept_by.tolist() == [-1, 0, -1, -1, -1, -1, -1]


def test_another_process_makes_the_same_sketch() -> None:
    code = (
        "from data_schemas.params import NearDuplicateParams as P; from tasks.ingest.duplicates.near_duplicates import sketch_of;"
        "print(sketch_of('the valley is deep and the bridge is long, says he', P()).tolist())"
    )
    outputs = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed}
        outputs.add(subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout)
    mine = sketch_of("the valley is deep and the bridge is long, says he", DEFAULT)
    assert outputs == {f"{mine.tolist()}\n"}
    assert mine[:4].tolist() == [3399376295, 3246636423, 2941392592, 3648858531]


@pytest.mark.parametrize("similarity", [0.05, 0.3, 0.5, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("size", [16, 128, 1024])
def test_bands_let_similar_documents_meet(similarity: float, size: int) -> None:
    rows = band_rows(similarity, size)
    chance = 1 - (1 - similarity**rows) ** (size // rows)
    assert chance >= 0.99 or rows == 1
