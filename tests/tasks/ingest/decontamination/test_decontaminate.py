import gzip
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.params import DecontaminationParams
from tasks.ingest.decontamination import index_building as evaluated
from tasks.ingest.decontamination.evaluated_prompts import Prompt, read_prompts
from tasks.ingest.decontamination.index_building import build_index, heldout_part, mark_common
from tasks.ingest.decontamination.ngram_index import HELDOUT, INDEX_FILES, EvaluatedIndex, HashFilter, Hit
from tasks.ingest.word_ngrams import distinct_ngrams

DEFAULT = DecontaminationParams()


def prose(name: str, num_words: int) -> str:
    """Words that stand in no other text."""
    return " ".join(f"{name}{i}" for i in range(num_words))


def index_of(
    directory: Path,
    heldout: list[str],
    prompts: list[Prompt] | None = None,
    params: DecontaminationParams = DEFAULT,
    training: list[str] | None = None,
) -> EvaluatedIndex:
    parts = [heldout_part([distinct_ngrams(text, params.ngram_words)]) for text in heldout]
    index = build_index(directory, params, parts, prompts or [])
    mark_common(index, [index.places_of(text) for text in training or []], params)
    return index


def only(hits: list[Hit]) -> Hit:
    assert len(hits) == 1
    return hits[0]


def test_a_share_of_heldout_ngrams_removes(tmp_path: Path) -> None:
    heldout = prose("held", 1_000)
    index = index_of(tmp_path, [heldout])
    some = " ".join(heldout.split()[100:140])  # 28 n-grams of 13 words
    hit = only(index.judge(f"{prose('own', 60)}. {some.upper()}! {prose('more', 40)}"))
    assert hit.evaluated_in == HELDOUT
    assert hit.num_shared == 28
    assert hit.share == pytest.approx(28 / (140 - 12))
    assert hit.removed
    assert hit.example.startswith("HELD100 HELD101")
    assert hit.example == some.upper()[:200]
    assert len(hit.example) == 200
    hit = only(index.judge(f"{prose('own', 200)} {some}"))
    assert hit.share == pytest.approx(28 / 228)
    assert not hit.removed
    assert index.judge(prose("own", 200)) == []
    assert index.judge(" ".join(heldout.split()[:12])) == []
    assert index.judge("") == []


def test_collected_works_that_hold_a_heldout_work_are_removed(tmp_path: Path) -> None:
    play, note = prose("play", 400), prose("note", 30)
    index = index_of(tmp_path, [play, note])
    long = prose("own", 20_000)
    hit = only(index.judge(f"{long} {' '.join(play.split()[:150])}"))
    assert hit.share < 0.01
    assert hit.copied_share == pytest.approx(138 / 388)
    assert hit.removed
    hit = only(index.judge(f"{long} {' '.join(play.split()[:80])}"))
    assert hit.copied_share == pytest.approx(68 / 388)
    assert not hit.removed
    hit = only(index.judge(f"{long} {note}"))  # all of it, but no more than a quotation
    assert hit.copied_share == 0
    assert not hit.removed


def test_boilerplate_does_not_count(tmp_path: Path) -> None:
    licence = prose("licence", 50)
    heldout = f"{licence} {prose('held', 300)}"
    training = [f"{licence} {prose(f'file{i}', 100)}" for i in range(11)]
    index = index_of(tmp_path / "ten", [heldout], training=training[:10])
    assert all(only(index.judge(text)).share == pytest.approx(38 / 138) for text in training)
    index = index_of(tmp_path / "eleven", [heldout], training=training)
    assert int(index.is_common.sum()) == 38
    assert [index.judge(text) for text in training] == [[]] * 11
    copied = " ".join(heldout.split()[40:80])  # ten words of the licence, thirty of the text: none of its n-grams is common
    assert only(index.judge(f"{training[0]} {copied}")).num_shared == 28
    assert only(index.judge(heldout)).share == 1  # boilerplate leaves both sides of the division


def test_the_same_document_twice_counts_each_ngram_once_a_document(tmp_path: Path) -> None:
    licence = prose("licence", 20)
    index = index_of(tmp_path, [licence], params=DecontaminationParams(common_documents=1), training=[f"{licence} {licence}"])
    assert not index.is_common.any()


