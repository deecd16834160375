"""Tasks with several pieces of evidence, and needles that only knowledge finds."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from transformers import PreTrainedTokenizerFast

from data_schemas.evaluation_params import TaskName
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.associations import ASSOCIATIONS, NAMES
from tasks.evaluate.prompts.content_words import shared_content
from tasks.evaluate.prompts.graph_walk import NUM_KINDS, make_walk, score_walk
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import MAX_BOUNDARY_SHIFT, Haystack, Material
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.small_world import PEOPLE, PLACES, THINGS, Fact, make_story, place_of
from tasks.tokens.encoding import encoder_of
from tests import ROOT

DEMO = ROOT / "tasks" / "model" / "demo_base"
LINE = "The bridge hangs over the valley. It swings!\n"
ANSWERS = {
    "facts_in_text": rf" went to the ({'|'.join(PLACES)})\.\n",
    "associative_needle": rf"# ({'|'.join(NAMES)}) ",
    "spaced_evidence": r" opens with (\d+)\.\n",
}


@pytest.fixture(scope="module")
def material() -> Material:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO)
    haystack = Haystack.of([tokenize(f"d{i}", f"Part {i}.\n" + LINE * 250, tokenizer) for i in range(2)])
    return Material(tokenizer, haystack, num_depths=5, num_samples=12, seed=0)


def text_of(prompt: TaskPrompt, material: Material) -> str:
    return str(material.tokenizer.decode(prompt.tokens))


def candidates(prompt: TaskPrompt, material: Material) -> list[str]:
    """Everything in the prompt that could be the answer, in its order."""
    return re.findall(ANSWERS[prompt.task], text_of(prompt, material).rsplit("\n#", 1)[0])


def facts_of(text: str) -> list[Fact]:
    verbs = {"went to": "go", "took": "take", "dropped": "drop"}
    found = re.findall(r"# (\w+) (went to|took|dropped) the (\w+)\.", text)
    return [Fact(who, verbs[verb], what) for who, verb, what in found]  # type: ignore[arg-type]


def test_facts_in_text_are_answered_by_following_the_world(material: Material) -> None:
    """A slow reader that replays all facts finds each answer."""
    for prompt in make_prompts("facts_in_text", 1024, material):
        text = text_of(prompt, material)
        question = text.rsplit("\n#", 1)[1]
        asked = re.search(r"(?:is|was) (?:the )?(\w+)[? ]", question)
        assert asked
        been = place_of(asked[1], facts_of(text))
        before = re.search(r"before it was in the (\w+)", question)
        assert been[been.index(before[1]) - 1 if before else -1] == prompt.golds[0]
        assert prompt.num_evidence == 1 + prompt.sample % 3


@given(st.integers(1, 3), st.integers(0, 2**32))
def test_each_needed_fact_is_needed(num_facts: int, seed: int) -> None:
    story = make_story(num_facts, frozenset(), np.random.default_rng(seed))
    asked = re.search(r"(?:is|was) (?:the )?(\w+)[? ]", story.question)
    assert asked
    before = re.search(r"before it was in the (\w+)", story.question)

    def answer(facts: tuple[Fact, ...]) -> str | None:
        been = place_of(asked[1], (story.earlier, *facts, *story.others, story.later))
        if before:
            been = been[: been.index(before[1])] if before[1] in been else []
        return been[-1] if been else None

    assert len(story.needed) == num_facts
    assert answer(story.needed) == story.answer
    for i in range(num_facts):
        assert answer(story.needed[:i] + story.needed[i + 1 :]) != story.answer
    places = [fact.what for fact in (story.earlier, *story.needed, *story.others, story.later) if fact.action == "go"]
    assert len(set(places)) == len(places), "no place is named twice"


def test_words_of_the_text_are_avoided() -> None:
    taken = frozenset(word.casefold() for words in (PEOPLE[6:], PLACES[8:], THINGS[4:]) for word in words)
    for seed in range(50):
        story = make_story(3, taken, np.random.default_rng(seed))
        used = {
            word.casefold()
            for fact in (story.earlier, *story.needed, *story.others, story.later)
            for word in (fact.who, fact.what)
        }
        assert not used & taken


@pytest.mark.parametrize("one", ASSOCIATIONS, ids=lambda one: one.clue)
def test_needle_and_question_share_no_content_word(one: object) -> None:
    assert not shared_content(one.needle("Xx"), one.question)  # type: ignore[attr-defined]


def test_the_check_of_shared_words_finds_other_forms() -> None:
    assert shared_content("She rents a flat in Venice.", "Who loves Venetian glass or renting?") == {"rents"}
    assert not shared_content("He is in the", "Who is in the")


def test_there_are_forty_pairs_and_none_fits_another_place() -> None:
    assert len(ASSOCIATIONS) >= 40
    assert len({(one.kind, one.clue) for one in ASSOCIATIONS}) == len(ASSOCIATIONS)


def test_people_of_an_association_are_all_of_one_kind_and_in_different_places(material: Material) -> None:
    """So one of them fits the question, and nothing but the place tells which."""
    for prompt in make_prompts("associative_needle", 1024, replace(material, num_samples=60, num_depths=2)):
        text = text_of(prompt, material)
        body, question = text.rsplit("\n#", 1)
        shown = {name: one for name in NAMES for one in ASSOCIATIONS if one.needle(name) in body}
        assert len(shown) == 4
        assert len({one.kind for one in shown.values()}) == 1
        fitting = [name for name, one in shown.items() if f" {one.place}?" in question]
        assert fitting == list(prompt.golds)


@pytest.mark.parametrize("task", ["facts_in_text", "associative_needle", "spaced_evidence"])
def test_simple_strategies_are_no_better_than_chance(task: TaskName, material: Material) -> None:
    """The candidate nearest to the question is never right, and the first, last but one or most frequent one is rarely right."""
    prompts = make_prompts(task, 1024, replace(material, num_samples=40))
    shown = [candidates(prompt, material) for prompt in prompts]
    golds = [prompt.golds[0] for prompt in prompts]
    assert all(gold in names for gold, names in zip(golds, shown, strict=True))
    assert not any(names[-1] == gold for gold, names in zip(golds, shown, strict=True)), "recency"
    for strategy in (lambda names: names[0], lambda names: names[-2], lambda names: Counter(names).most_common(1)[0][0]):
        right = [strategy(names) == gold for gold, names in zip(golds, shown, strict=True)]
        assert np.mean(right) < 0.5


def test_facts_are_swept_together_over_the_depths(material: Material) -> None:
    for length in (512, 2048):
        prompts = make_prompts("facts_in_text", length, material)
        for prompt in prompts:
            assert prompt.depth is not None
            assert (prompt.distance is None) == (prompt.distance_tokens is None) == (prompt.num_evidence == 1)
            if prompt.distance is not None:
                assert prompt.distance == 0.25
                assert abs((prompt.distance_tokens or 0) / length - 0.25) < 0.2
        middle = [p.position for p in prompts if p.depth == 0.5 and p.position is not None]
        assert abs(np.mean(middle) - 0.5) < 0.12


def test_two_pieces_of_evidence_stand_at_each_distance(material: Material) -> None:
    prompts = make_prompts("spaced_evidence", 2048, material)
    assert Counter(p.distance for p in prompts) == dict.fromkeys((0, 0.25, 0.5, 0.75, 1), 12)
    assert [p.sample for p in prompts] == list(range(60))
    for prompt in prompts:
        text = text_of(prompt, material)
        owner = re.search(r"locker of (\S+)\?", text)
        assert owner
        (locker,) = re.findall(rf"# {owner[1]} owns locker (\d+)\.\n", text)
        (code,) = re.findall(rf"# Locker {locker} opens with (\d+)\.\n", text)
        assert prompt.golds == (code,)
        control = str(material.tokenizer.decode(prompt.control))
        assert locker not in control
        assert len(re.findall(r"owns locker", control)) == len(re.findall(r"opens with \d", control)) == 3
        assert prompt.distance is not None
        assert prompt.distance_tokens is not None
        share = prompt.distance_tokens / len(prompt.tokens)
        assert abs(share - prompt.distance) < 2 * MAX_BOUNDARY_SHIFT + 0.1


def test_at_a_distance_the_evidence_fills_the_text_evenly(material: Material) -> None:
    prompts = make_prompts("spaced_evidence", 2048, replace(material, num_samples=40))
    at_half = [p.position for p in prompts if p.distance == 0.5 and p.position is not None]
    assert kstest(at_half, "uniform", args=(0.5, 0.5)).statistic < 0.15


@given(st.integers(0, NUM_KINDS - 1), st.integers(0, 80), st.integers(0, 2**32))
def test_walks_are_what_a_slow_search_finds(kind: int, num_others: int, seed: int) -> None:
    walk = make_walk(kind, num_others, np.random.default_rng(seed))
    edges = [*walk.needed, *walk.others]
    found = re.search(r"exactly (\d) arrows? from (\w+)\?|arrow to (\w+)\?", walk.question)
    assert found
    if found[1]:
        seen, level = {found[2]}, {found[2]}
        for _ in range(int(found[1])):
            level = {b for a, b in edges if a in level} - seen
            seen |= level
    else:
        level = {a for a, b in edges if b == found[3]}
    assert level == set(walk.golds)
    assert 1 <= len(walk.golds) <= 3
    for i in range(len(walk.needed)):
        assert not {node for edge in walk.others for node in edge} & set(walk.golds)
        assert len(walk.changed[i]) == len(walk.needed[i])
    assert not {node for edge in walk.changed for node in edge} & set(walk.golds)


def test_a_walk_is_right_only_with_exactly_its_nodes() -> None:
    golds = ("kabem", "tolir")
    for output in (" tolir, kabem", "kabem and tolir.\nAnd so on: nodir", "Kabem, tolir"):
        assert score_walk(output, golds) == 1
    for output in ("", "kabem", "kabem, tolir, nodir", "kabem\ntolir", "They are kabem, tolir"):
        assert score_walk(output, golds) == 0


def test_arrows_fill_the_prompt(material: Material) -> None:
    for length in (512, 2048):
        for prompt in make_prompts("graph_walk", length, material):
            assert length - len(prompt.tokens) - prompt.max_new_tokens < 16, "one more arrow would not fit"
            arrows = re.findall(r"\n(\w+) -> (\w+)", text_of(prompt, material))
            assert prompt.num_evidence is not None
            nodes = Counter(node for arrow in arrows for node in arrow)
            once = [node for node, times in nodes.items() if times == 1]
            assert len(once) > 3 * len(prompt.golds), "that a node occurs once says little"


@pytest.mark.parametrize("task", ["facts_in_text", "associative_needle", "spaced_evidence", "graph_walk"])
def test_prompts_are_encoded_as_one_text_and_literal_control_tokens_stay_text(task: TaskName, material: Material) -> None:
    tokenizer = material.tokenizer
    literal = Haystack.of([tokenize("d", "One </s> two <s> three. Four!\n" * 600, tokenizer)])
    for prompt in make_prompts(task, 700, replace(material, haystack=literal, num_samples=3)):
        for window in (prompt.tokens, prompt.control):
            assert window is not None
            assert tokenizer.eos_token_id not in window
            assert np.flatnonzero(window == tokenizer.bos_token_id).tolist() == [0]
        whole = np.concatenate([prompt.tokens, prompt.answer])[1:]
        (encoded,) = encoder_of(tokenizer).encode([encoder_of(tokenizer).text(whole)])
        assert encoded.ids.tolist() == whole.tolist()
