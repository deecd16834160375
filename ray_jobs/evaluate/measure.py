"""The rows of one arm on one piece of the workload; `tasks.evaluate.samples` says what each row holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from ray_jobs.evaluate.scoring import TargetScores, Window, score_positions, score_windows
from ray_jobs.evaluate.workload import Prompts, by_sample
from tasks.evaluate.perplexity import TargetDocument, position_ranges
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.protocols import Protocol, protocol_windows

Rows = list[dict[str, Any]]


def perplexity_rows(model: Any, arm: str, documents: Sequence[TargetDocument], length: int, batch_tokens: int) -> Rows:
    """PERPLEXITY_SAMPLES rows of the documents' last tokens in windows of `length`; UserError for scores not finite."""
    windows = [Window(document.window(length), document.num_targets) for document in documents]
    scores = _scores(model, arm, windows, length, batch_tokens)
    return [_perplexity_row(arm, length, d, score.logprobs) for d, score in zip(documents, scores, strict=True)]


def position_rows(model: Any, arm: str, documents: Sequence[TargetDocument], length: int) -> tuple[Rows, Rows]:
    """PERPLEXITY_SAMPLES rows, and POSITION_SAMPLES rows over whole windows, by one pass over each; UserError as above."""
    perplexity, position = [], []
    for document in documents:
        logprobs = score_positions(model, document.window(length))  # of position 1 first
        _refuse_not_finite(logprobs, arm, length)
        perplexity.append(_perplexity_row(arm, length, document, logprobs[-document.num_targets :]))
        here = {"arm": arm, "length": length, "doc_id": document.doc_id}
        position += [
            here | {"start": start, "end": end, "nll": -float(logprobs[start - 1 : end - 1].sum())}
            for start, end in position_ranges(length)
        ]
    return perplexity, position


def _perplexity_row(arm: str, length: int, document: TargetDocument, logprobs: np.ndarray) -> dict[str, Any]:
    return {
        "arm": arm,
        "length": length,
        "doc_id": document.doc_id,
        "target_start": document.target_start,
        "num_tokens": document.num_targets,
        "nll": -float(logprobs.sum()),
        "logprobs": logprobs.astype(np.float32),
    }


def protocol_rows(
    model: Any, arm: str, protocol: Protocol, documents: Sequence[TargetDocument], length: int, batch_tokens: int
) -> Rows:
    """PROTOCOL_SAMPLES rows of another paper's protocol over the documents' first tokens; UserError as above."""
    places = [
        (document, number, place)
        for document in documents
        for number, place in enumerate(protocol_windows(protocol, len(document.head), length))
    ]
    windows = [Window(document.head[place.start : place.end], place.num_targets) for document, _, place in places]
    scores = _scores(model, arm, windows, length, batch_tokens)
    return [
        {
            "arm": arm,
            "protocol": protocol,
            "length": length,
            "doc_id": document.doc_id,
            "window": number,
            "num_tokens": place.num_targets,
            "nll": -float(score.logprobs.sum()),
        }
        for (document, number, place), score in zip(places, scores, strict=True)
    ]


def task_rows(model: Any, arm: str, prompts: Prompts, tokenizer: Any, batch_tokens: int) -> Rows:
    """TASK_SAMPLES rows of whole samples of one task and length; UserError as above.

    Every prompt is scored with its canonical answer behind it, every sample's control once. What is not forced is then
    generated.
    """
    if not prompts:
        return []
    controls = [group[0] for group in by_sample(prompts) if group[0].control is not None]
    windows = [_answered(prompt.tokens, prompt) for prompt in prompts]
    windows += [_answered(prompt.control, prompt) for prompt in controls]
    scores = _scores(model, arm, windows, prompts[0].length, batch_tokens)
    control_of = {
        prompt.sample: float(score.logprobs.sum()) for prompt, score in zip(controls, scores[len(prompts) :], strict=True)
    }
    generated = _generated(model, prompts, tokenizer, batch_tokens)
    return [
        _task_row(arm, prompt, score, control_of.get(prompt.sample), generated.get(index), tokenizer)
        for index, (prompt, score) in enumerate(zip(prompts, scores, strict=False))
    ]


def _answered(tokens: np.ndarray | None, prompt: TaskPrompt) -> Window:
    assert tokens is not None
    return Window(np.concatenate([tokens, prompt.answer]), len(prompt.answer))


def _task_row(
    arm: str, prompt: TaskPrompt, score: TargetScores, control: float | None, generated: str | None, tokenizer: Any
) -> dict[str, Any]:
    from tasks.evaluate.prompts.score import score_prompt

    if prompt.is_forced:
        output = tokenizer.decode(score.greedy_ids)
        value = float(np.array_equal(score.greedy_ids, prompt.answer))
    else:
        output = generated or ""
        value = score_prompt(prompt, output)
    logprob = float(score.logprobs.sum())
    return {
        "arm": arm,
        "task": prompt.task,
        "length": prompt.length,
        "depth": prompt.depth,
        "position": prompt.position,
        "sample": prompt.sample,
        "seed": prompt.seed,
        "prompt_hash": prompt.prompt_hash,
        "prompt_tokens": len(prompt.tokens),
        "golds": list(prompt.golds),
        "output": output,
        "mode": "forced" if prompt.is_forced else "generated",
        "score": value,
        "correct": value == 1.0,
        "logprob": logprob,
        "control_logprob": control,
        "gain": None if control is None else logprob - control,
    }


def _generated(model: Any, prompts: Prompts, tokenizer: Any, batch_tokens: int) -> dict[int, str]:
    """What greedy decoding says, by index, for the prompts that are not forced."""
    from ray_jobs.evaluate.generation import generate

    open_ended = [index for index, prompt in enumerate(prompts) if not prompt.is_forced]
    if not open_ended:
        return {}
    found = generate(
        model,
        [prompts[i].tokens for i in open_ended],
        [prompts[i].max_new_tokens for i in open_ended],
        eos_ids=_ends(model, tokenizer),
        batch_tokens=batch_tokens,
    )
    return {open_ended[place]: tokenizer.decode(ids, skip_special_tokens=True) for place, ids in found}


def _ends(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end what is generated: the model's own, else the tokenizer's."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if configured is None:
        configured = tokenizer.eos_token_id
    if configured is None:
        return ()
    return tuple(configured) if isinstance(configured, list | tuple) else (int(configured),)


def _scores(model: Any, arm: str, windows: Sequence[Window], length: int, batch_tokens: int) -> list[TargetScores]:
    """The scores in the order of the windows."""
    found: dict[int, TargetScores] = {}
    for index, score in score_windows(model, windows, batch_tokens=batch_tokens):
        _refuse_not_finite(score.logprobs, arm, length)
        found[index] = score
    return [found[index] for index in range(len(windows))]


def _refuse_not_finite(logprobs: np.ndarray, arm: str, length: int) -> None:
    if not math.isfinite(float(logprobs.sum())):
        raise UserError(
            f"The {arm} model gives log-probabilities that are not finite at {length} tokens: check its weights, and its "
            "training log if it was fine-tuned."
        )
