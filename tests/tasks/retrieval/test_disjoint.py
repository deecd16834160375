"""What is trained does not look like what is measured: no three words or signs in a row are in both, but for the user's own text."""

import re
from collections.abc import Iterable, Iterator

import pytest

from data_schemas.evaluation_params import TASK_NAMES, TaskName
from data_schemas.retrieval_params import FAMILIES, RetrievalFamily
from tasks.evaluate.prompts.make import make_prompts
from tests.tasks.evaluate.prompts.test_needles import LINE, QA, TEXTS, byte_tokenizer, material_of
from tests.tasks.retrieval.made_texts import Maker
from tests.tasks.tokens.made_tokenizers import KINDS

NUM_WORDS = 3


def ngrams(text: str) -> Iterator[tuple[str, ...]]:
    found = re.findall(r"[^\W_]+|[^\w\s]|_+", text.casefold())
    return zip(*(found[i:] for i in range(NUM_WORDS)), strict=False)


def of_all(texts: Iterable[str]) -> set[tuple[str, ...]]:
    return {ngram for text in texts for ngram in ngrams(text)}


@pytest.fixture(scope="module")
def evaluated() -> dict[TaskName, set[tuple[str, ...]]]:
    """The n-grams of every task's prompts and answers that are not those of its haystack."""
    material = material_of(byte_tokenizer())
    own = of_all([f"Part {i}.\n{LINE}{LINE}" for i in range(3)] + list(TEXTS))
    own |= of_all(text for example in QA for text in (example.question, example.gold, *example.passages))
    found: dict[TaskName, set[tuple[str, ...]]] = {}
    for task in TASK_NAMES:
        prompts = [prompt for length in (700, 2048) for prompt in make_prompts(task, length, material)]
        texts = [material.tokenizer.decode([*prompt.tokens, *prompt.answer]) for prompt in prompts]
        found[task] = of_all(texts) - own
    return found


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