@pytest.mark.parametrize("common_documents", [1, 300, 100_000])
def test_counts_add_up_over_parts(tmp_path: Path, common_documents: int) -> None:
    params = DecontaminationParams(common_documents=common_documents)
    index = index_of(tmp_path, [prose("held", 20)], params=params)
    part = np.repeat([0, 3], [200, 1])  # an n-gram in 200 training documents, another in one
    assert mark_common(index, [part, part], params) == {1: 2, 300: 1, 100_000: 0}[common_documents]


def test_the_filter_forgets_no_hash_and_stops_most_others(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    hashes = np.sort(draw.integers(0, 2**64, 5_000, np.uint64, endpoint=False))
    hashes[-1] = 2**64 - 1
    for num in (0, 1, 3, 5_000):
        seen = HashFilter(np.zeros(HashFilter.num_bytes(num), np.uint8))
        seen.add(hashes[len(hashes) - num :])
        assert seen.may_hold(hashes[len(hashes) - num :]).all()
    assert seen.may_hold(draw.integers(0, 2**64, 10_000, np.uint64, endpoint=False)).mean() < 1 / 8


def test_one_shared_ngram_with_a_prompt_removes(tmp_path: Path) -> None:
    prompts = [Prompt("exam.jsonl:1", prose("question", 40)), Prompt("exam.jsonl:2", prose("other", 13))]
    index = index_of(tmp_path, [], prompts)
    shared = " ".join(prompts[0].text.split()[5:18])
    hit = only(index.judge(f"{prose('own', 5_000)}\n{shared}\n{prose('more', 50)}"))
    assert (hit.evaluated_in, hit.num_shared, hit.removed) == ("exam.jsonl:1", 1, True)
    assert hit.example == shared
    both = index.judge(f"{prompts[1].text} and {prompts[0].text}")
    assert [(h.evaluated_in, h.num_shared) for h in both] == [("exam.jsonl:1", 28), ("exam.jsonl:2", 1)]
    assert index.judge(" ".join(prompts[0].text.split()[5:17])) == []


def test_short_prompts_count_as_a_whole_and_shorter_ones_not_at_all(tmp_path: Path) -> None:
    prompts = [Prompt("eight", prose("short", 8)), Prompt("seven", prose("tiny", 7)), Prompt("none", "!!!")]
    index = index_of(tmp_path, [], prompts)
    assert index.short_prompts == ["seven", "none"]
    hit = only(index.judge(f"{prose('own', 100)} {prompts[0].text} {prose('more', 9)}"))
    assert (hit.evaluated_in, hit.example) == ("eight", prompts[0].text)
    assert only(index.judge(prompts[0].text)).removed
    assert index.judge(f"{prose('own', 100)} {' '.join(prompts[0].text.split()[:7])} {prompts[1].text}") == []


def test_prompts_that_boilerplate_hides_are_named(tmp_path: Path) -> None:
    famous, header = Prompt("famous", prose("famous", 20)), prose("header", 20)
    longer = Prompt("longer", f"{header} {prose('longer', 20)}")
    training = [f"{famous.text} {header} {prose(f'page{i}', 30)}" for i in range(11)]
    index = index_of(tmp_path, [], [famous, longer], training=training)
    assert index.ignored_prompts() == ["famous"]
    assert index.judge(training[0]) == []
    assert only(index.judge(longer.text)).evaluated_in == "longer"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    heldout=st.lists(st.text("abc ", max_size=40), max_size=6),
    training=st.lists(st.text("abc ", max_size=40), max_size=12),
    common=st.integers(1, 3),
    ranges=st.sampled_from([1, 3, 1000]),
)
def test_equals_sets_of_words(
    tmp_path_factory: pytest.TempPathFactory, heldout: list[str], training: list[str], common: int, ranges: int
) -> None:
    """Against plain sets of tuples, with n-grams of three words over a small alphabet so that much is shared."""

    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()

    params = DecontaminationParams(ngram_words=3, common_documents=common)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluated, "_MERGE_NGRAMS", ranges)
        index = index_of(tmp_path_factory.mktemp("index"), heldout, params=params, training=training)
    held = set[tuple[str, ...]]().union(*map(grams, heldout))
    assert len(index.heldout) == len(held)
    num_with = Counter(gram for text in training for gram in grams(text))
    boilerplate = {gram for gram in held if num_with[gram] > common}
    assert int(index.is_common.sum()) == len(boilerplate)
    for text in training:
        mine = grams(text)
        assert len(index.places_of(text)) == len(mine & held)
        shared = (mine & held) - boilerplate
        hits = index.judge(text)
        assert bool(hits) == bool(shared)
        if shared:
            assert hits[0].num_shared == len(shared)
            assert hits[0].share == pytest.approx(len(shared) / len(mine - boilerplate))


