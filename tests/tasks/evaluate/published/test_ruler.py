"""RULER's prompts and scores are those of the authors' code, byte for byte."""

from __future__ import annotations

import hashlib

import nltk
import pytest

from data_schemas.errors import UserError
from tasks.evaluate.published.names import RULER_CONFIGURATIONS
from tasks.evaluate.published.ruler import drawn_samples, new_tokens, ruler_prompts
from tasks.evaluate.published.ruler_word_lists import KeyWords
from tasks.evaluate.published.scores import string_match_all, string_match_part
from tests.tasks.evaluate.published.authors import asked, facts, word_tokenizer

FACTS = facts("ruler")


@pytest.mark.parametrize("length", [1000, 4096])
@pytest.mark.parametrize("configuration", RULER_CONFIGURATIONS)
def test_prompts_and_golds_equal_the_authors(configuration: str, length: int) -> None:
    tokenizer = word_tokenizer()
    drawn = drawn_samples(configuration, length, asked("ruler", num_samples=3), tokenizer)
    ours = [
        {
            "sha256": hashlib.sha256(one.text.encode()).hexdigest(),
            "outputs": list(one.golds),
            "length": len(tokenizer.tokenize(one.text)) + new_tokens(configuration),
        }
        for one in drawn
    ]
    assert ours == FACTS["prompts"][f"{configuration}@{length}"]


def test_scores_equal_the_authors() -> None:
    known = FACTS["scores"]
    pairs = list(zip(known["outputs"], known["golds"], strict=True))
    every, part = [string_match_all(*pair) for pair in pairs], [string_match_part(*pair) for pair in pairs]
    assert [round(100 * score, 2) for score in every] == known["each_all"]
    assert [round(100 * score, 2) for score in part] == known["each_part"]
    assert round(100 * sum(every) / 4, 2) == known["string_match_all"]
    assert round(100 * sum(part) / 4, 2) == known["string_match_part"]


def test_all_13_are_prompts_whose_answers_are_generated_to_the_published_limit() -> None:
    prompts = ruler_prompts(1000, asked("ruler", num_samples=2), word_tokenizer())
    assert list(prompts) == [f"ruler_{name}" for name in RULER_CONFIGURATIONS]
    limits = {task: {prompt.max_new_tokens for prompt in of_task} for task, of_task in prompts.items()}
    assert limits["ruler_niah_multikey_3"] == {128}
    assert [limits[f"ruler_{name}"] for name in ("vt", "cwe", "fwe", "qa_1", "qa_2")] == [{30}, {120}, {50}, {32}, {32}]
    for of_task in prompts.values():
        assert [prompt.sample for prompt in of_task] == [0, 1]
        assert all(not p.is_forced and p.control is None and len(p.tokens) + p.max_new_tokens <= 1000 for p in of_task)


def test_a_length_that_no_prompt_fits_is_refused_where_the_authors_code_would_not_end() -> None:
    for configuration in ("niah_single_2", "niah_single_1", "vt", "fwe", "qa_1"):
        with pytest.raises(UserError, match="does not fit"):
            drawn_samples(configuration, 150, asked("ruler", num_samples=1), word_tokenizer())


def test_more_samples_than_questions_are_refused() -> None:
    with pytest.raises(UserError, match=r"24 questions.*500 are asked for"):
        drawn_samples("qa_1", 1000, asked("ruler"), word_tokenizer())


def test_lists_that_need_more_words_ask_for_the_authors_file() -> None:
    with pytest.raises(UserError, match=r"published_data\.english_words"):
        drawn_samples("cwe", 131072, asked("ruler", num_samples=1), word_tokenizer())


def test_keys_are_sorted_as_a_whole_without_being_held() -> None:
    adjectives, nouns = ["deep", "deep-sea", "able", "big"], ["zebra", "apple", "fish", "sea-dog"]
    words = KeyWords(adjectives, nouns)
    assert list(words) == sorted({f"{a}-{n}" for a in adjectives for n in nouns})


def test_missing_sentence_data_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", ["/nowhere"])
    with pytest.raises(UserError, match=r"nltk.downloader punkt_tab"):
        drawn_samples("niah_single_1", 1000, asked("ruler", num_samples=1), word_tokenizer())
