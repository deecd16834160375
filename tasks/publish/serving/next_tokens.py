"""Next-token log-probabilities of the trained model, recorded before saving, for every consumer to reproduce.

Two prompts with consecutive positions, because servers take no others: one within the old window, and one that goes beyond it.
Methods that depend on a prompt's length (dynamic, longrope) treat the two differently.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.model.rotary_modules import forget_lengths
from tasks.publish.portable import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "verification/next_tokens.json"
# Absolute, in nats. float32 sums in another order stay well below it; a relative error of 1e-3 in a rotary frequency does not.
TOLERANCE = 1e-4
CANDIDATES = 5
_SHORT_TOKENS = 256
_CHEAP_TOKENS = 2048  # the long prompt covers a target up to this; beyond it, it only just passes the old window


@dataclass(frozen=True)
class Prompt:
    """Token ids, and the positions after which the next token is predicted. `candidates` are ids for each position."""

    token_ids: list[int]
    positions: list[int]
    candidates: list[list[int]] | None = None
    logprobs: list[list[float]] | None = None


@dataclass(frozen=True)
class Recording:
    """The trained model's answers. `window` and `context_length` in tokens."""

    window: int
    context_length: int
    prompts: list[Prompt]


def make_prompts(vocab_size: int, window: int, context_length: int) -> list[Prompt]:
    """The short and the long prompt; the long one is left out if the target leaves no room beyond the window."""
    short = max(3, min(window // 2, _SHORT_TOKENS))
    # A server needs room for one more token.
    long = min(context_length - 1, max(window + 64, _CHEAP_TOKENS))
    prompts = [_prompt(vocab_size, short, [short // 4, short // 2, short - 2])]
    if long > window + 1:
        around = [window // 2, window - 2, window - 1, window, (window + long) // 2, long - 2]
        prompts.append(_prompt(vocab_size, long, around))
    return prompts


def _prompt(vocab_size: int, length: int, positions: Sequence[int]) -> Prompt:
    tokens = [(7919 * i + i * i // 7 + 13) % vocab_size for i in range(length)]
    # The next token of the last position is in nobody's prompt log-probabilities.
    return Prompt(tokens, sorted({p for p in positions if 0 <= p <= length - 2}))


def record(directory: Path, model: PreTrainedModel, window: int, context_length: int) -> None:
    """Write `verification/next_tokens.json`: the best candidates at each position and their log-probabilities.

    The model computes in float32.
    """
    prompts = []
    for prompt in make_prompts(model.config.vocab_size, window, context_length):
        ids, logprobs = _answer(model, prompt)
        prompts.append(Prompt(prompt.token_ids, prompt.positions, ids, logprobs))
    (directory / FILE).parent.mkdir(exist_ok=True)
    write_json(directory / FILE, {"schema_version": 1, **asdict(Recording(window, context_length, prompts))})


def read(directory: Path) -> Recording:
    """What `record` wrote. FileNotFoundError if there is nothing, ValueError or KeyError for any other content."""
    content: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
    prompts = [Prompt(**prompt) for prompt in content["prompts"]]
    for prompt in prompts:
        shape = [len(ids) for ids in prompt.candidates or []]
        if not shape or len(shape) != len(prompt.positions) or shape != [len(row) for row in prompt.logprobs or []]:
            raise ValueError("candidates and log-probabilities do not match the positions")
    if not prompts:
        raise ValueError("no prompt is recorded")
    return Recording(content["window"], content["context_length"], prompts)


def differences(recording: Recording, context_length: int, answers: Sequence[Sequence[dict[str, float]]]) -> list[str]:
    """One phrase for each difference between a consumer's answers and the recording.

    `answers` is, for each prompt and each position, token id to log-probability, as the probe scripts write them.
    """
    problems = []
    if context_length != recording.context_length:
        problems.append(f"it works up to {context_length} tokens instead of {recording.context_length}")
    if len(answers) != len(recording.prompts):
        return [*problems, f"it answered {len(answers)} of {len(recording.prompts)} prompts"]
    for prompt, answered in zip(recording.prompts, answers, strict=True):
        if len(answered) != len(prompt.positions):
            problems.append(f"it answered {len(answered)} of {len(prompt.positions)} positions")
            continue
        for index, position in enumerate(prompt.positions):
            worst = _worst(prompt, index, answered[index])
            if not worst <= TOLERANCE:
                where = f"position {position} of a prompt of {len(prompt.token_ids)} tokens"
                problems.append(f"log-probabilities at {where} differ by {worst:.2g}")
    return problems


def largest_difference(recording: Recording, answers: Sequence[Sequence[dict[str, float]]]) -> float:
    """The largest absolute difference in nats over all prompts, positions and candidates; infinite where one is missing."""
    return max(
        _worst(prompt, index, answered[index])
        for prompt, answered in zip(recording.prompts, answers, strict=True)
        for index in range(len(prompt.positions))
    )


def _worst(prompt: Prompt, index: int, answered: dict[str, float]) -> float:
    assert prompt.candidates is not None
    assert prompt.logprobs is not None
    recorded = zip(prompt.candidates[index], prompt.logprobs[index], strict=True)
    found = [abs(answered.get(str(token), float("inf")) - logprob) for token, logprob in recorded]
    # A comparison with NaN is false, so a NaN must not become a small maximum.
    return max(found) if found and all(d == d for d in found) else float("inf")


def _answer(model: PreTrainedModel, prompt: Prompt) -> tuple[list[list[int]], list[list[float]]]:
    rows = _logprobs(model, prompt)
    best = rows.topk(min(CANDIDATES, rows.shape[-1]))
    return best.indices.tolist(), best.values.tolist()


def _logprobs(model: PreTrainedModel, prompt: Prompt) -> Any:
    """float32 [positions, vocabulary]; if the model can, it computes only these rows of logits."""
    import inspect

    import torch

    forget_lengths(model)
    tokens = torch.tensor([prompt.token_ids], device=model.device)
    kept = {"logits_to_keep": torch.tensor(prompt.positions, device=model.device)}
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        kept = {}
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False, **kept).logits[0].float()
    return (logits if kept else logits[prompt.positions]).log_softmax(-1)


def reproduced(recording: Recording, model: PreTrainedModel, max_tokens: int) -> tuple[float, int]:
    """Largest difference of `model` from the recording over the prompts of at most `max_tokens`, and the longest of these."""
    worst, longest = 0.0, 0
    for prompt in recording.prompts:
        if len(prompt.token_ids) <= max_tokens:
            assert prompt.candidates is not None
            rows = _logprobs(model, prompt)
            answered = [{str(i): float(row[i]) for i in ids} for row, ids in zip(rows, prompt.candidates, strict=True)]
            worst = max(worst, *(_worst(prompt, index, answer) for index, answer in enumerate(answered)))
            longest = max(longest, len(prompt.token_ids))
    return worst, longest
