"""Questions of every form are right about their document, need their evidence, and are scored as they say."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from data_schemas.errors import UserError
from tasks.advise.questions import MIN_TOKENS, Question, make_questions, score
from tasks.evaluate.prompts.words import invented_words

HAN = "".join(chr(c) for c in np.random.default_rng(1).integers(0x4E00, 0x9FFF, 3000).tolist())


def words(text: str) -> int:
    return len(text.split()) if " " in text else len(text)


def prose(seed: int, num_words: int = 900) -> str:
    rng = np.random.default_rng(seed)
    lexicon = invented_words(300, rng)
    chosen = [lexicon[i] for i in rng.integers(0, 300, num_words).tolist()]
    return "\n".join(" ".join(chosen[i : i + 12]) for i in range(0, num_words, 12))


@pytest.fixture(scope="module")
def questions() -> tuple[Question, ...]:
    documents = [*((f"prose-{seed}", prose(seed)) for seed in range(4)), ("han", HAN), ("short", "too short")]
    made = make_questions(documents, per_kind=24, seed=3, count_tokens=words, max_tokens=None)
    assert made.notes[0] == f"1 of 6 held-out documents have fewer than {MIN_TOKENS} tokens and were not asked about."
    return made.asked


def test_every_kind_and_form_is_asked(questions: tuple[Question, ...]) -> None:
    assert Counter(q.kind for q in questions) == {"local": 24, "far_apart": 24, "spread": 24}
    assert {q.form for q in questions} == {"quote", "fact", "two_facts", "count", "first", "last", "order", "contradiction"}
    assert len({q.id for q in questions}) == len(questions)
    assert {q.document_id for q in questions if q.form == "quote"} >= {"han", "prose-0"}


def test_no_control_holds_the_evidence_or_the_answer(questions: tuple[Question, ...]) -> None:
    for q in questions:
        evidence = [q.document[start:end] for start, end in q.evidence]
        assert evidence
        assert len(q.control) == len(q.document)
        hidden = evidence if q.form == "count" else [*q.answers, *q.options]
        assert not [text for text in hidden if text.casefold() in q.control.casefold()], q.id
        kept = list(q.document)
        for start, end in q.evidence:
            kept[start:end] = q.control[start:end]
        assert "".join(kept) == q.control


def test_the_answer_follows_from_the_evidence(questions: tuple[Question, ...]) -> None:
    for q in questions:
        evidence = [q.document[start:end] for start, end in q.evidence]
        if q.form in ("quote", "fact"):
            assert len(evidence) == 1
            assert q.answers[0] in evidence[0]
        elif q.form == "two_facts":
            asked = re.findall(r"the (\S+) is kept\?", q.question)[0]
            place = re.findall(rf"# The {asked} is kept in the (\w+)\.", q.document)[0]
            assert re.findall(rf"# The code of the {place} is (\d+)\.", q.document) == [q.answers[0]]
            assert q.evidence[1][0] - q.evidence[0][0] >= 0.5 * len(q.document)
        elif q.form == "count":
            assert [str(q.document.count(evidence[0])), str(len(evidence))] == [q.answers[0]] * 2
        elif q.form == "contradiction":
            codes = Counter(name for name, _ in set(re.findall(r"code of the (\S+) is (\d+)", q.document)))
            assert [name for name, times in codes.items() if times == 2] == [q.answers[0]]
        else:
            named = [next(o for o in q.options if o in text) for text in evidence]
            expected = {"first": named[0], "last": named[-1], "order": ", ".join(named)}[q.form]
            assert expected == q.answers[0]


def test_spread_evidence_reaches_over_the_document(questions: tuple[Question, ...]) -> None:
    for q in questions:
        if q.kind == "spread":
            assert q.evidence[-1][1] - q.evidence[0][0] >= 0.4 * len(q.document), q.id


def test_the_right_answer_scores_and_a_guess_does_not(questions: tuple[Question, ...]) -> None:
    for q in questions:
        assert all(score(q, f"It is {answer}.") == 1 for answer in q.answers)
        assert score(q, "I do not know") == score(q, "") == 0
        if q.form == "order":
            assert score(q, ", ".join(q.options)) == 0
        elif q.options:
            assert sum(score(q, option) for option in q.options) == 1
            wrong = next(option for option in q.options if option not in q.answers)
            assert score(q, f"{wrong}, not {q.answers[0]}") == 0
        if q.form == "count":
            assert score(q, f"1{q.answers[0]}") == 0


def test_equal_arguments_make_equal_questions_and_another_seed_others() -> None:
    def make(seed: int) -> tuple[Question, ...]:
        return make_questions([("a", prose(1))], per_kind=3, seed=seed, count_tokens=words, max_tokens=500).asked

    assert make(1) == make(1)
    assert {q.question for q in make(1)}.isdisjoint(q.question for q in make(2))


def test_a_document_with_its_planted_sentences_fits() -> None:
    made = make_questions([("a", prose(1, 5000))], per_kind=6, seed=0, count_tokens=words, max_tokens=300)
    assert max(words(q.document) for q in made.asked) <= 300
    assert min(words(q.document) for q in made.asked) >= 250
    num_planted = sum("# The " in question.document for question in made.asked)
    assert 12 <= num_planted < 18
    assert made.notes[0] == "18 of 18 questions are on a stretch of their document, which is longer than 300 tokens."
    assert made.notes[1].startswith(
        f"{num_planted} of 18 questions ask for planted sentences. These share words with the question"
    )


def test_no_document_long_enough_is_said() -> None:
    with pytest.raises(UserError, match="None of the 1 held-out documents has 200 tokens, so no questions can be made"):
        make_questions([("a", "few words")], per_kind=1, seed=0, count_tokens=words, max_tokens=None)


def test_questions_that_do_not_fit_are_counted_and_where_none_does_that_is_said() -> None:
    made = make_questions([("a", prose(1))], per_kind=6, seed=0, count_tokens=words, max_tokens=110)
    num_left_out = 18 - len(made.asked)
    assert 0 < num_left_out < 18
    assert made.notes[0].startswith(
        f"{num_left_out} questions were left out, as their planted sentences take most of the 110 tokens"
    )
    with pytest.raises(UserError, match="Questions need documents longer than 4 tokens"):
        make_questions([("a", prose(1))], per_kind=6, seed=0, count_tokens=words, max_tokens=4)


def test_a_document_without_words_gets_planted_questions() -> None:
    made = make_questions([("a", "+-* /\n" * 200)], per_kind=6, seed=0, count_tokens=words, max_tokens=None)
    assert len(made.asked) == 18
