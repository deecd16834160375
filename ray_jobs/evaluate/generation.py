"""Greedy generation: the tokens of `model.generate(do_sample=False)`, in fewer forward passes.

Prompts that begin alike share a KV cache (see prefixes.py). After each prompt, tokens are guessed by looking up what
followed the last few tokens earlier in the prompt or the output (prompt lookup decoding, a draft as in Leviathan et al.
2023, arXiv 2211.17192). One forward pass shows how many of the guesses the model would have chosen itself. Only those
are kept, so guesses change the time but not the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ray_jobs.evaluate.prefixes import PrefixCache, can_share, forget_lengths, order_by_prefix
from ray_jobs.evaluate.scoring import TargetScores, Window, greedy_next, score_windows, target_scores

FIRST_DRAFT, MAX_DRAFT = 8, 16
# Tokens that must be equal for what followed them to be guessed; the longest match counts.
_MATCH_LENGTHS = (3, 2)


def generate(
    model: Any,
    prompts: Sequence[np.ndarray],
    max_new_tokens: Sequence[int],
    *,
    eos_ids: Sequence[int],
    batch_tokens: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Continue every prompt greedily; (its index, its new tokens) in the order in which they are done.

    Args:
        model: a causal language model of transformers, in eval mode.
        prompts: int32 token ids, of any lengths of at least 1.
        max_new_tokens: of each prompt, at least 1; generation ends there, or in front of the first of `eos_ids`.
        batch_tokens: tokens in one forward pass, where prompts of one length are continued together.

    New tokens are int32, without the end-of-sequence token. Each token is the most likely next one; where two are equal
    to the last digits of the model's dtype, either may come out.
    """
    _check(prompts, max_new_tokens)
    if can_share(model):
        no_answers = [np.empty(0, np.int32)] * len(prompts)
        for index, new, _ in _answer_shared(model, prompts, no_answers, max_new_tokens, frozenset(eos_ids)):
            yield index, new
    else:
        yield from _generate_alone(model, prompts, max_new_tokens, eos_ids, batch_tokens)


def generate_scored(
    model: Any,
    prompts: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    max_new_tokens: Sequence[int],
    *,
    eos_ids: Sequence[int],
    batch_tokens: int,
) -> Iterator[tuple[int, np.ndarray, TargetScores]]:
    """`generate`, and the log-probabilities of each prompt's canonical answer, int32 [K] with K >= 1, from the same pass.

    The answer is also the first guess, so a model that gives it is done after that pass.
    """
    _check(prompts, max_new_tokens)
    if can_share(model):
        yield from _answer_shared(model, prompts, answers, max_new_tokens, frozenset(eos_ids))
        return
    windows = [Window(np.concatenate([p, answer]), len(answer)) for p, answer in zip(prompts, answers, strict=True)]
    scores = dict(score_windows(model, windows, batch_tokens=batch_tokens))
    for index, new in _generate_alone(model, prompts, max_new_tokens, eos_ids, batch_tokens):
        yield index, new, scores[index]


def _check(prompts: Sequence[np.ndarray], limits: Sequence[int]) -> None:
    if len(prompts) != len(limits) or any(not len(p) for p in prompts) or any(n < 1 for n in limits):
        raise ValueError("every prompt needs at least one token, and a limit of at least one new token")


def _answer_shared(
    model: Any,
    prompts: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    limits: Sequence[int],
    eos_ids: frozenset[int],
) -> Iterator[tuple[int, np.ndarray, TargetScores]]:
    cache = PrefixCache(model)
    for visit in order_by_prefix(prompts, [1] * len(prompts)):
        prompt, answer = prompts[visit.index], answers[visit.index]
        with torch.inference_mode():
            logits_KV = cache.logits(np.concatenate([prompt, answer]), visit.num_cached, len(answer) + 1)
            scores = target_scores(logits_KV[:-1], answer)
            new = _continue(cache, prompt, logits_KV, answer, limits[visit.index], eos_ids)
        yield visit.index, new, scores


