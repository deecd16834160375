"""Ranked questions: the same passages under every order, a declared distribution of ranks, exact lengths."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.prompts.qa import QaExample
from tasks.evaluate.prompts.ranked import RankedQuestion, gold_rank, rank_quantiles
from tasks.evaluate.prompts.ranked_facts import fact_questions
from tasks.evaluate.prompts.ranked_files import read_ranked, write_ranked
from tasks.evaluate.prompts.ranked_qa import qa_questions
from tasks.reorder.candidates import candidate_orders, compared_strategies

LINE = "The valley is deep; bridge {} is old, and traveller {} looks back.\n"


@pytest.fixture(scope="module")
def material(tokenizer: PreTrainedTokenizerFast) -> Material:
    text = "".join(LINE.format(number, number * 37 % 101) for number in range(300))
    passages = tuple(f"{name} crossed bridge {i} and paid {i} coins." for i, name in enumerate(["Bo", "Cy", "Di", "Ed", "Flo"]))
    qa = tuple(
        QaExample(f"Who paid {n} coins?", answers, f"Ann Lee paid {n} coins.", passages[:fit], n)
        for n, answers, fit in [(70, ("Ann Lee",), 5), (80, ("Ann Lee", "Ann"), 5), (90, ("Ann Lee",), 1)]
    )
    haystack = Haystack.of([tokenize("d", text, tokenizer)])
    return Material(tokenizer=tokenizer, haystack=haystack, num_depths=3, num_samples=4, seed=3, qa=qa)


@pytest.fixture(scope="module")
def questions(material: Material) -> dict[int, tuple[RankedQuestion, ...]]:
    return dict(fact_questions((256, 1536, 3072), 12, material).questions)


@pytest.mark.parametrize("longer", [1800, 2048, 2900, 4000])
def test_lengths_that_are_no_multiples_are_filled_as_well(material: Material, longer: int) -> None:
    questions = fact_questions((1536, longer), 3, material).questions
    assert list(questions) == [1536, longer]
    for length, of_length in questions.items():
        for question in of_length:
            prompt = question.prompt(list(range(1, len(question.passages) + 1)), material.tokenizer)
            assert len(prompt.tokens) + len(prompt.answer) == length
            sizes = [len(passage) for passage in question.passages]
            assert max(sizes) - min(sizes) <= 1


def test_every_order_asks_about_the_same_tokens_and_fills_the_length(
    questions: dict[int, tuple[RankedQuestion, ...]], material: Material
) -> None:
    assert list(questions) == [1536, 3072], "256 tokens hold no eight passages"
    for length, of_length in questions.items():
        assert [question.sample for question in of_length] == list(range(12))
        for question in of_length:
            n = len(question.passages)
            assert n == 8 * length // 1536
            orders = candidate_orders(compared_strategies([length], ()), n, length, (), question.seed)
            prompts = {name: question.prompt(order, material.tokenizer) for name, order in orders.items()}
            assert {len(p.tokens) + len(p.answer) for p in prompts.values()} == {length}
            assert len({tuple(sorted(p.tokens)) for p in prompts.values()}) == 1
            assert len({p.prompt_hash for p in prompts.values()}) == 4
            sizes = [len(passage) for passage in question.passages]
            assert max(sizes) - min(sizes) <= 1
            for name, prompt in prompts.items():
                place = orders[name].index(question.gold_rank)
                at = round(prompt.position * len(prompt.tokens))
                text = material.tokenizer.decode(prompt.tokens[at : at + len(prompt.answer)])
                assert question.golds[0] in text + material.tokenizer.decode(prompt.tokens[at:][:9])
                before = sum(map(len, (question.front, *question.labels[: place + 1])))
                before += sum(len(question.passages[rank - 1]) for rank in orders[name][:place])
                assert before <= at < before + len(question.passages[question.gold_rank - 1])


def test_one_passage_has_the_answer_and_each_states_a_fact(
    questions: dict[int, tuple[RankedQuestion, ...]], material: Material
) -> None:
    for question in questions[3072]:
        texts = [material.tokenizer.decode(passage) for passage in question.passages]
        assert [i + 1 for i, text in enumerate(texts) if question.golds[0] in text] == [question.gold_rank]
        assert all(text.count("# The code of ") == 1 and text.count("The code of ") == 2 for text in texts)
        assert len(set(texts)) == len(texts)
        asked = material.tokenizer.decode(question.question).rsplit("The code of ", 1)[1].removesuffix(" is")
        assert f"The code of {asked} is {question.golds[0]}" in texts[question.gold_rank - 1]


def test_a_sample_is_the_same_question_with_more_passages_at_a_longer_length(
    questions: dict[int, tuple[RankedQuestion, ...]], material: Material
) -> None:
    def facts(question: RankedQuestion) -> list[str]:
        decoded = (material.tokenizer.decode(passage) for passage in question.passages)
        return [text.split("The code of ")[1].split(" is ")[0] for text in decoded]

    for short, long in zip(questions[1536], questions[3072], strict=True):
        assert short.golds == long.golds
        assert short.gold_rank <= long.gold_rank
        few, many = facts(short), facts(long)
        few.pop(short.gold_rank - 1)
        many.pop(long.gold_rank - 1)
        assert many[: len(few)] == few, "distractors keep their ranks among each other"


@given(st.integers(1, 300))
@settings(max_examples=50, deadline=None)
@pytest.mark.slow
def test_ranks_follow_one_over_r(n: int) -> None:
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    ranks = np.array([gold_rank(float(q), n) for q in quantiles[:: max(1, n // 8)]])
    expected = 1 / np.arange(1, n + 1) / (1 / np.arange(1, n + 1)).sum()
    assert ranks.min() == 1
    assert ranks.max() <= n
    assert (ranks == 1).mean() == pytest.approx(expected[0], abs=0.01)
    assert (ranks <= (n + 1) // 2).mean() == pytest.approx(expected[: (n + 1) // 2].sum(), abs=0.01)
    assert gold_rank(float(np.nextafter(1, 0)), n) <= n


def test_few_samples_fill_the_distribution_evenly() -> None:
    quantiles = np.sort(rank_quantiles(16, seed=5))
    assert np.diff(quantiles).max() < 2 / 16
    assert not np.array_equal(quantiles, np.sort(rank_quantiles(16, seed=6)))


def test_own_questions_keep_the_order_of_their_passages(material: Material) -> None:
    found = qa_questions((64, 256, 512), 5, material)
    assert {q.golds for q in found.questions[512]} == {("Ann Lee",), ("Ann Lee", "Ann")}, "one has two passages only"
    for length, of_length in found.questions.items():
        for question in of_length:
            passages = [material.tokenizer.decode(passage).strip() for passage in question.passages]
            assert "Ann Lee" in passages.pop(question.gold_rank - 1)
            assert [text.split()[0] for text in passages] == ["Bo", "Cy", "Di", "Ed", "Flo"][: len(passages)]
            assert question.num_tokens + max(len(question.answer), question.max_new_tokens) <= length
            assert question.is_forced == (len(question.golds) == 1)
    assert 64 not in found.questions
    assert "no question of evaluation.qa_file fits 64 tokens" in qa_questions((64,), 5, material).left_out


def test_what_is_too_short_says_so(material: Material) -> None:
    assert "256 tokens do not hold 8 passages" in fact_questions((128, 256), 2, material).left_out


def test_questions_are_read_as_they_were_written(
    questions: dict[int, tuple[RankedQuestion, ...]], material: Material, tmp_path: Path
) -> None:
    for asked in (questions[1536], qa_questions((512,), 5, material).questions[512]):
        write_ranked(asked, tmp_path / "ranked.parquet")
        for before, after in zip(asked, read_ranked(tmp_path / "ranked.parquet"), strict=True):
            order = list(range(len(before.passages), 0, -1))
            assert np.array_equal(
                before.prompt(order, material.tokenizer).tokens, after.prompt(order, material.tokenizer).tokens
            )
            assert (before.golds, before.gold_rank, before.seed) == (after.golds, after.gold_rank, after.seed)


def test_no_order_of_other_passages_is_asked(questions: dict[int, tuple[RankedQuestion, ...]], material: Material) -> None:
    with pytest.raises(ValueError, match="not an order of 8 passages"):
        questions[1536][0].prompt([1, 1, 2, 3, 4, 5, 6, 7], material.tokenizer)
