"""Where sentences start: by hand, against spaCy's plain sentencizer, in windows, and by trained pipelines."""

from itertools import pairwise
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import UserError
from data_schemas.params import ChunkingParams
from tasks.chunk import sentences
from tasks.chunk.sentences import FastSegmenter, PipelineSegmenter, Segmenter, SpacySegmenter, make_segmenter
from tests.tasks.chunk.sentences_golden import CASES, golden

GOLDEN = golden()


def errors(segmenter: Segmenter, language: str | None = None) -> list[str]:
    """The golden texts, all or of a language, that `segmenter` gets wrong, with what it found."""
    wrong = []
    for of_language, text, expected in GOLDEN:
        if language in (None, of_language) and (found := segmenter.starts(text)) != expected:
            wrong.append(f"{of_language}: {text!r} -> {[text[a:b] for a, b in zip([0, *found], [*found, None], strict=True)]}")
    return wrong


def plain_sentencizer(language: str) -> PipelineSegmenter:
    pipeline = spacy.blank(language if language not in ("ja", "zh") else "xx")
    pipeline.add_pipe("sentencizer")
    return PipelineSegmenter(pipeline)


def test_there_are_enough_golden_cases() -> None:
    assert len(GOLDEN) >= 150
    assert set(CASES) >= {"en", "de", "fr", "es", "it", "pt", "nl", "ru", "zh", "ja"}


@pytest.mark.parametrize("language", list(CASES))
@pytest.mark.parametrize("kind", [SpacySegmenter, FastSegmenter])
def test_golden_sentences(kind: type[SpacySegmenter] | type[FastSegmenter], language: str) -> None:
    assert errors(kind(language), language) == []


@pytest.mark.slow
def test_the_plain_sentencizer_errs_more() -> None:
    assert len([e for language in CASES for e in errors(plain_sentencizer(language), language)]) > len(GOLDEN) / 4


# -- windows

WORDS = ["a", "I", "Mr.", "etc.", "no.", "5.", "3.14", "x.y", "end.", "End!",
         "why?", "U.S.", "J.", "z.", "B.", "und", "The", "He",
         "...", "…", ".", "!?", "[...]", "(so.)", '"Go."', "«", "»", "1.", "- item",
         "。", "「だ。」", "と", "日", "Ж.", "\u0301"]  # fmt: skip
GAPS = [" ", "  ", "\n", "\n - ", "\n2. ", "", "\t", " " * 70]
MIXED = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=60).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


@pytest.fixture(scope="module")
def segmenters() -> list[Segmenter]:
    return [SpacySegmenter("en"), FastSegmenter("de")]


@settings(max_examples=150)
@given(text=MIXED, cuts=st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_windows_together_find_what_the_whole_text_has(segmenters: list[Segmenter], text: str, cuts: list[int]) -> None:
    edges = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    for segmenter in segmenters:
        whole = segmenter.starts(text)
        assert [p for low, high in pairwise(edges) for p in segmenter.starts(text, low, high)] == whole
        assert all(0 < p < len(text) and not text[p].isspace() for p in whole)
        assert sorted(set(whole)) == whole


@pytest.mark.parametrize("unit", [". ", "... ", "。", "x. ", ".", " ", "a.\n", '."', "1. ", "\n- "])
def test_windows_and_runs_longer_than_any_context(segmenters: list[Segmenter], unit: str) -> None:
    text = "Start. " + unit * 3000 + " Next one. Then."
    for segmenter in segmenters:
        whole = segmenter.starts(text)
        windows = [segmenter.starts(text, low, low + 701) for low in range(0, len(text), 701)]
        assert [p for window in windows for p in window] == whole


def test_only_the_window_reaches_spacys_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = SpacySegmenter("en")
    seen: list[int] = []
    tokenizer = segmenter._tokenizer

    class Counting:
        vocab = tokenizer.vocab

        def __call__(self, text: str) -> object:
            seen.append(len(text))
            return tokenizer(text)

    monkeypatch.setattr(segmenter, "_tokenizer", Counting())
    text = "One two three. Four five six. " * 10_000
    assert segmenter.starts(text, 100_000, 100_300)
    assert sum(seen) < 600


def test_words_that_spacy_has_seen_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "_MAX_VOCABULARY", 500)
    segmenter = SpacySegmenter("xx")
    texts = [f"Word{i} ends. Next{i} too." for i in range(2000)]
    assert all(len(segmenter.starts(text)) == 1 for text in texts)
    assert len(segmenter._tokenizer.vocab) < 1000


# -- trained pipelines


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence recognizer that has learned that only ";" ends a sentence."""
    from spacy.tokens import Doc
    from spacy.training import Example

    pipeline = spacy.blank("en")
    pipeline.add_pipe("senter")
    words = ["one", "two", ";", "three", "four", ".", "five", ";", "six"]
    docs = [Doc(pipeline.vocab, words=words[k:] + words[:k]) for k in range(len(words))]
    examples = []
    for doc in docs:
        gold = [i == 0 or doc[i - 1].text == ";" for i in range(len(doc))]
        examples.append(Example.from_dict(doc, {"sent_starts": [1 if g else -1 for g in gold]}))
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(25):
        pipeline.update(examples, sgd=optimizer, drop=0.0)
    path = tmp_path_factory.mktemp("spacy") / "semicolons"
    pipeline.to_disk(path)
    return path


def test_a_trained_pipeline_decides_by_itself(trained: Path) -> None:
    segmenter = make_segmenter(ChunkingParams(spacy_pipeline=str(trained)))
    text = "one two ; three four . five ; six"
    assert segmenter.starts(text) == [10, 30]
    assert segmenter.starts(text, 11, 31) == [30]


def test_a_pipeline_without_sentences_gets_the_sentencizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spacy.blank("en").to_disk(tmp_path / "blank")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (str(tmp_path / "blank"), "~/blank"):
        assert make_segmenter(ChunkingParams(spacy_pipeline=path)).starts("One. Two.") == [5]


def test_a_pipeline_does_not_depend_on_how_a_long_text_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"{'word ' * (1 + i % 13)}number {i}." for i in range(120))
    whole = plain_sentencizer("en").starts(text)
    assert len(whole) == 119
    monkeypatch.setattr(sentences, "PIECE_CHARS", 200)
    assert plain_sentencizer("en").starts(text) == whole


@pytest.mark.slow
def test_a_sentence_beyond_spacys_limit_is_found() -> None:
    text = "x" * 1_100_000 + ". The end."
    for segmenter in (plain_sentencizer("en"), SpacySegmenter("en"), FastSegmenter("en")):
        assert segmenter.starts(text) == [1_100_002]


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="spacy_pipeline 'xx_no_such' is neither an installed pipeline"):
        make_segmenter(ChunkingParams(spacy_pipeline="xx_no_such"))
    (tmp_path / "config.cfg").write_text("[nlp]\nlang = 'none'\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        make_segmenter(ChunkingParams(spacy_pipeline=str(tmp_path)))
    with pytest.raises(UserError, match=r"chunking\.language 'qqq'"):
        make_segmenter(ChunkingParams(language="qqq"))
    make_segmenter(ChunkingParams(language="qqq", segmenter="fast"))  # needs no data of the language