def test_the_index_does_not_depend_on_ranges_and_can_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [prose("held", 500), f"{prose('held', 200)} {prose('else', 300)}", "", prose("last", 20)]
    prompts = [Prompt("p", prose("question", 20))]
    index_of(tmp_path / "whole", texts, prompts, training=texts)
    monkeypatch.setattr(evaluated, "_MERGE_NGRAMS", 50)
    index = index_of(tmp_path / "ranges", texts, prompts, training=texts)
    assert {path.name for path in (tmp_path / "whole").iterdir()} == set(INDEX_FILES)
    for name in INDEX_FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "ranges" / name).read_bytes()
    sent = pickle.dumps(index)
    assert len(sent) < 300
    assert pickle.loads(sent).judge(texts[1]) == index.judge(texts[1])
    assert isinstance(index.heldout, np.memmap)


def test_parts_come_from_files_too(tmp_path: Path) -> None:
    ngrams = [distinct_ngrams(prose(name, 30), 13) for name in ("a", "b")]
    for i, of_part in enumerate((ngrams, [], ngrams[1:])):
        np.save(tmp_path / f"heldout-{i}.npy", heldout_part(of_part), allow_pickle=False)
    index = build_index(tmp_path / "index", DEFAULT, [tmp_path / f"heldout-{i}.npy" for i in range(3)], [])
    assert sorted(index.heldout.tolist()) == sorted(np.concatenate(ngrams).tolist())
    assert np.bincount(index.heldout_owners).tolist() == [18, 18]


def test_prompts_of_text_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("\ufeffWhat is\nthis?", encoding="utf-8")
    lines = [{"prompt": "First", "answer": "no"}, {"question": "Second?", "input": "of it\u2028here", "text": 3}]
    (tmp_path / "exam.jsonl").write_text("\n\n".join(json.dumps(x, ensure_ascii=False) for x in lines), encoding="utf-8")
    (tmp_path / "exam.jsonl.gz").write_bytes(gzip.compress(b'{"text": "zipped"}\n'))
    (tmp_path / "qa.NDJSON").write_text('{"question": "Who?", "answers": ["He"], "gold": "He did.", "passages": ["She."]}\n')
    names = [str(tmp_path / name) for name in ("one.txt", "exam.jsonl", "exam.jsonl.gz", "qa.NDJSON")]
    assert read_prompts(names) == [
        Prompt(names[0], "What is\nthis?"),
        Prompt(f"{names[1]}:1", "First"),
        Prompt(f"{names[1]}:3", "Second?\nof it\u2028here"),
        Prompt(f"{names[2]}:1", "zipped"),
        Prompt(f"{names[3]}:1", "Who?\nHe did."),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"exam.jsonl' in .*do not exist: correct the path\.$"),
        (b"\xff\xfe", r"not UTF-8 \(byte 0\)"),
        (b'{"text": "a"}\n{"text": ', r"exam.jsonl, line 2, are not valid JSON"),
        (b'{"text": 1}', r"line 1, has no text in any of the fields text, prompt, question, input, gold"),
        (b"[]", r"line 1, has no text"),
    ],
)
def test_prompt_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "exam.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_prompts([str(path)])


def test_a_folder_and_an_unknown_protocol_are_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path), "nosuch://bucket/exam.txt"):
        with pytest.raises(UserError, match="cannot be read"):
            read_prompts([name])
