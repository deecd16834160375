"""Models with known behaviour, measured by the real code, must come out with exactly that behaviour.

Each looks the answer up: it finds the latest earlier place, in what it can see, where the last tokens stand, and predicts
the token behind them (an induction head). What it can see is known, so is what it can answer.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_schemas.report import EvaluationSettings, Report
from data_schemas.report_sections import PositionIndex
from ray_jobs.evaluate.measuring_units import measure_arm
from ray_jobs.evaluate.workload import Workload
from tasks.evaluate.heldout import HeldOutDocument, tokenize
from tasks.evaluate.perplexity import TargetDocument
from tasks.evaluate.prompts.make import make_prompts
from tasks.evaluate.prompts.material import Haystack, Material
from tasks.evaluate.report.build import build_report

VOCABULARY = 384
PHRASE = 4  # tokens that are looked up
CERTAIN = 12.0  # logit of what was found; all others are 0
LINE = "The valley is deep; bridge {} is old, and traveller {} looks back.\n"

Sees = Callable[[int], np.ndarray]  # how many tokens there are -> which of them are visible, bool [tokens]


class LooksUp(torch.nn.Module):
    """Continues a phrase as it went on before, in the part of the context that `sees` lets it see."""

    def __init__(self, sees: Sees, phrase: int = PHRASE, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self._sees, self._phrase, self._vocabulary = sees, phrase, vocabulary
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=vocabulary))
        self.device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False, logits_to_keep: int = 0) -> Any:
        first = input_ids.shape[1] - logits_to_keep if logits_to_keep else 0
        logits = torch.zeros(len(input_ids), input_ids.shape[1] - first, self._vocabulary)
        for row, ids in enumerate(input_ids.numpy()):
            for position in range(first, len(ids)):
                found = self._look_up(ids[: position + 1])
                if found is not None:
                    logits[row, position - first, found] = CERTAIN
        return SimpleNamespace(logits=logits)

    def _look_up(self, ids: np.ndarray) -> int | None:
        """The token behind the latest earlier occurrence of the last tokens, phrase and token being visible."""
        phrase = self._phrase
        if len(ids) <= phrase:
            return None
        visible = self._sees(len(ids))
        windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], phrase)
        seen = np.lib.stride_tricks.sliding_window_view(visible, phrase + 1).all(axis=1)
        places = np.flatnonzero((windows == ids[-phrase:]).all(axis=1) & seen)
        return int(ids[places[-1] + phrase]) if len(places) else None


def last_tokens(width: int) -> Sees:
    return lambda num_tokens: np.arange(num_tokens) >= num_tokens - width


def first_and_last_quarter(num_tokens: int) -> np.ndarray:
    place = np.arange(num_tokens)
    return (place < num_tokens / 4) | (place >= num_tokens * 3 / 4)


def all_up_to(longest: int) -> Sees:
    return lambda num_tokens: np.full(num_tokens, num_tokens <= longest)


LENGTHS = (256, 512, 1024)
SETTINGS = EvaluationSettings(
    base_window=256, target_length=1024, target_tokens=16, confidence=0.95, seed=0, non_inferiority_margin=0.05, arms=("base",)
)


@pytest.fixture(scope="module")
def workload(tokenizer: PreTrainedTokenizerFast) -> Workload:
    text = "".join(LINE.format(number, number * 37 % 101) for number in range(200))
    whole = tokenize("d", text, tokenizer)
    material = Material(tokenizer=tokenizer, haystack=Haystack.of([whole]), num_depths=4, num_samples=6, seed=0)
    prompts = {("passkey", length): tuple(make_prompts("passkey", length, material)) for length in LENGTHS}
    halves = [HeldOutDocument(f"d{i}", whole.token_ids[i * 1500 : (i + 1) * 1500], whole.is_boundary, 0) for i in range(2)]
    documents = tuple(TargetDocument.of(half, max_length=1024, num_targets=16) for half in halves)
    return Workload(documents, LENGTHS, prompts, position_curve=True)


def report_of(sees: Sees, workload: Workload, tokenizer: PreTrainedTokenizerFast) -> Report:
    samples = measure_arm(LooksUp(sees), "base", workload, tokenizer, batch_tokens=4096)
    return build_report(samples, SETTINGS)


def recall(report: Report, length: int) -> list[float]:
    return [cell.accuracy for cell in report.tasks if cell.length == length]


def effective_length(report: Report) -> int:
    (sense,) = report.effective_context_length.task_scores.tasks
    assert (sense.task, sense.measure) == ("passkey", "score")
    length = sense.arms["base"].value
    assert length is not None
    return length


def u_shape(report: Report, length: int) -> PositionIndex:
    (row,) = [row for row in report.lost_in_the_middle if row.length == length]
    return row.score


def test_a_model_that_sees_the_last_tokens_is_as_long_as_it_sees(
    workload: Workload, tokenizer: PreTrainedTokenizerFast
) -> None:
    report = report_of(last_tokens(512), workload, tokenizer)
    assert effective_length(report) == 512
    assert recall(report, 256) == recall(report, 512) == [1, 1, 1, 1]
    assert recall(report, 1024) == [0, 0, 1, 1], "depths 2/3 and 1 are in the second half"
    assert u_shape(report, 1024).first_minus_middle < 0 < u_shape(report, 1024).last_minus_middle


def test_a_model_that_sees_first_and_last_quarter_has_a_u_shape(workload: Workload, tokenizer: PreTrainedTokenizerFast) -> None:
    report = report_of(first_and_last_quarter, workload, tokenizer)
    assert recall(report, 1024) == [1, 0, 0, 1]
    index = u_shape(report, 1024)
    assert index.index == index.first_minus_middle == index.last_minus_middle == 1.0
    gains = [cell.gain for cell in report.tasks if cell.length == 1024]
    assert min(gains[0], gains[3]) > 20, "nats, for five digits"
    assert max(abs(gains[1]), abs(gains[2])) < 1


@pytest.mark.parametrize("longest", LENGTHS)
def test_perfect_recall_up_to_a_length_is_that_effective_length(
    longest: int, workload: Workload, tokenizer: PreTrainedTokenizerFast
) -> None:
    report = report_of(all_up_to(longest), workload, tokenizer)
    assert effective_length(report) == longest
    for length in LENGTHS:
        assert recall(report, length) == ([1, 1, 1, 1] if length <= longest else [0, 0, 0, 0])
        index = u_shape(report, length)
        assert (index.index, index.p_value) == (0.0, 1.0)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity_everywhere(
    workload: Workload, tokenizer: PreTrainedTokenizerFast
) -> None:
    report = report_of(all_up_to(0), workload, tokenizer)
    for row in (*report.perplexity, *report.position):
        assert row.perplexity == pytest.approx(VOCABULARY, rel=1e-5)
    assert all(cell.accuracy == 0 and cell.gain == pytest.approx(0, abs=1e-5) for cell in report.tasks)
