"""Prompts of all tasks: what every one promises, with a tokenizer of nearly bytes, one of bytes alone and the demo's."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.evaluation_params import TASK_NAMES, TaskName
from tasks.evaluate.heldout import HeldOutDocument, tokenize
from tasks.evaluate.prompts.make import make_prompts, shortest, usable_lengths
from tasks.evaluate.prompts.material import Haystack, Material, depth_grid
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.prompt_files import read_prompts, write_prompts
from tasks.evaluate.prompts.qa import QaExample
from tests import ROOT

DEMO = ROOT / "tasks" / "model" / "demo_base"
LINE = "The bridge hangs over the valley. It swings!\n"
LENGTHS = (512, 700, 1024, 2048)
SWEPT = (
    "passkey",
    "key_value",
    "short_key_value",
    "niah_single",
    "niah_multikey",
    "document_qa",
    "facts_in_text",
    "associative_needle",
    "own_corpus",
)
GENERATED = ("niah_multivalue", "niah_multiquery", "variable_tracking", "common_words", "frequent_words", "graph_walk")
AS_MANY_AS_FIT = ("key_value", "short_key_value", "document_qa", "common_words", "frequent_words", "graph_walk", "own_corpus")
WITHOUT_CONTROL = ("common_words", "frequent_words")
# Documents of short sentences that differ from each other.
TEXTS = tuple(
    "\n\n".join(f"The boat {i} of {owner} is old and slow. Port {i} of {owner} is small." for i in range(24))
    for owner in ("Ann", "Bob", "Cy", "Di", "Ed", "Flo")
)
COLOURS = ("red", "blue", "green")
QA = tuple(
    QaExample(
        f"What is the colour of bridge {i}?",
        (colour,),
        f"Bridge {i} is {colour}.",
        tuple(f"Boat {i}-{j} is old and {'very ' * (j % 3)}slow." for j in range(12)),
        i + 1,
    )
    for i, colour in enumerate(COLOURS)
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Each byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


@pytest.fixture(scope="module")
def materials(tokenizer: PreTrainedTokenizerFast) -> dict[str, Material]:
    tokenizers = {"tiny": tokenizer, "bytes": byte_tokenizer(), "demo": PreTrainedTokenizerFast.from_pretrained(DEMO)}
    return {name: material_of(one) for name, one in tokenizers.items()}


def material_of(tokenizer: PreTrainedTokenizerFast) -> Material:
    haystack = Haystack.of([tokenize(f"d{i}", f"Part {i}.\n" + LINE * 120, tokenizer) for i in range(3)])
    return Material(tokenizer, haystack, num_depths=5, num_samples=3, seed=0, qa=QA, texts=TEXTS)


def text_of(ids: np.ndarray, material: Material) -> str:
    return str(material.tokenizer.decode(ids))


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("name", ["tiny", "bytes", "demo"])
def test_every_task_keeps_its_promises_from_512_tokens_up(task: TaskName, name: str, materials: dict[str, Material]) -> None:
    material = materials[name]
    assert usable_lengths(task, None, LENGTHS, material) == LENGTHS
    for length in LENGTHS:
        prompts = make_prompts(task, length, material)
        depths = material.depths if task in SWEPT else (None,)
        num_samples = 15 if task == "spaced_evidence" else 3  # each at every distance
        assert [(p.sample, p.depth) for p in prompts] == [(s, d) for s in range(num_samples) for d in depths], (
            "sample by sample"
        )
        for prompt in prompts:
            check_prompt(prompt, task, length, material)
        check_control_and_seed_of_samples(prompts, task, material)


def check_prompt(prompt: TaskPrompt, task: str, length: int, material: Material) -> None:
    assert (prompt.task, prompt.length) == (task, length)
    assert prompt.tokens.dtype == prompt.answer.dtype == np.int32
    reserved = max(len(prompt.answer), 0 if prompt.is_forced else prompt.max_new_tokens)
    assert len(prompt.tokens) + reserved <= length
    if task not in AS_MANY_AS_FIT:
        assert len(prompt.tokens) + reserved == length, "the haystack takes what the other parts leave"
    assert prompt.is_forced == (task not in GENERATED)
    assert len(prompt.answer) <= prompt.max_new_tokens <= 2 * len(prompt.answer)
    body, answer = text_of(prompt.tokens, material), text_of(prompt.answer, material)
    for gold in prompt.golds:
        assert gold in body
        assert gold in answer
    if prompt.control is None:
        assert task in WITHOUT_CONTROL
        return
    assert len(prompt.control) + len(prompt.answer) <= length
    without = text_of(prompt.control, material)
    assert not any(gold in without for gold in prompt.golds)
    if prompt.position is not None:
        check_position(prompt, material)


def check_position(prompt: TaskPrompt, material: Material) -> None:
    assert prompt.position is not None
    place = round(prompt.position * len(prompt.tokens))
    assert abs(place - prompt.position * len(prompt.tokens)) < 1e-6
    (gold,) = prompt.golds
    first = body_place(prompt, place, material)
    assert text_of(prompt.tokens[place:], material).lstrip().startswith(first)
    assert gold not in text_of(prompt.tokens[:place], material)


def body_place(prompt: TaskPrompt, place: int, material: Material) -> str:
    """What must stand at the position: the gold, or the passage that holds it."""
    if prompt.task == "document_qa":
        return next(example.gold for example in QA if example.answers == prompt.golds)
    if prompt.task == "own_corpus":
        return "The boat"
    return prompt.golds[0]


def check_control_and_seed_of_samples(prompts: list[TaskPrompt], task: str, material: Material) -> None:
    by_sample = [[p for p in prompts if p.sample == sample] for sample in sorted({p.sample for p in prompts})]
    for sample in by_sample:
        assert len({p.seed for p in sample}) == 1
        if task not in ("key_value", "short_key_value"):
            assert len({None if p.control is None else p.control.tobytes() for p in sample}) == 1
        positions = [p.position for p in sample if p.position is not None]
        assert len(positions) == (len(sample) if task in (*SWEPT, "spaced_evidence") else 0)
        assert all(b > a for a, b in pairwise(positions))
    assert len({p.seed for p in prompts}) == len(by_sample)
    assert len({p.prompt_hash for p in prompts}) == len(prompts)
    if task == "document_qa":
        assert {sample[0].golds for sample in by_sample} == {(colour,) for colour in COLOURS}


@pytest.mark.parametrize("task", TASK_NAMES)
def test_prompts_are_a_pure_function_of_task_length_and_material(task: TaskName, materials: dict[str, Material]) -> None:
    def hashes(length: int, num_samples: int = 3, seed: int = 0) -> list[str]:
        material = replace(materials["demo"], num_samples=num_samples, seed=seed)
        return [p.prompt_hash for p in make_prompts(task, length, material)]

    known, fewer = hashes(600), hashes(600, num_samples=2)
    assert known == hashes(600)
    if task not in ("document_qa", "own_corpus"):  # whose questions the seed chooses
        assert known[: len(fewer)] == fewer, "more samples leave the first ones as they were"
        assert len({*known, *hashes(600, num_samples=1, seed=1), *hashes(601, num_samples=1)}) == 5 * len(known) // 3


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=st.sampled_from(TASK_NAMES), extra=st.integers(0, 900), seed=st.integers(0, 2**40), name=st.sampled_from("dtb"))
def test_the_shortest_length_and_all_above_it_fit(
    materials: dict[str, Material], task: TaskName, extra: int, seed: int, name: str
) -> None:
    short = {"d": "demo", "t": "tiny", "b": "bytes"}
    known = materials[short[name]]
    material = Material(known.tokenizer, known.haystack, 3, 1, seed, QA, texts=TEXTS)
    length = shortest(task, material) + extra
    for prompt in make_prompts(task, length, material):
        assert len(prompt.tokens) + prompt.max_new_tokens <= length


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=st.sampled_from(TASK_NAMES), length=st.integers(1, 140), num_depths=st.integers(2, 101))
@pytest.mark.slow
def test_what_does_not_fit_is_refused_and_never_tried_for_ever(
    materials: dict[str, Material], task: TaskName, length: int, num_depths: int
) -> None:
    known = materials["bytes"]
    qa = (QaExample("Who?", ("Ann",), "Ann.", tuple("Bob." for _ in range(100)), 1),)
    material = Material(known.tokenizer, known.haystack, num_depths, 1, 0, qa, texts=TEXTS)
    if length < shortest(task, material) - 16:
        with pytest.raises(UserError):
            make_prompts(task, length, material)


def test_too_little_held_out_text_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    few = Haystack.of([tokenize("d", LINE, tokenizer)])
    with pytest.raises(UserError, match="add longer documents or lower"):
        make_prompts("niah_single", 512, Material(tokenizer, few, 5, 1, 0))
    with pytest.raises(UserError, match="no held-out text"):
        Haystack.of([])


def test_requested_lengths_are_refused_and_default_ones_left_out_where_too_short(materials: dict[str, Material]) -> None:
    material = materials["demo"]
    for task in ("passkey", "key_value", "variable_tracking", "frequent_words"):
        least = shortest(task, material)
        assert usable_lengths(task, None, (16, least, 4096), material) == (least, 4096)
        assert usable_lengths(task, (4096, least), (16,), material) == (least, 4096)
        with pytest.raises(UserError, match=rf"16 tokens are too few .* {task}: .*task_lengths of at least {least}"):
            usable_lengths(task, (16, 4096), (4096,), material)
        with pytest.raises(UserError, match=rf"32 tokens are too few .* {task}"):
            usable_lengths(task, None, (16, 32), material)


def test_depth_grid_is_even_and_holds_both_ends() -> None:
    assert depth_grid(5) == (0, 0.25, 0.5, 0.75, 1)
    assert depth_grid(2) == (0, 1)


def test_bos_stands_first_where_the_tokenizer_adds_one(materials: dict[str, Material]) -> None:
    known = materials["tiny"]
    haystack = Haystack(known.haystack.token_ids, known.haystack.is_boundary, np.array([0], np.int32))
    material = Material(known.tokenizer, haystack, 5, 2, 0, QA, texts=TEXTS)
    for task in TASK_NAMES:
        for prompt in make_prompts(task, 600, material):
            windows = [prompt.tokens] if prompt.control is None else [prompt.tokens, prompt.control]
            assert all(window[0] == 0 and 0 not in window[1:] for window in windows)


def test_bos_of_later_documents_is_not_in_the_haystack() -> None:
    ids, flags = np.array([0, 5, 6], np.int32), np.zeros(3, bool)
    joined = Haystack.of([HeldOutDocument("a", ids, flags, 1), HeldOutDocument("b", ids, flags, 1)])
    assert joined.token_ids.tolist() == [5, 6, 5, 6]
    assert joined.bos.tolist() == [0]


def test_saved_prompts_come_back_exactly(materials: dict[str, Material], tmp_path: Path) -> None:
    prompts = [
        p for task in TASK_NAMES for p in make_prompts(task, 600, materials["demo"])
    ] * 3  # more than are written at once
    write_prompts(prompts, tmp_path / "prompts.parquet")
    again = read_prompts(tmp_path / "prompts.parquet")
    assert len(again) == len(prompts) > 256
    for before, after in zip(prompts, again, strict=True):
        for name, value in vars(before).items():
            read = getattr(after, name)
            assert type(read) is type(value)
            if isinstance(value, np.ndarray):
                assert value.dtype == read.dtype
                assert np.array_equal(value, read)
            else:
                assert value == read
        assert before.prompt_hash == after.prompt_hash
