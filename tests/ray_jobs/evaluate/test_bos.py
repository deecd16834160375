"""A model that fails without BOS at its first position works wherever a text is cut, in evaluation and in rows alike."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ray_jobs.evaluate.measuring_units import measure_arm
from ray_jobs.evaluate.scoring import Window, score_windows
from ray_jobs.evaluate.workload import Workload
from tasks.evaluate.heldout import tokenize
from tasks.evaluate.perplexity import target_documents
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.tokens.special_tokens import SpecialTokens, special_tokens
from tests.ray_jobs.evaluate.test_synthetic_models import LINE, LooksUp, all_up_to
from tests.tasks.tokens.made_tokenizers import llama2_like

LENGTHS = (256, 512)
CHANCE = float(np.log(len(llama2_like())))  # nats a token of a model that predicts nothing


class NeedsBos(LooksUp):
    """Continues phrases, but predicts nothing where the first token is not BOS."""

    def __init__(self, bos: int, vocabulary: int) -> None:
        super().__init__(all_up_to(10_000), vocabulary=vocabulary)
        self._bos = bos

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False, logits_to_keep: int = 0) -> Any:
        logits = super().forward(input_ids, use_cache, logits_to_keep).logits
        return SimpleNamespace(logits=logits * (input_ids[:, 0] == self._bos)[:, None, None])


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """It adds both ends."""
    found = llama2_like()
    assert found("A rope.").input_ids[0] == found.bos_token_id
    assert found("A rope.").input_ids[-1] == found.eos_token_id
    return found


@pytest.fixture(scope="module")
def workload(tokenizer: PreTrainedTokenizerFast) -> Workload:
    text = "".join(LINE.format(number % 7, number % 5) for number in range(60))
    documents = [tokenize(f"d{i}", text[i * 100 :], tokenizer) for i in range(2)]
    targets = target_documents(documents, max_length=max(LENGTHS), num_documents=2, num_targets=16)
    material = Material(tokenizer, Haystack.of(documents), num_depths=2, num_samples=1, seed=0)
    return Workload(tuple(targets), LENGTHS, {("passkey", 512): tuple(make_prompts("passkey", 512, material))})


def test_every_window_and_prompt_begins_with_bos(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    model = NeedsBos(tokenizer.bos_token_id, len(tokenizer))
    samples = measure_arm(model, "base", workload, tokenizer, batch_tokens=2048)
    for row in samples.perplexity.to_pylist():
        assert row["nll"] / row["num_tokens"] < CHANCE / 2, f"a window of {row['length']} tokens begins without BOS"
    assert [row["score"] for row in samples.task.to_pylist()] == [1, 1]
    for target in workload.documents:
        for length in LENGTHS:
            assert tokenizer.eos_token_id not in target.window(length)


def test_a_row_that_starts_in_the_middle_of_a_document_works_as_well(
    workload: Workload, tokenizer: PreTrainedTokenizerFast
) -> None:
    special = special_tokens(tokenizer)
    model = NeedsBos(tokenizer.bos_token_id, len(tokenizer))
    piece = workload.documents[0].tail[-256:]

    def loss(around: SpecialTokens) -> float:
        row = around.around(piece, is_last=False)
        ((_, scores),) = score_windows(model, [Window(row, 16)], batch_tokens=2048)
        return float(-np.mean(scores.logprobs))

    assert loss(special) < CHANCE / 2
    assert loss(SpecialTokens(None, special.eos)) == pytest.approx(CHANCE)