def _continue(
    cache: PrefixCache, prompt: np.ndarray, logits_KV: torch.Tensor, draft: np.ndarray, limit: int, eos_ids: frozenset[int]
) -> np.ndarray:
    """The greedy continuation of `prompt`, given the logits after its last token and after each token of `draft`.

    The next visit removes from the cache what follows the prompt.
    """
    text = np.empty(len(prompt) + limit, np.int32)
    text[: len(prompt)] = prompt
    end, num_guesses = len(prompt), FIRST_DRAFT
    while True:
        before = end
        chosen = logits_KV.argmax(dim=-1).cpu().numpy()
        for token, guess in zip(chosen, [*draft, -1], strict=True):
            if int(token) in eos_ids:
                return text[len(prompt) : end]
            text[end] = token
            end += 1
            if end == len(text):
                return text[len(prompt) :]
            if token != guess:
                break
        if len(draft):  # guesses that are wrong cost time too
            all_right = end - before > len(draft)
            num_guesses = min(MAX_DRAFT, 2 * num_guesses) if all_right else max(1, num_guesses // 2)
        draft = look_up(text[:end], min(num_guesses, len(text) - end - 1))
        logits_KV = cache.logits(np.concatenate([text[:end], draft]), end - 1, len(draft) + 1)


def look_up(text: np.ndarray, max_tokens: int) -> np.ndarray:
    """What followed the last tokens of `text` where they stood before, most recently: `max_tokens` guesses, or none.

    Where that reaches the end of the text it is repeated, as text that runs in a loop would continue.
    """
    for length in _MATCH_LENGTHS:
        if max_tokens < 1 or len(text) <= length:
            continue
        last = text[-length:]
        num_places = len(text) - length  # the last tokens themselves are no match
        matches = np.ones(num_places, bool)
        for offset, token in enumerate(last):
            matches &= text[offset : offset + num_places] == token
        places = np.flatnonzero(matches)
        if len(places):
            return np.resize(text[int(places[-1]) + length :], max_tokens)
    return np.empty(0, text.dtype)


def _generate_alone(
    model: Any, prompts: Sequence[np.ndarray], limits: Sequence[int], eos_ids: Sequence[int], batch_tokens: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Prompts of one length together, lengths ascending, by transformers' own loop, which handles each model's own cache."""
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    for length in sorted(by_length):
        same = sorted(by_length[length], key=lambda index: limits[index])  # prompts with similar limits end together
        rows = max(1, batch_tokens // (length + max(limits[i] for i in same)))
        for start in range(0, len(same), rows):
            forget_lengths(model)
            batch = same[start : start + rows]
            ids_BL = torch.from_numpy(np.stack([prompts[i] for i in batch]).astype(np.int64)).to(model.device)
            limit = max(limits[i] for i in batch)
            new_BN = _own_generate(model, ids_BL, limit, eos_ids) if hasattr(model, "generate") else _loop(model, ids_BL, limit)
            for index, new in zip(batch, new_BN, strict=True):
                yield index, _until_end(new[: limits[index]], eos_ids)


def _own_generate(model: Any, ids_BL: torch.Tensor, limit: int, eos_ids: Sequence[int]) -> np.ndarray:
    """By transformers' loop, without the model's own generation settings: penalties would change the most likely token.

    A GenerationConfig is completed from the model's own, so that one is replaced during the call.
    """
    from transformers import GenerationConfig

    eos = list(eos_ids) or None
    config = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=eos, pad_token_id=eos[0] if eos else 0)
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        with torch.inference_mode():
            out = model.generate(ids_BL, attention_mask=torch.ones_like(ids_BL), generation_config=config)
    finally:
        model.generation_config = own
    return np.asarray(out[:, ids_BL.shape[1] :].cpu().numpy(), np.int32)


def _loop(model: Any, ids_BL: torch.Tensor, limit: int) -> np.ndarray:
    """For models that have only a forward pass."""
    for _ in range(limit):
        ids_BL = torch.cat([ids_BL, greedy_next(model, ids_BL)[:, None]], dim=1)
    return np.asarray(ids_BL[:, -limit:].cpu().numpy(), np.int32)


def _until_end(new: np.ndarray, eos_ids: Sequence[int]) -> np.ndarray:
    ends = np.flatnonzero(np.isin(new, list(eos_ids)))
    return new[: ends[0]] if len(ends) else new
