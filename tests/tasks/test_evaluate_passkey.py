"""Passkey prompts: exact length, needle where it should be, paired controls."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from data_schemas.errors import UserError
from tasks.evaluate.heldout import HeldOutDocument, tokenize
from tasks.evaluate.passkey import (
    MAX_BOUNDARY_SHIFT,
    NEEDLE,
    Haystack,
    PasskeySample,
    depth_grid,
    min_length,
    passkey_lengths,
    passkey_samples,
)

LINE = "The bridge hangs over the valley. It swings!\n"


@pytest.fixture(scope="module")
def haystack(tokenizer: PreTrainedTokenizerFast) -> Haystack:
    return Haystack.of([tokenize(f"d{i}", f"Part {i}.\n" + LINE * 60, tokenizer) for i in range(3)])


def needle_of(sample: PasskeySample, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return list(tokenizer(NEEDLE.format(key=sample.gold), add_special_tokens=False)["input_ids"])


def places(haystack_ids: list[int], needle: list[int]) -> list[int]:
    n = len(needle)
    return [i for i in range(len(haystack_ids) - n + 1) if haystack_ids[i : i + n] == needle]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.integers(0, 700), num_depths=st.integers(2, 9), seed=st.integers(0, 2**40))
def test_every_prompt_has_its_length_and_one_needle_at_its_depth(
    haystack: Haystack, tokenizer: PreTrainedTokenizerFast, extra: int, num_depths: int, seed: int
) -> None:
    length = min_length(tokenizer) + extra
    depths = depth_grid(num_depths)
    (sample,) = passkey_samples(haystack, tokenizer, length=length, depths=depths, num_samples=1, seed=seed)
    needle = needle_of(sample, tokenizer)
    without_needle = set()
    for depth, prompt in zip(sample.depths, sample.prompts, strict=True):
        assert len(prompt) == length
        (place,) = places(prompt.tolist(), needle)
        num_hay = length - len(needle) - len_of_ending(sample, tokenizer)
        assert abs(place - depth * num_hay) <= MAX_BOUNDARY_SHIFT * num_hay + 1
        without_needle.add((*prompt[:place], *prompt[place + len(needle) :]))
        assert tokenizer.decode(prompt[-sample.num_answer_tokens :]).strip() == sample.gold
    assert len(without_needle) == 1, "haystack and question are the same at every depth"
    assert len(sample.control) == length
    assert not places(sample.control.tolist(), needle)
    hidden = tokenizer.decode(sample.control[: -sample.num_answer_tokens])
    assert sample.gold not in hidden
    assert np.array_equal(sample.control[-sample.num_answer_tokens :], sample.prompts[0][-sample.num_answer_tokens :])


def len_of_ending(sample: PasskeySample, tokenizer: PreTrainedTokenizerFast) -> int:
    text = f"\n# What is the pass key? The pass key is {sample.gold}"
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_outermost_depths_are_the_first_and_the_last_place(haystack: Haystack, tokenizer: PreTrainedTokenizerFast) -> None:
    (sample,) = passkey_samples(haystack, tokenizer, length=300, depths=(0.0, 1.0), num_samples=1, seed=0)
    needle = needle_of(sample, tokenizer)
    assert places(sample.prompts[0].tolist(), needle) == [0]
    assert places(sample.prompts[1].tolist(), needle) == [300 - len_of_ending(sample, tokenizer) - len(needle)]


def test_the_needle_stands_between_lines_or_sentences(haystack: Haystack, tokenizer: PreTrainedTokenizerFast) -> None:
    for sample in passkey_samples(haystack, tokenizer, length=600, depths=(0.3, 0.5, 0.7), num_samples=5, seed=1):
        for prompt in sample.prompts:
            (place,) = places(prompt.tolist(), needle_of(sample, tokenizer))
            assert tokenizer.decode(prompt[:place]).rstrip().endswith((".", "!"))


def test_prompts_depend_on_seed_length_and_sample_alone(haystack: Haystack, tokenizer: PreTrainedTokenizerFast) -> None:
    def keys(seed: int, length: int, num_samples: int = 4) -> list[str]:
        samples = passkey_samples(haystack, tokenizer, length=length, depths=(0.0, 1.0), num_samples=num_samples, seed=seed)
        return [sample.gold for sample in samples]

    assert keys(0, 300) == keys(0, 300)
    assert keys(0, 300) == keys(0, 300, 9)[:4], "more samples leave the first ones as they were"
    assert len({*keys(0, 300), *keys(1, 300), *keys(0, 301)}) == 12
    assert all(10_000 <= int(key) <= 99_999 for key in keys(0, 300))


def test_bos_stands_first_where_the_tokenizer_adds_one(haystack: Haystack, tokenizer: PreTrainedTokenizerFast) -> None:
    begun = Haystack(haystack.token_ids, haystack.is_boundary, np.array([0], np.int32))
    (sample,) = passkey_samples(begun, tokenizer, length=300, depths=(0.0, 1.0), num_samples=1, seed=0)
    for window in (*sample.prompts, sample.control):
        assert window[0] == 0
        assert len(window) == 300


def test_bos_of_later_documents_is_not_in_the_haystack() -> None:
    ids, flags = np.array([0, 5, 6], np.int32), np.zeros(3, bool)
    joined = Haystack.of([HeldOutDocument("a", ids, flags, 1), HeldOutDocument("b", ids, flags, 1)])
    assert joined.token_ids.tolist() == [5, 6, 5, 6]
    assert joined.bos.tolist() == [0]


def test_too_short_lengths_and_too_little_text_are_refused(haystack: Haystack, tokenizer: PreTrainedTokenizerFast) -> None:
    shortest = min_length(tokenizer)
    with pytest.raises(UserError, match=f"at least {shortest}"):
        passkey_samples(haystack, tokenizer, length=20, depths=(0.0, 1.0), num_samples=1, seed=0)
    with pytest.raises(UserError, match="add longer documents"):
        passkey_samples(haystack, tokenizer, length=10**6, depths=(0.0, 1.0), num_samples=1, seed=0)
    with pytest.raises(UserError, match="no held-out text"):
        Haystack.of([])


def test_default_lengths_leave_out_what_is_too_short_and_requested_ones_are_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    shortest = min_length(tokenizer)
    assert passkey_lengths(None, (16, shortest, 500), tokenizer) == (shortest, 500)
    assert passkey_lengths((500, 400), (16,), tokenizer) == (400, 500)
    with pytest.raises(UserError, match="passkey length of 16 tokens is too short"):
        passkey_lengths((16, 500), (500,), tokenizer)
    with pytest.raises(UserError, match="passkey length of 32 tokens is too short"):
        passkey_lengths(None, (16, 32), tokenizer)


def test_depth_grid_is_even_and_holds_both_ends() -> None:
    assert depth_grid(5) == (0, 0.25, 0.5, 0.75, 1)
    assert depth_grid(2) == (0, 1)
