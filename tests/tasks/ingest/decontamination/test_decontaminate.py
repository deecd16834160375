"""Training text that contains evaluated text goes; boilerplate is told from copies by what it covers of the held-out text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_schemas.params import DecontaminationParams
from tasks.ingest.decontamination.boilerplate import Boilerplate, SharedNgrams, find_boilerplate
from tasks.ingest.decontamination.evaluated_index import EvaluatedIndex, build_evaluated
from tasks.ingest.decontamination.evaluated_prompts import Prompt
from tasks.ingest.decontamination.hits import HELDOUT, Hit, hits_of, shared_text
from tasks.ingest.decontamination.removal import choose_removed
from tasks.ngrams.document_index import NgramIndex, ngram_part
from tasks.ngrams.word_ngrams import distinct_ngrams


def prose(name: str, num_words: int, first: int = 0) -> str:
    """Words that stand in no other text."""
    return " ".join(f"{name}{i}" for i in range(first, first + num_words))


@dataclass(frozen=True)
class Judged:
    """All training texts judged together."""

    index: EvaluatedIndex
    boilerplate: Boilerplate
    removed: list[bool]
    hits: list[list[Hit]]

    def only(self, number: int = 0) -> Hit:
        assert len(self.hits[number]) == 1
        return self.hits[number][0]


def judge(
    directory: Path, heldout: list[str], training: list[str], prompts: list[Prompt] | None = None, unit: int = 3, **options: Any
) -> Judged:
    params = DecontaminationParams(**{"max_removed_share": 1.0, **options})
    parts = [ngram_part([distinct_ngrams(text, params.ngram_words)]) for text in heldout]
    index = build_evaluated(directory, params.ngram_words, parts, [1] * len(parts), prompts or [])

    def units() -> Iterator[SharedNgrams]:
        for start in range(0, len(training), unit):
            texts = training[start : start + unit]
            found = [index.shared_by(text) for text in texts]
            documents = np.repeat(np.arange(len(texts)), [len(places) for places, _ in found])
            places = np.concatenate([places for places, _ in found])
            sizes = np.array([len(text) for text in texts])
            yield SharedNgrams(documents, places, np.array([own for _, own in found]), sizes)

    is_alive = np.ones(len(heldout), bool)
    boilerplate = find_boilerplate(index, params, is_alive, units, sum(map(len, training)))
    removed = [r for of_unit in choose_removed(index, boilerplate, params.heldout_share, units) for r in of_unit.tolist()]
    hits = [hits_of(index, boilerplate, text, gone) for text, gone in zip(training, removed, strict=True)]
    return Judged(index, boilerplate, removed, hits)


def remaining_share(heldout: str, training: list[str], removed: list[bool]) -> float:
    own = set(distinct_ngrams(heldout, 13).tolist())
    left = set[int]().union(*(distinct_ngrams(t, 13).tolist() for t, gone in zip(training, removed, strict=True) if not gone))
    return len(own & left) / len(own)


def test_a_share_of_heldout_ngrams_removes(tmp_path: Path) -> None:
    heldout = prose("held", 1_000)
    some = " ".join(heldout.split()[100:140])  # 28 n-grams of 13 words
    training = [
        f"{prose('own', 60)}. {some.upper()}! {prose('more', 40)}",
        f"{prose('own', 200)} {some}",
        prose("own", 200),
        " ".join(heldout.split()[:12]),
        "",
    ]
    found = judge(tmp_path, [heldout], training)
    assert found.removed == [True, False, False, False, False]
    hit = found.only()
    assert (hit.evaluated_in, hit.num_shared, hit.removed) == (HELDOUT, 28, True)
    assert hit.share == pytest.approx(28 / (140 - 12))
    assert hit.example == some.upper()[:200]
    assert found.only(1).share == pytest.approx(28 / 228)
    assert found.hits[2:] == [[], [], []]


def test_collected_works_that_hold_a_heldout_work_are_removed(tmp_path: Path) -> None:
    play = prose("play", 400)
    long = prose("own", 20_000)
    training = [f"{long} {' '.join(play.split()[:150])}", f"{prose('other', 20_000)} {' '.join(play.split()[300:380])}"]
    found = judge(tmp_path, [play], training)
    assert found.removed == [True, False]
    assert found.only().share < 0.01
    assert found.only().copied_share == pytest.approx(138 / 388)
    assert found.only(1).copied_share == pytest.approx(68 / 388)


def test_a_work_inside_a_longer_heldout_document_counts_by_its_own_length(tmp_path: Path) -> None:
    """The longer one has every n-gram of the work, and would otherwise own them all."""
    play = prose("play", 300)
    collected = f"{prose('first', 9_000)} {play} {prose('last', 9_000)}"
    found = judge(tmp_path, [collected, play], [f"{prose('own', 9_000)} {play}"])
    assert found.removed == [True]
    assert found.only().copied_share == 1


def test_short_heldout_documents_are_protected_too(tmp_path: Path) -> None:
    note = prose("note", 30)
    training = [f"{prose('own', 9_000)} {note}", f"{prose('other', 9_000)} {' '.join(note.split()[:14])}"]
    assert judge(tmp_path, [note], training).removed == [True, False]


def test_a_licence_that_many_documents_share_removes_none_and_is_reported(tmp_path: Path) -> None:
    licence = prose("licence", 250)
    heldout = f"{licence} {prose('held', 750)}"
    training = [f"{licence} {prose(f'book{i}', 750)}" for i in range(9)]
    found = judge(tmp_path / "nine", [heldout], training)
    assert found.removed == [False] * 9
    assert found.hits == [[]] * 9
    told = shared_text(found.index, found.boilerplate, 0, heldout)
    assert (told.num_ngrams, told.num_shared, told.num_documents, told.is_given_up) == (988, 238, 9, False)
    assert told.share == pytest.approx(238 / 988)
    assert told.example == licence[:200]
    found = judge(tmp_path / "copy", [heldout], [*training, f"{prose('own', 9_000)} {' '.join(heldout.split()[200:450])}"])
    assert found.removed == [False] * 9 + [True]  # what it has beyond the licence is 200 n-grams of the other 750
    assert found.only(9).num_shared == 200
    assert found.only(9).copied_share == pytest.approx(200 / 750)
    assert judge(tmp_path / "few", [heldout], training[:4]).removed == [True] * 4


@pytest.mark.parametrize("copies", [1, 4, 5, 11, 40])
def test_a_heldout_document_that_many_documents_copy_is_no_boilerplate(tmp_path: Path, copies: int) -> None:
    victim, other = prose("victim", 1_000), prose("held", 1_000)
    training = [f"{prose(f'before{i}', 1_500)} {victim} {prose(f'after{i}', 1_500)}" for i in range(copies)]
    training.append(prose("clean", 3_000))
    found = judge(tmp_path, [other, victim], training)
    assert found.removed == [True] * copies + [False]
    assert all(found.only(i).copied_share == 1 for i in range(copies))


def test_copies_of_common_text_remove_no_more_than_allowed(tmp_path: Path) -> None:
    header, victim = prose("header", 30), prose("victim", 1_000)
    training = [f"{header} {prose(f'file{i}', 400)}" for i in range(80)]
    training += [f"{victim} {prose(f'holder{i}', 500)}" for i in range(5)]
    found = judge(tmp_path, [header, victim], training, max_removed_share=0.25)
    assert found.removed == [False] * 80 + [True] * 5
    assert found.boilerplate.is_given_up.tolist() == [True, False]
    assert shared_text(found.index, found.boilerplate, 0, header).is_given_up
    assert judge(tmp_path / "all", [header, victim], training).removed == [True] * 85


def test_cost_grows_linearly_with_documents_that_share_a_licence_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: pairs of an n-gram and a held-out document. Each held-out document is mostly the licence."""
    licence = prose("licence", 60)
    counted = [0]
    plain = NgramIndex.owners_of

    def owners_of(self: NgramIndex, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = plain(self, places)
        counted[0] += len(found[0])
        return found

    monkeypatch.setattr(NgramIndex, "owners_of", owners_of)
    costs = []
    for number in (20, 40, 80):
        counted[0] = 0
        heldout = [f"{licence} {prose(f'held{i}', 30)}" for i in range(number)]
        training = [f"{licence} {prose(f'book{i}', 60)}" for i in range(number)]
        found = judge(tmp_path / str(number), heldout, training)
        assert not any(found.removed)
        assert shared_text(found.index, found.boilerplate, 3, heldout[3]).share == pytest.approx(48 / 78)
        assert not found.boilerplate.is_given_up.any()
        costs.append(counted[0])
    assert costs[1] < 2.2 * costs[0]
    assert costs[2] < 2.2 * costs[1]


def test_many_documents_with_a_fifth_each_leave_less_than_a_fifth(tmp_path: Path) -> None:
    heldout = prose("held", 1_000)
    pieces = [prose("held", 200, first) for first in range(0, 1_000, 100)]
    training = [f"{prose(f'own{i}', 3_000)} {piece}" for i, piece in enumerate(pieces)]
    assert all(judge(tmp_path / str(i), [heldout], [text]).removed == [False] for i, text in enumerate(training))
    found = judge(tmp_path / "all", [heldout], training)
    assert found.removed == [False] + [True] * 9
    assert remaining_share(heldout, training, found.removed) < 0.2
    assert all(found.only(i).removed for i in range(1, 10))
    quotations = [f"{prose(f'own{i}', 3_000)} {prose('held', 50, 20 * i)}" for i in range(40)]
    assert not any(judge(tmp_path / "quotations", [heldout], quotations).removed)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_less_than_the_share_remains_for_any_units(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Passages of any place and length in documents of any number; none of the text is common."""
    heldout = [prose("a", 400), prose("b", 300)]
    spans = data.draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300), st.integers(62, 200)), min_size=1, max_size=12)
    )
    training = [
        f"{prose(f'own{i}', 2_000)} {prose(name, min(size, {'a': 400, 'b': 300}[name] - first), first)}"
        for i, (name, first, size) in enumerate(spans)
        if {"a": 400, "b": 300}[name] - first >= 62
    ]
    results = []
    for unit in (1, 4, 100):
        found = judge(tmp_path_factory.mktemp("index"), heldout, training, unit=unit, boilerplate_documents=1000)
        results.append(found.removed)
    assert results[0] == results[1] == results[2]
    assert all(remaining_share(text, training, results[0]) < 0.2 for text in heldout)


def test_the_same_document_twice_counts_each_ngram_once_a_document(tmp_path: Path) -> None:
    licence = prose("licence", 20)
    found = judge(tmp_path, [licence], [f"{licence} {licence}"], boilerplate_documents=1)
    assert not found.boilerplate.is_common.any()


def test_a_removed_heldout_document_protects_nothing(tmp_path: Path) -> None:
    texts = [prose("gone", 100), prose("held", 100)]
    index = build_evaluated(tmp_path, 13, [ngram_part([distinct_ngrams(text, 13) for text in texts])], [2], [])
    places, own = index.shared_by(texts[0])
    shared = SharedNgrams(np.zeros(len(places), np.int64), places, np.array([own]), np.array([1]))
    for alive, gone in ((True, [True]), (False, [False])):
        boilerplate = find_boilerplate(index, DecontaminationParams(), np.array([alive, True]), lambda: iter([shared]), 1)
        assert [r.tolist() for r in choose_removed(index, boilerplate, 0.2, lambda: iter([shared]))] == [gone]


def test_one_shared_ngram_with_a_prompt_removes(tmp_path: Path) -> None:
    prompts = [Prompt("exam.jsonl:1", prose("question", 40)), Prompt("exam.jsonl:2", prose("other", 13))]
    shared = " ".join(prompts[0].text.split()[5:18])
    training = [
        f"{prose('own', 5_000)}\n{shared}\n{prose('more', 50)}",
        f"{prompts[1].text} and {prompts[0].text}",
        " ".join(prompts[0].text.split()[5:17]),
    ]
    found = judge(tmp_path, [], training, prompts)
    hit = found.only()
    assert (hit.evaluated_in, hit.num_shared, hit.removed, hit.example) == ("exam.jsonl:1", 1, True, shared)
    assert [(h.evaluated_in, h.num_shared) for h in found.hits[1]] == [("exam.jsonl:1", 28), ("exam.jsonl:2", 1)]
    assert found.hits[2] == []


def test_short_prompts_count_as_a_whole_and_shorter_ones_not_at_all(tmp_path: Path) -> None:
    prompts = [Prompt("eight", prose("short", 8)), Prompt("seven", prose("tiny", 7)), Prompt("none", "!!!")]
    training = [
        f"{prose('own', 100)} {prompts[0].text} {prose('more', 9)}",
        prompts[0].text,
        f"{prose('own', 100)} {' '.join(prompts[0].text.split()[:7])} {prompts[1].text}",
    ]
    found = judge(tmp_path, [], training, prompts)
    assert found.index.short_prompts == ["seven", "none"]
    assert (found.only().evaluated_in, found.only().example) == ("eight", prompts[0].text)
    assert found.only(1).removed
    assert found.hits[2] == []


def test_prompts_that_boilerplate_hides_are_named(tmp_path: Path) -> None:
    famous, header = Prompt("famous", prose("famous", 20)), prose("header", 20)
    longer = Prompt("longer", f"{header} {prose('longer', 20)}")
    training = [f"{famous.text} {header} {prose(f'page{i}', 30)}" for i in range(11)]
    found = judge(tmp_path, [], [*training, longer.text], [famous, longer])
    assert found.boilerplate.ignored_prompts(found.index) == ["famous"]
    assert found.hits[0] == []
    assert found.only(11).evaluated_in == "longer"
