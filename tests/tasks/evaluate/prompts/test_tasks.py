"""Each task against its published definition."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from data_schemas.evaluation_params import TaskName
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.prompts.frequent_words import MIN_WORDS, word_counts
from tasks.evaluate.prompts.hidden import spread_depths
from tasks.evaluate.prompts.make import make_prompts, shortest, usable_lengths
from tasks.evaluate.prompts.material import MAX_BOUNDARY_SHIFT, Haystack, Material, depth_grid, max_boundary_shift
from tasks.evaluate.prompts.numbers import absent_numbers
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.prompts.qa import QaExample
from tests import ROOT

DEMO = ROOT / "tasks" / "model" / "demo_base"
LINE = "The bridge hangs over the valley. It swings!\n"
SPECIAL = re.compile(r"\n# The special numbers? of (\S+) (?:is|include) (\d+)\.\n")


@pytest.fixture(scope="module")
def material() -> Material:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO)
    haystack = Haystack.of([tokenize(f"d{i}", f"Part {i}.\n" + LINE * 250, tokenizer) for i in range(2)])
    return Material(tokenizer, haystack, num_depths=5, num_samples=4, seed=0)


def texts(task: TaskName, length: int, material: Material) -> list[tuple[TaskPrompt, str]]:
    return [(p, str(material.tokenizer.decode(p.tokens))) for p in make_prompts(task, length, material)]


def control_text(prompt: TaskPrompt, material: Material) -> str:
    assert prompt.control is not None
    return str(material.tokenizer.decode(prompt.control))


def test_passkey_stands_twice_in_one_needle_at_its_depth(material: Material) -> None:
    for prompt, text in texts("passkey", 1024, material):
        (key,) = prompt.golds
        assert len(key) == 5
        assert text.count(f"# The pass key is {key}. Remember it. The pass key is {key}.\n") == 1
        assert text.rstrip().endswith("# What is the pass key? The pass key is")
        check_depth(prompt)


def check_depth(prompt: TaskPrompt) -> None:
    """The needle is at its depth, up to the way to the next line or sentence and the parts around the haystack."""
    assert prompt.depth is not None
    assert prompt.position is not None
    assert abs(prompt.position - prompt.depth) <= MAX_BOUNDARY_SHIFT + 60 / len(prompt.tokens)


def test_needles_stand_between_lines_or_sentences(material: Material) -> None:
    for task in ("passkey", "niah_single"):
        for prompt, text in texts(task, 1024, material):
            needle = text.index("\n# The ")
            assert prompt.depth in (0, 1) or text[:needle].rstrip().endswith((".", "!"))


@pytest.mark.parametrize("num_depths", [11, 21, 41, 101])
def test_every_depth_is_a_prompt_of_its_own(material: Material, num_depths: int) -> None:
    """Lines are long here against the way from one depth to the next."""
    for task in ("passkey", "niah_single", "niah_multikey"):
        prompts = make_prompts(task, 512, replace(material, num_depths=num_depths))
        hashes = {(p.sample, p.prompt_hash) for p in prompts}
        assert len(hashes) == len(prompts) == material.num_samples * num_depths


@given(st.integers(2, 101), st.data())
def test_neighbouring_depths_are_never_cut_at_the_same_place(num_depths: int, data: st.DataObject) -> None:
    num_tokens = data.draw(st.integers(num_depths - 1, 3000))
    boundaries = np.zeros(num_tokens, bool)
    boundaries[data.draw(st.lists(st.integers(0, num_tokens - 1), max_size=30))] = True
    hay = Haystack(np.arange(num_tokens, dtype=np.int32), boundaries, np.empty(0, np.int32))
    shift = max_boundary_shift(num_tokens, num_depths)
    cuts = [hay.cut(num_tokens, depth, shift) for depth in depth_grid(num_depths)]
    assert all(a < b for a, b in pairwise(cuts))
    assert (cuts[0], cuts[-1]) == (0, num_tokens)


def test_outermost_depths_are_the_first_and_the_last_place(material: Material) -> None:
    prompts = texts("passkey", 1024, replace(material, num_depths=2, num_samples=1))
    assert prompts[0][1].removeprefix("<s>").startswith("\n# The pass key is ")
    assert f"{prompts[1][0].golds[0]}.\n\n# What is the pass key?" in prompts[1][1]


def test_niah_single_hides_one_key_with_one_value(material: Material) -> None:
    for prompt, text in texts("niah_single", 1024, material):
        ((key, value),) = SPECIAL.findall(text)
        assert prompt.golds == (value,)
        assert len(value) == 7
        assert text.rstrip().endswith(f"The special number of {key} is")
        assert not SPECIAL.findall(control_text(prompt, material))
        check_depth(prompt)


def test_niah_multikey_hides_four_keys_and_asks_for_one(material: Material) -> None:
    for prompt, text in texts("niah_multikey", 1024, material):
        pairs = dict(SPECIAL.findall(text))
        assert len(pairs) == len(set(pairs.values())) == 4
        asked = re.search(r"What is the special number of (\S+)\?", text)
        assert asked
        assert prompt.golds == (pairs.pop(asked[1]),)
        assert dict(SPECIAL.findall(control_text(prompt, material))) == pairs, "the distractors stay in the control"
        check_depth(prompt)


def test_niah_multivalue_hides_four_values_of_one_key(material: Material) -> None:
    for prompt, text in texts("niah_multivalue", 1024, material):
        pairs = SPECIAL.findall(text)
        assert len({key for key, _ in pairs}) == 1
        assert len(set(prompt.golds)) == 4
        assert prompt.golds == tuple(value for _, value in pairs)
        assert text.rstrip().endswith(f"The special numbers of {pairs[0][0]} include")
        assert material.tokenizer.decode(prompt.answer).strip() == ", ".join(prompt.golds)
        assert not SPECIAL.findall(control_text(prompt, material))


def test_niah_multiquery_asks_for_four_keys_at_once(material: Material) -> None:
    for prompt, text in texts("niah_multiquery", 1024, material):
        pairs = dict(SPECIAL.findall(text))
        asked = re.search(r"What are the special numbers of (\S+), (\S+), (\S+) and (\S+)\?", text)
        assert asked
        assert prompt.golds == tuple(pairs[key] for key in asked.groups())
        assert len(set(prompt.golds)) == len(pairs) == 4
        assert not SPECIAL.findall(control_text(prompt, material))


def test_needles_that_are_asked_together_spread_evenly_over_the_text(material: Material) -> None:
    depths = []
    for _, text in texts("niah_multivalue", 2048, replace(material, num_samples=30)):
        places = [found.start() / len(text) for found in SPECIAL.finditer(text)]
        assert all(abs(place - (j + 0.5) / 4) <= 0.5 / 4 + 0.1 for j, place in enumerate(places)), "one in each quarter"
        depths += places
    assert kstest(depths, "uniform").statistic < 0.1


def test_spread_depths_fill_each_part_evenly_for_any_number_of_samples() -> None:
    offsets = np.random.default_rng(0).random(5)
    depths = np.array([spread_depths(5, sample, offsets) for sample in range(40)])
    for part in range(5):
        inside = np.sort(depths[:, part] * 5 - part)
        assert inside[0] >= 0
        assert inside[-1] < 1
        assert np.diff([0, *inside, 1]).max() < 0.08, "no gap of three times the mean"


def test_variables_are_a_chain_of_four_hops_after_an_example(material: Material) -> None:
    for prompt, text in texts("variable_tracking", 1024, material):
        example, own = text.split("# Track the variables in this text.\n")[1:]
        for part, is_own in ((example, False), (own, True)):
            names, sources = zip(*re.findall(r"\nVAR ([A-Z]{5}) = (?:VAR )?(\w+)\n", part), strict=True)
            assert len(set(names)) == 5
            assert sources[1:] == names[:-1], "each variable gets the one before it"
            assert f"have the value {sources[0]}?" in part
            assert sources[0].isdigit()
            assert (names == prompt.golds) == is_own
        assert re.search(r"they are: [A-Z]{5}(, [A-Z]{5}){4}\n", example)
        assert own.rstrip().endswith("they are:")
        assert len(re.findall(r"VAR ", control_text(prompt, material))) == 9, "the example stays, the chain goes"


def test_the_example_of_variables_is_left_out_where_it_does_not_fit(material: Material) -> None:
    short = replace(material, form_length=256)
    assert shortest("variable_tracking", short) < 256 < shortest("variable_tracking", material)
    shorter = replace(material, form_length=100)
    assert shortest("variable_tracking", shorter) > 256, "100 fall away in any form, so 512 decide"
    for _, text in texts("variable_tracking", 1024, short):
        assert text.count("# Track the variables") == 1


@pytest.mark.parametrize(("form_length", "common", "uncommon"), [(8192, 30, 3), (2100, 20, 2), (512, None, 1)])
def test_ten_words_of_the_list_are_common(material: Material, form_length: int, common: int | None, uncommon: int) -> None:
    form = replace(material, form_length=form_length, num_samples=2)
    for length in (max(form_length, 2500), max(form_length, 3000)):
        for prompt, text in texts("common_words", length, form):
            items = re.findall(r" (\d+)\. (\w+)", text)
            assert [int(number) for number, _ in items] == list(range(1, len(items) + 1))
            counts = Counter(word for _, word in items)
            often = {word for word, count in counts.items() if count > uncommon}
            assert often == set(prompt.golds)
            assert len(often) == 10
            times = {counts[word] for word in often}
            assert len(times) == 1
            assert common is None or times == {common}
            assert {count for word, count in counts.items() if word not in often} == {uncommon}
            assert len(counts) >= 20
            assert length - len(prompt.tokens) - prompt.max_new_tokens < 12 * uncommon, "one more word would not fit"


def test_common_words_have_one_form_at_all_lengths_of_a_run(material: Material) -> None:
    counts = set()
    for length in (512, 2048):
        for prompt, text in texts("common_words", length, material):
            counts.add(text.count(f" {prompt.golds[0]}"))
    assert len(counts) == 1


def test_frequent_words_follow_a_zeta_distribution(material: Material) -> None:
    for prompt, text in texts("frequent_words", 4096, material):
        words = Counter(text.split("count.\n")[1].split("\n#")[0].split())
        ranked = [word for word, _ in words.most_common()]
        assert ranked[0] == "..."
        assert tuple(ranked[1:4]) == prompt.golds
        assert all(re.fullmatch("[a-z]{6}", word) for word in ranked[1:])
        for rank in range(2, 7):
            assert words[ranked[rank - 1]] == pytest.approx(words["..."] / rank**2, abs=1.01)
        assert len(prompt.tokens) + prompt.max_new_tokens > 4096 - 60


def test_the_three_most_frequent_words_are_never_tied() -> None:
    for num_words in range(MIN_WORDS, 20_000):
        counts = word_counts(num_words)[:5]
        assert len(counts) == 5
        assert all(a > b for a, b in pairwise(counts[:5].tolist()))
    assert len(set(word_counts(MIN_WORDS - 1)[:5].tolist())) < 5


@pytest.mark.slow
def test_key_value_asks_one_object_for_keys_at_every_depth(material: Material) -> None:
    roomy = replace(material, form_length=1024)
    for length in (1024, 3000):
        prompts = texts("key_value", length, roomy)
        for sample in range(4):
            own = [(p, text) for p, text in prompts if p.sample == sample]
            objects = {text.split("\n}\n")[0] for _, text in own}
            assert len(objects) == 1, "all depths share the object"
            pairs = re.findall(r'\n "(\S+)": "(\S+)",', objects.pop())
            assert all(UUID(name).version == 4 for pair in pairs for name in pair)
            assert len({name for pair in pairs for name in pair}) == 2 * len(pairs)
            for prompt, text in own:
                index = round((prompt.depth or 0) * (len(pairs) - 1))
                key, value = pairs[index]
                assert prompt.golds == (value,)
                assert text.endswith(f'\n}}\n\nKey: "{key}"\nCorresponding value:\n "{key}": "')
                changed = re.findall(r'\n "(\S+)": "(\S+)",', control_text(prompt, material))
                assert [i for i, (a, b) in enumerate(zip(pairs, changed, strict=True)) if a != b] == [index]
                assert changed[index][0] == key
                # A pair takes up to 84 tokens; and room is kept for the longer one of each pair and its change.
                assert length - len(prompt.tokens) - len(prompt.answer) < 84 + 4 * len(pairs)


def test_key_value_takes_short_hexadecimal_numbers_where_uuids_do_not_fit(material: Material) -> None:
    assert shortest("key_value", replace(material, form_length=1024)) > 512
    for length in (512, 2048):  # one form for all lengths
        for prompt, _ in texts("key_value", length, material):
            assert re.fullmatch("[0-9a-f]{8}", prompt.golds[0])


def test_short_key_value_has_one_word_and_four_digits_a_pair_and_no_key_twice(material: Material) -> None:
    for length in (512, 3000):
        for prompt, text in texts("short_key_value", length, material):
            pairs = re.findall(r'\n "([a-z]{5})": "([1-9][0-9]{3})",', text)
            assert len(pairs) == text.count('",\n')
            assert len({key for key, _ in pairs}) == len(pairs) > length // 50
            key, value = pairs[round((prompt.depth or 0) * (len(pairs) - 1))]
            assert prompt.golds == (value,)
            assert text.endswith(f'\n}}\n\nKey: "{key}"\nCorresponding value:\n "{key}": "')
            changed = re.findall(r'\n "([a-z]{5})": "([0-9]{4})",', control_text(prompt, material))
            assert [(a[0], b[0]) for a, b in zip(pairs, changed, strict=True) if a != b] == [(key, key)]


def qa_material(material: Material, *examples: QaExample) -> Material:
    return replace(material, qa=examples, num_samples=len(examples), num_depths=3)


def example(**changes: object) -> QaExample:
    passages = tuple(f"Boat {i} is slow." for i in range(100))
    return replace(QaExample("Who built it?", ("Ann",), "Ann built it.", passages, 1), **changes)  # type: ignore[arg-type]


def test_the_gold_passage_stands_at_each_depth_among_the_first_others(material: Material) -> None:
    own = qa_material(material, example())
    for length in (300, 600):
        numbers = []
        for prompt, text in texts("document_qa", length, own):
            passages = re.findall(r"\nPassage \[(\d+)\] (.+)", text)
            assert [int(number) for number, _ in passages] == list(range(1, len(passages) + 1))
            place = [passage for _, passage in passages].index("Ann built it.")
            assert place == round((prompt.depth or 0) * (len(passages) - 1))
            assert [p for _, p in passages if p != "Ann built it."] == [f"Boat {i} is slow." for i in range(len(passages) - 1)]
            assert text.endswith("Question: Who built it?\nAnswer:")
            assert prompt.control is not None
            assert abs(len(prompt.control) - len(prompt.tokens)) <= 2  # as whole texts
            numbers.append(len(passages))
        assert len(set(numbers)) == 1
        assert len(numbers) == 3


def test_no_answer_stands_in_the_text_of_the_control(material: Material) -> None:
    """Half of the lines hold the answer."""
    hay = Haystack.of(
        [tokenize("d", "".join(f"{'ANN' if i % 2 else 'Bob'} went home.\n" for i in range(400)), material.tokenizer)]
    )
    asked = replace(qa_material(material, *[example()] * 12), haystack=hay)
    for prompt in make_prompts("document_qa", 600, asked):
        assert "ann" not in control_text(prompt, material).lower()


def test_a_question_whose_answer_stands_everywhere_is_refused(material: Material) -> None:
    hay = Haystack.of([tokenize("d", "Ann and Ann and Ann.\n" * 400, material.tokenizer)])
    with pytest.raises(UserError, match=r"Line 1 of evaluation.qa_file: 100 excerpts .* contain one of `answers`"):
        make_prompts("document_qa", 600, replace(qa_material(material, example(answers=("a", "Ann"))), haystack=hay))


def test_with_several_right_answers_the_answer_is_generated(material: Material) -> None:
    (prompt, *_) = make_prompts("document_qa", 600, qa_material(material, example(answers=("Ann", "Ann Lee"))))
    assert not prompt.is_forced
    assert prompt.golds == ("Ann", "Ann Lee")
    assert len(prompt.tokens) + prompt.max_new_tokens <= 600


def test_questions_that_cannot_be_asked_are_refused_with_their_line(material: Material) -> None:
    with pytest.raises(UserError, match=r"Line 7 .* needs \d+ tokens .* more than 300"):
        make_prompts("document_qa", 300, qa_material(material, example(), example(gold="Ann. " * 200, line=7)))
    with pytest.raises(UserError, match=r"Line 3 .* has 1 passages"):
        make_prompts("document_qa", 300, qa_material(material, example(passages=("Bob.",), line=3)))
    with pytest.raises(UserError, match="has 1 questions and evaluation.num_samples asks for 4".replace(".", r"\.")):
        make_prompts("document_qa", 300, replace(material, qa=(example(),)))
    long = qa_material(material, example(gold="Ann. " * 200))
    with pytest.raises(UserError, match="tokens are too few"):
        usable_lengths("document_qa", (300,), (300,), long)


def test_numbers_are_drawn_evenly_from_those_that_are_not_in_the_text() -> None:
    text = " ".join(str(n) for n in range(10, 95)) + " 0123 7"
    assert absent_numbers(5, 2, text, np.random.default_rng(0)) != []
    assert sorted(absent_numbers(5, 2, text, np.random.default_rng(0))) == ["95", "96", "97", "98", "99"]
    drawn = Counter(absent_numbers(1, 2, text, np.random.default_rng(seed))[0] for seed in range(1000))
    assert set(drawn) == {"95", "96", "97", "98", "99"}
    assert min(drawn.values()) > 140


def test_a_passkey_is_never_a_number_of_the_haystack(tokenizer: PreTrainedTokenizerFast) -> None:
    """Nearly all numbers are in the text: only those that begin with 9 are free."""
    keys = np.random.default_rng(0).permutation(range(10_000, 90_000))[:500]
    hay = Haystack.of([tokenize("d", " ".join(map(str, keys)), tokenizer)])
    for prompt in make_prompts("passkey", 1024, Material(tokenizer, hay, 2, 10, 0)):
        assert prompt.control is not None
        assert prompt.golds[0] not in tokenizer.decode(prompt.control)
