"""What is trained does not look like what is measured: no three words or signs in a row are in both, but for the user's own text.

Nor is any form of a line: names, keys and values are drawn anew each time, so what stands around them is compared, too.
"""

import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import pytest

from data_schemas.evaluation_params import TASK_NAMES, TaskName
from data_schemas.retrieval_params import FAMILIES, RetrievalFamily
from tasks.evaluate.prompts.make import make_prompts
from tasks.retrieval.families.forms import AFTER_SIGNS, AROUND, BETWEEN, END, START, Form, may_have_colon
from tasks.retrieval.families.names import name_kind, short_name, value_kind
from tests.tasks.evaluate.prompts.test_needles import LINE, QA, TEXTS, byte_tokenizer, material_of
from tests.tasks.retrieval.made_texts import Maker
from tests.tasks.tokens.made_tokenizers import KINDS

NUM_WORDS = 3


def ngrams(text: str) -> Iterator[tuple[str, ...]]:
    found = re.findall(r"[^\W_]+|[^\w\s]|_+", text.casefold())
    return zip(*(found[i:] for i in range(NUM_WORDS)), strict=False)


def shape(line: str) -> str:
    """The line with "w" for each run of words, where names of several parts are a word: what a template leaves if it is filled in."""
    masked = re.sub(r"[^\W_]+(?:[.-][^\W_]+)*", "w", line.strip())
    return re.sub(r"w(?:[.,]? w)+", "w", masked)


def shapes(texts: Iterable[str]) -> dict[str, str]:
    """A line of each shape that has a sign other than those of any sentence."""
    found = {shape(line): line for text in texts for line in text.split("\n")}
    return {form: line for form, line in found.items() if re.search(r"[^w\s.,]", form)}


def of_all(texts: Iterable[str]) -> set[tuple[str, ...]]:
    return {ngram for text in texts for ngram in ngrams(text)}


@pytest.fixture(scope="module")
def prompts() -> dict[TaskName, list[str]]:
    """Prompts of every task with their answers."""
    material = material_of(byte_tokenizer())
    return {
        task: [
            material.tokenizer.decode([*prompt.tokens, *prompt.answer])
            for length in (700, 2048)
            for prompt in make_prompts(task, length, material)
        ]
        for task in TASK_NAMES
    }


OWN = [*(f"Part {i}.\n{LINE}{LINE}" for i in range(3)), *TEXTS]
OWN += [text for example in QA for text in (example.question, example.gold, *example.passages)]


@pytest.fixture(scope="module")
def evaluated(prompts: dict[TaskName, list[str]]) -> dict[TaskName, set[tuple[str, ...]]]:
    """The n-grams of every task's prompts and answers that are not those of its haystack."""
    return {task: of_all(texts) - of_all(OWN) for task, texts in prompts.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_shares_a_line_s_shape_with_an_evaluation_task(
    family: RetrievalFamily, prompts: dict[TaskName, list[str]]
) -> None:
    maker = Maker(KINDS["bytes"](), 2048)
    trained = shapes(maker.make(family, seed).rendered.text for seed in range(24))
    of_sentences = ("repeated_opening", "hard_negatives", "scattered_facts")
    assert bool(trained) == (family not in of_sentences), "those have no sign that sentences do not have"
    for task, texts in prompts.items():
        of_task = shapes(texts)
        assert not trained.keys() & of_task.keys(), [
            (task, trained[form], of_task[form]) for form in trained.keys() & of_task.keys()
        ]


def test_no_form_of_keys_and_values_is_that_of_an_evaluation_task(
    prompts: dict[TaskName, list[str]], evaluated: dict[TaskName, set[tuple[str, ...]]]
) -> None:
    """All combinations, of which documents show a few."""
    measured = {form for texts in prompts.values() for form in shapes(texts)}
    of_tasks = set().union(*evaluated.values())
    seen, sampled = 0, set()
    around, betweens, ends = sorted(set(AROUND)), sorted({*BETWEEN, *AFTER_SIGNS}), sorted(set(END))
    for start, key, value, between, end in product(START, around, around, betweens, ends):
        if between in AFTER_SIGNS and not may_have_colon(key[1], value[0]):
            continue
        one = Form(f"{start}{key[0]}", f"{key[1]}{between}{value[0]}", f"{value[1]}{end}")
        line, question = one.line("qzbako.qzlu", "qz47"), one.turn("qzbako.qzlu", "qz47", 0).question
        assert not {shape(line), shape(question)} & measured, line
        if not zlib.crc32(line.encode()) % (10 if '"' in line else 50):
            assert not of_all([f"{line}\n{line}"]) & of_tasks, line
            sampled |= {("end", end), ("between", between), ("start", start), ("key", key), ("value", value)}
        seen += 1
    assert seen > 500_000
    parts = {"end": END, "between": BETWEEN + AFTER_SIGNS, "start": START, "key": AROUND, "value": AROUND}
    assert sampled == {(place, part) for place, drawn in parts.items() for part in drawn}


@pytest.mark.parametrize("number", [10, 2000])
def test_names_are_of_many_kinds_and_none_is_that_of_an_evaluation_task(number: int) -> None:
    """Evaluation has invented words of five letters, numbers of four, five and seven digits, and eight hexadecimal digits."""
    rng, symbols = np.random.default_rng(0), ("letters", "capitals", "digits")
    kinds = [kind(rng, symbols, number) for kind in (name_kind, value_kind) for _ in range(200)]
    names = [draw() for draw in kinds for _ in range(20)] + [short_name(rng, symbols) for _ in range(1000)]
    measured = re.compile(r"[A-Za-z]{5}|\d{4,5}|\d{7,8}|(?=.*\d)[0-9a-f]{8}")
    assert not [name for name in names if any(map(measured.fullmatch, name.split("-")))]
    assert {len(name) for name in names if name.isdigit()} == ({9} if number > 400 else {6, 9})
    assert {"a", "a-a", "A", "Aa", "0", "0-0", "a0", "0a"} <= {
        mask(name) for name in names if not (len(name) == 7 and name.islower())
    }


def mask(name: str) -> str:
    """One sign for each run of small letters, capitals or digits, and one for a name's equal parts."""
    masked = re.sub("[a-z]+", "a", re.sub("[A-Z]+", "A", re.sub("[0-9]+", "0", name)))
    return re.sub(r"^0(-0)+$", "0-0", masked)


def test_the_comparison_of_shapes_finds_a_template_with_other_names(prompts: dict[TaskName, list[str]]) -> None:
    assert shape("pubene -> kenuze") in shapes(prompts["graph_walk"])
    assert shape("ba.ko -> 47-13") in shapes(prompts["graph_walk"])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_shares_a_form_with_an_evaluation_task(
    family: RetrievalFamily, evaluated: dict[TaskName, set[tuple[str, ...]]]
) -> None:
    maker = Maker(KINDS["bytes"](), 4096)
    source = of_all(document.text for document in maker.supply.documents)
    for seed in range(6):
        trained = of_all([maker.make(family, seed).rendered.text]) - source
        assert len(trained) > 10
        for task, of_task in evaluated.items():
            assert not trained & of_task, (task, sorted(trained & of_task)[:5])


def test_the_comparison_finds_a_shared_form(evaluated: dict[TaskName, set[tuple[str, ...]]]) -> None:
    assert all(len(of_task) > 3 for of_task in evaluated.values())
    assert of_all(["the pass key is 12345"]) & evaluated["passkey"]
    assert of_all(['Corresponding value:\n "ab": "']) & evaluated["key_value"]
