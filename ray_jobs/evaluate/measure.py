"""The rows of one arm on one piece of the workload; `data_schemas.samples` says what each row holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_schemas.errors import UserError
from ray_jobs.evaluate.scoring import TargetScores, Window, score_positions, score_windows
from ray_jobs.evaluate.workload import Prompts
from tasks.evaluate.perplexity import TargetDocument, position_ranges
from tasks.evaluate.prompts.prompt import TaskPrompt
from tasks.evaluate.protocols import Protocol, ProtocolText, ProtocolWindow
from tasks.evaluate.published.key_tokens import Span, scored_tokens

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
    model: Any, arm: str, protocol: Protocol, of_texts: Sequence[Sequence[ProtocolWindow]], length: int, batch_tokens: int
) -> Rows:
    """PROTOCOL_SAMPLES rows of another paper's windows, those of each text together; UserError as above."""
    places = [window for of_text in of_texts for window in of_text]
    scores = _scores(model, arm, [Window(place.tokens, place.num_targets) for place in places], length, batch_tokens)
    return [
        _protocol_row(arm, protocol, length, place.doc_id, place.number, place.num_targets, -float(score.logprobs.sum()))
        for place, score in zip(places, scores, strict=True)
    ]


def longppl_rows(
    model: Any, arm: str, texts: Sequence[ProtocolText], spans: Sequence[Sequence[Span]], length: int, tokenizer: Any
) -> Rows:
    """PROTOCOL_SAMPLES rows of LongPPL as published: the losses of the tokens in `spans`, characters of each text; UserError as above.

    A text without key tokens has no row.
    """
    rows = []
    for text, of_text in zip(texts, spans, strict=True):
        encoding = tokenizer(
            tokenizer.decode(text.token_ids), add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        scored = scored_tokens(encoding["offset_mapping"], of_text)
        if scored:
            logprobs = score_positions(model, np.asarray(encoding["input_ids"], np.int32))
            _refuse_not_finite(logprobs, arm, length)
            nll = -float(logprobs[np.array(scored) - 1].sum())
            rows.append(_protocol_row(arm, "longppl", length, text.doc_id, 0, len(scored), nll))
    return rows


def _protocol_row(
    arm: str, protocol: str, length: int, doc_id: str, window: int, num_tokens: int, nll: float
) -> dict[str, Any]:
    return {
        "arm": arm,
        "protocol": protocol,
        "length": length,
        "doc_id": doc_id,
        "window": window,
        "num_tokens": num_tokens,
        "nll": nll,
    }


def task_rows(model: Any, arm: str, prompts: Prompts, tokenizer: Any, batch_tokens: int) -> Rows:
    """TASK_SAMPLES rows of whole samples of one task and length; UserError as above.

    Every prompt and its control are scored with the canonical answer after them; equal controls are computed once. Prompts that
    are not forced are generated as well.
    """
    controlled = [index for index, prompt in enumerate(prompts) if prompt.control is not None]
    forced = [index for index, prompt in enumerate(prompts) if prompt.is_forced]
    windows = [_answered(prompts[index].tokens, prompts[index]) for index in forced]
    windows += [_answered(prompts[index].control, prompts[index]) for index in controlled]
    scores = _scores(model, arm, windows, prompts[0].length if prompts else 0, batch_tokens)
    control_of = {index: float(s.logprobs.sum()) for index, s in zip(controlled, scores[len(forced) :], strict=True)}
    answers = {index: (tokenizer.decode(s.greedy_ids), s) for index, s in zip(forced, scores[: len(forced)], strict=True)}
    answers |= _generated(model, arm, prompts, tokenizer, batch_tokens)
    return [_task_row(arm, prompt, *answers[index], control_of.get(index)) for index, prompt in enumerate(prompts)]


def _answered(tokens: np.ndarray | None, prompt: TaskPrompt) -> Window:
    assert tokens is not None
    return Window(np.concatenate([tokens, prompt.answer]), len(prompt.answer))


def _task_row(arm: str, prompt: TaskPrompt, output: str, score: TargetScores, control: float | None) -> dict[str, Any]:
    from tasks.evaluate.prompts.score import score_prompt
    from tasks.evaluate.published.names import is_published
    from tasks.evaluate.published.scores import score_published

    is_right = np.array_equal(score.greedy_ids, prompt.answer)
    if is_published(prompt.task):
        value = score_published(prompt.task, output, prompt.golds)
    else:
        value = float(is_right) if prompt.is_forced else score_prompt(prompt, output)
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
        "num_evidence": prompt.num_evidence,
        "distance": prompt.distance,
        "distance_tokens": prompt.distance_tokens,
    }


def _generated(
    model: Any, arm: str, prompts: Prompts, tokenizer: Any, batch_tokens: int
) -> dict[int, tuple[str, TargetScores]]:
    """By index, for the prompts that are not forced: the greedily decoded text, and the scores of the canonical answer."""
    from ray_jobs.evaluate.generation import generate_scored

    open_ended = [index for index, prompt in enumerate(prompts) if not prompt.is_forced]
    asked = [prompts[index] for index in open_ended]
    found: dict[int, tuple[str, TargetScores]] = {}
    for place, ids, score in generate_scored(
        model,
        [prompt.tokens for prompt in asked],
        [prompt.answer for prompt in asked],
        [prompt.max_new_tokens for prompt in asked],
        eos_ids=end_ids(model, tokenizer),
        batch_tokens=batch_tokens,
    ):
        _refuse_not_finite(score.logprobs, arm, asked[place].length)
        found[open_ended[place]] = tokenizer.decode(ids, skip_special_tokens=True), score
    return found


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end generation: the model's own, else the tokenizer's."""
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
