"""Languages are recorded when asked for, and others left out when only some are wanted."""

from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.params import CorpusParams
from tasks.ingest.corpus_units import plan_corpus
from tasks.ingest.reading.language_detection import UNDETERMINED, identify
from tests.tasks.ingest.reading.test_text_decoding import TEXTS
from tests.tasks.ingest.reading_example import read


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_told_apart(language: str) -> None:
    assert identify(TEXTS[language])[0] == language


def test_what_has_no_letters_is_undetermined() -> None:
    assert identify("1234 + 5678 = 6912") == (UNDETERMINED, 0.0)


def test_a_long_text_is_judged_by_its_parts() -> None:
    text = "x" * 10 + TEXTS["de"] * 100_000
    assert identify(text)[0] == "de"


def test_a_variety_is_only_told_apart_when_asked_for() -> None:
    cantonese = "我哋今日去咗街市買餸,啲菜好平,佢話聽日再嚟。你食咗飯未呀?唔好意思,我唔知道喎。"
    assert identify(cantonese)[0] == "zh"
    assert identify(cantonese, also=("yue",))[0] == "yue"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for language in ("de", "en", "ja"):
        (tmp_path / f"{language}.txt").write_text(TEXTS[language])
    (tmp_path / "code.py").write_text("for i in range(3):\n    print(i)\n")
    (tmp_path / "numbers.txt").write_text("1 2 3")
    return tmp_path


def test_language_is_detected_unless_it_is_stated_or_not_wanted(corpus: Path) -> None:
    source = {"uri": str(corpus), "include": ("*.txt", "*.py")}
    assert {d.language for d in read(source, detect_language=False).documents} == {None}
    stated = read({**source, "language": "fr"}).documents
    assert {d.work: d.language for d in stated} == {"code": None, "de": "fr", "en": "fr", "ja": "fr", "numbers": "fr"}
    assert read({**source, "language": "fr"}, languages=("de",)).texts == [d.text for d in stated if d.work == "code"]
    found = read(source)
    assert {d.work: d.language for d in found.documents} == {
        "code": None,
        "de": "de",
        "en": "en",
        "ja": "ja",
        "numbers": UNDETERMINED,
    }
    assert found.skipped == []


def test_other_languages_are_skipped_and_code_is_kept(corpus: Path) -> None:
    found = read({"uri": str(corpus), "include": ("*.txt", "*.py")}, languages=("de", "ja"))
    assert [d.work for d in found.documents] == ["code", "de", "ja"]
    assert [(s.source_uri.split("/")[-1], s.reason) for s in found.skipped] == [
        ("en.txt", "language"),
        ("numbers.txt", "language"),
    ]
    assert found.refused == []


def test_an_unknown_language_is_one_sentence(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.languages has 'xx'.*choose from"):
        plan_corpus(CorpusParams(sources=(str(corpus),), languages=("de", "xx")))
