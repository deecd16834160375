"""Prompts have the ids of their text, exactly the asked length, and the gold where they say, with every kind of tokenizer."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from data_schemas.evaluation_params import TASK_NAMES, TaskName
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.joining import join, most_that_fit
from tasks.evaluate.prompts.make import make_prompts, shortest
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.prompts.pieces import encode, needle, text_of
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.qa import QaExample
from tasks.evaluate.prompts.ranked_facts import fact_questions
from tasks.evaluate.prompts.ranked_qa import qa_questions
from tests import ROOT
from tests.tasks.tokens.made_tokenizers import KINDS

EXACT = ("passkey", "niah_single", "niah_multikey", "niah_multivalue", "niah_multiquery", "variable_tracking")
ASKED = ("key_value", "short_key_value", "common_words", "frequent_words", "document_qa")
LINES = (
    "The bridge hangs over the valley. It swings!\n",
    'A traveller, 27, said: "Pay" \u2013 then </s> stood on the wall\u2026\n',
    "    <s> x = f(1)  # caf\u00e9 \u65e5\u672c\n\n",
    "Item one,\nitem two.\n",
)
QA = tuple(
    QaExample(f"Whose is boat {i}?", (name,), f"Boat {i} is {name}'s.", tuple(f"Cart {i}-{j} is old." for j in range(40)), i)
    for i, name in enumerate(("Ann", "Bob"), start=1)
)


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    demo = ROOT / "tasks" / "model" / "demo_base"
    return PreTrainedTokenizerFast.from_pretrained(demo) if kind == "demo" else KINDS[kind]()


@cache
def material_of(kind: str, is_wide: bool = False) -> Material:
    """`is_wide`: a text of characters that take several bytes."""
    text = "".join(f"Part {i}. " + LINES[i % 4] + LINES[i % 3] for i in range(900))
    if is_wide:
        text = "\u65e5\u672c\u8a9e\u3067\u6a4b\u3092\u6e21\u308b\u3002" * 900
    tokenizer = tokenizer_of(kind)
    haystack = Haystack.of([tokenize(f"d{i}", text[i * 40 :], tokenizer) for i in range(2)])
    return Material(tokenizer, haystack, num_depths=3, num_samples=2, seed=1, qa=QA, texts=(text,))


@cache
def plain(kind: str) -> Tokenizer:
    raw = Tokenizer.from_str(tokenizer_of(kind).backend_tokenizer.to_str())
    raw.encode_special_tokens = True
    return raw


def text_ids(ids: np.ndarray, kind: str) -> tuple[list[int], str, list[int]]:
    """BOS, the text, and what the tokenizer itself makes of that text."""
    tokenizer = tokenizer_of(kind)
    bos = ids[:1].tolist() if len(ids) and ids[0] == tokenizer.bos_token_id else []
    text = text_of(ids[len(bos) :], tokenizer)
    if kind not in ("demo", "llama3", "bytes"):
        assert text.startswith(" "), "the space in front of the first word"
        text = text[1:]
    return bos, text, plain(kind).encode(text, add_special_tokens=False).ids


def check_text(ids: np.ndarray, kind: str, front: np.ndarray) -> str:
    bos, text, expected = text_ids(ids, kind)
    assert bos == front.tolist()
    assert ids.tolist() == [*bos, *expected]
    return text


def check_prompts(prompts: Sequence[TaskPrompt], kind: str, length: int, material: Material) -> None:
    for prompt in prompts:
        whole = np.concatenate([prompt.tokens, prompt.answer])
        text = check_text(whole, kind, material.haystack.bos)
        check_text(prompt.tokens, kind, material.haystack.bos)
        if prompt.control is not None:
            check_text(np.concatenate([prompt.control, prompt.answer]), kind, material.haystack.bos)
        size = len(prompt.tokens) + max(len(prompt.answer), prompt.max_new_tokens)
        assert size <= length
        if prompt.task in EXACT:
            assert size == length
            assert prompt.control is not None
            assert len(prompt.control) + max(len(prompt.answer), prompt.max_new_tokens) == length
        if prompt.position is not None and prompt.task in EXACT:
            place = round(prompt.position * len(prompt.tokens))
            assert text_of(prompt.tokens[place:], material.tokenizer).lstrip().startswith(prompt.golds[0])
            assert prompt.golds[0] not in text_of(prompt.tokens[:place], material.tokenizer)
        assert all(gold in text for gold in prompt.golds)
        assert "\ufffd" not in text


@pytest.mark.parametrize("kind", ["demo", "llama2", "llama3", "bytes"])
@pytest.mark.parametrize("task", [*EXACT, *ASKED])
def test_prompts_have_the_ids_of_their_text_and_the_asked_length(task: TaskName, kind: str) -> None:
    material = material_of(kind)
    length = max(700, shortest(task, material))
    check_prompts(make_prompts(task, length, material), kind, length, material)


@settings(max_examples=15)
@given(
    task=st.sampled_from(EXACT),
    kind=st.sampled_from(["demo", *KINDS]),
    extra=st.integers(0, 60),
    seed=st.integers(0, 99),
    num_depths=st.integers(2, 5),
)
def test_every_length_is_filled_exactly(task: TaskName, kind: str, extra: int, seed: int, num_depths: int) -> None:
    known = material_of(kind) if kind != "unigram" else ascii_material()
    material = Material(known.tokenizer, known.haystack, num_depths=num_depths, num_samples=1, seed=seed)
    length = shortest(task, material) + 32 + extra
    check_prompts(make_prompts(task, length, material), kind, length, material)


@cache
def ascii_material() -> Material:
    text = "".join(f"Part {i}. " + LINES[0] + LINES[3] for i in range(900))
    haystack = Haystack.of([tokenize("d", text, tokenizer_of("unigram"))])
    return Material(tokenizer_of("unigram"), haystack, num_depths=3, num_samples=2, seed=1, qa=QA)


@pytest.mark.parametrize("task", [*EXACT, *ASKED])
def test_prompts_of_a_unigram_tokenizer_have_the_ids_of_their_text(task: TaskName) -> None:
    length = max(700, shortest(task, ascii_material()))
    check_prompts(make_prompts(task, length, ascii_material()), "unigram", length, ascii_material())


@pytest.mark.parametrize("length", [700, 701, 702, 703])
def test_text_of_wide_characters_is_filled_to_the_last_byte(length: int) -> None:
    material = material_of("bytes", is_wide=True)
    check_prompts(make_prompts("passkey", length, material), "bytes", length, material)


@pytest.mark.parametrize("kind", ["demo", "llama2", "llama3", "bytes", "unigram"])
def test_ranked_passages_have_the_ids_of_their_text_in_every_order(kind: str) -> None:
    material = ascii_material() if kind == "unigram" else material_of(kind)
    lengths = (1500, 3100)
    for made in (fact_questions(lengths, 2, material).questions, qa_questions(lengths, 2, material).questions):
        assert set(made) == set(lengths)
        for length, questions in made.items():
            for question in questions:
                n = len(question.passages)
                orders = [list(range(1, n + 1)), list(range(n, 0, -1)), [*range(2, n + 1), 1]]
                prompts = [question.prompt(order, material.tokenizer) for order in orders]
                check_prompts(prompts, kind, length, material)
                assert len({len(prompt.tokens) for prompt in prompts}) == 1


def test_no_space_stands_at_the_joints_of_pieces() -> None:
    tokenizer = tokenizer_of("llama2")
    hidden = needle("\nThe key is 12345.\n", "12345", tokenizer)
    pieces = [np.array([1], np.int32), encode("A rope.", tokenizer), hidden.tokens, encode("What is the key?", tokenizer)]
    joined = join(pieces, encode(" 12345", tokenizer), tokenizer, [1 + len(pieces[1]) + hidden.gold_at])
    assert tokenizer.decode(joined.tokens) == "<s> A rope.\nThe key is 12345.\nWhat is the key?"
    assert tokenizer.decode(joined.tokens[joined.starts[0] :]).startswith("12345.")


def test_control_tokens_of_a_chat_template_stay_and_text_between_them_is_encoded() -> None:
    tokenizer = tokenizer_of("llama3")
    ids = [np.array([1], np.int32), encode("user\n", tokenizer), encode("Hi.", tokenizer), encode("\n", tokenizer)]
    pieces = [*ids, np.array([2], np.int32), encode("bot\n", tokenizer)]
    joined = join(pieces, encode("Yes", tokenizer), tokenizer, [5])
    assert [int(i) for i in joined.tokens if i in (1, 2)] == [1, 2]
    raw = plain("llama3")
    first, second = (raw.encode(text, add_special_tokens=False).ids for text in ("user\nHi.\n", "bot\nYes"))
    assert [*joined.tokens.tolist(), *joined.answer.tolist()] == [1, *first, 2, *second]


@given(st.integers(1, 50), st.integers(0, 3000), st.lists(st.integers(1, 40), min_size=60, max_size=60))
def test_as_many_items_as_fit_are_found_from_any_guess(guess: int, limit: int, sizes: list[int]) -> None:
    total = [0, *np.cumsum(sizes).tolist()]
    found = most_that_fit(guess, 3, 60, limit, lambda count: total[count])
    expected = max((count for count in range(3, 61) if total[count] <= limit), default=2)
    assert found == expected


def test_every_task_is_made_of_whole_texts() -> None:
    """Tasks that another test here leaves out are named, so that a new one is thought of."""
    assert set(TASK_NAMES) - {*EXACT, *ASKED} <= {
        "facts_in_text", "associative_needle", "graph_walk", "spaced_evidence", "own_corpus"
    }  # fmt: skip
