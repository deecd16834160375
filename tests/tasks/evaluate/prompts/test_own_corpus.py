"""Questions made from the user's own documents, and the passages around them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.chat import chat_turn
from tasks.evaluate.prompts.corpus_questions import CorpusQuestion, corpus_questions, corpus_texts
from tasks.evaluate.prompts.hard_negatives import Passages
from tasks.evaluate.prompts.make import make_prompts, shortest
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.prompts.own_corpus import most_samples
from tests import ROOT

DEMO = ROOT / "tasks" / "model" / "demo_base"
GUIDE = """# Guide to Locks

Every lock lifts a boat by filling its chamber slowly. The keeper opens the upper gate at noon.

Figure 3: The upper gate seen from the towpath.

A paddle is a small door that lets water in. It is an old word. Boats wait in line.
"""
OTHER = """Notes

The keeper of the lower gate sleeps at noon in his hut. Nobody knows the reason for his long sleep.

Boats wait in line. The water rises and then it falls again. Boats wait in line. Nothing else happens on most days there.
"""
CHAT = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}[end]{% endfor %}"
CHAT += "{% if add_generation_prompt %}[bot]{% endif %}"


def questions(*texts: str, count: int = 100) -> list[CorpusQuestion]:
    return corpus_questions(corpus_texts(texts), count, np.random.default_rng(0))


def test_questions_of_each_kind_are_made_from_the_documents() -> None:
    found = {(q.kind, q.named): q.answer for q in questions(GUIDE, OTHER)}
    assert found["title", "Guide to Locks"] == "Every lock lifts a boat by filling its"
    assert found["caption", "Figure 3"] == "The upper gate seen from the towpath"
    assert found["definition", "paddle"] == "a small door that lets water in"
    assert found["next", "Every lock lifts a boat by filling its chamber slowly."] == "The keeper opens the upper gate at noon"
    assert not any(kind == "definition" and named == "It" for kind, named in found)


def test_what_occurs_twice_is_neither_asked_for_nor_an_answer() -> None:
    named = {q.named for q in questions(GUIDE, OTHER, GUIDE)}
    assert not named & {"Guide to Locks", "Figure 3", "paddle", "Every lock lifts a boat by filling its chamber slowly."}
    assert all(q.answer != "Boats wait in line" for q in questions(GUIDE, OTHER))


def test_kinds_take_turns() -> None:
    prose = " ".join(f"The boat with number {i} has gone away. Its place {i} is now empty again." for i in range(50))
    kinds = [q.kind for q in questions(GUIDE + "\n\n" + prose, OTHER, count=6)]
    assert len(set(kinds[:4])) == 4


def test_gold_passages_hold_question_and_answer_and_negatives_do_not() -> None:
    texts = corpus_texts([GUIDE, OTHER, OTHER.replace("water", "sand").replace("Notes", "Remarks")])
    passages = Passages(texts, 60)
    asked = corpus_questions(texts, 100, np.random.default_rng(0))
    assert asked
    for question in asked:
        gold = passages.gold(question)
        assert question.named in gold
        assert question.answer in gold
        own = {passage.text for passage in passages.all if passage.document == question.document}
        negatives = list(passages.negatives(question))
        assert negatives
        assert not any(question.answer in text for text in negatives)
        assert not set(negatives) & (own - {p.text for p in passages.all if p.document != question.document})


def test_the_hardest_negative_looks_like_the_question() -> None:
    filler = " ".join(f"Sheep number {i} eats grass on hill {i}." for i in range(40))
    texts = corpus_texts(
        [GUIDE, filler, OTHER, "A lock on the hill lifts one small boat slowly. It fills its chamber from a stream."]
    )
    (question,) = (q for q in corpus_questions(texts, 100, np.random.default_rng(0)) if q.named.startswith("Every lock"))
    assert next(Passages(texts, 40).negatives(question)) == "A lock on the hill lifts one small boat slowly."


@pytest.fixture(scope="module")
def material() -> Material:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO)
    texts = tuple(
        "\n\n".join(f"The boat {i} of {owner} is old and slow. Port {i} of {owner} is small and busy." for i in range(40))
        for owner in ("Ann", "Bob", "Cy", "Di")
    )
    haystack = Haystack.of([tokenize(owner, text, tokenizer) for owner, text in zip("abcd", texts, strict=True)])
    return Material(tokenizer, haystack, num_depths=5, num_samples=4, seed=0, form_length=1024, texts=texts)


def test_the_gold_passage_stands_once_at_each_depth(material: Material) -> None:
    for length in (1024, 2048):
        for prompt in make_prompts("own_corpus", length, material):
            text = str(material.tokenizer.decode(prompt.tokens))
            passages = re.findall(r"\n\[(\d+)\] (.+)", text)
            assert [int(number) for number, _ in passages] == list(range(1, len(passages) + 1))
            holding = [place for place, (_, passage) in enumerate(passages) if prompt.golds[0] in passage]
            assert holding == [round((prompt.depth or 0) * (len(passages) - 1))]
            control = str(material.tokenizer.decode(prompt.control))
            assert prompt.golds[0] not in control
            assert len(re.findall(r"\n\[\d+\] ", control)) == len(passages)
            assert len(prompt.tokens) > length - 120, "one more passage would not fit"


def test_a_base_model_sees_two_other_questions_first(material: Material) -> None:
    (prompt, *_) = make_prompts("own_corpus", 1024, material)
    text = str(material.tokenizer.decode(prompt.tokens))
    answered = re.findall(r"Question: (.+)\nAnswer: (.+)\n", text)
    assert len(answered) == 2
    assert text.count("Question:") == 3
    assert all(answer != prompt.golds[0] for _, answer in answered)
    assert text.endswith("?\nAnswer:")
    assert shortest("own_corpus", replace(material, form_length=300)) < shortest("own_corpus", material)


def test_an_instruct_model_is_asked_in_its_chat_template(material: Material) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO, chat_template=CHAT)
    instruct = replace(material, tokenizer=tokenizer)
    prompts = make_prompts("own_corpus", 1024, instruct)
    turn = chat_turn(tokenizer, material.haystack.bos)
    assert turn is not None
    asked = replace(instruct, chat=turn, haystack=replace(material.haystack, bos=turn.opening))
    for others, equal_ones in (
        (asked, prompts),
        (replace(instruct, is_plain=True), make_prompts("own_corpus", 1024, material)),
    ):
        assert [p.prompt_hash for p in make_prompts("own_corpus", 1024, others)] == [p.prompt_hash for p in equal_ones]
    for prompt in prompts:
        text = str(tokenizer.decode(prompt.tokens))
        assert text.count(str(tokenizer.bos_token)) == 1
        assert text.startswith(f"{tokenizer.bos_token}[user]Answer the question")
        assert text.endswith("?\nAnswer:[end][bot]")
        assert tokenizer.decode(prompt.answer) == prompt.golds[0]
        assert "Question: " in text
        assert len(prompt.tokens) + len(prompt.answer) <= 1024


def test_samples_are_limited_by_the_questions_of_the_documents(material: Material) -> None:
    assert most_samples(10, material.texts, 0) == 10
    most = most_samples(1000, material.texts, 0)
    assert 10 < most < 1000
    assert len(make_prompts("own_corpus", 1024, replace(material, num_samples=most, num_depths=2))) == 2 * most
    first, more = (make_prompts("own_corpus", 1024, replace(material, num_samples=n)) for n in (3, 6))
    assert [p.prompt_hash for p in more[: len(first)]] == [p.prompt_hash for p in first]


def test_documents_without_questions_are_refused(material: Material) -> None:
    with pytest.raises(
        UserError, match=r"give 0 questions for the task own_corpus, which needs 2 as examples and 4 for samples"
    ):
        make_prompts("own_corpus", 1024, replace(material, texts=("x = 1\n" * 50, "y")))
    single = (" ".join(f"The boat with number {i} has gone away. Its place {i} is now empty again." for i in range(50)),)
    with pytest.raises(UserError, match=r"give 0 passages beside the one that answers"):
        make_prompts("own_corpus", 1024, replace(material, texts=single))
